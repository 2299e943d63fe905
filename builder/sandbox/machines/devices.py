"""The volumes of a light machine, as it sees them: device files, /sys/block and /dev/disk/by-id of its own.

All is done from outside, through /proc/PID/root of the machine's first process. A loop device has no serial, so what
udev and the kernel would make of one is made here: the finder of `builder.remote` meets what it meets in a guest. Not
made are partitions. Where there are no loop devices, a volume is a link to its file.
"""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from builder import proc
from builder.sandbox.machines.loops import Loop
from builder.sandbox.machines.machine import Bus

_KERNEL = ("size", "ro", "dev", "diskseq", "holders", "queue", "loop")  # of /sys/block/NAME, read where they are


@dataclass
class _Volume:
    path: Path
    serial: str
    loop: Loop | None
    name: str = ""  # in /dev; none when it was taken away


class Devices:
    """The volumes of one machine, whose first process is `machine` (as this host numbers it; None while it is off)."""

    def __init__(self, bus: Bus, *, loops: bool) -> None:
        self.machine: int | None = None
        self._bus, self._loops = bus, loops
        self._volumes: dict[str, _Volume] = {}

    def plug(self, volume_id: str, path: Path, serial: str) -> None:
        """Make the volume appear, unless it is there. Raises HostError without a loop device for it."""
        if volume_id in self.held():
            return
        kept = serial[:20] if self._bus == "virtio" else serial
        made = _Volume(path, kept, Loop(path) if self._loops else None)
        self._volumes[volume_id] = made
        self._show(made)

    def replug(self) -> None:
        """Make all volumes that are attached appear in a machine that was started anew."""
        for volume_id, one in list(self._volumes.items()):
            if one.name:
                one.name = ""
                self._show(one)
            else:
                del self._volumes[volume_id]  # whoever had it open is gone

    def unplug(self, volume_id: str, *, force: bool) -> None:
        """Take the volume away; with `force` also from whoever has it open or mounted."""
        found = self._volumes.get(volume_id)
        if found is None:
            return
        if found.name:
            self._hide(found)
        if found.loop is None:
            del self._volumes[volume_id]
            return
        found.loop.release()
        if force:
            self._wrest(found.loop)

    def held(self) -> frozenset[str]:
        """Return the ids of the volumes that are there, or still open to somebody."""
        for volume_id, one in list(self._volumes.items()):
            if one.loop is not None and not one.name and not one.loop.bound():
                del self._volumes[volume_id]
        return frozenset(self._volumes)

    def paths(self) -> list[Path]:
        """Return the files of the volumes."""
        return [one.path for one in self._volumes.values()]

    def release(self) -> None:
        """Let go of everything; for a machine that is off."""
        for one in self._volumes.values():
            if one.loop is not None:
                one.loop.release()
        self._volumes.clear()

    def _show(self, volume: _Volume) -> None:
        taken = {one.name for one in self._volumes.values()}
        volume.name = name = next(name for name in _names(self._bus) if name not in taken)
        device = self._root / "dev" / name
        about = self._root / "sys/block" / name
        about.mkdir()
        if volume.loop is not None:
            os.mknod(device, stat.S_IFBLK | 0o660, volume.loop.device)
            for entry in _KERNEL:
                (about / entry).symlink_to(volume.loop.sys / entry)
        else:
            device.symlink_to(volume.path)
            (about / "size").write_text(f"{volume.path.stat().st_size // 512}\n")
        told = about / "serial" if self._bus == "virtio" else about / "device" / "serial"
        told.parent.mkdir(exist_ok=True)
        told.write_text(f"{volume.serial}\n")
        self._link(volume).symlink_to(f"../../{name}")

    def _hide(self, volume: _Volume) -> None:
        """Remove what `_show` made, in the other order: what is listed is there."""
        self._link(volume).unlink()
        about = self._root / "sys/block" / volume.name
        for entry in (about / "serial", about / "device/serial", *(about / name for name in (*_KERNEL, "size"))):
            entry.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            (about / "device").rmdir()
        about.rmdir()
        (self._root / "dev" / volume.name).unlink()
        volume.name = ""

    def _link(self, volume: _Volume) -> Path:
        kind = "virtio-" if self._bus == "virtio" else "nvme-Amazon_Elastic_Block_Store_"
        return self._root / "dev/disk/by-id" / f"{kind}{volume.serial}"

    @property
    def _root(self) -> Path:
        return Path(f"/proc/{self.machine}/root")

    def _wrest(self, loop: Loop) -> None:
        """Kill the machine's processes that have the device open, and unmount it there."""
        space = os.readlink(f"/proc/{self.machine}/ns/pid")  # noqa: PTH115 - no path
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == self.machine:
                continue
            with suppress(OSError):
                if os.readlink(entry / "ns/pid") == space and _has_open(entry, loop.device):  # noqa: PTH115
                    os.kill(int(entry.name), signal.SIGKILL)
        number = f"{os.major(loop.device)}:{os.minor(loop.device)}"
        for line in Path(f"/proc/{self.machine}/mountinfo").read_text().splitlines():
            words = line.split()
            if words[2] == number:
                proc.run(["nsenter", "-t", str(self.machine), "-m", "-p", "umount", "-l", words[4]], allowed=range(256))


def _has_open(process: Path, device: int) -> bool:
    for entry in (process / "fd").iterdir():
        with suppress(OSError):
            found = entry.stat()
            if stat.S_ISBLK(found.st_mode) and found.st_rdev == device:
                return True
    return False


def _names(bus: Bus) -> list[str]:
    if bus == "nvme":
        return [f"nvme{number}n1" for number in range(64)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [f"vd{letter}" for letter in letters] + [f"vda{letter}" for letter in letters]
