"""The rate limit, with a clock that only moves when someone sleeps."""

from __future__ import annotations

import pytest

from builder.cloud.pacer import Pacer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def pacer(rate: float) -> tuple[Pacer, Clock]:
    clock = Clock()
    return Pacer(rate, clock=clock, sleep=clock.sleep), clock


def elapsed(limit: Pacer, clock: Clock, calls: int) -> float:
    began = clock.now
    for _ in range(calls):
        limit.wait()
    return clock.now - began


def test_calls_pass_at_the_rate_and_no_faster():
    limit, clock = pacer(1000)
    assert elapsed(limit, clock, 3001) == pytest.approx(3.0, abs=0.06)


def test_an_idle_time_is_not_saved_up():
    limit, clock = pacer(1000)
    limit.wait()
    clock.now += 60
    assert elapsed(limit, clock, 1001) >= 1.0 - 0.05 - 1e-6


def test_throttling_slows_down_once_a_second_and_the_rate_comes_back():
    limit, clock = pacer(1000)
    for _ in range(64):  # the whole flight is refused at once
        limit.throttled()
    assert limit.rate == pytest.approx(700)
    clock.now += 1
    limit.throttled()
    assert limit.rate < 600
    for _ in range(100):
        clock.now += 1
        limit.throttled()
    assert limit.rate == pytest.approx(20)
    clock.now += 10
    limit.wait()
    assert 500 < limit.rate < 600
    clock.now += 100
    limit.wait()
    assert limit.rate == 1000
