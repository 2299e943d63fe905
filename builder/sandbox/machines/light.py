"""Machines without a guest: an sshd on an address of its own, in namespaces of its own, for who needs no boot.

It answers after some 0.2 s. Logging in is for root alone, with the keys of the metadata and of a cloud-config's
`ssh_authorized_keys`; of user-data only these and `ssh_keys` are heeded. Its volumes are loop devices under a guest's
names: /dev/vdb or /dev/nvme1n1, described in /sys/block with size and serial, named in /dev/disk/by-id, and in no other
machine. What differs from a guest: it shares this host's kernel, files and network (so it reaches this host's loopback
at 127.0.0.1, and no metadata service: 169.254.169.254 would have to be an address of the host), and its root volume is
a disk like the others, from which nothing is started. Root alone can make one.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from builder import pool, proc
from builder.errors import HostError
from builder.sandbox.machines import processes
from builder.sandbox.machines.addresses import Address
from builder.sandbox.machines.console import Console
from builder.sandbox.machines.devices import Devices
from builder.sandbox.machines.kept import Kept
from builder.sandbox.machines.machine import SSH, MachineSpec, State
from builder.sandbox.machines.shelter import CONFIG, SHUTDOWN, START, cloud_config, host_key

_PATIENCE = 60  # seconds until sshd must answer; it takes a fifth of one


class Light:
    """A `Driver` of such machines, in one directory."""

    def __init__(self, directory: Path, *, loops: bool | None = None) -> None:
        """`loops` says whether volumes are loop devices (None: where this host has them), else the plain files."""
        self._directory = directory
        self._loops = Path("/dev/loop-control").exists() if loops is None else loops
        self._starter = processes.Starter()
        self._machines: Kept[LightMachine] = Kept()

    def start(self, spec: MachineSpec) -> LightMachine:
        """Start a machine, as `Driver.start`. Raises ToolMissing without sshd."""
        if os.geteuid() != 0:
            raise HostError("light machines need root", hint="Start the sandbox as root, or with `--machines qemu`.")
        proc.find("sshd")
        machine = LightMachine(spec, self._starter, loops=self._loops)
        return self._machines.begin(machine, machine.begin)

    def sweep(self) -> None:
        """Remove what an earlier process left; the kernel has ended its processes and loop devices with it."""
        processes.sweep(self._directory)

    def close(self) -> None:
        """Destroy every machine."""
        self._machines.close()


class LightMachine:
    """A `Machine`; `begin` starts it."""

    def __init__(self, spec: MachineSpec, starter: processes.Starter, *, loops: bool) -> None:
        """Take an address and make the directory. Raises HostError."""
        self.spec = spec
        self._starter = starter
        self._lock = pool.Lock()
        self._held = Address.take(spec.address)
        self.address = self._held.text
        processes.prepare(spec.directory)
        self._console: Console | None = None
        self._process: proc.Process | None = None
        self._stopped = False
        self._loops = loops
        self._devices = Devices(spec.bus, loops=loops)

    def begin(self) -> None:
        """Start it, and return when its sshd answers and its disks are there. Raises HostError with what it said."""
        with self._lock:
            _furnish(self.spec, self.address, hidden=self._loops)
            self._boot()
            for disk in self.spec.disks:
                self._devices.plug(disk.volume_id, disk.path, disk.serial)

    def state(self) -> State:
        """Return how it is."""
        if self._process is not None and not self._stopped:
            ended = self._process.poll()
            if ended is None:
                return "running"
            return "lost" if ended == -signal.SIGKILL else "off"
        return "off"

    def alive(self) -> bool:
        """Say whether its sshd runs."""
        return self._process is not None and self._process.poll() is None

    def console(self) -> bytes:
        """Return the last 64 KiB that its sshd has said, after its host keys as cloud-init prints them."""
        return self._console.tail() if self._console is not None else b""

    def attach(self, volume_id: str, path: Path, device: str, serial: str) -> None:  # noqa: ARG002 - as in a guest
        """Plug a volume in; it gets the next name."""
        with self._living() as living:
            if living:
                self._devices.plug(volume_id, path, serial)

    def detach(self, volume_id: str, *, force: bool = False) -> None:
        """Take the device away; who has it open keeps it until closing it or, with `force`, is killed."""
        with self._living() as living:
            if living:
                self._devices.unplug(volume_id, force=force)

    def attached(self) -> frozenset[str]:
        """Return the ids of the volumes that are plugged in, or still open to somebody."""
        with self._living() as living:
            return self._devices.held() if living else frozenset()

    def flush(self) -> None:
        """Have the volumes' files on the disk."""
        with self._lock:
            paths = self._devices.paths()
        for path in paths:
            with suppress(FileNotFoundError), open(path, "rb") as file:
                os.fdatasync(file.fileno())

    def reset(self) -> None:
        """Kill all its processes and start it again; what is attached stays so, perhaps under other names."""
        with self._living() as living:
            if living:
                self._halt()
                self._boot()
                self._devices.replug()

    def power_down(self) -> None:
        """End its first process, and with it all."""
        with self._lock:
            first = self._devices.machine
            if self.alive() and first is not None:
                with suppress(ProcessLookupError):
                    os.kill(first, signal.SIGTERM)

    def stop(self) -> None:
        """End every process, give back the address and the volumes."""
        with self._lock:
            self._stopped = self._stopped or self.alive() or self._process is None
            self._halt()
            self._devices.release()
            self._held.release()

    def destroy(self) -> None:
        """Stop it and remove its directory."""
        self.stop()
        shutil.rmtree(self.spec.directory, ignore_errors=True)

    @contextmanager
    def _living(self) -> Iterator[bool]:
        """Hold the lock; False when the machine has ended. What goes wrong with one that ends meanwhile is nothing."""
        with self._lock:
            try:
                yield self.alive()
            except (HostError, OSError) as error:
                if self.alive():
                    raise HostError(f"the light machine of {self.spec.instance_id}: {error}") from error

    def _boot(self) -> None:
        directory = self.spec.directory
        (directory / "boot_id").write_text(f"{uuid.uuid4()}\n")
        self._console = Console(directory / "console")
        # --kill-child: the first process, and by the kernel's rule all others, are killed when unshare is.
        enter = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        try:
            self._process = self._starter.start(
                [*enter, "sh", "-c", START, "sh", directory],
                stdout=self._console.writer,
                stderr=self._console.writer,
                directory=directory,
            )
        finally:
            self._console.handed_over()
        self._await()
        number = self._process.pid
        self._devices.machine = int(Path(f"/proc/{number}/task/{number}/children").read_text().split()[0])

    def _await(self) -> None:
        until = time.monotonic() + _PATIENCE
        while self.alive() and time.monotonic() < until:
            with suppress(OSError), socket.create_connection((self.address, SSH), timeout=5) as link:
                if link.recv(4) == b"SSH-":
                    return
            time.sleep(0.01)
        said = self.console().decode(errors="replace").strip()
        raise HostError(f"the light machine of {self.spec.instance_id} did not start: {said[-500:]}")

    def _halt(self) -> None:
        if self._process is not None:
            first, self._devices.machine = self._devices.machine, None
            if first is not None and self.alive():
                with suppress(ProcessLookupError):
                    os.kill(first, signal.SIGKILL)
            proc.end(self._process)
        if self._console is not None:
            self._console.finish()


def _furnish(spec: MachineSpec, address: str, *, hidden: bool) -> None:
    """Write what the machine is started with."""
    directory, facts = spec.directory, spec.facts(address)
    for name, mode in (("home", 0o700), ("tmp", 0o1777)):
        (directory / name).mkdir()
        (directory / name).chmod(mode)
    if hidden:
        (directory / "hidden").touch()
    config = cloud_config(facts.user_data)
    listed = config.get("ssh_authorized_keys")
    keys = [*(line for _, line in facts.public_keys), *(map(str, listed) if isinstance(listed, list) else ())]
    (directory / "authorized_keys").write_text("".join(f"{key.strip()}\n" for key in keys))
    (directory / "sshd_config").write_text(CONFIG.format(address=address, port=SSH))
    (directory / "shutdown").write_text(SHUTDOWN)
    (directory / "shutdown").chmod(0o755)
    key = directory / "host_key"
    if (given := host_key(config)) is not None:
        key.touch(stat.S_IRUSR | stat.S_IWUSR)
        key.write_text(given.strip() + "\n")
        key.with_suffix(".pub").write_bytes(proc.run(["ssh-keygen", "-y", "-f", key]).stdout)
    else:
        proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key])
