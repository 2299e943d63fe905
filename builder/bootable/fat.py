"""A FAT32 filesystem inside a disk image, without mounting: mkfs.vfat makes it, mtools put the files in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from builder import proc
from builder.bootable.bootcode import SECTOR

_EARLIEST = 315_532_800  # 1980-01-01, the first day FAT knows, in seconds


def make(
    disk: Path, place: range, files: Mapping[str, Path], *, label: str, volume_id: str, epoch: int = _EARLIEST
) -> None:
    """Make a FAT32 filesystem at the bytes `place` of `disk`, with host files by their paths in it (`EFI/BOOT/x.efi`).

    The same arguments give the same bytes; all times are `epoch` (seconds). Unused clusters stay holes. Raises
    ToolMissing, and ToolFailed (also: they do not fit).
    """
    clock = {"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null"}
    proc.run(
        [
            *("mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "-n", label, "-i", volume_id),
            *("--offset", str(place.start // SECTOR), disk, str(len(place) // 1024)),
        ],
        environment=clock,
    )
    image = f"{disk}@@{place.start}"
    for directory in _directories(files):
        proc.run(["mmd", "-i", image, f"::/{directory}"], environment=clock)
    for path, source in files.items():
        proc.run(["mcopy", "-i", image, source, f"::/{path}"], environment=clock)


def _directories(files: Mapping[str, Path]) -> list[str]:
    found = {str(parent) for path in files for parent in PurePosixPath(path).parents if parent.name}
    return sorted(found)
