"""The verbs on emi's own places, and locks that say whom they wait for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import BusyError
from pipelines import locks
from pipelines.store import FileStore


def sealed(emi, tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"the bytes it is named by")
    store = FileStore(emi.home / "store" / "objects")
    return store.path(store.seal_file(path, name="file"))


def test_a_whole_store_is_said_to_be_whole(emi, tmp_path) -> None:
    sealed(emi, tmp_path)
    done = emi("store", "verify")
    assert (done.code, done.out.splitlines()[-1]) == (0, "every one holds the bytes it is named by")


@pytest.mark.parametrize("damage", [b"the bytes it is NAMED by", b"the bytes", b""])
def test_a_damaged_file_is_found_removed_and_said(emi, tmp_path, damage) -> None:
    path = sealed(emi, tmp_path)
    path.chmod(0o644)
    path.write_bytes(damage)
    done = emi("store", "verify")
    assert done.code == 3
    assert f"damaged, removed: {path}" in done.out
    assert not path.exists()
    assert emi("store", "verify").code == 0


def test_a_sparse_disk_is_verified_by_its_content(emi, tmp_path) -> None:
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.write(b"data")
        file.truncate(1 << 30)
    store = FileStore(emi.home / "store" / "objects")
    path = store.path(store.seal_image(disk, format="raw", virtual_size=1 << 30))
    assert emi("store", "verify").code == 0
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(512 << 20)
        file.write(b"x")
    assert emi("store", "verify").code == 3


def test_a_lock_refuses_or_says_whom_it_waits_for(tmp_path) -> None:
    said: list[str] = []
    path = tmp_path / "lock"

    def let_go(text: str) -> None:
        said.append(text)
        first.__exit__(None, None, None)

    first = locks.hold(path, what="the thing", wait=False)
    first.__enter__()("run-1")
    with pytest.raises(BusyError, match=r"^the thing is in use by run run-1 \(process \d+ on "):
        locks.hold(path, what="the thing", wait=False).__enter__()
    with locks.hold(path, what="the thing", wait=True, tell=let_go):
        assert len(said) == 1
        assert said[0].startswith("waiting: the thing is in use by run run-1")


def test_the_sandbox_starts_once_says_where_it_is_and_stops(emi) -> None:
    assert "is not running" in emi("sandbox", "status").out
    first, second = emi("sandbox", "start").out, emi("sandbox", "start").out
    assert first == second
    assert "http://127.0.0.1:" in first
    assert "0 images, 0 snapshots" in emi("sandbox", "status").out
    assert emi("sandbox", "stop").out == "The sandbox is stopped.\n"
    assert emi("sandbox", "stop").out == "The sandbox was not running.\n"


def test_a_recipe_that_could_not_be_read_again_is_refused(emi, tmp_path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for verb in ("run", "plan"):
        done = emi(verb, pipe, timeout=30)
        assert (done.code, "is no regular file" in done.err) == (2, True), done.err
