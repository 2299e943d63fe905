"""The step `locate-bundle`: what it is told, and that it changes nothing. It is run in test_instance_store.py."""

from __future__ import annotations

import pytest

from pipelines.kinds import load
from pipelines.run import READ_ONLY

STEP = load("locate-bundle")


@pytest.mark.parametrize("manifest", ["images/web.manifest.xml", "images/a/b/web.manifest.xml", "s3://images/web"])
def test_a_place_is_a_bucket_and_a_key(manifest: str) -> None:
    assert list(STEP.check(STEP.options(manifest=manifest))) == []


@pytest.mark.parametrize("manifest", ["", "images", "images/", "/images", "s3://images"])
def test_anything_else_is_refused_with_the_recipe(manifest: str) -> None:
    assert list(STEP.check(STEP.options(manifest=manifest))) == [f"`manifest` is BUCKET/KEY, not {manifest!r}"]


def test_it_only_reads() -> None:
    calls = STEP.calls(STEP.options(manifest="images/web.manifest.xml"))
    assert {call.service for call in calls} == {"s3"}
    assert all(call.action.startswith(READ_ONLY) for call in calls)
