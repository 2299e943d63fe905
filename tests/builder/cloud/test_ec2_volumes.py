"""Volumes and snapshots of them, on AWS and on Eucalyptus of two kinds: made once, found by claim, lost answers."""

from __future__ import annotations

import sys

import pytest

from builder import proc
from builder.cloud.claims import TAG, Claim
from builder.cloud.instances import InstanceSpec, wait_running
from builder.cloud.snapshots import wait_completed
from builder.cloud.volumes import (
    DEVICES,
    VolumeRecord,
    VolumeSpec,
    free_device,
    is_created,
    wait_attached,
    wait_created,
    wait_detached,
)
from builder.errors import CloudConflict, CloudError, CloudFailed, CloudNotFound, UsageError
from builder.sandbox.faults import client as faults

TAGS = {"Name": "one"}
_PASSING = ("throttle", "internal-error", "reset")


def made(place, claim: Claim) -> str:
    """Make a volume of 1 GiB."""
    return place.cloud.create_volume(claim, VolumeSpec(size=1, zone=place.zone, tags=TAGS))


def test_a_volume_from_its_claim_to_its_end(place, claim, image) -> None:
    cloud, spec = place.cloud, InstanceSpec(image_id=image, zone=place.zone)
    instances = [cloud.run_instance(Claim(claim.key, number), spec) for number in (1, 2)]
    volume = made(place, claim)
    found = wait_created(cloud, volume)
    assert (found.volume_id, found.state, found.size, found.zone) == (volume, "available", 1, place.zone)
    assert found.tags == {**TAGS, TAG: claim.token}
    assert [one.volume_id for one in cloud.find_volumes(claim)] == [volume]
    assert cloud.find_volumes(Claim(claim.key, 9)) == []
    for instance in instances:
        wait_running(cloud, instance)
    for _ in range(2):  # the second time it is attached already
        cloud.attach_volume(volume, instances[0], "/dev/sdf")
    assert wait_attached(cloud, volume, instances[0]).device == "/dev/sdf"
    with pytest.raises(CloudConflict, match=f"{volume} is attached to {instances[0]}"):
        cloud.attach_volume(volume, instances[1], "/dev/sdf")
    with pytest.raises(CloudConflict):
        cloud.delete_volume(volume)
    cloud.detach_volume(volume, instances[1])  # it is not there
    for _ in range(2):
        cloud.detach_volume(volume, instances[0])
    assert wait_detached(cloud, volume).attachments == []
    with pytest.raises(CloudError, match="detached meanwhile"):
        wait_attached(cloud, volume, instances[0])
    for _ in range(2):
        cloud.delete_volume(volume)
    assert cloud.find_volumes(claim) == []
    assert wait_detached(cloud, volume) is None
    cloud.detach_volume(volume, instances[0])
    for instance in instances:
        cloud.terminate_instance(instance)


def test_a_lost_answer_makes_no_second_volume(place, claim, monkeypatch) -> None:
    monkeypatch.setenv("EMI_CLOUD_LIMITS", "settle=1")
    faults.put(place.endpoint, [{"effect": "lost", "service": "ec2", "call": "CreateVolume", "first": 1}])
    before = {one.id for one in place.cloud.holdings("volume")}
    volume = made(place, claim)
    assert [row.acted for row in faults.rows(place.endpoint)] == [1]
    faults.clear(place.endpoint)
    assert [one.volume_id for one in place.cloud.find_volumes(claim)] == [volume]
    # Of marked ones: where tags come after the call, nothing tells what the lost answer had made, and it is left.
    assert {one.id for one in place.cloud.holdings("volume")} - before == {volume}


def test_a_refusal_that_passes_is_tried_again(place, claim, monkeypatch) -> None:
    monkeypatch.setenv("EMI_CLOUD_LIMITS", "settle=0.2,retry=60")
    failing = [{"effect": effect, "service": "ec2", "call": "CreateVolume", "first": 1} for effect in _PASSING]
    faults.put(place.endpoint, failing)
    volume = made(place, claim)
    faults.clear(place.endpoint)
    assert [one.volume_id for one in place.cloud.find_volumes(claim)] == [volume]


def test_the_same_claim_makes_one_volume_where_there_are_client_tokens(aws, claim) -> None:
    zone = aws._call("ec2", "DescribeAvailabilityZones")["AvailabilityZones"][0]["ZoneName"]
    spec = VolumeSpec(size=1, zone=zone, volume_type="gp3", encrypted=True, tags=TAGS)
    volume = aws.create_volume(claim, spec)
    assert aws.create_volume(claim, spec) == volume
    found = wait_created(aws, volume)
    assert (found.volume_type, found.encrypted) == ("gp3", True)


def test_what_a_cloud_has_no_parameter_for_is_refused(eucalypti, claim) -> None:
    with pytest.raises(UsageError, match="takes no Encrypted"):
        eucalypti("5.1").cloud.create_volume(claim, VolumeSpec(size=1, zone="one", encrypted=True))


def test_a_snapshot_from_its_claim_to_its_end(place, claim, monkeypatch) -> None:
    monkeypatch.setenv("EMI_CLOUD_LIMITS", "settle=20")
    cloud, volume = place.cloud, made(place, claim)
    wait_created(cloud, volume)
    faults.put(place.endpoint, [{"effect": "lost", "service": "ec2", "call": "CreateSnapshot", "first": 1}])
    snapshot = cloud.create_snapshot(claim, volume, description="a disk", tags=TAGS)
    assert [row.acted for row in faults.rows(place.endpoint)] == [1]
    faults.clear(place.endpoint)
    assert [one.snapshot_id for one in cloud.find_snapshots(claim)] == [snapshot]
    found = wait_completed(cloud, snapshot)
    assert found.description.startswith("a disk")
    assert found.tags == {**TAGS, TAG: claim.token}
    cloud.delete_snapshot(snapshot)
    cloud.delete_volume(volume)


TAKING = """
import pickle, sys
from builder.cloud.claims import Claim
cloud = pickle.loads(bytes.fromhex(sys.argv[1]))()
cloud.create_snapshot(Claim(sys.argv[2]), sys.argv[3], description="a disk", tags={})
"""


def test_a_snapshot_that_a_kill_left_without_tags_is_found_and_tagged(eucalypti, claim) -> None:
    place = eucalypti("4.4")
    cloud, volume = place.cloud, made(place, claim)
    wait_created(cloud, volume)
    other = cloud.create_snapshot(Claim(claim.key, 1), volume, description="a disk", tags={})
    command = [sys.executable, "-c", TAKING, place.words, claim.key, volume]
    proc.run(command, environment={"EMI_CRASH_AT": "after ec2:CreateSnapshot"}, allowed=[-9])
    assert cloud.find_snapshots(claim) == []
    snapshot = cloud.create_snapshot(claim, volume, description="a disk", tags=TAGS)
    assert [one.snapshot_id for one in cloud.find_snapshots(claim)] == [snapshot]
    assert snapshot != other
    assert cloud.describe_snapshot(snapshot).tags == {**TAGS, TAG: claim.token}


def test_what_failed_or_is_gone_is_told() -> None:
    record = VolumeRecord(volume_id="vol-1", state="error", size=1, zone="one")
    with pytest.raises(CloudFailed, match="could not be created"):
        is_created(record)
    with pytest.raises(CloudNotFound, match="is deleting"):
        is_created(VolumeRecord(volume_id="vol-1", state="deleting", size=1, zone="one"))


def test_a_device_name_that_is_free() -> None:
    assert free_device([]) == "/dev/sdf"
    assert free_device(["/dev/sda1", "/dev/xvdf", "sdg", "/dev/vdh"]) == "/dev/sdi"
    with pytest.raises(CloudError, match="no device name is free"):
        free_device(DEVICES)
