"""The one door to threads: work is handed out, results come back to the caller, and an error stops the rest."""

from __future__ import annotations

import threading  # noqa: TID251 - this is the door
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait  # noqa: TID251 - this is the door
from queue import SimpleQueue
from typing import Generic, Self, TypeVar

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
) -> Generator[Result, None, None]:
    """Yield `work(item)` for every item, in the order of `items`; otherwise as `each`.

    Closing the iterator stops the taking of items and waits for what is in flight.
    """
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


def drain(work: Callable[[Item], object], items: Iterable[Item], *, workers: int) -> None:
    """Call `work(item)` for every item, in any order, from `workers` threads that take the next item themselves.

    No item is taken before a thread is free for it, and nothing is kept of it: what `in_order` costs for each item to
    bring a result back is saved. The first exception stops the taking of items, lets what is in flight finish and is
    raised to the caller; so is a KeyboardInterrupt.
    """
    source, lock, stopped = iter(items), Lock(), threading.Event()

    def take() -> Iterator[Item]:
        while True:
            with lock:
                if stopped.is_set():
                    return
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def serve() -> None:
        try:
            for item in take():
                work(item)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(workers) as threads:
        try:
            serving = [threads.submit(serve) for _ in range(workers)]
            done, _ = wait(serving, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            stopped.set()


class Pending(Generic[Result]):
    """A call that another thread makes; `result()` waits for it and raises what it raised."""

    def __init__(self) -> None:
        self._future: Future[Result] = Future()

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller of result(), whatever it is
            self._future.set_exception(error)

    def result(self, timeout: float | None = None) -> Result:
        """Wait up to `timeout` seconds (None: as long as it takes) and return what the call returned."""
        return self._future.result(timeout)

    def done(self) -> bool:
        """Say whether the call has ended, in either way."""
        return self._future.done()


class Background(Pending[Result]):
    """One call running beside us, in a thread of its own."""

    def __init__(self, work: Callable[[], Result]) -> None:
        super().__init__()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()


class Worker:
    """One thread that makes all calls given to it, in order: for what belongs to the thread that made it."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def begin(self, work: Callable[[], Result]) -> Pending[Result]:
        """Have `work()` called when those before it are done; return at once."""
        pending: Pending[Result] = Pending()
        self._calls.put(lambda: pending._run(work))  # noqa: SLF001 - its own kind
        return pending

    def end(self) -> None:
        """Let the thread end when the calls given so far are done; return at once."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class Beside(Background[Result]):
    """One call that runs beside a block and never outlives it: `work(stopped)` asks now and then whether to stop.

    At the block's end it is waited for, and what it raised is raised. When the block raises, or the waiting is
    interrupted, the call is told to stop, waited for, and whatever becomes of it is forgotten.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], Result]) -> None:
        self._stop = threading.Event()
        super().__init__(lambda: work(self._stop.is_set))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.result()
        finally:
            self._stop.set()
            self._thread.join()


class Tally(Counter[str]):
    """How often threads counted each name: a plain `+= 1` loses one where two count a name first at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()

    def count(self, name: str) -> int:
        """Count `name` once more; return how often it has been now."""
        with self._lock:
            self[name] += 1
            return self[name]


# Locks and per-thread values are handed out here, so that nobody else needs the threading module.
Lock = threading.Lock
Condition = threading.Condition
Local = threading.local
