"""The one door to threads: work is handed out, results come back to the caller, and an error stops the rest."""

from __future__ import annotations

import threading  # noqa: TID251 - this is the door
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait  # noqa: TID251 - this is the door
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int | None = None
) -> Iterator[Result]:
    """Yield `work(item)` for every item, in any order, from `workers` threads.

    At most `ahead` items (default: twice the workers) are taken from `items` before their results are consumed, so
    memory does not grow with the input. The first exception stops the taking of items, lets what is in flight finish
    and is raised to the caller; so is a KeyboardInterrupt.
    """
    limit = ahead or 2 * workers
    source = iter(items)
    with ThreadPoolExecutor(workers) as threads:
        waiting: set[Future[Result]] = set()
        try:
            for item in source:
                waiting.add(threads.submit(work, item))
                if len(waiting) >= limit:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in waiting:
                future.cancel()


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int | None = None
) -> Iterator[Result]:
    """Yield `work(item)` for every item, in the order of `items`; otherwise as `each`."""
    limit = ahead or 2 * workers
    with ThreadPoolExecutor(workers) as threads:
        line: deque[Future[Result]] = deque()
        try:
            for item in items:
                line.append(threads.submit(work, item))
                if len(line) >= limit:
                    yield line.popleft().result()
            while line:
                yield line.popleft().result()
        finally:
            for future in line:
                future.cancel()


class Background(Generic[Result]):
    """One call running beside us; `result()` waits for it and raises what it raised."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._future: Future[Result] = Future()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller of result(), whatever it is
            self._future.set_exception(error)

    def result(self, timeout: float | None = None) -> Result:
        """Wait up to `timeout` seconds (None: as long as it takes) and return what the call returned."""
        return self._future.result(timeout)


# Locks and per-thread values are handed out here, so that nobody else needs the threading module.
Lock = threading.Lock
Condition = threading.Condition
Local = threading.local
