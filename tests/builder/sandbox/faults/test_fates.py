"""What faults do to resources: hidden while young, stuck until cleared, failed for good."""

from __future__ import annotations

import time

import pytest

from builder.sandbox import lifecycle
from builder.sandbox.faults import client


def state_of(ec2, snapshot_id):
    (found,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    return found["State"], found.get("StateMessage", "")


def registration(snapshot_id, name):
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id}}]
    return {
        "Name": name, "RootDeviceName": "/dev/xvda", "BlockDeviceMappings": devices, "VirtualizationType": "hvm",
        "Architecture": "x86_64",
    }  # fmt: skip


@pytest.mark.behaviour("Faults", "lag", "a new snapshot is not found by id, by filter nor by use for so many seconds")
def test_what_is_young_is_not_found(raw, ec2, ebs, faults, code_of, blocks):
    faults({"effect": "lag", "seconds": 600})
    began = time.monotonic()
    snapshot_id = ebs.start_snapshot(VolumeSize=1, Description="young")["SnapshotId"]
    named = [{"Name": "description", "Values": ["young"]}]
    assert code_of(ec2.describe_snapshots, SnapshotIds=[snapshot_id]) == "InvalidSnapshot.NotFound"
    assert ec2.describe_snapshots(OwnerIds=["self"], Filters=named)["Snapshots"] == []
    assert raw.put(snapshot_id, 0, blocks(0))[1] == "ResourceNotFoundException"
    faults({"effect": "lag", "seconds": 2})  # long enough to see that it is heeded
    while not ec2.describe_snapshots(OwnerIds=["self"], Filters=named)["Snapshots"]:
        time.sleep(0.1)
    assert time.monotonic() - began >= 1.9
    assert raw.put(snapshot_id, 0, blocks(0))[0] == 201


@pytest.mark.behaviour("Faults", "lag", "the name of an image that no describe shows yet is taken all the same")
def test_a_young_images_name_is_taken(ec2, faults, code_of, completed):
    faults({"effect": "lag", "seconds": 60, "resource": "ami-*"})
    image_id = ec2.register_image(**registration(completed, "young"))["ImageId"]
    assert code_of(ec2.describe_images, ImageIds=[image_id]) == "InvalidAMIID.NotFound"
    assert code_of(ec2.create_tags, Resources=[image_id], Tags=[{"Key": "a", "Value": "b"}]) == "InvalidAMIID.NotFound"
    assert code_of(ec2.register_image, **registration(completed, "young")) == "InvalidAMIName.Duplicate"
    faults()
    assert ec2.describe_images(ImageIds=[image_id])["Images"][0]["Name"] == "young"
    ec2.deregister_image(ImageId=image_id)


@pytest.mark.behaviour("Faults", "stuck", "a snapshot stays pending, over a restart too, until the faults are cleared")
def test_what_is_stuck_stays_pending_until_the_faults_are_cleared(make_sandbox, blocks):
    sandbox = make_sandbox()
    client.put(sandbox.endpoint, [{"effect": "stuck", "call": "CompleteSnapshot"}])
    raw = sandbox.raw()
    snapshot_id = raw.start()
    assert raw.put(snapshot_id, 0, blocks(0))[0] == 201
    assert raw.complete(snapshot_id, 1)[0] == 202
    time.sleep(0.1)  # past the settle time
    assert state_of(sandbox.client("ec2"), snapshot_id)[0] == "pending"
    lifecycle.stop(sandbox.directory)
    sandbox.restart()
    assert state_of(sandbox.client("ec2"), snapshot_id)[0] == "pending"
    client.clear(sandbox.endpoint)
    assert state_of(sandbox.client("ec2"), snapshot_id)[0] == "completed"


@pytest.mark.parametrize("call", ["StartSnapshot", "CompleteSnapshot"])
@pytest.mark.behaviour("Faults", "fail", "a snapshot ends in `error` with the reason as its StateMessage, for good")
def test_a_snapshot_fails_for_good(raw, ec2, faults, blocks, call):
    faults({"effect": "fail", "call": call, "reason": "Given key ID is not accessible"})
    snapshot_id = raw.start()
    if call == "CompleteSnapshot":
        assert raw.put(snapshot_id, 0, blocks(0))[0] == 201
        assert raw.complete(snapshot_id, 1)[0] == 202
    assert state_of(ec2, snapshot_id) == ("error", "Given key ID is not accessible")
    faults()
    assert state_of(ec2, snapshot_id)[0] == "error"


@pytest.mark.behaviour("Faults", "fail", "an image ends in `failed` with its StateReason")
def test_an_image_fails(ec2, faults, completed):
    faults({"effect": "fail", "call": "RegisterImage", "reason": "snapshot is corrupted"})
    image_id = ec2.register_image(**registration(completed, "failing"))["ImageId"]
    (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    assert image["State"] == "failed"
    assert image["StateReason"]["Message"] == "snapshot is corrupted"
    ec2.deregister_image(ImageId=image_id)


@pytest.mark.behaviour("Faults", "stuck", "an image stays pending until the faults are cleared")
def test_an_image_is_stuck(ec2, faults, completed):
    faults({"effect": "stuck", "call": "RegisterImage"})
    image_id = ec2.register_image(**registration(completed, "stuck"))["ImageId"]
    time.sleep(0.1)  # past the settle time
    assert ec2.describe_images(ImageIds=[image_id])["Images"][0]["State"] == "pending"
    faults()
    assert ec2.describe_images(ImageIds=[image_id])["Images"][0]["State"] == "available"
    ec2.deregister_image(ImageId=image_id)
