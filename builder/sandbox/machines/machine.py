"""A machine behind an instance, whichever driver runs it: what it is made of, and what can be done with it.

A machine belongs to the process that started it and ends with it, also on kill -9; what stays are its volumes' files
and its directory, which `Driver.sweep` removes at the next start. Volumes are raw files that are the caller's: a
machine opens, reads and writes them, and never makes, moves or removes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from builder.sandbox.machines.metadata import Metadata

MIB = 1 << 20
CONSOLE = 64 << 10  # bytes of console output that are kept at least: what GetConsoleOutput returns at most
SSH = 22
# Where a guest finds what its spec forwards, unless the spec says otherwise: link-local, beside the metadata service.
HOST = "169.254.169.251"

# off: it ended by itself or by power_down. lost: it was killed from outside, or its process failed.
# panicked: it runs, but its kernel has given up (told by guests with pvpanic only).
State = Literal["running", "panicked", "off", "lost"]
Bus = Literal["virtio", "nvme"]
Firmware = Literal["bios", "uefi"]


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A volume as a machine has it.

    `serial` is what the guest reads (`serials.serial_of` knows each cloud's way; virtio cuts it to 20 bytes), `device`
    the name that was asked for: it orders the disks of a start, and guests name them as they please.
    """

    volume_id: str
    path: Path
    serial: str
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class Forward:
    """A TCP port of this host that the guest may reach: the way to a mirror, or to the sandbox itself.

    The guest connects to `address`:`port`, and the host connects `to_address`:`to_port` for it, always in 127/8. A
    guest cannot reach the host's 127.0.0.1 by that name (its own kernel keeps 127/8 to itself), so that
    `http://127.0.0.1:PORT/x` of the host is `http://169.254.169.251:PORT/x` to the guest. Light machines share the
    host's loopback and use the host's own addresses.
    """

    to_port: int
    to_address: str = "127.0.0.1"
    address: str = HOST
    port: int | None = None  # None: the same as to_port

    @property
    def guest_port(self) -> int:
        """The port that the guest connects to."""
        return self.to_port if self.port is None else self.port


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """Everything a start needs.

    `directory` is the machine's own: made by the start (mode 0700), emptied of an earlier machine's things, removed by
    `destroy`; its name must be the instance's id, its parent the driver's directory. `disks` begins with the root.
    With `kernel` the machine boots that kernel with `ramdisk` and `command_line` (images with a kernel of their own),
    else what the root's boot loader is, by `firmware`. `metadata` is asked again for each request of the guest, and
    at the start; it is called from threads of the machine. `address` (127.x.y.z) is taken if it is free, else any.
    """

    instance_id: str
    directory: Path
    disks: tuple[Disk, ...]
    metadata: Callable[[], Metadata]
    memory: int = 512  # MiB
    cpus: int = 1
    bus: Bus = "virtio"
    firmware: Firmware = "bios"
    kernel: Path | None = None
    ramdisk: Path | None = None
    command_line: str = ""
    address: str | None = None
    forwards: tuple[Forward, ...] = ()

    def facts(self, address: str) -> Metadata:
        """Return the metadata of a machine with that address, as it is now."""
        told = self.metadata()
        return replace(told, local_ipv4=told.local_ipv4 or address, public_ipv4=told.public_ipv4 or address)


class Machine(Protocol):
    """A started machine. Every method may be called from any thread, and after its end too.

    What the guest must do (boot, let go of a volume, shut down) is asked for and not waited for.
    Methods raise HostError when qemu or a system call fails, and do nothing on a machine that has ended.
    """

    spec: MachineSpec
    address: str  # 127.x.y.z, of this machine alone while it lives; SSH is at its port 22

    def state(self) -> State:
        """Return how it is; costs at most a round trip to its process."""

    def alive(self) -> bool:
        """Say whether its process runs (also with a guest that has panicked)."""

    def console(self) -> bytes:
        """Return the last 64 KiB that it has said on its serial port; readable after its end, until `destroy`."""

    def attach(self, volume_id: str, path: Path, device: str, serial: str) -> None:
        """Plug a volume in. The guest sees it some moments later. Does nothing when it is attached already."""

    def detach(self, volume_id: str, *, force: bool = False) -> None:
        """Ask the guest to let go of a volume, or take it away: from then on the guest's reads and writes fail.

        Returns at once; `attached` says when it has come to pass. A guest without an operating system, or one that
        still boots, never lets go unless forced. May be repeated. Does nothing for a volume that is not attached.
        """

    def attached(self) -> frozenset[str]:
        """Return the ids of the volumes that it may still write to; none once it has ended."""

    def flush(self) -> None:
        """Have what the guest has synced on the disk, in its volumes' files.

        For readers on this host it is there without: a write that the guest was told is done is in the file already.
        """

    def reset(self) -> None:
        """Start the guest anew, as the reset button does; its volumes stay, what it had not synced is lost."""

    def power_down(self) -> None:
        """Press the power button. A guest that ignores it goes on running; who has waited long enough destroys it."""

    def stop(self) -> None:
        """Cut the power: end every process, give back the address and every volume. The console stays readable."""

    def destroy(self) -> None:
        """Stop it and remove its directory."""


class Driver(Protocol):
    """Starts machines of one kind in one directory, which nobody else uses."""

    def start(self, spec: MachineSpec) -> Machine:
        """Start a machine; returns when it has its address and runs, not when its guest has booted.

        Raises HostError: what it needs is not there, or it ended at once; then nothing of it is left.
        """

    def sweep(self) -> None:
        """Remove what an earlier process left in the directory, and end what of it should still run. Call it first."""

    def close(self) -> None:
        """Destroy every machine."""
