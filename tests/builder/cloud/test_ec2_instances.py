"""Instances, on AWS and on Eucalyptus of two kinds: launched once, found by claim, ended."""

from __future__ import annotations

import sys

import pytest

from builder import proc
from builder.cloud.claims import TAG, Claim
from builder.cloud.instances import (
    MOST_USER_DATA,
    InstanceRecord,
    InstanceSpec,
    is_running,
    wait_running,
    wait_stopped,
    wait_terminated,
)
from builder.errors import CloudFailed, CloudNotFound, UsageError
from builder.remote.keys import KeyPair
from builder.sandbox.faults import client as faults

TAGS = {"Name": "one"}
RSA = KeyPair.generate_rsa().public


def asked(place, instance_id: str) -> dict:
    """Return what the cloud describes of an instance, in its own words."""
    found = place.cloud._call("ec2", "DescribeInstances", InstanceIds=[instance_id])
    return dict(found["Reservations"][0]["Instances"][0])


def test_an_instance_from_its_claim_to_its_end(place, claim, image) -> None:
    cloud = place.cloud
    key = cloud.import_key_pair(claim, RSA, {})
    spec = InstanceSpec(image_id=image, zone=place.zone, key_name=key, user_data=b"#!/bin/sh\n\xff", tags=TAGS)
    instance = cloud.run_instance(claim, spec)
    assert cloud.run_instance(claim, spec) == instance
    found = wait_running(cloud, instance)
    assert (found.image_id, found.zone, found.key_name) == (image, place.zone, key)
    assert found.tags == {**TAGS, TAG: claim.token}
    assert [one.instance_id for one in cloud.find_instances(claim)] == [instance]
    assert cloud.find_instances(Claim(claim.key, 1)) == []
    ((_, volume),) = found.devices
    assert cloud.describe_volume(volume).tags == {**TAGS, TAG: claim.token}
    ask = place.cloud._call
    how = ask("ec2", "DescribeInstanceAttribute", InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")
    assert how["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    said = ask("ec2", "DescribeInstanceAttribute", InstanceId=instance, Attribute="userData")["UserData"]["Value"]
    assert said == "IyEvYmluL3NoCv8="
    if cloud.capabilities.metadata_options:
        assert asked(place, instance)["MetadataOptions"]["HttpTokens"] == "required"
    cloud.stop_instance(instance)
    assert wait_stopped(cloud, instance).state == "stopped"
    with pytest.raises(CloudFailed, match="is stopped"):
        wait_running(cloud, instance)
    cloud.start_instance(instance)
    wait_running(cloud, instance)
    for _ in range(2):
        cloud.terminate_instance(instance)
        wait_terminated(cloud, instance)
    assert [one.ending for one in cloud.find_instances(claim)] == [True]
    with pytest.raises(CloudNotFound, match="was terminated"):
        cloud.run_instance(claim, spec)
    with pytest.raises(CloudNotFound, match="is terminated"):
        wait_stopped(cloud, instance)


def test_a_lost_answer_launches_no_second_instance(place, claim, image) -> None:
    faults.put(place.endpoint, [{"effect": "lost", "service": "ec2", "call": "RunInstances", "first": 1}])
    before = {one.id for one in place.cloud.holdings("instance")}
    instance = place.cloud.run_instance(claim, InstanceSpec(image_id=image))
    assert [row.acted for row in faults.rows(place.endpoint)] == [1]
    faults.clear(place.endpoint)
    assert {one.id for one in place.cloud.holdings("instance")} - before == {instance}
    place.cloud.terminate_instance(instance)


LAUNCHING = """
import pickle, sys
from builder.cloud.claims import Claim
from builder.cloud.instances import InstanceSpec
pickle.loads(bytes.fromhex(sys.argv[1]))().run_instance(Claim(sys.argv[2]), InstanceSpec(image_id=sys.argv[3]))
"""


def test_what_a_kill_left_without_tags_is_found_by_its_token_and_tagged(old_place, old_image, claim) -> None:
    place = old_place
    command = [sys.executable, "-c", LAUNCHING, place.words, claim.key, old_image]
    proc.run(command, environment={"EMI_CRASH_AT": "after ec2:RunInstances"}, allowed=[-9])
    (left,) = place.cloud.find_instances(claim)
    assert left.tags == {}
    place.cloud.tag_instance(left.instance_id, claim, TAGS)
    (found,) = place.cloud.find_instances(claim)
    assert found.tags == {**TAGS, TAG: claim.token}
    place.cloud.terminate_instance(found.instance_id)


def test_what_is_too_much_or_has_ended_is_told(aws, claim) -> None:
    with pytest.raises(UsageError, match="16384 is the most"):
        aws.run_instance(claim, InstanceSpec(image_id="ami-1", user_data=bytes(MOST_USER_DATA + 1)))
    with pytest.raises(CloudFailed, match="i-1 is terminated: no room"):
        is_running(InstanceRecord(instance_id="i-1", state="terminated", state_reason="no room"))
    assert aws.describe_instance("i-0123456789abcdef0") is None
    aws.terminate_instance("i-0123456789abcdef0")
