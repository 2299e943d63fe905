"""What is left of killed appliances is removed, and what anybody may still use is not."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.guest import room


@pytest.fixture
def short(tmp_path_factory) -> Path:
    """A directory in which sockets have room for their names."""
    return tmp_path_factory.mktemp("s")


def bind(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    bound.listen()
    return bound


def dead(place: Path) -> None:
    bind(place / "guestfsd.sock").close()


def empty(place: Path) -> None:
    pass


def other_files(place: Path) -> None:
    dead(place)
    (place / "scratch1.img").write_bytes(b"")


def a_file_of_that_name(place: Path) -> None:
    (place / "guestfsd.sock").write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "fill", "old", "stays"),
    [
        ("libguestfsAbCd12", dead, True, False),
        ("libguestfsAbCd12", dead, False, True),
        ("libguestfsAbCd12", empty, True, True),
        ("libguestfsAbCd12", other_files, True, True),
        ("libguestfsAbCd12", a_file_of_that_name, True, True),
        ("libguestfs-mine", dead, True, True),
    ],
)
def test_only_old_directories_of_dead_sockets_go(name, fill: Callable[[Path], None], old, stays, short) -> None:
    place = short / name
    place.mkdir()
    fill(place)
    if old:
        os.utime(place, (0, 0))
    room.sweep(short)
    assert place.exists() is stays


def test_a_socket_that_somebody_has_stays(short) -> None:
    place = short / "libguestfsAbCd12"
    place.mkdir()
    with bind(place / "guestfsd.sock"), bind(place / "console.sock"):
        os.utime(place, (0, 0))
        room.sweep(short)
        assert len(list(place.iterdir())) == 2
    room.sweep(short)
    assert not place.exists()


def test_a_link_to_such_a_directory_stays(short) -> None:
    there, link = short / "there", short / "libguestfsAbCd12"
    there.mkdir()
    dead(there)
    os.utime(there, (0, 0))
    link.symlink_to(there)
    room.sweep(short)
    assert link.is_symlink()
    assert len(list(there.iterdir())) == 1


def test_where_it_lies(short) -> None:
    with room.room({"LIBGUESTFS_TMPDIR": str(short), "TMPDIR": "/nowhere"}) as place:
        assert place.parent == short
        bind(place / "libguestfsXXXXXX").close()
        assert room.told({"A": "b=c", "XDG_RUNTIME_DIR": "/run"}, place) == ["A=b=c", f"XDG_RUNTIME_DIR={place}"]
    assert not place.exists()


@pytest.mark.parametrize("length", [60, 61])
def test_a_path_that_is_too_long_for_a_socket_is_not_used(length, short) -> None:
    chosen = short / ("x" * (length - len(str(short)) - 1))
    chosen.mkdir()
    with room.room({"TMPDIR": str(chosen)}) as place:
        assert place.parent == (chosen if length == 60 else Path("/tmp"))
        (place / "libguestfsXXXXXX").mkdir()
        bind(place / "libguestfsXXXXXX" / "guestfsd.sock").close()


def test_the_next_one_removes_what_nobody_holds(short) -> None:
    (short / "emi-vm-left").mkdir()
    (short / "emi-vm-left" / "qmp").write_bytes(b"")
    with room.room({"TMPDIR": str(short)}) as held, room.room({"TMPDIR": str(short)}) as second:
        assert {held, second} == set(short.iterdir())


def test_no_place_for_it_is_told(short) -> None:
    with pytest.raises(UsageError, match="/nowhere cannot be written"), room.room({"TMPDIR": "/nowhere"}):
        pass
