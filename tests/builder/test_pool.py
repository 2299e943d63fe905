import time
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from builder.pool import Background, Follower, Local, Worker, drain, in_order


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


def test_a_follower_does_all_in_order_before_its_block_ends():
    seen: list[int] = []
    with Follower(seen.append, room=3) as follower:
        for number in range(1000):
            follower.put(number)
    assert seen == list(range(1000))


def test_a_follower_holds_up_whoever_would_get_too_far_ahead():
    gate: SimpleQueue[None] = SimpleQueue()
    with Follower(lambda _: gate.get(), room=10) as follower:
        follower.put("heavier than there is room", 50)
        second = Background(lambda: follower.put("light", 4))
        with pytest.raises(TimeoutError):
            second.result(0.05)
        gate.put(None)
        second.result(10)
        follower.put("fits beside it", 6)
        third = Background(lambda: follower.put("one too many"))
        with pytest.raises(TimeoutError):
            third.result(0.05)
        for _ in range(3):
            gate.put(None)
        third.result(10)


def test_what_a_follower_raises_reaches_who_puts_and_never_leaves_them_waiting():
    def work(number: int) -> None:
        if number == 3:
            raise ZeroDivisionError

    def give() -> None:
        with Follower(work, room=2) as follower:
            for number in range(1000):
                follower.put(number)
                put.append(number)

    put: list[int] = []
    with pytest.raises(ZeroDivisionError):
        give()
    assert len(put) < 1000


def test_what_a_follower_raises_last_is_raised_at_the_blocks_end():
    with pytest.raises(ZeroDivisionError), Follower(lambda _: 1 // 0, room=2) as follower:
        follower.put("the only one")


def test_a_follower_drops_what_waits_when_its_block_raises():
    seen: list[int] = []
    begun: SimpleQueue[None] = SimpleQueue()
    gate: SimpleQueue[None] = SimpleQueue()

    def work(number: int) -> None:
        seen.append(number)
        begun.put(None)
        gate.get()

    def open_gate() -> None:
        time.sleep(0.1)  # until the block has raised
        for _ in range(50):
            gate.put(None)

    def give() -> None:
        with Follower(work, room=100) as follower:
            for number in range(50):
                follower.put(number)
            begun.get()
            Background(open_gate)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give()
    assert len(seen) < 50


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
