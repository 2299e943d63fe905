"""The one door to retrying: single idempotent calls, only errors that say a retry may help, within a total time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import tenacity  # noqa: TID251 - this is the door

from builder.errors import EmiError
from builder.progress import SILENT, Progress

Result = TypeVar("Result")


def retrying(
    call: Callable[[], Result],
    *,
    deadline: float = 120,
    attempts: int = 12,
    first_wait: float = 0.2,
    longest_wait: float = 20,
    progress: Progress = SILENT,
) -> Result:
    """Return `call()`, repeating it while it raises a retryable EmiError; times are in seconds.

    Waits grow by doubling with full jitter. When `deadline` or `attempts` is used up the last error is raised as it
    came. A wait is never shorter than the error's `retry_after`. Only for calls that are idempotent: whoever calls this
    vouches for that.
    """
    began = time.monotonic()
    try:
        return call()  # by itself: nearly every call succeeds at once, and tenacity costs more than building a request
    except EmiError as error:
        if not error.retryable:
            raise
        failed = [error]

    made = 0

    def attempt() -> Result:
        nonlocal made
        made += 1
        if failed:  # the first one, which has been made
            raise failed.pop()
        return call()

    left = deadline - (time.monotonic() - began)
    stop = tenacity.stop_before_delay(left) | tenacity.stop_after_attempt(attempts)
    backoff = tenacity.wait_random_exponential(multiplier=first_wait, max=longest_wait)
    try:
        return _retrying(stop, backoff, progress)(attempt)
    except EmiError as error:
        if type(error).retryable and made > 1:
            waited = time.monotonic() - began
            error.message = f"{error.message}; given up after {made} attempts in {waited:.0f} s"
            error.args = (error.message,)
        raise


def _retrying(stop: tenacity.stop.stop_base, backoff: tenacity.wait.wait_base, progress: Progress) -> tenacity.Retrying:
    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0
        progress.note(f"attempt {state.attempt_number} failed, again in {wait:.1f} s: {error}")

    def pause(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backoff(state), error.retry_after if isinstance(error, EmiError) else 0)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, EmiError) and error.retryable),
        wait=pause,
        stop=stop,
        before_sleep=before_sleep,
        reraise=True,
    )
