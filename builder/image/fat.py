"""The files of a FAT filesystem, read without trust and without mounting: enough to see which boot loader an ESP holds.

Source: Microsoft's FAT specification 1.03 ("fatgen103"). Names are the short ones (8.3): what firmware looks for,
EFI/BOOT/BOOTX64.EFI, is one, and files with long names have a short one too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from builder.image.stream import ImageReader

_DIRECTORY_LIMIT = 256 * 1024  # bytes of one directory
_DIRECTORIES = 64  # looked into by `paths`
_ENTRY = 32
_DELETED, _LONG_NAME, _VOLUME, _DIRECTORY = 0xE5, 0x0F, 0x08, 0x10
_FAT12_BELOW, _FAT16_BELOW = 4085, 65525  # clusters


@dataclass(frozen=True, kw_only=True)
class FatFile:
    """A file: its path in capitals without a leading slash, and its size in bytes."""

    path: str
    size: int


def fat_files(reader: ImageReader, *, below: str = "", depth: int = 3) -> tuple[FatFile, ...]:
    """Return the files in directory `below` (`EFI`) and the directories in it, so many levels deep; none when absent.

    What is damaged is as if it were not there.
    """
    volume = _volume(reader)
    place = _directory(volume, below) if volume else None
    return tuple(_walk(volume, *place, below.upper(), depth)) if volume and place else ()


def fat_read(reader: ImageReader, path: str) -> bytes | None:
    """Return the bytes of a small file (BOOT/GRUB/GRUB.CFG); None when it is absent, damaged or beyond 256 KiB."""
    directory, _, name = path.upper().rpartition("/")
    volume = _volume(reader)
    place = _directory(volume, directory) if volume else None
    if volume is None or place is None:
        return None
    found = next((one for one in _entries(volume.directory(*place)) if one.name == name and not one.directory), None)
    if found is None or found.size > _DIRECTORY_LIMIT:
        return None
    data = volume.directory(found.cluster, 0)[: found.size]
    return data if len(data) == found.size else None


def _directory(volume: _Volume, path: str) -> tuple[int, int] | None:
    """Return a directory as `_Volume.directory` takes it, or None when there is none of that path."""
    at, length = volume.root()
    for name in filter(None, path.upper().split("/")):
        entries = _entries(volume.directory(at, length))
        found = next((one for one in entries if one.name == name and one.directory), None)
        if found is None:
            return None
        at, length = found.cluster, 0
    return at, length


@dataclass(frozen=True, kw_only=True)
class _Entry:
    name: str
    directory: bool
    cluster: int
    size: int


@dataclass(frozen=True, kw_only=True)
class _Volume:
    reader: ImageReader
    sector: int
    cluster: int  # bytes
    fat_at: int
    root_at: int  # bytes; of FAT12 and FAT16
    root_length: int  # bytes; 0 on FAT32
    root_cluster: int
    data_at: int
    clusters: int

    def root(self) -> tuple[int, int]:
        """Return the root directory as `directory` takes it."""
        return (self.root_at, self.root_length) if self.root_length else (self.root_cluster, 0)

    def directory(self, at: int, length: int) -> bytes:
        """Return a directory's bytes: `length` from byte `at`, or the chain of clusters from `at` without a length."""
        if length:
            return self.reader.pread(min(length, _DIRECTORY_LIMIT), at)
        data = b""
        seen: set[int] = set()
        while 2 <= at < self.clusters + 2 and at not in seen and len(data) < _DIRECTORY_LIMIT:
            seen.add(at)
            data += self.reader.pread(self.cluster, self.data_at + (at - 2) * self.cluster)
            at = self._next(at)
        return data

    def _next(self, cluster: int) -> int:
        if self.clusters < _FAT12_BELOW:
            (pair,) = struct.unpack("<H", self.reader.pread(2, self.fat_at + cluster * 3 // 2))
            return int(pair >> 4 if cluster % 2 else pair & 0xFFF)
        if self.clusters < _FAT16_BELOW:
            return int(struct.unpack("<H", self.reader.pread(2, self.fat_at + cluster * 2))[0])
        return int(struct.unpack("<I", self.reader.pread(4, self.fat_at + cluster * 4))[0]) & 0x0FFFFFFF


def _volume(reader: ImageReader) -> _Volume | None:
    boot = reader.pread(512, 0)
    sector, per_cluster, reserved, fats, roots, total16 = struct.unpack_from("<HBHBHH", boot, 11)
    fat16, total32, fat32 = (*struct.unpack_from("<H", boot, 22), *struct.unpack_from("<II", boot, 32))
    if sector not in (512, 1024, 2048, 4096) or not per_cluster or not fats or boot[510:512] != b"\x55\xaa":
        return None
    root_at = reserved + fats * (fat16 or fat32)
    data_at = root_at + (roots * _ENTRY + sector - 1) // sector
    return _Volume(
        reader=reader,
        sector=sector,
        cluster=per_cluster * sector,
        fat_at=reserved * sector,
        root_at=root_at * sector,
        root_length=roots * _ENTRY,
        root_cluster=struct.unpack_from("<I", boot, 44)[0],
        data_at=data_at * sector,
        clusters=max(0, (total16 or total32) - data_at) // per_cluster,
    )


def _entries(data: bytes) -> list[_Entry]:
    found = []
    for at in range(0, len(data) - _ENTRY + 1, _ENTRY):
        entry = data[at : at + _ENTRY]
        if entry[0] == 0:
            break
        attributes = entry[11]
        if entry[0] == _DELETED or attributes & 0x3F == _LONG_NAME or attributes & _VOLUME or entry[:1] == b".":
            continue
        base, extension = (part.decode("ascii", "replace").rstrip() for part in (entry[:8], entry[8:11]))
        high, low = struct.unpack_from("<H", entry, 20)[0], struct.unpack_from("<H", entry, 26)[0]
        found.append(
            _Entry(
                name=f"{base}.{extension}" if extension else base,
                directory=bool(attributes & _DIRECTORY),
                cluster=high << 16 | low,
                size=struct.unpack_from("<I", entry, 28)[0],
            )
        )
    return found


def _walk(volume: _Volume, at: int, length: int, path: str, depth: int) -> list[FatFile]:
    """Return the files of a directory and of those in it; each directory once, and no more than some."""
    files: list[FatFile] = []
    waiting = [(at, length, path, depth)]
    seen: set[int] = set()
    while waiting and len(seen) < _DIRECTORIES:
        at, length, path, depth = waiting.pop(0)
        if at in seen:
            continue
        seen.add(at)
        for entry in _entries(volume.directory(at, length)):
            inner = f"{path}/{entry.name}" if path else entry.name
            if not entry.directory:
                files.append(FatFile(path=inner, size=entry.size))
            elif depth > 1:
                waiting.append((entry.cluster, 0, inner, depth - 1))
    return files
