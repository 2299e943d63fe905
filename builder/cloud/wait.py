"""Waiting for a cloud to finish what it began: bounded, ever more patient, and never past a failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from builder.errors import CloudNotFound, CloudTrouble
from builder.progress import SILENT, Progress

Record = TypeVar("Record")

# Consecutive answers "does not exist" that end a wait. A describe lags behind its create (awslabs/coldsnap#43 saw
# minutes), so a resource that was never seen yet is given more time than one that was there and is gone.
_GONE = 3


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long and how often to look; all in seconds."""

    deadline: float = 3600  # AWS finishes a sealed snapshot in minutes; a wait of hours is a fault worth showing
    first: float = 0.2
    longest: float = 15
    settle: float = 120  # for a resource that no describe has shown yet


def wait_until(
    describe: Callable[[], Record | None],
    ready: Callable[[Record], bool],
    *,
    what: str,
    patience: Patience | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Return the record once `ready` says so; `ready` raises when it never will be.

    Raises CloudNotFound when the resource stays or becomes absent, CloudTrouble when the deadline passes.
    """
    limits = patience or Patience()
    began, pause, missing, seen = time.monotonic(), limits.first, 0, False
    while True:
        record = describe()
        waited = time.monotonic() - began
        if record is not None:
            if ready(record):
                return record
            seen, missing = True, 0
        else:
            missing += 1
            if missing >= _GONE and (seen or waited >= limits.settle):
                raise CloudNotFound(f"{what} {'is gone' if seen else 'does not exist'}, says the cloud")
        if waited >= limits.deadline:
            raise CloudTrouble(f"{what} is not finished after {waited:.0f} s")
        progress.note(f"waiting for {what} ({waited:.0f} s)")
        time.sleep(pause)
        pause = min(pause * 1.5, limits.longest)
