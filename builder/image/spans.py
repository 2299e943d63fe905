"""Arithmetic on ascending streams of extents, in memory that does not grow with the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from builder.image.stream import Extent


def merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Yield ascending extents with those that touch made one."""
    start = end = 0
    for extent in extents:
        if extent.offset != end and end > start:
            yield Extent(start, end - start)
        if extent.offset != end or end == start:
            start = extent.offset
        end = extent.offset + extent.length
    if end > start:
        yield Extent(start, end - start)


class Clipper:
    """Hands out, for ascending ranges, what an ascending stream of extents has in each."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        self._source = iter(extents)
        self._current: Extent | None = next(self._source, None)

    def within(self, start: int, end: int) -> Iterator[Extent]:
        """Yield the parts of the stream in `start` to `end`, which must not lie before the last range asked for."""
        while (extent := self._current) is not None and extent.offset < end:
            stop = extent.offset + extent.length
            first, last = max(start, extent.offset), min(end, stop)
            if first < last:
                yield Extent(first, last - first)
            if stop > end:
                return
            self._current = next(self._source, None)


def pieces(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """Yield ascending extents cut at every multiple of `size`."""
    for extent in extents:
        at, end = extent.offset, extent.offset + extent.length
        while at < end:
            stop = min(end, (at // size + 1) * size)
            yield Extent(at, stop - at)
            at = stop
