"""Loop devices that end with their holder: a file as a block device for as long as somebody has it open.

Each is bound with LO_FLAGS_AUTOCLEAR (linux/loop.h), so that the kernel lets go of the file when the last descriptor of
the device is closed, however its holder ends: there is never one left to be swept.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from builder.errors import HostError

_CONTROL = Path("/dev/loop-control")
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A  # LOOP_CTL_GET_FREE, LOOP_CONFIGURE (Linux 5.8)
_AUTOCLEAR = 4
# struct loop_config: fd, block size, loop_info64 with its flags after 52 bytes and its name (64 bytes), reserved.
_CONFIG = struct.Struct("=II 52x I 64s 176x 64x")
_TRIES = 100
MAJOR = 7


class Loop:
    """One loop device over a file, held until `release`; later if somebody else has it open then."""

    def __init__(self, path: Path) -> None:
        """Bind a free loop device to the file. Raises HostError when this host or this user cannot."""
        try:
            with open(path, "r+b") as file:
                self.number, self._held = _bound(file.fileno(), path.name)
        except OSError as error:
            raise HostError(f"no loop device for {path}: {error.strerror}") from error
        self._path = path

    @property
    def device(self) -> int:
        """The device's number, as mknod takes it."""
        return os.makedev(MAJOR, self.number)

    @property
    def sys(self) -> Path:
        """Where the kernel describes it."""
        return Path(f"/sys/devices/virtual/block/loop{self.number}")

    def release(self) -> None:
        """Close it; safe to repeat."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def bound(self) -> bool:
        """Say whether the device still stands for the file: we hold it, or another has it open."""
        if self._held >= 0:
            return True
        with suppress(OSError):
            said = (self.sys / "loop" / "backing_file").read_text().rstrip("\n")
            return said.removesuffix(" (deleted)") == str(self._path)
        return False


def _bound(file: int, name: str) -> tuple[int, int]:
    config = _CONFIG.pack(file, 0, _AUTOCLEAR, os.fsencode(name)[:63])
    control = os.open(_CONTROL, os.O_RDWR)
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, _GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR)
            try:
                fcntl.ioctl(device, _CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # another was quicker
                    raise
            else:
                return number, device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
