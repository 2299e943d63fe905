"""The step `snapshot` of a volume: taken as it is, waited for, and read back where the cloud can."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from builder.cloud.api import Call
from builder.cloud.aws import Aws, Settings
from builder.cloud.claims import TAG, Claim
from builder.cloud.volumes import VolumeSpec, wait_created
from builder.digest import BLOCK, BlockDigest
from builder.errors import CloudFailed, UsageError
from builder.sandbox import lifecycle
from builder.sandbox.faults import client
from pipelines.artifact import ImageFile, Snapshot, Volume
from pipelines.kinds import load
from pipelines.step import Before, Foreseen, Inputs

STEP = load("snapshot")
OPTIONS = STEP.options(description="of a volume")
SIZE = 5 * BLOCK


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sandbox")
    yield lifecycle.start(directory)
    lifecycle.stop(directory)


@pytest.fixture(scope="module")
def cloud(endpoint):
    keys = {"access_key": endpoint.access_key, "secret_key": endpoint.secret_key}
    made = Aws(Settings(region=endpoint.region, endpoint_url=endpoint.url, **keys))
    yield made
    made.close()


@pytest.fixture
def volume(cloud, request):
    """A volume that holds an image of zeros, as it says."""
    zone = f"{cloud.region}a"
    made = cloud.create_volume(Claim(request.node.name, 9), VolumeSpec(size=1, zone=zone))
    wait_created(cloud, made)
    content = BlockDigest().finish(SIZE)
    return Volume(volume_id=made, size=1, zone=zone, content=content, blocks=0, content_size=SIZE)


def make(desk, cloud, source, options=OPTIONS):
    """Run the step as the runner does, twice: the second time it finds what is there."""
    work, inputs = desk.work("snapshot"), Inputs(source=source)
    claim = Claim(f"{source.volume_id} {work.scratch.name}", 0)
    effect = STEP.start(options, inputs, claim, cloud, work)
    assert STEP.find(options, inputs, claim, cloud) == effect
    first = STEP.finish(options, inputs, effect, cloud, work)
    assert STEP.finish(options, inputs, effect, cloud, work) == first
    return first, claim


def test_a_volume_that_was_written_becomes_a_snapshot_that_is_read_back(desk, cloud, volume):
    made, claim = make(desk, cloud, volume)
    assert isinstance(made, Snapshot)
    assert (made.volume_size, made.content, made.blocks, made.verified) == (1, volume.content, 0, True)
    record = cloud.describe_snapshot(made.snapshot_id)
    assert (record.status, record.description, record.tags[TAG]) == ("completed", "of a volume", claim.token)
    assert STEP.present(made, cloud)
    assert STEP.calls_upon(OPTIONS, Volume) == STEP.calls_upon(STEP.options(verify=False), Volume)
    assert Call("ebs", "StartSnapshot") not in STEP.calls_upon(OPTIONS, Volume)
    assert Call("ebs", "StartSnapshot") in STEP.calls_upon(OPTIONS, ImageFile)


def test_what_a_killed_attempt_took_is_found_once_the_cloud_shows_it(desk, cloud, endpoint, volume):
    work, claim = desk.work("snapshot"), Claim(f"killed {volume.volume_id}", 0)
    intended = time.time()
    taken = cloud.create_snapshot(claim, volume.volume_id, description="of a volume", tags={})
    client.put(endpoint, [{"effect": "lag", "seconds": 3, "resource": taken}])
    inputs = Inputs(source=volume)
    assert STEP.find(OPTIONS, inputs, claim, cloud) is None  # as the runner asks first
    assert STEP.start(OPTIONS, inputs, claim, cloud, replace(work, intended=intended)) == taken
    assert any("an attempt that was killed" in note for note in desk.notes.notes)
    client.clear(endpoint)
    assert [found.snapshot_id for found in cloud.find_snapshots(claim)] == [taken]


def test_a_snapshot_that_holds_something_else_is_found_out(desk, cloud, volume):
    other = BlockDigest()
    other.add(0, bytes(32))
    with pytest.raises(CloudFailed, match="does not hold what was sent"):
        make(desk, cloud, volume.model_copy(update={"content": other.finish(SIZE), "blocks": 1}))
    made, _ = make(desk, cloud, volume.model_copy(update={"zone": "x"}), STEP.options(verify=False))
    assert not made.verified


def test_a_volume_to_which_nothing_was_written_is_refused(desk, cloud, volume):
    with pytest.raises(UsageError, match="nothing has been written"):
        make(desk, cloud, volume.model_copy(update={"content": None}))


def test_what_is_for_uploads_is_refused_before_anything_is_spent(cloud):
    before = Before(source=Foreseen(returns=Volume))
    with pytest.raises(UsageError, match="`volume_size` of step `snapshot`"):
        STEP.preflight(STEP.options(volume_size=3), cloud, lambda _: True, before)
    STEP.preflight(OPTIONS, cloud, lambda _: True, before)
    STEP.preflight(STEP.options(volume_size=3), cloud, lambda _: True, Before(source=Foreseen(returns=ImageFile)))
