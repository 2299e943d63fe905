"""Encryption, as a property that is kept and inherited."""

from __future__ import annotations

import pytest

ZONE = "us-east-1a"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}
KEY = "arn:aws:kms:us-east-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def region(sandbox):
    """EC2 and EBS direct in a region whose settings are this test's own."""
    ec2 = sandbox.client("ec2", region_name="eu-west-2")
    yield ec2, sandbox.client("ebs", region_name="eu-west-2"), sandbox.raw(region="eu-west-2")
    ec2.disable_ebs_encryption_by_default()
    ec2.reset_ebs_default_kms_key_id()


def snapshot_of(ec2, snapshot_id):
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot_id], WaiterConfig=WAIT)
    (one,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    return one["Encrypted"], one.get("KmsKeyId")


def volume_of(ec2, volume_id):
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig=WAIT)
    (one,) = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    return one["Encrypted"], one.get("KmsKeyId")


@pytest.mark.behaviour("EC2 volumes", "Encrypted, KmsKeyId", "from volume to snapshot to copy to volume the property "
                       "and the key stay; across regions the key becomes that region's")  # fmt: skip
def test_encryption_is_inherited(sandbox, ec2, raw, code_of):
    volume_id = ec2.create_volume(AvailabilityZone=ZONE, Size=1, Encrypted=True, KmsKeyId=KEY)["VolumeId"]
    assert volume_of(ec2, volume_id) == (True, KEY)
    taken = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    assert snapshot_of(ec2, taken) == (True, KEY)
    named = {"SourceRegion": "us-east-1", "SourceSnapshotId": taken}
    assert snapshot_of(ec2, ec2.copy_snapshot(**named)["SnapshotId"]) == (True, KEY)
    again = ec2.create_volume(AvailabilityZone=ZONE, SnapshotId=taken)["VolumeId"]
    assert volume_of(ec2, again) == (True, KEY)
    wish = {"AvailabilityZone": ZONE, "SnapshotId": taken, "Encrypted": False}
    assert code_of(ec2.create_volume, **wish) == "InvalidParameterCombination"
    there = sandbox.client("ec2", region_name="eu-west-1")
    encrypted, key = snapshot_of(there, there.copy_snapshot(**named)["SnapshotId"])
    assert encrypted
    assert key.startswith("arn:aws:kms:eu-west-1:123456789012:key/")
    plain = raw.snapshot({})
    copied = ec2.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=plain, Encrypted=True, KmsKeyId=KEY[-36:])
    assert snapshot_of(ec2, copied["SnapshotId"]) == (True, KEY)
    assert snapshot_of(ec2, plain) == (False, None)


@pytest.mark.behaviour("EC2 snapshots", "ModifySnapshotAttribute, encrypted", "never public; with AWS's own key not "
                       "shared at all, with another key shared with accounts")  # fmt: skip
def test_encrypted_snapshots_are_shared_with_care(ec2, raw, ebs, code_of):
    default = raw.snapshot({}, Encrypted=True)
    own = raw.snapshot({}, Encrypted=True, KmsKeyArn=KEY)
    user, everybody = {"Add": [{"UserId": "111111111111"}]}, {"Add": [{"Group": "all"}]}
    for snapshot_id, change in ((default, user), (default, everybody), (own, everybody)):
        call = ec2.modify_snapshot_attribute
        assert code_of(call, SnapshotId=snapshot_id, CreateVolumePermission=change) == "OperationNotPermitted"
    ec2.modify_snapshot_attribute(SnapshotId=own, CreateVolumePermission=user)


@pytest.mark.behaviour("EC2 volumes", "Enable/Disable/GetEbsEncryptionByDefault, default key", "what is made while it "
                       "is on is encrypted with the region's default key: volumes, copies, StartSnapshot")  # fmt: skip
def test_encryption_by_default(region, sandbox, ec2, raw):
    client, ebs, _ = region
    assert client.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert client.get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
    assert client.enable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
    assert client.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
    zone = {"AvailabilityZone": "eu-west-2a", "Size": 1}
    encrypted, aws_key = volume_of(client, client.create_volume(**zone)["VolumeId"])
    assert encrypted
    assert aws_key.startswith("arn:aws:kms:eu-west-2:123456789012:key/")
    mine = KEY.replace("us-east-1", "eu-west-2")
    assert client.modify_ebs_default_kms_key_id(KmsKeyId=mine)["KmsKeyId"] == mine
    started = ebs.start_snapshot(VolumeSize=1)
    assert started["KmsKeyArn"] == mine
    ebs.complete_snapshot(SnapshotId=started["SnapshotId"], ChangedBlocksCount=0)
    assert snapshot_of(client, started["SnapshotId"]) == (True, mine)
    plain = raw.snapshot({})
    copied = client.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=plain)["SnapshotId"]
    assert snapshot_of(client, copied) == (True, mine)
    assert client.reset_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
    assert client.disable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert volume_of(client, client.create_volume(**zone)["VolumeId"]) == (False, None)


@pytest.mark.behaviour("EBS direct", "StartSnapshot, Encrypted and KmsKeyArn", "kept and answered; a child of an "
                       "encrypted parent is encrypted with its key")  # fmt: skip
def test_encrypted_snapshots_of_ebs_direct(ec2, ebs, raw):
    started = ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=KEY)
    assert started["KmsKeyArn"] == KEY
    ebs.complete_snapshot(SnapshotId=started["SnapshotId"], ChangedBlocksCount=0)
    assert snapshot_of(ec2, started["SnapshotId"]) == (True, KEY)
    child = raw.snapshot({}, ParentSnapshotId=started["SnapshotId"])
    assert snapshot_of(ec2, child) == (True, KEY)
    found = ec2.describe_snapshots(Filters=[{"Name": "encrypted", "Values": ["true"]}])["Snapshots"]
    assert {child, started["SnapshotId"]} <= {one["SnapshotId"] for one in found}
