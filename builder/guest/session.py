"""The appliance: a small virtual machine of libguestfs that opens a disk image so that this host never does.

The one importer of guestfs. A Session starts its launch at once, in the background and without any disk, so that it
runs beside the download of the image; the image is plugged in afterwards like a disk into a running machine. One
launch serves one image, however many edits there are.

What a crash of ours leaves: libguestfs' recovery process kills qemu within some seconds of our death, the overlay it
wrote to is scratch, and the next session removes the directories of both (room.py). What a hang of the appliance
leaves: nothing; we kill it when its time is up.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from builder import acceleration
from builder.errors import DiskFull, GuestError, HostError, ToolFailed
from builder.guest import native, room
from builder.guest.overlay import Layer, node
from builder.guest.qmp import Monitor
from builder.pool import Pending, Worker

DEVICE = "/dev/sda"  # the image's name in the appliance: it takes the place of the only disk there is

_LAUNCH_LIMIT = 300.0  # seconds: 8 under TCG here, and 30 where cores are shared and the appliance is built first
_CALL_LIMIT = 120.0  # seconds without an answer after which the appliance is taken to hang
_PLUG_LIMIT = 60.0
# As qemu, which never sets its locale, says it; its `nospace` is not told under werror=report.
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
_PLACEHOLDER = 1 << 20  # bytes; libguestfs launches with no fewer than one disk


class Session:
    """One appliance, launching from the moment this is made. A context manager: leaving it ends every process."""

    def __init__(
        self, *, cache: Path | None = None, launch_limit: float = _LAUNCH_LIMIT, network: bool = False
    ) -> None:
        """Begin to launch and return at once; `cache` remembers what kind of acceleration was proven.

        With `network`, commands in the guest that ask for it reach what this host reaches, through qemu's user-mode
        network; this host's own 127.0.0.1 as 169.254.2.2. Raises HostError when the binding is missing, UsageError
        where there is no directory for its sockets. A launch that fails says so at the first use.
        """
        binding = _binding()
        self.network = network
        self.calls: Counter[str] = Counter()  # of libguestfs, by name
        self.seconds: defaultdict[str, float] = defaultdict(float)  # spent in them
        self.limit = _CALL_LIMIT  # for one call, in seconds
        self.ended = False  # its appliance was killed, since it did not answer in time
        self._launch_limit = launch_limit
        self._room = ExitStack()
        self._directory = self._room.enter_context(room.room(os.environ))
        # A thread of its own: so Ctrl-C gets through while a call waits, and libguestfs keeps its error handler by
        # thread and writes to standard error from any but the one that made the handle.
        self._worker = Worker()
        self._handle = self._worker.begin(lambda: binding.GuestFS(python_return_dict=True, environment=False)).result()
        self._began = time.monotonic()
        self._launch = self._worker.begin(lambda: self._launching(cache))
        self._monitor: Monitor | None = None
        self.layer: Layer | None = None  # what is plugged in
        self._pid: int | None = None
        self._open = True
        # libguestfs closes forgotten handles when the process exits, and crashes where one is launching just then.
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _launching(self, cache: Path | None) -> float:
        handle = self._handle
        handle.parse_environment_list(room.told(os.environ, self._directory))
        handle.set_tmpdir(str(self._directory))
        sockets = Path(handle.get_sockdir())
        if sockets != self._directory:
            room.sweep(sockets)
        handle.set_backend("direct")
        if acceleration.prove(cache).kind == "tcg":
            handle.set_backend_setting("force_tcg", "1")
        handle.set_smp(2)
        handle.set_network(self.network)
        handle.set_pgroup(True)  # Ctrl-C is ours to handle
        handle.add_drive_scratch(_PLACEHOLDER)
        handle.config("-qmp", f"unix:{self._directory}/qmp,server=on,wait=off")
        # libguestfs keeps the process id to itself until the launch ends, which a hung launch never does.
        handle.config("-pidfile", f"{self._directory}/pid")
        handle.launch()
        return time.monotonic() - self._began

    def launched(self) -> float:
        """Wait for the launch to end and return how many seconds it took. Raises GuestError: failed, or too slow."""
        if not self._open:
            raise GuestError("the appliance was closed")
        left = self._began + self._launch_limit - time.monotonic()
        try:
            took = self._launch.result(max(left, 0))
        except TimeoutError:
            self._kill()
            raise GuestError(f"the appliance did not start within {self._launch_limit:g} s and was ended") from None
        except (RuntimeError, OSError) as error:
            raise GuestError(
                f"the appliance did not start: {_first_line(error)}",
                hint="`emi doctor` tests it; `libguestfs-test-tool` shows where it stops.",
            ) from error
        if self._monitor is None:
            self._pid = self._read_pid()
            self._monitor = Monitor(self._directory / "qmp")
        return took

    def attach(self, disk: Layer) -> None:
        """Plug the image in as DEVICE, writable; nothing of it was read before, so it may have come late.

        Waits for the launch. Raises GuestError when the appliance does not come to see it.
        """
        self.launched()
        monitor = self._talk()
        for block in monitor.execute("query-block"):
            if block["device"] == "hd0" and "qdev" in block:  # the placeholder, as libguestfs names its first disk
                monitor.execute("device_del", {"id": block["qdev"]})
        monitor.execute("blockdev-add", node(disk) | {"node-name": "image", "discard": "unmap"})
        self.layer = disk
        self._plug(disk)

    def _plug(self, disk: Layer) -> None:
        self._await_unplugged()
        # werror: by default qemu stops the machine when the host's disk is full, and would look hung.
        place: dict[str, Any] = {"driver": "scsi-hd", "bus": "scsi.0", "scsi-id": 0, "drive": "image", "id": "image"}
        sectors = {"logical_block_size": disk.sector_size, "physical_block_size": disk.sector_size}
        self._talk().execute("device_add", place | sectors | {"werror": "report", "rerror": "report"})
        self._await_plugged()
        # The name appears before the partitions are read; this waits for that, and for udev. Refused (busy) only where
        # they were read and taken up already, as LVM does; a dead appliance says so again at the next call.
        with suppress(GuestError):
            self.call("blockdev_rereadpt", DEVICE)

    def detach(self) -> None:
        """Flush the image, unplug it and close its file: when this returns, qemu has written all it will ever write.

        Raises DiskFull or ToolFailed when a write failed on the way, whatever the guest made of that.
        """
        self._unplug()
        self._talk().execute("blockdev-del", {"node-name": "image"})
        self.layer = None
        self.require_written()

    def resize(self, size: int) -> None:
        """Give the image that is plugged in another virtual size, in bytes; everything of it is unmounted for it.

        What lay beyond a smaller size is gone; what a larger one brings reads as zeros, whatever lies below the layer.
        Raises GuestError where the image is a part of a disk, DiskFull.
        """
        self.require_resizable()
        assert self.layer is not None
        self._unplug()
        self._talk().execute("block_resize", {"node-name": "image", "size": size})
        self._plug(self.layer)
        if self.calls["lvm_scan"]:
            self.call("lvm_scan", True)  # noqa: FBT003 - libguestfs' own signature: activate

    def require_resizable(self) -> None:
        """Raise GuestError where the image is a part of a disk."""
        if self.layer is None or self.layer.window is not None:
            raise GuestError(
                "a part of a disk has no size of its own to change",
                hint="A `convert` step before this one makes it an image of its own.",
            )

    def flush(self) -> None:
        """Have the layer's file say what the guest has written so far, for a reader beside qemu."""
        self.call("sync")
        said = self._talk().execute("human-monitor-command", {"command-line": "qemu-io image flush"})
        if said:
            raise ToolFailed(f"qemu could not flush the image: {said.strip()}")

    def _unplug(self) -> None:
        self.call("umount_all")
        if self.calls["lvm_scan"]:
            self.call("vg_activate_all", False)  # noqa: FBT003 - libguestfs' own signature: activate
        self.call("sync")
        monitor = self._talk()
        monitor.execute("device_del", {"id": "image"})
        monitor.wait_for("DEVICE_DELETED", lambda data: data.get("device") == "image")

    def call(self, name: str, *arguments: object, within: float | None = None, **options: object) -> Any:
        """Make one libguestfs call and return its result; it is counted in `calls`.

        Names are text as os.fsdecode makes it, whatever bytes they are in the guest. Raises GuestError with
        libguestfs' own words, or when there was no answer `within` so many seconds (`limit`,
        when not given): then the appliance is killed and the session of no more use. Ctrl-C gets through while a call
        waits.
        """
        limit = self.limit if within is None else within
        self.calls[name] += 1
        began = time.monotonic()
        try:
            return self._worker.begin(lambda: self._made(name, arguments, options)).result(limit)
        except TimeoutError:
            self.ended = True
            self._kill()
            raise GuestError(f"the appliance did not answer {name} within {limit:g} s and was ended") from None
        except (RuntimeError, OSError, ValueError) as error:
            self.require_written()
            raise GuestError(f"{name} failed in the guest: {_first_line(error)}") from error
        finally:
            self.seconds[name] += time.monotonic() - began

    def wire(self, *, up: bool) -> None:
        """Let the appliance reach the network from now on, or not; one that was launched without it never does."""
        if self.network:
            self._talk().execute("set_link", {"name": "usernet", "up": up})  # as libguestfs names it

    def _made(self, name: str, arguments: tuple[object, ...], options: dict[str, Any]) -> Any:
        if not native.is_text(arguments):
            return native.call(self._handle, name, arguments, options)
        try:
            return getattr(self._handle, name)(*arguments, **options)
        except UnicodeDecodeError:  # only what reads returns names, so that it may be made twice
            return native.call(self._handle, name, arguments, options)

    def close(self) -> None:
        """End the appliance at once, launched or not, flushed or not; safe to repeat."""
        if not self._open:
            return
        self._open = False
        atexit.unregister(self.close)
        self._kill()
        if self._monitor is not None:
            self._monitor.close()
        closing: Pending[None] = self._worker.begin(self._handle.close)
        self._worker.end()
        with suppress(TimeoutError):  # qemu is dead; nobody is helped by an error about that
            closing.result(_CALL_LIMIT)
        with suppress(OSError):  # a handle that did not close has files there
            self._room.close()

    def _kill(self) -> None:
        """Kill qemu; if it has not begun yet, wait until it has, or until the launch has failed by itself."""
        while (pid := self._pid or self._read_pid()) is None and not self._launch.done():
            time.sleep(0.05)
        if pid is not None:
            # libguestfs reaps it only in its close(), so the number is nobody else's yet.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _read_pid(self) -> int | None:
        try:
            return int((self._directory / "pid").read_text("ascii"))
        except (OSError, ValueError):  # not there yet, or not written yet
            return None

    def _talk(self) -> Monitor:
        if self._monitor is None:
            raise GuestError("the appliance is not running")
        return self._monitor

    def _await_unplugged(self) -> None:
        """Return once the appliance has no disk to read: it learns of a change by an event of its own."""
        for _ in self._polls("the appliance does not let go of its disk"):
            try:
                self.call("pread_device", DEVICE, 1, 0)
            except GuestError:
                return

    def _await_plugged(self) -> None:
        for _ in self._polls("the appliance does not see the image that was plugged in"):
            # The kernel gives the place that became free to the next disk. Not list_devices, which waits for udev and
            # takes 0.3 s each time.
            try:
                if self.call("pread_device", DEVICE, 1, 0):
                    return
            except GuestError:
                self._talk().execute("query-status")  # says when the appliance is gone

    def _polls(self, what: str) -> Iterator[None]:
        deadline = time.monotonic() + _PLUG_LIMIT
        while time.monotonic() < deadline:
            yield
            time.sleep(0.01)
        raise GuestError(f"{what} after {_PLUG_LIMIT:g} s")

    def require_written(self) -> None:
        """Return if every write to the image has succeeded so far. Raises DiskFull or ToolFailed."""
        if self._monitor is None:
            return
        with suppress(GuestError):  # dead or not: what it said before is there to read
            self._monitor.execute("query-status")
        failed = [event["data"] for event in self._monitor.events if event["event"] == "BLOCK_IO_ERROR"]
        if any(event.get("reason") in _FULL for event in failed):
            raise DiskFull("no space left for the image's overlay while its guest was edited")
        if failed:
            raise ToolFailed(f"qemu could not {failed[0].get('operation')} the image: {failed[0].get('reason')}")


def _binding() -> ModuleType:
    try:
        import guestfs  # noqa: TID251 - costs 50 ms and is absent on hosts that edit no guests
    except ImportError as error:
        raise HostError(
            "Python's binding of libguestfs is missing",
            hint="sudo apt-get install python3-guestfs, and a virtual environment of Debian's own python3 made with "
            "--system-site-packages (`make setup` makes one); PyPI does not have it",
        ) from error
    module: ModuleType = guestfs
    return module


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
