"""Files that only one process fills, however the moments of two fall together."""

from __future__ import annotations

import fcntl
import os

import pytest

from builder import durable


def test_a_file_that_is_filled_has_one_holder_at_a_time(tmp_path):
    aside = tmp_path / ".image.unbundling"
    first = durable.take_aside(aside)
    with pytest.raises(BlockingIOError):
        durable.take_aside(aside)
    os.close(first)
    second = durable.take_aside(aside)
    os.close(second)
    aside.unlink()
    aside.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        durable.take_aside(aside)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_gets_its_name_before_it_is_locked_is_left_to_whoever_named_it(tmp_path, monkeypatch):
    aside, image = tmp_path / ".image.unbundling", tmp_path / "image"
    aside.write_bytes(b"verified")
    lock = fcntl.flock

    def after_the_other_is_done(descriptor: int, how: int) -> None:
        if not image.exists():
            aside.rename(image)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", after_the_other_is_done)
    taken = durable.take_aside(aside)
    os.ftruncate(taken, 0)
    os.close(taken)
    assert image.read_bytes() == b"verified"
    assert aside.read_bytes() == b""
