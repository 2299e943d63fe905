"""Files that only one process fills, however the moments of two fall together."""

from __future__ import annotations

import fcntl
import os
import subprocess  # noqa: TID251 - a holder that can be killed
import sys

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


SCRATCH = """
import sys
from pathlib import Path
from builder import durable
with durable.scratch_in(Path(sys.argv[1]), ".emi-x-") as place:
    (place / "key").write_bytes(b"?")
    print(place.name, flush=True)
    sys.stdin.read()
"""


def test_a_directory_that_a_killed_process_left_goes_at_the_next_call_and_one_that_is_held_stays(tmp_path):
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SCRATCH, tmp_path], stdin=pipe, stdout=pipe, text=True) as other:
        held = tmp_path / other.stdout.readline().strip()
        foreign = tmp_path / ".emi-x-link"
        foreign.symlink_to(tmp_path)
        with durable.scratch_in(tmp_path, ".emi-x-") as place:
            assert (held / "key").exists()
            assert place.stat().st_mode & 0o777 == 0o700
        other.kill()
        other.wait()
        with durable.scratch_in(tmp_path, ".emi-x-") as place:
            assert set(tmp_path.iterdir()) == {place, foreign}
    assert set(tmp_path.iterdir()) == {foreign}


def test_a_directory_that_is_removed_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    lock, gone = fcntl.flock, []

    def after_another_removed_it(descriptor: int, how: int) -> None:
        if not gone:
            gone.extend(tmp_path.iterdir())
            gone[0].rmdir()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", after_another_removed_it)
    with durable.scratch_in(tmp_path, ".emi-x-") as place:
        assert place.is_dir()
        assert place != gone[0]
