"""A rate limit that many threads share, and that gives way when the cloud says we are too fast."""

from __future__ import annotations

import time
from collections.abc import Callable

from builder import pool

_CATCH_UP = 0.05  # seconds of unused rate that may be used at once: a thread wakes up late by about a millisecond
_EASE = 0.7  # by how much the rate falls when the cloud throttles
_CALM = 1.0  # seconds in which further throttling is the echo of what was sent before the fall
_RECOVERY = 0.05  # of the full rate, regained each second
_SLOWEST = 0.02  # of the full rate


class Pacer:
    """Lets at most `rate` calls a second pass; safe to use from several threads at once."""

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._full = self._rate = rate
        self._clock, self._sleep = clock, sleep
        self._lock = pool.Lock()
        self._next = self._changed = clock()
        self._fell = float("-inf")

    @property
    def rate(self) -> float:
        """The calls a second that may pass now."""
        return self._rate

    def wait(self) -> None:
        """Return when the next call may be made."""
        with self._lock:
            now = self._clock()
            if self._rate < self._full:
                self._rate = min(self._full, self._rate + (now - self._changed) * self._full * _RECOVERY)
            self._changed = now
            slot = max(self._next, now - _CATCH_UP)
            self._next = slot + 1 / self._rate
        if slot > now:
            self._sleep(slot - now)

    def throttled(self) -> None:
        """Slow down: the cloud has just refused a call as one too many."""
        with self._lock:
            now = self._clock()
            if now - self._fell >= _CALM:
                self._fell = self._changed = now
                self._rate = max(self._rate * _EASE, self._full * _SLOWEST)
