"""Extent arithmetic, against the same done byte by byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from builder.image.spans import Clipper, merged, pieces
from builder.image.stream import Extent

SIZE = 200
marks = st.sets(st.integers(0, SIZE - 1))
cuts = st.lists(st.integers(0, SIZE), max_size=6).map(lambda found: sorted({0, SIZE, *found}))


def extents(covered: set[int], at: list[int] | None = None) -> list[Extent]:
    """The runs of `covered`, cut at every position in `at`."""
    found: list[Extent] = []
    for offset in sorted(covered):
        last = found[-1] if found else None
        if last and last.offset + last.length == offset and offset not in (at or ()):
            found[-1] = Extent(last.offset, last.length + 1)
        else:
            found.append(Extent(offset, 1))
    return found


@given(marks, cuts)
def test_merged_joins_exactly_what_touches(covered: set[int], at: list[int]) -> None:
    assert list(merged(extents(covered, at))) == extents(covered)


@given(marks, cuts)
def test_a_clipper_hands_out_what_lies_in_each_range(covered: set[int], at: list[int]) -> None:
    clipper = Clipper(extents(covered))
    for start, end in zip(at[::2], at[1::2], strict=False):
        assert list(clipper.within(start, end)) == extents({mark for mark in covered if start <= mark < end})


@given(marks, st.integers(1, 50))
def test_pieces_are_cut_at_every_multiple(covered: set[int], size: int) -> None:
    assert list(pieces(extents(covered), size)) == extents(covered, list(range(0, SIZE, size)))
