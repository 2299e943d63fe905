from queue import SimpleQueue

import pytest

from builder.pool import Background, Local, Worker


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
