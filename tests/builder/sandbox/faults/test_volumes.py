"""Faults of what works on after its call: volumes, snapshots of them, imports from S3."""

from __future__ import annotations

import json
import time

import pytest

WHY = "ClientError: Unsupported disk image"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def source(sandbox, vmimport_trust):
    """The place in S3 of a disk image that VM Import may read."""
    iam, s3 = sandbox.client("iam"), sandbox.client("s3")
    iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=json.dumps(vmimport_trust))
    iam.put_role_policy(RoleName="vmimport", PolicyName="read", PolicyDocument=json.dumps(POLICY))
    s3.create_bucket(Bucket="images")
    s3.put_object(Bucket="images", Key="disk.raw", Body=b"\x17" * (1 << 20))
    return {"Format": "RAW", "UserBucket": {"S3Bucket": "images", "S3Key": "disk.raw"}}


@pytest.fixture
def detail(ec2):
    """Return what is said of an import task."""

    def run(task_id):
        (task,) = ec2.describe_import_snapshot_tasks(ImportTaskIds=[task_id])["ImportSnapshotTasks"]
        return task["SnapshotTaskDetail"]

    return run


def ours(ec2):
    return {one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}


@pytest.mark.behaviour("Faults", "fail", "an import task ends `deleted` with its reason, and there is no snapshot")
def test_09_an_import_task_is_deleted_with_a_reason(ec2, faults, source, detail):
    faults({"effect": "fail", "call": "ImportSnapshot", "reason": WHY})
    before = ours(ec2)
    task_id = ec2.import_snapshot(DiskContainer=source)["ImportTaskId"]
    while (seen := detail(task_id))["Status"] != "deleted":
        assert seen["Status"] == "deleting"
        time.sleep(0.02)
    assert seen["StatusMessage"] == WHY
    assert "SnapshotId" not in seen
    time.sleep(0.2)  # the work that the task began has ended by itself
    assert ours(ec2) == before


@pytest.mark.behaviour("Faults", "stuck", "an import task stays `active` until the faults are cleared")
def test_an_import_task_is_stuck(ec2, faults, source, detail):
    faults({"effect": "stuck", "call": "ImportSnapshot"})
    task_id = ec2.import_snapshot(DiskContainer=source)["ImportTaskId"]
    time.sleep(0.5)
    assert detail(task_id)["Status"] == "active"
    faults()
    while detail(task_id)["Status"] != "completed":
        time.sleep(0.02)


def state_of(ec2, volume_id):
    return ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"]


@pytest.mark.behaviour("Faults", "stuck", "a volume stays `creating` until the faults are cleared")
def test_a_volume_is_stuck(ec2, faults, completed):
    faults({"effect": "stuck", "call": "CreateVolume"})
    volume_id = ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=completed)["VolumeId"]
    time.sleep(0.3)
    assert state_of(ec2, volume_id) == "creating"
    faults()
    while state_of(ec2, volume_id) != "available":
        time.sleep(0.02)


@pytest.mark.behaviour("Faults", "fail", "a volume ends in `error`, for good")
def test_a_volume_fails(ec2, faults, completed):
    faults({"effect": "fail", "call": "CreateVolume"})
    volume_id = ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=completed)["VolumeId"]
    faults()
    time.sleep(0.3)
    assert state_of(ec2, volume_id) == "error"


@pytest.mark.behaviour("Faults", "fail", "a snapshot of a volume ends in `error` while the volume stays as it is")
def test_a_snapshot_of_a_volume_fails(ec2, faults, completed):
    volume_id = ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=completed)["VolumeId"]
    while state_of(ec2, volume_id) != "available":
        time.sleep(0.02)
    faults({"effect": "fail", "call": "CreateSnapshot", "reason": WHY})
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    (found,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert (found["State"], found["StateMessage"]) == ("error", WHY)
    assert state_of(ec2, volume_id) == "available"
