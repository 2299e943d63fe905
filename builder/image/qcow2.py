"""Our own reader of qcow2 v2 and v3: what it costs is the inflating, and it trusts nothing in the file.

Layout: qemu, docs/interop/qcow2.txt. What it does not know (extended L2 entries) is left to qemu by `open_image`.
"""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, NoReturn, Self, cast

import zstandard
from isal import isal_zlib

from builder import pool
from builder.errors import FormatRefused
from builder.image.identity import shown
from builder.image.qcow2_header import HEAD, ZSTD, Qcow2Header, dangers, read_header
from builder.image.raw import SourceFile
from builder.image.spans import Clipper, merged
from builder.image.stream import Extent, ImageReader

_OFFSET = 0x00FFFFFFFFFFFE00  # bits 9-55 of an L1 or L2 entry: the host offset
_COMPRESSED = 1 << 62
_ZERO_FLAG = 1
_TABLES = 16 << 20  # bytes of L2 tables kept; with 64 KiB clusters they describe 128 GiB
_INFLATED = 8 << 20  # bytes of clusters kept for readers that take less than a cluster at a time
_WINDOW_BITS = -12  # a raw deflate stream with a window of 4 KiB, as qemu writes and reads it

_INFLATE_ERROR = cast("type[Exception]", isal_zlib.error)  # the library's stub takes it for an instance

_HOLE, _ZERO, _DATA, _DEFLATED = range(4)


class _Run(NamedTuple):
    """Guest bytes `start` to `end` of one kind; `host` is where they lie, or the L2 entry of a compressed cluster."""

    kind: int
    start: int
    end: int
    host: int


class Qcow2Reader:
    """A qcow2 image. Clusters it does not hold are read from `backing`, or are zeros; `backing` becomes ours to close.

    The backing file that the header names is never looked at: who opens an overlay hands over what lies below it.
    Raises FormatRefused for anything in the file that is damaged or dangerous, at the latest when it is read.
    """

    def __init__(self, path: Path, backing: ImageReader | None = None) -> None:
        self.path = path
        self._backing = backing
        self._file = SourceFile(path)
        try:
            self._header = self._checked_header()
            self._l1 = self._load_l1()
        except BaseException:
            self.close()
            raise
        self.virtual_size = self._header.virtual_size
        self._cluster = self._header.cluster_size
        self._span = self._cluster * self._header.l2_entries
        self._lock = pool.Lock()
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._inflated: OrderedDict[int, bytes] = OrderedDict()
        self._thread = pool.Local()

    def _checked_header(self) -> Qcow2Header:
        try:
            header = read_header(self._file.read(HEAD, 0))
        except FormatRefused as refused:
            raise FormatRefused(f"{self.path}: {refused.message}") from None
        found = dangers(header, self._file.size)
        if header.backing_file is not None and self._backing is None:
            found.append(f"it names {shown(header.backing_file)} as its backing file")
        if header.extended_l2:
            found.append("it has extended L2 entries")
        if found:
            raise FormatRefused(f"{self.path} is a qcow2 image that is refused: {'; '.join(found)}")
        return header

    def _load_l1(self) -> array[int]:
        header = self._header
        entries = -(-header.virtual_size // (header.cluster_size * header.l2_entries))
        table = _big_endian(self._file.read(entries * 8, header.l1_offset))
        # Each L2 table has a cluster of its own, so that the file's size bounds the work that a hostile L1 can ask for.
        if len(table) - table.count(0) > self._file.size // header.cluster_size:
            self._refuse("it has more L2 tables than fit into the file")
        return table

    def _refuse(self, reason: str) -> NoReturn:
        raise FormatRefused(
            f"{self.path} is a damaged qcow2 image: {reason}",
            hint="The file may be cut off: compare its size and checksum with the publisher's.",
        )

    def extents(self) -> Iterator[Extent]:
        """Yield what this image or the image below it holds as data."""
        return merged(self._data())

    def _data(self) -> Iterator[Extent]:
        below = None if self._backing is None else Clipper(self._backing.extents())
        for run in self._runs(0, self.virtual_size):
            if run.kind in (_DATA, _DEFLATED):
                yield Extent(run.start, run.end - run.start)
            elif run.kind == _HOLE and below is not None:
                yield from below.within(run.start, run.end)

    def pread(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes from `offset`, zeros past the end."""
        end = min(offset + length, self.virtual_size)
        parts = [self._read(run) for run in _joined(self._runs(offset, end))]
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data if len(data) == length else data.ljust(length, b"\0")

    def close(self) -> None:
        """Close the file and the images below it."""
        self._file.close()
        if self._backing is not None:
            self._backing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _runs(self, start: int, end: int) -> Iterator[_Run]:
        while start < end:
            index = start // self._span
            stop = min(end, (index + 1) * self._span)
            entry = self._l1[index] & _OFFSET
            if entry:
                yield from self._table_runs(self._table(entry), start, stop)
            else:
                yield _Run(_HOLE, start, stop, 0)
            start = stop

    def _table_runs(self, table: array[int], at: int, end: int) -> Iterator[_Run]:
        size, base = self._cluster, at // self._span * self._span
        for entry, group in groupby(table[(at - base) // size : -((base - end) // size)]):
            kind = self._kind(entry)
            if kind in (_HOLE, _ZERO):
                stop = min((at // size + sum(1 for _ in group)) * size, end)
                yield _Run(kind, at, stop, 0)
                at = stop
                continue
            for _ in group:
                stop = min((at // size + 1) * size, end)
                yield _Run(kind, at, stop, entry if kind == _DEFLATED else (entry & _OFFSET) + at % size)
                at = stop

    def _kind(self, entry: int) -> int:
        if entry & _COMPRESSED:
            return _DEFLATED
        if entry & _ZERO_FLAG:
            if self._header.version < 3:
                self._refuse("it has a zero cluster, which version 2 does not know")
            return _ZERO
        host = entry & _OFFSET
        if host % self._cluster:
            self._refuse(f"a cluster lies at {host}, which is no multiple of the cluster size")
        return _DATA if host else _HOLE

    def _table(self, offset: int) -> array[int]:
        """Return the L2 table at `offset`, from the tables kept or from the file."""
        with self._lock:
            if (table := self._tables.get(offset)) is not None:
                self._tables.move_to_end(offset)
                return table
        if offset % self._cluster or offset + self._cluster > self._file.size:
            self._refuse(f"an L2 table at {offset} does not lie within the file")
        table = _big_endian(self._file.read(self._cluster, offset))
        with self._lock:
            self._tables[offset] = table
            while len(self._tables) * self._cluster > _TABLES:
                self._tables.popitem(last=False)
        return table

    def _read(self, run: _Run) -> bytes:
        length = run.end - run.start
        if run.kind == _HOLE and self._backing is not None:
            return self._backing.pread(length, run.start)
        if run.kind in (_HOLE, _ZERO):
            return bytes(length)
        if run.kind == _DEFLATED:
            if length == self._cluster:
                return self._inflate(run.host)
            skip = run.start % self._cluster
            return self._inflate_once(run.host)[skip : skip + length]
        if run.host + length > self._file.size:
            self._refuse(f"the data at {run.host} lies beyond the end of the file")
        return self._file.read(length, run.host)

    def _inflate_once(self, entry: int) -> bytes:
        """Return a compressed cluster of which only a part is wanted: the next part will be wanted soon."""
        with self._lock:
            if (data := self._inflated.get(entry)) is not None:
                self._inflated.move_to_end(entry)
                return data
        data = self._inflate(entry)
        with self._lock:
            self._inflated[entry] = data
            while len(self._inflated) * self._cluster > _INFLATED:
                self._inflated.popitem(last=False)
        return data

    def _inflate(self, entry: int) -> bytes:
        """Return the cluster of which a compressed L2 entry tells the place (to the byte) and length (in sectors)."""
        bits = 62 - (self._header.cluster_bits - 8)
        host = entry & ((1 << bits) - 1)
        sectors = (entry >> bits & ((1 << (62 - bits)) - 1)) + 1
        if host >= self._file.size:
            self._refuse(f"the compressed data at {host} lies beyond the end of the file")
        packed = self._file.read(sectors * 512 - host % 512, host)
        try:
            data = self._unzstd(packed) if self._header.compression == ZSTD else self._unzip(packed)
        except (_INFLATE_ERROR, zstandard.ZstdError) as error:
            self._refuse(f"the compressed data at {host} cannot be read ({error})")
        if len(data) != self._cluster:
            self._refuse(f"the compressed data at {host} holds {len(data)} bytes where a cluster has {self._cluster}")
        return data

    def _unzip(self, packed: bytes) -> bytes:
        data: bytes = isal_zlib.decompressobj(_WINDOW_BITS).decompress(packed, self._cluster)
        return data

    def _unzstd(self, packed: bytes) -> bytes:
        # A frame may claim any size, which the library would set aside at once.
        if zstandard.frame_content_size(packed) > self._cluster:
            return b""
        unpacker = getattr(self._thread, "zstd", None)
        if unpacker is None:
            unpacker = self._thread.zstd = zstandard.ZstdDecompressor()
        return bytes(unpacker.decompress(packed, max_output_size=self._cluster, allow_extra_data=True))


def _joined(runs: Iterator[_Run]) -> Iterator[_Run]:
    """Yield runs with those made one that one read can serve."""
    last: _Run | None = None
    for run in runs:
        if last is None:
            last = run
        elif run.kind == last.kind != _DEFLATED and run.host in (0, last.host + last.end - last.start):
            last = last._replace(end=run.end)
        else:
            yield last
            last = run
    if last is not None:
        yield last


def _big_endian(data: bytes) -> array[int]:
    table = array("Q", data)
    if sys.byteorder == "little":
        table.byteswap()
    return table
