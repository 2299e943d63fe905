"""Pieces of an image seen as one: read across their borders, sparse where they are."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from builder.errors import FormatRefused
from builder.image.joined import Joined
from builder.image.raw import RawReader
from builder.image.write import content_digest, write_sparse

MIB = 1 << 20


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pieces_read_as_they_lie_one_after_the_other(seed: int, make_disk: Callable[..., Path], tmp_path: Path) -> None:
    dice = random.Random(seed)
    path = make_disk(seed=seed)
    data = path.read_bytes()
    cuts = sorted(dice.sample(range(0, len(data), 512), 9))
    pieces = [(start, end - start) for start, end in pairwise(cuts)]
    dice.shuffle(pieces)
    expected = b"".join(data[offset : offset + size] for offset, size in pieces)
    with RawReader(path) as reader, Joined(reader, pieces) as joined:
        assert joined.virtual_size == len(expected)
        assert joined.pread(len(expected) + 100, 0) == expected + bytes(100)
        for _ in range(50):
            at, length = dice.randrange(len(expected)), dice.randrange(3 * MIB)
            assert joined.pread(length, at) == expected[at : at + length].ljust(length, b"\0")
        covered = bytearray(len(expected))
        for extent in joined.extents():
            covered[extent.offset : extent.offset + extent.length] = b"\1" * extent.length
        assert all(covered[at] for at in range(0, len(expected), 97) if expected[at])
        write_sparse(joined, tmp_path / "out.raw")
        digest = content_digest(joined)
    assert (tmp_path / "out.raw").read_bytes() == expected
    with RawReader(tmp_path / "out.raw") as written:
        assert content_digest(written) == digest


def test_a_piece_outside_the_image_is_refused(make_disk: Callable[..., Path]) -> None:
    with RawReader(make_disk(size=MIB)) as reader, pytest.raises(FormatRefused, match="do not lie within"):
        Joined(reader, [(0, 512), (MIB - 512, 1024)])
