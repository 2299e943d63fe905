"""Waiting for a cloud to finish what it began: bounded, ever more patient, and never past a failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from builder.cloud.limits import limits
from builder.errors import CloudNotFound, CloudTrouble
from builder.progress import SILENT, Progress

Record = TypeVar("Record")

# Consecutive answers "does not exist" that end a wait. A describe lags behind its create (awslabs/coldsnap#43 saw
# minutes), so a resource that was never seen yet is given more time than one that was there and is gone.
_GONE = 3
_PATIENT = "`emi resume` goes on waiting, for what was begun; EMI_CLOUD_LIMITS=wait=7200 makes it more patient."


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long and how often to look; all in seconds. None is the limit of that name (limits.py)."""

    deadline: float | None = None
    first: float = 0.2
    longest: float = 15
    settle: float | None = None  # for a resource that no describe has shown yet


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
    patience = patience or Patience()
    deadline = limits().wait if patience.deadline is None else patience.deadline
    settle = limits().settle if patience.settle is None else patience.settle
    began, pause, missing, seen = time.monotonic(), patience.first, 0, False
    while True:
        record = describe()
        waited = time.monotonic() - began
        if record is not None:
            if ready(record):
                return record
            seen, missing = True, 0
        else:
            missing += 1
            if missing >= _GONE and (seen or waited >= settle):
                raise CloudNotFound(f"{what} {'is gone' if seen else 'does not exist'}, says the cloud")
        if waited >= deadline:
            raise CloudTrouble(f"{what} is not finished after {waited:.0f} s", hint=_PATIENT)
        progress.note(f"waiting for {what} ({waited:.0f} s, at most {deadline:.0f} s)")
        time.sleep(min(pause, max(0.01, deadline - waited)))
        pause = min(pause * 1.5, patience.longest)


def found_within(look: Callable[[], Record | None], *, until: float, what: str, progress: Progress) -> Record | None:
    """Return what `look` finds, as soon as it does, or None when `until` (as time.time() counts) has passed.

    For what a call may have made whose answer was lost, where only a describe can tell, and that lags: "absent" is not
    believed before then. Looks once at least.
    """
    pause = 0.2
    while True:
        found = look()
        left = until - time.time()
        if found is not None or left <= 0:
            return found
        progress.note(f"looking for {what}, whose answer was lost ({left:.0f} s more)")
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 5)


def left_by_a_kill(
    look: Callable[[], Record | None], *, intended: float | None, what: str, progress: Progress
) -> Record | None:
    """Return what an attempt that was killed has made, `intended` then (as time.time() counts; None: there was none).

    For calls without a client token: a describe that lags may show it as late as a settled one does.
    """
    if intended is None:
        return None
    until = intended + limits().settle
    return found_within(look, until=until, what=f"{what} of an attempt that was killed", progress=progress)
