"""The console's file keeps the end of what is said, and does not grow."""

from __future__ import annotations

import os
import shutil

import pytest

from builder.sandbox.machines.console import Console, tail


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 5000, 300_000, 700_001])
def test_the_end_is_kept(tmp_path, size):
    console = Console(tmp_path / "console", 1000)
    said = bytes(at * 7 % 251 for at in range(size))
    for at in range(0, size, 65_536):
        os.write(console.writer, said[at : at + 65_536])
    console.handed_over()
    console.finish()
    assert console.tail() == said[-1000:]
    assert tail(tmp_path / "console", 10) == said[-10:]
    assert (tmp_path / "console").stat().st_size <= 4 * 1000 + 65_536
    console.handed_over()


def test_what_came_since_a_position_is_told(tmp_path):
    console = Console(tmp_path / "console", 1000)
    os.write(console.writer, b"early")
    while console.since(0, 512) != (5, b"early"):
        pass
    assert console.since(5, 512) == (5, b"")
    os.write(console.writer, b" and late")
    console.handed_over()
    console.finish()
    assert console.since(5, 512) == (14, b" and late")
    assert console.since(5, 4) == (14, b"late")


def test_a_new_console_begins_empty_and_one_whose_directory_is_gone_is_empty(tmp_path):
    place = tmp_path / "machine"
    place.mkdir()
    (place / "console").write_bytes(b"of an earlier life")
    console = Console(place / "console")
    assert console.tail() == b""
    shutil.rmtree(place)
    os.write(console.writer, b"to nobody")
    console.handed_over()
    console.finish()
    assert console.tail() == b""
