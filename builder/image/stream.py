"""An image as a stream of data extents with a virtual size, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from builder.digest import BLOCK


@dataclass(frozen=True)
class Extent:
    """Bytes `offset` to `offset + length` of the virtual disk may hold data; what no extent covers reads as zeros."""

    offset: int
    length: int


class ImageReader(Protocol):
    """The bytes of one image. Safe to read from several threads at once; closed as a context manager."""

    @property
    def virtual_size(self) -> int:
        """The size of the disk that a guest would see, in bytes."""

    def extents(self) -> Iterator[Extent]:
        """Yield the data extents, ascending, not overlapping, merged where they touch; never reads a hole."""

    def pread(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes from `offset`; holes and bytes past the end read as zeros."""

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def data_blocks(reader: ImageReader, size: int = BLOCK) -> Iterator[int]:
    """Yield, ascending and once each, the index of every block of `size` bytes that an extent touches."""
    last = -1
    for extent in reader.extents():
        first = max(extent.offset // size, last + 1)
        end = -(-(extent.offset + extent.length) // size)
        yield from range(first, end)
        last = max(last, end - 1)
