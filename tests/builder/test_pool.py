import os
import signal
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from builder.pool import Background, Beside, Local, Tally, Worker, drain, in_order


def test_a_worker_makes_every_call_in_one_thread_and_in_order():
    worker = Worker()
    local = Local()
    seen: list[int] = []

    def note(number: int) -> int:
        local.count = getattr(local, "count", 0) + 1
        seen.append(number)
        return int(local.count)

    calls = [worker.begin(lambda number=number: note(number)) for number in range(100)]
    worker.end()
    assert [call.result(10) for call in calls] == list(range(1, 101))
    assert seen == list(range(100))
    assert not hasattr(local, "count")


def test_an_error_goes_to_the_caller_and_the_worker_goes_on():
    worker = Worker()
    failed = worker.begin(lambda: 1 // 0)
    after = worker.begin(lambda: 42)
    worker.end()
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    assert after.result(10) == 42
    assert failed.done()


@pytest.mark.parametrize("begin", [Background, lambda work: Worker().begin(work)], ids=["Background", "Worker"])
def test_the_caller_need_not_wait_for_ever(begin):
    gate: SimpleQueue[str] = SimpleQueue()
    pending = begin(gate.get)
    with pytest.raises(TimeoutError):
        pending.result(0.05)
    assert not pending.done()
    gate.put("late")
    assert pending.result(10) == "late"
    assert pending.done()


def test_drain_calls_for_every_item_once_and_takes_none_before_a_thread_is_free():
    taken: list[int] = []
    done: SimpleQueue[int] = SimpleQueue()
    ahead: list[int] = []

    def items() -> Iterator[int]:
        for number in range(500):
            taken.append(number)
            yield number

    def work(number: int) -> None:
        ahead.append(len(taken) - done.qsize())
        done.put(number)

    drain(work, items(), workers=4)
    assert sorted(done.get() for _ in range(done.qsize())) == list(range(500))
    assert max(ahead) <= 4


def test_drain_raises_the_first_error_after_what_is_in_flight_and_takes_no_more():
    both, gate = SimpleQueue[int](), SimpleQueue[None]()
    finished: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            both.get()  # the other one is in flight
            gate.put(None)
            raise ZeroDivisionError
        both.put(number)
        gate.get()
        finished.append(number)

    with pytest.raises(ZeroDivisionError):
        drain(work, iter(range(2)), workers=2)
    assert finished == [1]

    made: list[int] = []

    def fail(number: int) -> None:
        made.append(number)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drain(fail, range(1000), workers=3)
    assert len(made) <= 3


def test_drain_raises_what_the_items_raise():
    def items() -> Iterator[int]:
        yield 1
        raise LookupError

    seen: list[int] = []
    with pytest.raises(LookupError):
        drain(seen.append, items(), workers=3)
    assert seen == [1]


def test_what_runs_beside_a_block_is_done_when_it_ends():
    gate: SimpleQueue[str] = SimpleQueue()
    with Beside(lambda stopped: (gate.get(), stopped())) as beside:
        assert not beside.done()
        gate.put("done")
    assert beside.done()
    assert beside.result() == ("done", False)


def test_what_it_raises_is_raised_at_the_blocks_end():
    with pytest.raises(ZeroDivisionError), Beside(lambda stopped: 1 // 0):
        pass


@pytest.mark.parametrize("ends", [lambda: None, lambda: 1 // 0], ids=["it returns", "it raises"])
def test_when_the_block_raises_it_is_stopped_and_waited_for(ends):
    seen: list[str] = []

    def work(stopped: Callable[[], bool]) -> None:
        while not stopped():
            time.sleep(0.001)
        seen.append("stopped")
        ends()

    with pytest.raises(KeyboardInterrupt), Beside(work):
        raise KeyboardInterrupt
    assert seen == ["stopped"]


def test_ctrl_c_while_it_is_waited_for_stops_it():
    seen: list[str] = []

    def work(stopped: Callable[[], bool]) -> None:
        while not stopped():
            time.sleep(0.001)
        seen.append("stopped")

    def interrupt() -> None:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    def wait() -> None:
        with Beside(work):
            Background(interrupt)

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert seen == ["stopped"]


def test_an_order_that_is_closed_takes_no_more_and_waits_for_what_is_in_flight():
    taken: list[int] = []
    ended: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = in_order(ended.append, items(), workers=2, ahead=4)
    next(results)
    results.close()
    assert len(taken) == 4
    assert 1 <= len(ended) <= 4


def test_counts_of_many_threads_add_up():
    class Slow(str):
        """A name during whose looking up and storing others get their turn."""

        __slots__ = ()

        def __hash__(self) -> int:
            time.sleep(0.001)
            return super().__hash__()

    tally = Tally()
    drain(lambda _: tally.count(Slow("GetObject")), range(20), workers=4)
    assert tally == {"GetObject": 20}
