from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from builder.pool import Background, Local, Worker, drain


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
