"""Work that goes on after its call was answered.

What is to be done is written in records alone (an unsealed snapshot that was taken of a volume, a volume that is not
ready, an import task without an end): nothing here has to survive a crash. The work moves bytes, and its last step is
the transaction that makes the record whole: the commit point. A server that starts begins all work anew whose record is
not whole, so work must bear being begun again over what an earlier attempt left.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from builder import pool
from builder.sandbox.sparse import Report

log = logging.getLogger(__name__)
_AT_ONCE = 2  # more would only share the same disk and the same cores

Work = Callable[[Report], None]


class Stopped(Exception):
    """Nobody wants the result any more."""


class Jobs:
    """The work under way and waiting, each piece by the id of the resource that it makes."""

    def __init__(self) -> None:
        self._lock = pool.Lock()
        self._waiting: deque[tuple[str, Work]] = deque()
        self._percent: dict[str, int] = {}  # of everything waiting or under way
        self._stopped: set[str] = set()
        self._threads = 0

    def begin(self, key: str, work: Work) -> None:
        """Have `work(report)` called in the background, unless that is so already; return at once.

        `report(done, total)` is to be called in between and raises Stopped after `stop`. What `work` raises beside that
        is logged: it must write its failure into its record itself.
        """
        with self._lock:
            if key in self._percent:
                return
            self._percent[key] = 0
            self._waiting.append((key, work))
            if self._threads < _AT_ONCE:
                self._threads += 1
                pool.Background(self._serve)

    def stop(self, key: str) -> None:
        """Let the work of that key end at its next report; fine when there is none."""
        with self._lock:
            if key in self._percent:
                self._stopped.add(key)

    def percent(self, key: str) -> int | None:
        """Return how far the work is, in percent, or None when there is none of that key."""
        return self._percent.get(key)

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                key, work = self._waiting.popleft()
            try:
                self._perform(key, work)
            finally:
                with self._lock:
                    del self._percent[key]
                    self._stopped.discard(key)

    def _perform(self, key: str, work: Work) -> None:
        def report(done: int, total: int) -> None:
            if key in self._stopped:
                raise Stopped
            self._percent[key] = 100 * done // total if total else 100

        try:
            report(0, 1)
            work(report)
        except Stopped:
            log.info("%s: stopped", key)
        except Exception:
            log.exception("%s: failed", key)
