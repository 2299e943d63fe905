"""Faults while a bundle is uploaded and registered: one image, whole, and nothing else in the bucket."""

from __future__ import annotations

import pytest

from builder.sandbox.faults import client

EFFECTS = ("throttle", "internal-error", "unavailable", "reset", "lost", "reset-body")
CALLS = {
    "s3": ("CreateBucket", "HeadBucket", "HeadObject", "ListObjects", "PutObject"),
    "ec2": ("DescribeImages", "RegisterImage", "CreateTags"),
}
TABLE = [(effect, service, call) for effect in EFFECTS for service, calls in CALLS.items() for call in calls]
assert len(TABLE) == 48


@pytest.mark.sweep
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("personality", ["aws", "eucalyptus"])
def test_whatever_fails_there_is_one_image_of_a_whole_bundle(personality, emi, shelf, small_root, bundles_recipe):
    seen = shelf(personality)
    cloud = "sandbox" if personality == "aws" else f"sandbox:{personality}"
    acted = 0
    for number, (effect, service, call) in enumerate(TABLE, start=1):
        told, bucket = (number, effect, call), f"bundles-{number}"
        client.put(seen.endpoint, [{"effect": effect, "service": service, "call": call, "first": 2}])
        done = emi("run", bundles_recipe, "--var", f"disk={small_root}", "--var", f"n={number}", "--cloud", cloud)
        acted += sum(row.acted > 0 for row in client.rows(seen.endpoint))
        client.clear(seen.endpoint)
        assert done.code == 0, (told, done.err)
        assert [image["State"] for image in seen.images(f"bundles-{number}")] == ["available"], told
        manifest = f"images/root-{number}.manifest.xml"
        there = set(seen.objects(bucket))
        assert there == {manifest, *(f"images/{name}" for name in seen.parts_named(bucket, manifest))}, told
        seen.remove(bucket)
    unused = len(EFFECTS) if personality == "aws" else 0  # CreateTags: AWS sets tags as it registers
    assert acted == len(TABLE) - unused
