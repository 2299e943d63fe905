"""The one regular file of a bundle's tar stream, whatever it is called, sparse or not; and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from builder.bundle import tar_sparse
from builder.bundle.tar_header import (
    BLOCK,
    DAMAGED,
    LONG_NAMES,
    OLD_GNU_SPARSE,
    PAX,
    PAX_GLOBAL,
    Header,
    parse,
    pax_records,
    require_regular,
)
from builder.errors import BundleRefused

_ZERO = bytes(BLOCK)
_LONGEST_NAME = 64 * 1024  # bytes
_LONGEST_PAX = 2 << 20  # bytes in all; the sparse map of some 80 000 ranges in format 0.1
_MOST_HEADERS = 16  # before the file's own
# tar fills its last record with zeros: 10 KiB, or what --blocking-factor says.
_LONGEST_END = 1 << 20


class Sink(Protocol):
    """Takes the image's bytes."""

    def write(self, offset: int, data: bytes, begin: int, end: int) -> None:
        """Have `data[begin:end]` stand at `offset` of the image."""


def untar(chunks: Iterable[bytes], size: int, sink: Sink) -> None:
    """Give the image of `size` bytes inside a tar stream to `sink`, ranges ascending; read the stream to its end.

    Raises BundleRefused for another size, for anything but one regular file, and for damage.
    """
    stream = _Stream(chunks)
    header, records = _file_header(stream)
    ranges, stored = _layout(header, records, size, stream)
    for offset, length in ranges:
        at = offset
        for data, begin, end in stream.runs(length):
            sink.write(at, data, begin, end)
            at += end - begin
    if stream.take(-stored % BLOCK).strip(b"\0"):
        raise BundleRefused("the tar stream holds bytes between the image's end and its block's end", hint=DAMAGED)
    _require_end(stream)


def _file_header(stream: _Stream) -> tuple[Header, list[tuple[str, bytes]]]:
    """Return the first header that is a file's own, and the pax records before it."""
    records: list[tuple[str, bytes]] = []
    left = _LONGEST_PAX
    for _ in range(_MOST_HEADERS):
        block = stream.take(BLOCK)
        if block == _ZERO:
            raise BundleRefused("the tar stream holds no file", hint=DAMAGED)
        header = parse(block)
        if header.type in (PAX, PAX_GLOBAL):
            records += pax_records(_content(stream, header, left))
            left -= header.size
        elif header.type in LONG_NAMES:
            _content(stream, header, _LONGEST_NAME)
        else:
            require_regular(header)
            return header, records
    raise BundleRefused(f"the tar stream has more than {_MOST_HEADERS} headers before a file", hint=DAMAGED)


def _content(stream: _Stream, header: Header, most: int) -> bytes:
    if header.size > most:
        raise BundleRefused(f"the tar stream has a header of {header.size} bytes, {most} are the most", hint=DAMAGED)
    content = stream.take(header.size)
    stream.take(-header.size % BLOCK)
    return content


def _layout(
    header: Header, records: list[tuple[str, bytes]], size: int, stream: _Stream
) -> tuple[Iterable[tuple[int, int]], int]:
    """Return the ranges that the member's content is for, and how many bytes of content are left in the stream."""
    known = dict(records)
    stored = tar_sparse.decimal(known["size"]) if "size" in known else header.size
    said = known.get("GNU.sparse.realsize", known.get("GNU.sparse.size"))
    if header.type == OLD_GNU_SPARSE:
        _require_size(tar_sparse.old_gnu_size(header), size)
        found = tar_sparse.old_gnu(header, size, stream.block)
    elif said is None:
        _require_size(stored, size)
        return [(0, size)], stored
    else:
        _require_size(tar_sparse.decimal(said), size)
        if "GNU.sparse.major" in known:
            found, used = tar_sparse.from_lines(size, stream.block)
            if used > stored:
                raise BundleRefused(f"the sparse map has {used} bytes, its member {stored}", hint=DAMAGED)
            stored -= used
        else:
            listed = tar_sparse.from_records(records, size)
            if listed is None:
                raise BundleRefused("the tar stream says that its file is sparse and has no map of it", hint=DAMAGED)
            found = listed
    if found.stored != stored:
        raise BundleRefused(f"the sparse map has {found.stored} bytes, the tar stream stores {stored}", hint=DAMAGED)
    return found, stored


def _require_size(found: int, size: int) -> None:
    if found != size:
        raise BundleRefused(
            f"the tar stream holds an image of {found} bytes, the manifest says {size}",
            hint="The manifest was altered or is another bundle's: get it again from where the bundle comes from.",
        )


def _require_end(stream: _Stream) -> None:
    """Read the stream to its end, which is two blocks of zeros or more. Raises BundleRefused for anything else."""
    length = 0
    while block := stream.take(BLOCK, short=True):
        if block != _ZERO[: len(block)]:
            raise _surplus(block, after_end=bool(length))
        length += len(block)
        if length > _LONGEST_END:
            raise BundleRefused(f"more than {_LONGEST_END} bytes of zeros follow the tar stream's end", hint=DAMAGED)
    if length < 2 * BLOCK:
        raise BundleRefused("the tar stream is cut off: it ends without its two blocks of zeros", hint=DAMAGED)


def _surplus(block: bytes, *, after_end: bool) -> BundleRefused:
    where = "the tar stream's end" if after_end else "the image in the tar stream"
    try:
        second = parse(block)
    except BundleRefused:
        return BundleRefused(f"bytes that are no tar follow {where}", hint=DAMAGED)
    return BundleRefused(
        f"a second member, {second.name!r}, follows {where}",
        hint="A bundle holds one regular file. Do not use this one.",
    )


class _Stream:
    """The chunks as a stream of blocks and runs; no chunk is copied."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk, self._at = b"", 0
        self._position = 0

    def take(self, count: int, *, short: bool = False) -> bytes:
        """Return the next bytes. Raises BundleRefused when there are fewer, unless they may be `short`."""
        return b"".join(data[begin:end] for data, begin, end in self.runs(count, short=short))

    def block(self) -> bytes:
        """Return the next block."""
        return self.take(BLOCK)

    def runs(self, count: int, *, short: bool = False) -> Iterator[tuple[bytes, int, int]]:
        """Yield the next `count` bytes as places in chunks: the chunk, where they begin in it, where they end."""
        while count:
            if self._at == len(self._chunk):
                following = next(self._chunks, None)
                if following is None:
                    break
                self._chunk, self._at = following, 0
            begin, end = self._at, min(len(self._chunk), self._at + count)
            self._at = end
            count -= end - begin
            self._position += end - begin
            yield self._chunk, begin, end
        if count and not short:
            raise BundleRefused(
                f"the tar stream is cut off after {self._position} bytes, {count} more should follow", hint=DAMAGED
            )
