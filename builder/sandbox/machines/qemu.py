"""Machines that are real guests: the image's own bytes in qemu, under KVM where that is proven, else translated.

Nothing of one outlives its sandbox: qemu is killed by the kernel when the process that started it ends; slirp's relays
end with qemu; the control socket and the console are a socket pair and a pipe. What kill -9 leaves are files in the
machine's directory, for `sweep`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from builder import acceleration, pool, proc
from builder.errors import GuestError, HostError
from builder.guest.qmp import Monitor
from builder.sandbox.machines import processes
from builder.sandbox.machines.addresses import Address
from builder.sandbox.machines.command_line import QEMU, SERVICE_SOCKET, VARIABLES, Plugged, words
from builder.sandbox.machines.console import Console
from builder.sandbox.machines.kept import Kept
from builder.sandbox.machines.machine import Disk, MachineSpec, State
from builder.sandbox.machines.service import Service

_LOG = 8 << 10  # bytes of qemu's own words that are kept
_STARTS = 3
# As qemu's slirp says it, when somebody else was quicker.
_TAKEN = "Could not set up host forwarding rule"
# While Linux boots it tests whether timer interrupts come in time, and gives up for good when they do not: what happens
# to a translated guest whose host has no time for it, and to no machine of a cloud. It halts with this on its console.
_NO_TIMER = re.compile(rb"end Kernel panic[^\n]*IO-APIC \+ timer doesn't work!")
_NEW_STARTS = 10  # for that reason
_OVER = ("guest-shutdown", "guest-panic", "host-qmp-quit")  # reasons of SHUTDOWN that are a machine's own end


class Qemu:
    """A `Driver` of such machines, in one directory."""

    def __init__(self, directory: Path, *, cache: Path | None = None) -> None:
        """`cache` is where the proof of KVM is remembered (`acceleration.prove`)."""
        self._directory, self._cache = directory, cache
        self._starter = processes.Starter()
        self._machines: Kept[QemuMachine] = Kept()

    def start(self, spec: MachineSpec) -> QemuMachine:
        """Start a machine, as `Driver.start`."""
        kind = acceleration.prove(self._cache).kind
        for _ in range(_STARTS - 1):
            try:
                return self._begun(spec, kind)
            except HostError as error:
                if _TAKEN not in error.message:
                    raise
        return self._begun(spec, kind)

    def _begun(self, spec: MachineSpec, kind: acceleration.Kind) -> QemuMachine:
        machine = QemuMachine(spec)
        return self._machines.begin(machine, lambda: machine.begin(self._starter, kind))

    def sweep(self) -> None:
        """Remove what an earlier process left."""
        processes.sweep(self._directory)

    def close(self) -> None:
        """Destroy every machine."""
        self._machines.close()


class QemuMachine:
    """A `Machine`; `begin` starts it."""

    def __init__(self, spec: MachineSpec) -> None:
        """Take an address and make the directory. Raises HostError."""
        self.spec = spec
        self._lock = pool.Lock()
        self._held = Address.take(spec.address)
        self.address = self._held.text
        processes.prepare(spec.directory, keep=(VARIABLES.name,))
        self._console = Console(spec.directory / "console")
        self._log = Console(spec.directory / "qemu.log", _LOG)
        self._service = Service(spec.directory / SERVICE_SOCKET, lambda: spec.facts(self.address))
        self._process: proc.Process | None = None
        self._monitor: Monitor | None = None
        self._count = 0
        self._plugged: dict[str, Plugged] = {}  # by the volume's id
        self._forced: set[str] = set()  # names of devices that were taken away from the guest
        self._kind: acceleration.Kind = "kvm"
        self._new_starts = self._seen = self._heard = 0
        self._stopped = self._off = self._panicked = False

    def begin(self, starter: processes.Starter, kind: acceleration.Kind) -> None:
        """Start qemu and return when it has answered. Raises HostError with what it said."""
        proc.find(QEMU)
        self._kind = kind
        variables = self.spec.directory / VARIABLES.name
        if self.spec.firmware == "uefi" and not variables.exists():
            _copy(VARIABLES, variables)
        plugged = [self._named(disk) for disk in self.spec.disks]
        facts = self.spec.facts(self.address)
        command = words(self.spec, address=self.address, kind=kind, plugged=plugged, metadata=facts)
        ours, its = socket.socketpair()
        try:
            self._process = starter.start(
                command,
                stdin=its,
                stdout=self._console.writer,
                stderr=self._log.writer,
                directory=self.spec.directory,
            )
        finally:
            its.close()
            self._console.handed_over()
            self._log.handed_over()
        try:
            self._monitor = Monitor(ours)
        except GuestError as error:
            ours.close()
            proc.end(self._process)
            self._log.finish()
            said = self._log.tail().decode(errors="replace").strip()
            raise HostError(f"the machine of {self.spec.instance_id} did not start: {said}") from error
        self._plugged = {one.disk.volume_id: one for one in plugged}

    def state(self) -> State:
        """Return how it is."""
        with self._lock:
            self._listen()
            if self._running():
                return "panicked" if self._panicked else "running"
            return "off" if self._off or self._stopped else "lost"

    def alive(self) -> bool:
        """Say whether qemu runs."""
        return self._running()

    def console(self) -> bytes:
        """Return the last 64 KiB that the guest has said."""
        if not self._running():
            self._console.finish()
        return self._console.tail()

    def attach(self, volume_id: str, path: Path, device: str, serial: str) -> None:
        """Plug a volume in."""
        with self._talking() as running:
            if not running or volume_id in self._plugged:
                return
            made = self._named(Disk(volume_id=volume_id, path=path, serial=serial, device=device))
            self._execute("blockdev-add", made.node())
            try:
                self._execute("device_add", made.device())
            except HostError:
                self._execute("blockdev-del", {"node-name": made.name})
                raise
            self._plugged[volume_id] = made

    def detach(self, volume_id: str, *, force: bool = False) -> None:
        """Ask the guest to let go of a volume; with `force` put a device in its place on which everything fails.

        The guest keeps that dead device until it lets go of it or is reset.
        """
        with self._talking() as running:
            found = self._plugged.get(volume_id)
            if not running or found is None:
                return
            self._execute("device_del", {"id": found.name})
            if force and volume_id in self._plugged:
                self._execute("blockdev-add", _dead(f"{found.name}-dead", found.disk.path.stat().st_size))
                # Waits for the writes under way; then nobody holds the file any more, and qemu closes it.
                options = {"driver": "raw", "node-name": found.name, "file": f"{found.name}-dead"}
                self._execute("blockdev-reopen", {"options": [options]})
                self._forced.add(found.name)
                del self._plugged[volume_id]

    def attached(self) -> frozenset[str]:
        """Return the ids of the volumes that the guest has not let go of."""
        with self._talking() as running:
            return frozenset(self._plugged) if running else frozenset()

    def flush(self) -> None:
        """Have the volumes' files on the disk."""
        with self._lock:
            paths = [one.disk.path for one in self._plugged.values()]
        for path in paths:
            with suppress(FileNotFoundError), open(path, "rb") as file:
                os.fdatasync(file.fileno())

    def reset(self) -> None:
        """Press the reset button."""
        self._press("system_reset")

    def power_down(self) -> None:
        """Press the power button."""
        self._press("system_powerdown")

    def _press(self, button: str) -> None:
        with self._talking() as running:
            if running:
                self._execute(button)

    def stop(self) -> None:
        """Cut the power; the console stays readable."""
        with self._lock:
            if self._stopped:
                return
            self._listen()
            self._stopped = self._running() or self._process is None
            if self._process is not None:
                proc.end(self._process)
            if self._monitor is not None:
                self._monitor.close()
                self._monitor = None
        for console in (self._console, self._log):
            console.handed_over()
            console.finish()
        self._service.close()
        self._held.release()

    def destroy(self) -> None:
        """Stop it and remove its directory."""
        self.stop()
        shutil.rmtree(self.spec.directory, ignore_errors=True)

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _named(self, disk: Disk) -> Plugged:
        self._count += 1
        return Plugged(disk=disk, name=f"volume{self._count}", bus=self.spec.bus)

    @contextmanager
    def _talking(self) -> Iterator[bool]:
        """Hold the conversation, what qemu told meanwhile being known; False when there is nobody to talk to.

        Raises HostError for what goes wrong in it, unless the machine has ended: then nothing matters.
        """
        with self._lock:
            self._listen()
            try:
                yield self._running() and self._monitor is not None
            except HostError:
                if self._running():
                    raise

    def _execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> None:
        assert self._monitor is not None
        try:
            self._monitor.execute(command, arguments)
        except GuestError as error:
            raise HostError(f"the machine of {self.spec.instance_id}: {error.message}") from error
        self._heed()

    def _listen(self) -> None:
        """Take in what qemu has told since, to its last word when it has ended."""
        if self._monitor is None:
            return
        with suppress(GuestError):
            if self._running():
                self._monitor.execute("system_reset" if self._has_no_timer() else "query-status")
            else:
                self._monitor.wait_for("", lambda _: False)
        self._heed()

    def _has_no_timer(self) -> bool:
        """Say whether the guest has halted for want of processor time, as it began, and is to begin again."""
        if self._kind == "kvm" or self._new_starts >= _NEW_STARTS:
            return False
        total, last = self._console.since(self._heard, 512)
        if total == self._seen:
            return False
        self._seen = total
        if not _NO_TIMER.search(last):
            return False
        self._heard = total  # what was said until now is no reason to begin yet again
        self._new_starts += 1
        return True

    def _heed(self) -> None:
        assert self._monitor is not None
        events, self._monitor.events = self._monitor.events, []
        for event in events:
            name, data = event["event"], event.get("data", {})
            if name == "DEVICE_DELETED" and "device" in data:  # there are such events of parts of a device too
                self._unplugged(data["device"])
            elif name == "GUEST_PANICKED":
                self._panicked = True
            elif name == "RESET":
                self._panicked = False
            elif name == "SHUTDOWN":
                self._off = data.get("reason") in _OVER

    def _unplugged(self, name: str) -> None:
        for volume_id, one in list(self._plugged.items()):
            if one.name == name:
                del self._plugged[volume_id]
        with suppress(HostError):
            self._execute("blockdev-del", {"node-name": name})
            if name in self._forced:
                self._execute("blockdev-del", {"node-name": f"{name}-dead"})


def _dead(name: str, size: int) -> dict[str, Any]:
    """Return a block node of that size that fails to read and to write anything."""
    return {
        "driver": "blkdebug",
        "node-name": name,
        "image": {"driver": "null-co", "size": size},
        "inject-error": [{"event": "none", "errno": 5}],  # EIO, always
    }


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise HostError(f"{source} is missing: firmware for UEFI", hint="sudo apt-get install ovmf") from error
