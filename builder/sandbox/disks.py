"""The bytes of snapshots: sparse files of 512 KiB blocks, whose map survives kill -9 once a put has returned.

A disk is a directory with three files, which disks of equal snapshots share as hard links once nobody can put any more:

    data   the blocks at their offsets; sparse
    sums   32 bytes per block: the SHA-256 of its bytes
    map    1 byte per block: 0 absent, 1 inherited from the parent, 2 written here

A put writes data, then sum, then the map's byte, which commits it. All three go to the page cache, which a killed
process leaves intact; `sync` brings them to the disk before the snapshot is sealed. A put onto a block that is there
already goes through `redo/INDEX` first: written aside, renamed (the commit), applied, removed; `recover`
applies what is left there, so the old bytes or the new ones are found after a crash, never a mixture.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from builder import durable
from builder.digest import BLOCK, is_zero
from builder.sandbox import sparse
from builder.sandbox.sparse import Report

ABSENT, INHERITED, WRITTEN = 0, 1, 2
_SUM = 32  # bytes of a SHA-256
_PAGE = 1 << 16  # bytes of the map looked at together: 32 GiB of volume, 2 MiB of sums
_PRESENT = re.compile(rb"[^\0]")


class Disk:
    """An open disk of `blocks` blocks. Its descriptors close when the last user lets go of the object."""

    def __init__(self, directory: Path, blocks: int) -> None:
        self.directory = directory
        self.blocks = blocks
        self._files: list[int] = []
        self._data, self._sums, self._map = (self._open(name) for name in ("data", "sums", "map"))

    def __del__(self) -> None:
        for descriptor in self._files:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        descriptor = os.open(self.directory / name, os.O_RDWR)
        self._files.append(descriptor)
        return descriptor

    # Making and opening

    @classmethod
    def create(cls, directory: Path, blocks: int, parent: Disk | None = None) -> Disk:
        """Make a disk; with a parent it starts with the parent's blocks, marked as inherited."""
        (directory / "redo").mkdir(parents=True)
        for name in ("data", "sums", "map"):
            (directory / name).touch()
        disk = cls(directory, blocks)
        if parent is not None:
            disk._inherit(parent)
        for descriptor, size in ((disk._data, BLOCK), (disk._sums, _SUM), (disk._map, 1)):
            os.ftruncate(descriptor, blocks * size)
        return disk

    def _inherit(self, parent: Disk) -> None:
        theirs = {name: os.open(parent.directory / name, os.O_RDONLY) for name in ("data", "sums", "map")}
        try:
            sparse.clone(theirs["data"], self._data)
            sparse.clone(theirs["sums"], self._sums)
            for offset, page in _pages(theirs["map"], 0):
                os.pwrite(self._map, bytes(map(bool, page)), offset)
        finally:
            for descriptor in theirs.values():
                os.close(descriptor)

    def take(self, source: Path, report: Report = sparse.ignore) -> None:
        """Fill a fresh disk with the bytes of the raw file `source` as they are now; `index` will list its blocks.

        They are on the disk when this returns. `source` may be shorter than the disk.
        """
        descriptor = os.open(source, os.O_RDONLY)
        try:
            sparse.clone(descriptor, self._data, report)
        finally:
            os.close(descriptor)
        os.ftruncate(self._data, self.blocks * BLOCK)
        self.sync()

    def link(self, directory: Path) -> None:
        """Make a second disk with the bytes of this one, which nobody may put to any more: the files are shared."""
        (directory / "redo").mkdir(parents=True)
        for name in ("data", "sums", "map"):
            os.link(self.directory / name, directory / name)
        durable.fsync_directory(directory)
        durable.fsync_directory(directory.parent)

    def index(self, report: Report) -> None:
        """List the blocks of a disk that was taken: every one that is not all zeros, with its sum.

        May be done again after a crash. Reads data only, no holes.
        """
        buffer = memoryview(bytearray(BLOCK))
        ranges = list(sparse.extents(self._data))
        total, done, following = sum(end - start for start, end in ranges), 0, 0
        for start, end in ranges:
            for index in range(max(following, start // BLOCK), -(-end // BLOCK)):
                os.preadv(self._data, [buffer], index * BLOCK)
                if not is_zero(buffer):
                    os.pwrite(self._sums, hashlib.sha256(buffer).digest(), index * _SUM)
                    os.pwrite(self._map, bytes([WRITTEN]), index)
                report(min(done + (index + 1) * BLOCK - start, total), total)
            following = max(following, -(-end // BLOCK))
            done += end - start

    def recover(self) -> None:
        """Finish the puts that a crash cut off, before anybody puts again."""
        for entry in (self.directory / "redo").iterdir():
            if entry.suffix != ".new":
                self._write(int(entry.name), data := entry.read_bytes(), hashlib.sha256(data).digest())
            entry.unlink()

    # Blocks

    def put(self, index: int, data: memoryview | bytes, checksum: bytes) -> None:
        """Store a block; nobody else may put the same index meanwhile. See the module for what a crash leaves."""
        state, known = self.look(index)
        if state == ABSENT:
            self._write(index, data, checksum)
        elif known == checksum:  # the same bytes again: a retry after a lost answer, or a block equal to the parent's
            os.pwrite(self._map, bytes([WRITTEN]), index)
        else:
            redo = self.directory / "redo" / str(index)
            aside = redo.with_suffix(".new")
            aside.write_bytes(data)
            aside.replace(redo)
            self._write(index, data, checksum)
            redo.unlink()

    def _write(self, index: int, data: memoryview | bytes, checksum: bytes) -> None:
        if os.pwrite(self._data, data, index * BLOCK) != BLOCK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.pwrite(self._sums, checksum, index * _SUM)
        os.pwrite(self._map, bytes([WRITTEN]), index)

    def look(self, index: int) -> tuple[int, bytes]:
        """Return the block's state and, unless it is absent, the SHA-256 of its bytes."""
        return os.pread(self._map, 1, index)[0], os.pread(self._sums, _SUM, index * _SUM)

    def read(self, index: int) -> bytes:
        """Return the 512 KiB of a block."""
        return os.pread(self._data, BLOCK, index * BLOCK)

    def present(self, start: int = 0) -> Iterator[int]:
        """Yield the index of every block that is there, ascending, from `start`."""
        for offset, page in _pages(self._map, start):
            for match in _PRESENT.finditer(page):
                yield offset + match.start()

    def changed(self, since: Disk, start: int = 0) -> Iterator[tuple[int, bool, bool]]:
        """Yield (index, in `since`, in this) for every block whose bytes differ between the two, ascending."""
        ours, theirs = self.present(start), since.present(start)
        mine, other = next(ours, None), next(theirs, None)
        while mine is not None or other is not None:
            if other is None or (mine is not None and mine < other):
                assert mine is not None
                yield mine, False, True
                mine = next(ours, None)
            elif mine is None or other < mine:
                yield other, True, False
                other = next(theirs, None)
            else:
                if self.look(mine)[1] != since.look(other)[1]:
                    yield mine, True, True
                mine, other = next(ours, None), next(theirs, None)

    def written(self) -> tuple[int, bytes]:
        """Return how many blocks were written here, and the SHA-256 over their SHA-256s in order of index.

        That is the LINEAR aggregate of the EBS direct APIs (CompleteSnapshot, x-amz-Checksum-Aggregation-Method).
        """
        count, aggregate = 0, hashlib.sha256()
        for offset, page in _pages(self._map, 0):
            sums = os.pread(self._sums, len(page) * _SUM, offset * _SUM)
            for match in re.finditer(b"\x02", page):
                count += 1
                aggregate.update(sums[match.start() * _SUM : match.end() * _SUM])
        return count, aggregate.digest()

    def sync(self) -> None:
        """Return when everything put so far is on the disk, and the names by which it is found."""
        for descriptor in (self._data, self._sums, self._map):
            os.fsync(descriptor)
        durable.fsync_directory(self.directory)
        durable.fsync_directory(self.directory.parent)


class Disks:
    """The disks of one sandbox directory, by the id of their snapshot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)

    def create(self, name: str, blocks: int, parent: Disk | None) -> Disk:
        """Make a disk. A crash before its record is committed leaves an orphan for `sweep`.

        Raises OSError with EFBIG when the filesystem holds no file of that size (ext4: 16 TiB).
        """
        try:
            return Disk.create(self.directory / name, blocks, parent)
        except OSError:
            self.remove(name)
            raise

    def take(self, name: str, blocks: int, source: Path, report: Report = sparse.ignore) -> None:
        """Make a disk with the bytes of the raw file `source`; otherwise as `create`."""
        try:
            Disk.create(self.directory / name, blocks).take(source, report)
        except BaseException:
            self.remove(name)
            raise

    def link(self, source: Disk, name: str) -> None:
        """Make a disk with the bytes of the sealed disk `source`, without moving any; otherwise as `create`."""
        try:
            source.link(self.directory / name)
        except OSError:
            self.remove(name)
            raise

    def open(self, name: str, blocks: int) -> Disk:
        """Open a disk whose record exists."""
        return Disk(self.directory / name, blocks)

    def touched(self, name: str) -> float:
        """Return when a block was last written, in seconds since the epoch; 0 when the disk is gone."""
        try:
            return (self.directory / name / "data").stat().st_mtime
        except FileNotFoundError:
            return 0

    def allocated(self, name: str) -> int:
        """Return how many bytes the blocks take on the disk; 0 when it is gone."""
        try:
            return (self.directory / name / "data").stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def allocated_together(self, names: Iterable[str]) -> int:
        """Return how many bytes the blocks of these disks take, what several share counted once."""
        found = {}
        for name in names:
            with suppress(FileNotFoundError):
                status = (self.directory / name / "data").stat()
                found[status.st_ino] = status.st_blocks * 512
        return sum(found.values())

    def remove(self, name: str) -> None:
        """Give a disk's space back; who still has it open reads on. Call it after its record is gone."""
        shutil.rmtree(self.directory / name, ignore_errors=True)

    def sweep(self, known: set[str]) -> None:
        """Remove every disk that no record names: what a crash left of a start or a delete."""
        for entry in self.directory.iterdir():
            if entry.name not in known:
                self.remove(entry.name)


def block_ranges(blocks: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) in bytes of every run of blocks that the open map says are there, ascending."""
    for offset, page in _pages(blocks, 0):
        for run in re.finditer(rb"[^\0]+", page):
            yield (offset + run.start()) * BLOCK, (offset + run.end()) * BLOCK


def _pages(descriptor: int, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield a map from `start` in pieces with their offset, holes left out (65536 GiB is a map of 128 MiB)."""
    size = os.fstat(descriptor).st_size
    while (start := sparse.next_data(descriptor, start)) < size:
        page = os.pread(descriptor, _PAGE, start)
        yield start, page
        start += len(page)
