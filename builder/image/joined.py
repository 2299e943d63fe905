"""Pieces of an image, one after the other, seen as an image of their own: a logical volume."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Self

from builder.image.raw import Window
from builder.image.spans import merged
from builder.image.stream import Extent, ImageReader


class Joined:
    """The pieces (offset, size) of another image in this order; that image stays the caller's to close.

    Raises FormatRefused when a piece does not lie within it.
    """

    def __init__(self, reader: ImageReader, pieces: Sequence[tuple[int, int]]) -> None:
        self._windows = [Window(reader, offset, size) for offset, size in pieces]
        self._starts = [0, *accumulate(size for _, size in pieces)]
        self.virtual_size = self._starts.pop()

    def extents(self) -> Iterator[Extent]:
        """Yield the pieces' data extents."""
        return merged(
            Extent(start + extent.offset, extent.length)
            for start, window in zip(self._starts, self._windows, strict=True)
            for extent in window.extents()
        )

    def pread(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes from `offset`, zeros past the end."""
        parts = []
        at, end = offset, min(offset + length, self.virtual_size)
        while at < end:
            index = bisect_right(self._starts, at) - 1
            window, skip = self._windows[index], at - self._starts[index]
            parts.append(window.pread(min(end - at, window.virtual_size - skip), skip))
            at += len(parts[-1])
        return b"".join(parts).ljust(length, b"\0")

    def close(self) -> None:
        """Do nothing: the other image is not ours."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
