"""Work in the background: its order, its progress, its end."""

from __future__ import annotations

import time

import pytest

from builder import pool
from builder.sandbox.jobs import Jobs


def ended(jobs, key):
    for _ in range(5000):
        if jobs.percent(key) is None:
            return True
        time.sleep(0.002)
    return False


@pytest.fixture
def gate():
    """A lock that holds work back until the test releases it."""
    lock = pool.Lock()
    lock.acquire()
    return lock


def test_work_reports_how_far_it_is(gate):
    jobs, shown = Jobs(), []

    def work(report):
        for done in (1, 2, 3):
            report(done, 4)
            shown.append(jobs.percent("snap-1"))
        gate.acquire()

    jobs.begin("snap-1", work)
    while len(shown) < 3:
        time.sleep(0.002)
    assert shown == [25, 50, 75]
    assert jobs.percent("snap-1") == 75
    gate.release()
    assert ended(jobs, "snap-1")


def test_the_same_work_is_not_begun_twice(gate):
    jobs, begun = Jobs(), []

    def work(report):
        begun.append(1)
        gate.acquire()

    for _ in range(3):
        jobs.begin("snap-1", work)
    gate.release()
    assert ended(jobs, "snap-1")
    assert begun == [1]
    gate.acquire(blocking=False)
    gate.release()
    jobs.begin("snap-1", work)  # once it is over it may begin again
    assert ended(jobs, "snap-1")
    assert begun == [1, 1]


def test_two_pieces_are_done_at_once_and_the_rest_waits(gate):
    jobs, begun = Jobs(), []

    def work(key):
        def run(report):
            begun.append(key)
            while gate.locked():
                time.sleep(0.002)

        return run

    for key in "abcd":
        jobs.begin(key, work(key))
    while len(begun) < 2:
        time.sleep(0.002)
    assert sorted(begun) == ["a", "b"]
    assert [jobs.percent(key) for key in "cd"] == [0, 0]
    gate.release()
    assert all(ended(jobs, key) for key in "abcd")
    assert sorted(begun) == ["a", "b", "c", "d"]


def test_stopped_work_ends_at_its_next_report(gate):
    jobs, reached = Jobs(), []

    def work(report):
        reached.append("begun")
        gate.acquire()
        report(1, 2)
        reached.append("went on")

    jobs.begin("snap-1", work)
    while not reached:
        time.sleep(0.002)
    jobs.stop("snap-1")
    gate.release()
    assert ended(jobs, "snap-1")
    assert reached == ["begun"]


def test_stopped_work_that_waits_never_begins(gate):
    jobs, begun = Jobs(), []
    for key in "ab":
        jobs.begin(key, lambda report: gate.acquire() and gate.release())
    jobs.begin("c", lambda report: begun.append("c"))
    jobs.stop("c")
    gate.release()
    assert all(ended(jobs, key) for key in "abc")
    assert begun == []


def test_work_that_fails_stops_nothing_else():
    jobs, done = Jobs(), []

    def fail(report):
        raise OSError("disk gone")

    jobs.begin("a", fail)
    jobs.begin("b", fail)
    jobs.begin("c", lambda report: done.append("c"))
    assert all(ended(jobs, key) for key in "abc")
    assert done == ["c"]
