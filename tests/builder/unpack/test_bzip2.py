"""Blocks of bz2 found by their magic, and magics that stand there by chance."""

import mmap

import pytest

from builder.errors import ArchiveRefused
from builder.unpack.bzip2 import Mark, ParallelBzip2, marks


@pytest.fixture
def data(packed):
    with open(packed["bz2"], "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def decode(data, found):
    decoder = ParallelBzip2(data, found, "x", workers=2)
    try:
        out = b""
        while piece := decoder.read(1 << 20):
            out += piece
        return out
    finally:
        decoder.close()


def test_every_block_is_found(data):
    found = list(marks(data))
    assert len(found) > 10
    assert found[0] == Mark(32, is_end=False)
    assert [mark.is_end for mark in found] == [False] * (len(found) - 1) + [True]
    assert -(-(found[-1].offset + 80) // 8) == len(data)


@pytest.mark.parametrize("chances", [1, 2])
@pytest.mark.parametrize("is_end", [False, True])
def test_a_magic_that_stands_in_a_block_by_chance_is_passed_over(chances, is_end, data, packed):
    found = list(marks(data))
    between = [Mark(found[3].offset + 1000 * (number + 1), is_end) for number in range(chances)]
    assert decode(data, [*found[:4], *between, *found[4:]]) == packed.image.read_bytes()


def test_too_many_of_them_are_damage(data):
    found = list(marks(data))
    between = [Mark(found[3].offset + 1000 * (number + 1), is_end=False) for number in range(3)]
    with pytest.raises(ArchiveRefused, match=r"the block at byte \d+ does not have its CRC"):
        decode(data, [*found[:4], *between, *found[4:]])


@pytest.mark.parametrize("missing", [1, 5, -2])
def test_a_block_that_is_not_found_is_missed(missing, data):
    found = list(marks(data))
    del found[missing]
    with pytest.raises(ArchiveRefused, match="does not have its CRC"):
        decode(data, found)


def test_a_file_that_does_not_begin_with_a_block_is_damaged(data):
    with pytest.raises(ArchiveRefused, match=r"^x: damaged bz2 data \(no block at byte 4\)$"):
        decode(data, list(marks(data))[1:])
