"""Raw files and windows into any image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import FormatRefused, InputError
from builder.image.raw import RawReader, window
from builder.image.stream import Extent, data_blocks

MIB = 1 << 20


@pytest.fixture
def striped(tmp_path: Path) -> Path:
    """Data in MiB 1 and 5 of 8."""
    path = tmp_path / "striped.raw"
    with open(path, "wb") as disk:
        disk.truncate(8 * MIB)
        for number in (1, 5):
            disk.seek(number * MIB)
            disk.write(bytes([number]) * MIB)
    return path


def test_extents_are_what_is_no_hole(striped: Path) -> None:
    with RawReader(striped) as reader:
        assert list(reader.extents()) == [Extent(MIB, MIB), Extent(5 * MIB, MIB)]
        assert list(data_blocks(reader)) == [2, 3, 10, 11]


def test_bytes_past_the_end_are_zeros(striped: Path) -> None:
    with RawReader(striped) as reader:
        assert reader.pread(4, 6 * MIB - 2) == b"\5\5\0\0"
        assert reader.pread(4, 8 * MIB - 2) == bytes(4)
        assert reader.pread(4, 1 << 62) == bytes(4)


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [
        (0, 8 * MIB, [Extent(MIB, MIB), Extent(5 * MIB, MIB)]),
        (MIB, MIB, [Extent(0, MIB)]),
        (MIB + 512, 512, [Extent(0, 512)]),
        (MIB // 2, 5 * MIB, [Extent(MIB // 2, MIB), Extent(4 * MIB + MIB // 2, MIB // 2)]),
        (2 * MIB, 3 * MIB, []),
        (8 * MIB, 0, []),
    ],
)
def test_a_window_sees_its_range_only(striped: Path, offset: int, size: int, expected: list[Extent]) -> None:
    content = striped.read_bytes()
    with RawReader(striped) as reader, window(reader, offset, size) as part:
        assert part.virtual_size == size
        assert list(part.extents()) == expected
        assert part.pread(size + 10, 0) == content[offset : offset + size] + bytes(10)
        assert part.pread(10, size + 5) == bytes(10)


def test_a_window_in_a_window(striped: Path) -> None:
    with RawReader(striped) as reader:
        inner = window(window(reader, MIB, 6 * MIB), 4 * MIB, 512)
        assert list(inner.extents()) == [Extent(0, 512)]
        assert inner.pread(512, 0) == b"\5" * 512


@pytest.mark.parametrize(("offset", "size"), [(0, 8 * MIB + 1), (-1, 10), (8 * MIB, 1), (1 << 70, 1), (1, -1)])
def test_a_window_outside_the_image_is_refused(striped: Path, offset: int, size: int) -> None:
    with RawReader(striped) as reader, pytest.raises(FormatRefused, match="do not lie within the image"):
        window(reader, offset, size)


def test_closing_a_window_leaves_the_image_open(striped: Path, make_disk: Callable[..., Path]) -> None:
    with RawReader(striped) as reader:
        window(reader, 0, MIB).close()
        assert reader.pread(1, MIB) == b"\1"


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.raw cannot be read: No such file"):
        RawReader(tmp_path / "none.raw")
