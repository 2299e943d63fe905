"""Locks that die with their holder: flock on a file that says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from builder.errors import BusyError


@contextmanager
def hold(
    path: Path, *, what: str, wait: bool, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Callable[[str], None]]:
    """Hold the lock at `path` inside the block; the kernel drops it when the process dies, however it dies.

    When another holds it: `tell` whom we wait for and wait for as long as it takes, or raise BusyError that names the
    holder (process, host, run, since when). `what` says to people what is locked. The block gets a function to sign
    with a run's id; the file stays, its content is only ever informative.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        _take(file, what=what, wait=wait, tell=tell)
        _sign(file, "(starting)")
        try:
            yield lambda run: _sign(file, run)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _take(file: IO[str], *, what: str, wait: bool, tell: Callable[[str], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = f"{what} is in use by {holder(Path(file.name))}"
        if not wait:
            raise BusyError(said) from None
        tell(f"waiting: {said}")
        fcntl.flock(file, fcntl.LOCK_EX)


def _sign(file: IO[str], run: str) -> None:
    file.seek(0)
    file.truncate()
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "run": run, "since": int(time.time())}, file)
    file.flush()


def is_held(path: Path) -> bool:
    """Say whether the process that signed the lock last may still be alive; takes no lock, so it is in nobody's way.

    A holder signs before it does anything. A reused process id or another host says yes; a dead process never does.
    """
    try:
        signed = json.loads(path.read_text(encoding="utf-8"))
        return signed["host"] != socket.gethostname() or Path(f"/proc/{signed['pid']}").exists()
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError):
        return True  # it is signing at this moment


def is_taken(path: Path) -> bool:
    """Say whether a process holds the lock at this moment, whoever signed it.

    One that is free is held for an instant, so ask only where somebody may hold it, by `is_held`.
    """
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def holder(path: Path) -> str:
    """Say in words who signed the lock last."""
    try:
        signed = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M:%S", time.localtime(signed["since"]))
        return f"run {signed['run']} (process {signed['pid']} on {signed['host']}, since {since})"
    except (OSError, ValueError, KeyError):
        return "another process"
