"""Extends a helper's time for as long as this process works with it, in a thread of its own.

The thread ends with the process, by whatever; then nobody extends the time, and the helper ends itself.
"""

from __future__ import annotations

import time

from builder import pool
from builder.cloud.helper import extend
from builder.errors import EmiError
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote

_TRY = 20.0  # seconds for one attempt to log in
_KEPT: dict[str, Keeper] = {}  # by instance id


class Keeper:
    """Extends one helper's time now and then, until `stop`. What fails is tried again: the helper may be busy."""

    def __init__(self, login: Login, seconds: int) -> None:
        self._login, self._seconds = login, seconds
        self._stopped = False
        self._thread = pool.Background(self._serve)

    def stop(self) -> None:
        """Extend it no more; returns at once."""
        self._stopped = True

    def _serve(self) -> None:
        due = 0.0
        while not self._stopped:
            if time.monotonic() >= due:
                self._extend()
                due = time.monotonic() + self._seconds / 4
            time.sleep(0.5)

    def _extend(self) -> None:
        try:
            with Remote(self._login, patience=_TRY) as remote:
                extend(Shell(remote), self._seconds)
        except EmiError:  # whoever works with it meets the same and tells it
            return


def keep(instance_id: str, login: Login, seconds: int) -> None:
    """Extend the helper's time by `seconds` from now on, again and again, until `let_go`."""
    let_go(instance_id)
    _KEPT[instance_id] = Keeper(login, seconds)


def let_go(instance_id: str) -> None:
    """Extend it no more; fine when nobody does."""
    if keeper := _KEPT.pop(instance_id, None):
        keeper.stop()
