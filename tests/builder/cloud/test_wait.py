"""Waiting, on describes that are lists."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudFailed, CloudNotFound, CloudTrouble

QUICK = Patience(deadline=0.5, first=0.001, longest=0.001, settle=0)


def ready(record: str) -> bool:
    if record == "error":
        raise CloudFailed("it failed")
    return record == "done"


def wait(*seen: str | None, patience: Patience = QUICK) -> str:
    answers: Iterator[str | None] = iter(seen)
    return wait_until(lambda: next(answers), ready, what="the thing", patience=patience)


@pytest.mark.parametrize(
    "seen",
    [
        ("done",),
        ("pending", "pending", "done"),
        (None, None, "done"),
        (None, None, "pending", None, None, "done"),
    ],
)
def test_it_is_waited_for(seen):
    assert wait(*seen) == "done"


@pytest.mark.parametrize(
    ("seen", "error", "words"),
    [
        (("pending", "error", "done"), CloudFailed, "it failed"),
        ((None, None, None, "done"), CloudNotFound, "the thing does not exist"),
        (("pending", None, None, None, "done"), CloudNotFound, "the thing is gone"),
    ],
)
def test_waiting_ends_with_the_reason(seen, error, words):
    with pytest.raises(error, match=words):
        wait(*seen)


def test_what_was_never_seen_is_given_time_to_settle():
    assert wait(*[None] * 20, "done", patience=Patience(deadline=60, first=0.001, longest=0.001, settle=60)) == "done"


def test_the_deadline_ends_it():
    with pytest.raises(CloudTrouble, match="the thing is not finished after"):
        wait_until(lambda: "pending", ready, what="the thing", patience=QUICK)
