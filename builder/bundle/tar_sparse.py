"""Which ranges of a sparse image its tar member holds: four ways of GNU tar to say so, held against its size.

`tar -S`, and with it ec2-ami-tools and euca2ools 2, write the old GNU map: 4 ranges in the header, 21 in each block
that follows it. With `--format=pax` GNU tar writes one of three others (its manual, "Storing Sparse Files"): 0.0 as
pairs of pax records, 0.1 as one record, 1.0 as decimal lines before the content.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from builder.bundle.tar_header import BLOCK, DAMAGED, Header, number
from builder.errors import BundleRefused

_ENTRY = 24  # offset and length, 12 bytes each
# Two arrays of 8 MiB. An image of 30 GiB whose ranges have 16 KiB each, with as much between them, has as many.
_MOST_RANGES = 1 << 20
_DIGITS = 20


class Map:
    """Ranges of an image of `size` bytes, ascending and not overlapping."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._offsets, self._lengths = array("Q"), array("Q")
        self._end = 0
        self._ended = False

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield each range's offset and length in bytes."""
        return zip(self._offsets, self._lengths, strict=True)

    @property
    def stored(self) -> int:
        """The bytes that the ranges have in all."""
        return sum(self._lengths)

    def add(self, offset: int, length: int) -> None:
        """Add a range. Raises BundleRefused for one that no map of this image can have."""
        what = f"the sparse map has {length} bytes at {offset}"
        if offset + length > self._size:
            raise BundleRefused(f"{what}, beyond the image's {self._size} bytes", hint=DAMAGED)
        if self._offsets and offset < self._offsets[-1]:
            raise BundleRefused(f"{what} after those at {self._offsets[-1]}: it is out of order", hint=DAMAGED)
        if offset < self._end:
            raise BundleRefused(f"{what}, which overlap those before, up to {self._end}", hint=DAMAGED)
        if self._ended:
            raise BundleRefused("the sparse map goes on after its end", hint=DAMAGED)
        if not length:  # the last entry says where the file ends
            self._ended = True
            return
        if len(self._offsets) == _MOST_RANGES:
            raise BundleRefused(f"the sparse map has more than {_MOST_RANGES} ranges", hint=DAMAGED)
        self._offsets.append(offset)
        self._lengths.append(length)
        self._end = offset + length


def old_gnu(header: Header, size: int, block: Callable[[], bytes]) -> Map:
    """Return the map of an old GNU sparse member; `block()` returns the archive's next block."""
    found = Map(size)
    _add_entries(found, header.block[386:482])
    more = header.block[482]
    while more:
        following = block()
        if not following[:_ENTRY].strip(b"\0"):
            raise BundleRefused("the sparse map goes on after its end", hint=DAMAGED)
        _add_entries(found, following[:504])
        more = following[504]
    return found


def old_gnu_size(header: Header) -> int:
    """Return the image's size that an old GNU sparse header gives."""
    return number(header.block[483:495], "the image's size")


def from_records(records: list[tuple[str, bytes]], size: int) -> Map | None:
    """Return the map of a member of sparse format 0.0 or 0.1, None when its records hold none."""
    found, offset, seen = Map(size), None, False
    for keyword, value in records:
        match keyword:
            case "GNU.sparse.map":
                numbers = [decimal(word) for word in value.split(b",") if value]
                if len(numbers) % 2:
                    raise BundleRefused("the sparse map ends with an offset without a length", hint=DAMAGED)
                for at in range(0, len(numbers), 2):
                    found.add(numbers[at], numbers[at + 1])
                return found
            case "GNU.sparse.offset":
                offset = decimal(value)
            case "GNU.sparse.numbytes":
                if offset is None:
                    raise BundleRefused("the sparse map has a length without an offset", hint=DAMAGED)
                found.add(offset, decimal(value))
                offset, seen = None, True
            case _:
                pass
    return found if seen or any(keyword == "GNU.sparse.numblocks" for keyword, _ in records) else None


def from_lines(size: int, block: Callable[[], bytes]) -> tuple[Map, int]:
    """Return the map that a member of sparse format 1.0 begins with, and how many bytes of the archive it takes."""
    found, text, blocks = Map(size), b"", 0

    def line() -> int:
        nonlocal text, blocks
        while b"\n" not in text:
            if len(text) > _DIGITS:
                raise BundleRefused("the sparse map is damaged: a line is no number", hint=DAMAGED)
            text += block()
            blocks += 1
        word, _, text = text.partition(b"\n")
        return decimal(word)

    for _ in range(line()):
        offset = line()
        found.add(offset, line())
    return found, blocks * BLOCK


def decimal(word: bytes) -> int:
    """Return the number of a decimal word. Raises BundleRefused."""
    if not word.isdigit() or len(word) > _DIGITS:
        raise BundleRefused(f"the sparse map is damaged: {word[:_DIGITS]!r} is no number", hint=DAMAGED)
    return int(word)


def _add_entries(found: Map, entries: bytes) -> None:
    for at in range(0, len(entries), _ENTRY):
        entry = entries[at : at + _ENTRY]
        if entry.strip(b"\0"):
            found.add(number(entry[:12], "a range's offset"), number(entry[12:], "a range's length"))
