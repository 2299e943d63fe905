import itertools
import time

import pytest

from builder.errors import CloudDenied, CloudTrouble
from builder.retry import retrying


@pytest.mark.parametrize(
    ("failures", "attempts", "made"),
    [(0, 12, 1), (1, 12, 2), (3, 12, 4), (99, 1, 1), (99, 2, 2), (99, 5, 5)],
)
def test_a_call_is_made_until_it_succeeds_or_the_attempts_are_used_up(failures, attempts, made):
    calls = itertools.count(1)

    def call() -> int:
        number = next(calls)
        if number <= failures:
            raise CloudTrouble(f"attempt {number}")
        return number

    if failures < attempts:
        assert retrying(call, attempts=attempts, first_wait=0.001) == made
    else:
        with pytest.raises(CloudTrouble, match=rf"attempt {made}(; given up after {made} attempts in 0 s)?$"):
            retrying(call, attempts=attempts, first_wait=0.001)
    assert next(calls) == made + 1


def test_an_error_that_no_retry_helps_is_raised_at_once():
    calls = itertools.count(1)

    def call() -> None:
        raise (CloudTrouble if next(calls) == 1 else CloudDenied)("no")

    with pytest.raises(CloudDenied):
        retrying(call, first_wait=0.001)
    assert next(calls) == 3


def test_the_first_attempt_counts_for_the_deadline():
    calls = itertools.count(1)

    def call() -> None:
        next(calls)
        time.sleep(0.05)
        raise CloudTrouble("slow")

    with pytest.raises(CloudTrouble):
        retrying(call, deadline=0.04, first_wait=0.001)
    assert next(calls) == 2
