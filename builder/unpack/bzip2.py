"""bz2 on several cores, by libbz2 from Python's own library.

Not by rapidgzip, which is half as fast again: it takes a file for whole whose block is damaged at its first bits, and
random damage made it abort the process (tests/builder/unpack/test_mutations.py found both). libbz2 has neither fault.

The format: a stream is `BZh`, a level, blocks (48-bit magic, 32-bit CRC, data) that begin at any bit, and an end
(48-bit magic, 32-bit CRC over the blocks' CRCs) padded to a byte. Blocks do not say how long they are, so the magics
are looked for, as lbzip2 does; each block is then decoded as a stream of its own. Where the magic's bits stand inside
a block by chance (in one of 17 000 files of a gigabyte), the block fails its CRC, and is tried again up to the next.
"""

from __future__ import annotations

import bz2
import mmap
import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builder import pool
from builder.errors import ArchiveRefused

_BLOCK, _END = 0x314159265359, 0x177245385090
_WINDOW = 1 << 20  # bytes searched at once
_TRIES = 3  # magics up to which a block is tried
# A block of 900 000 bytes may decode to 46 MB, since runs are counted before it is cut: zeros do.
_HELD = 3
_HINT = "Download it again; if the publisher's own file is damaged, tell them."
_NOT_ZERO = re.compile(rb"[^\0]")


@dataclass(frozen=True)
class Mark:
    """A magic at bit `offset`: a block's, or a stream's end; and where the following ones are."""

    offset: int
    is_end: bool
    following: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Decoded:
    mark: Mark
    crc: int
    data: bytes | None = None  # None: it cannot be decoded
    magics: int = 1  # how many marks it reached over


class ParallelBzip2:
    """A Decoder for bz2 streams, one after the other, with zeros allowed between and after them."""

    def __init__(self, data: mmap.mmap, found: Iterable[Mark], name: str, *, workers: int) -> None:
        """Decode `data`, in which these magics were found; close() closes it."""
        self._name = name
        self._data = data
        self._decoded = pool.in_order(self._decode, _with_following(found), workers=workers, ahead=min(workers, _HELD))
        self._current = b""
        self._position = 0
        self._combined = 0  # the stream's CRC so far
        self._expected: int | None = 32  # the bit where the next mark must be, when that is known
        self.consumed = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, b'' at the end. Raises ArchiveRefused."""
        while self._position == len(self._current):
            following = self._next_block()
            if following is None:
                return b""
            self._current, self._position = following, 0
        data = self._current[self._position : self._position + size]
        self._position += len(data)
        return data

    def close(self) -> None:
        """Stop the threads and release the file."""
        if isinstance(self._decoded, Generator):
            self._decoded.close()
        self._data.close()

    def _next_block(self) -> bytes | None:
        for found in self._decoded:
            if self._expected not in (None, found.mark.offset):
                raise self._damaged(f"no block at byte {(self._expected or 0) // 8}")
            self._expected = None
            self.consumed = found.mark.offset // 8
            if found.mark.is_end:
                self._finish_stream(found)
                continue
            if not found.mark.following:
                break
            if found.data is None:
                raise self._damaged(f"the block at byte {found.mark.offset // 8} does not have its CRC")
            for _ in range(found.magics - 1):  # they stand in this block by chance
                next(self._decoded)
            self._combined = ((self._combined << 1 | self._combined >> 31) & 0xFFFFFFFF) ^ found.crc
            return found.data
        if self._expected != len(self._data) * 8:
            raise ArchiveRefused(f"{self._name} is cut off: its bz2 data does not end", hint=_HINT)
        return None

    def _finish_stream(self, found: _Decoded) -> None:
        end = -(-(found.mark.offset + 80) // 8)
        if end > len(self._data):
            raise ArchiveRefused(f"{self._name} is cut off: its bz2 data does not end", hint=_HINT)
        if found.crc != self._combined:
            raise self._damaged("the stream's CRC differs")
        self._combined = 0
        more = _NOT_ZERO.search(self._data, end)
        if more and not re.match(rb"BZh[1-9]", self._data[more.start() : more.start() + 4]):
            raise ArchiveRefused(f"{self._name}: bytes that are no bz2 follow its end", hint=_HINT)
        self._expected = (more.start() + 4 if more else len(self._data)) * 8
        self.consumed = end if more else len(self._data)

    def _decode(self, mark: Mark) -> _Decoded:
        crc = _bits(self._data, mark.offset + 48, 32)
        if not mark.is_end:
            for magics, end in enumerate(mark.following, 1):
                if (data := _decode_block(self._data, mark.offset, end, crc)) is not None:
                    return _Decoded(mark, crc, data, magics)
        return _Decoded(mark, crc)

    def _damaged(self, why: str) -> ArchiveRefused:
        return ArchiveRefused(f"{self._name}: damaged bz2 data ({why})", hint=_HINT)


def open_bzip2(path: Path, name: str, *, workers: int) -> ParallelBzip2:
    """Return the decoder for the file at `path`, which is not empty; `name` is what messages call it."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return ParallelBzip2(data, marks(data), name, workers=workers)


def marks(data: mmap.mmap) -> Iterator[Mark]:
    """Yield every place where a magic's bits stand, ascending."""
    patterns = [(shift, magic, _pattern(magic, shift)) for magic in (_BLOCK, _END) for shift in range(8)]
    for start in range(0, len(data), _WINDOW):
        window = data[start : start + _WINDOW + 6]
        found = []
        for shift, magic, pattern in patterns:
            at = window.find(pattern)
            while at >= 0:
                offset = (start + at - (1 if shift else 0)) * 8 + shift
                if at < _WINDOW and offset >= 0 and _bits(data, offset, 48) == magic:
                    found.append((offset, magic == _END))
                at = window.find(pattern, at + 1)
        yield from (Mark(offset, is_end) for offset, is_end in sorted(found))


def _with_following(found: Iterable[Mark]) -> Iterator[Mark]:
    """Yield the marks, each with the offsets of the three after it."""
    line: deque[Mark] = deque()
    for mark in found:
        line.append(mark)
        if len(line) > _TRIES:
            first = line.popleft()
            yield Mark(first.offset, first.is_end, tuple(later.offset for later in line))
    while line:
        first = line.popleft()
        yield Mark(first.offset, first.is_end, tuple(later.offset for later in line))


def _pattern(magic: int, shift: int) -> bytes:
    """Return the whole bytes of a magic that begins `shift` bits into a byte."""
    return magic.to_bytes(6, "big") if shift == 0 else (magic << (8 - shift)).to_bytes(7, "big")[1:6]


def _decode_block(data: mmap.mmap, begin: int, end: int, crc: int) -> bytes | None:
    """Decode bits `begin` to `end` as the only block of a stream, whose CRC is then the block's own."""
    length = end - begin
    stream = (_bits(data, begin, length) << 80) | (_END << 32) | crc
    padding = -(length + 80) % 8
    body = (stream << padding).to_bytes((length + 80 + padding) // 8, "big")
    decoder = bz2.BZ2Decompressor()
    try:
        decoded = decoder.decompress(b"BZh9" + body)
    except (OSError, ValueError):
        return None
    return decoded if decoder.eof and not decoder.unused_data else None


def _bits(data: mmap.mmap, offset: int, count: int) -> int:
    begin, end = offset // 8, (offset + count + 7) // 8
    piece = data[begin:end].ljust(end - begin, b"\0")  # beyond the end: zeros, which fail whatever is checked
    return (int.from_bytes(piece, "big") >> (end * 8 - offset - count)) & ((1 << count) - 1)
