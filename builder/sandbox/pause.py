"""Holding calls back for a while, so that the state can be copied as it stands between two of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from builder import pool


class Pause:
    """Every call passes through here; whoever holds the pause has the state for itself for as long as its lease."""

    def __init__(self) -> None:
        self._changed = pool.Condition()
        self._busy = 0
        self._holder = ""
        self._until = 0.0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Wait while somebody holds the pause, then count as a call in progress inside the block."""
        with self._changed:
            while (left := self._until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                if self._holder and not self._busy:
                    self._changed.notify_all()

    def hold(self, holder: str, seconds: float) -> bool:
        """Hold new calls back for so many seconds and wait for those in progress; say whether that came about.

        It fails, and holds nothing back, when another holds the pause or calls in progress take longer than the lease.
        """
        with self._changed:
            if self._holder not in ("", holder) and self._until > time.monotonic():
                return False
            self._holder, self._until = holder, time.monotonic() + seconds
            if not self._changed.wait_for(lambda: not self._busy, seconds):
                self._release()
                return False
            self._until = time.monotonic() + seconds
            return True

    def renew(self, holder: str, seconds: float) -> bool:
        """Make the lease last so many seconds from now; say whether it was held without a gap until now."""
        with self._changed:
            if self._holder != holder or self._until <= time.monotonic():
                return False
            self._until = time.monotonic() + seconds
            if seconds <= 0:
                self._release()
            return True

    def _release(self) -> None:
        self._holder, self._until = "", 0.0
        self._changed.notify_all()
