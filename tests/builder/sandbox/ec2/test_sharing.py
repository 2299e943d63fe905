"""Snapshots as a second account sees them, and the block on sharing with everybody."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from builder.cloud.sigv4 import Keys
from builder.digest import BLOCK

ZONE = "us-east-1a"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}
MISSING = [
    ("EC2 tags", "CreateTags on what another account shares", "AuthFailure; EC2 keeps each account's own tags for it"),
]


@pytest.fixture
def shared(sandbox, raw, blocks):
    """A snapshot of the first account's, tagged."""
    return raw.snapshot({0: blocks("a"), 3: blocks("b")}, Tags=[{"Key": "Name", "Value": "mine"}])


@pytest.fixture(scope="module")
def theirs(sandbox, second):
    """EC2 as the second account sees it."""
    return sandbox.client("ec2", **second[0])


@pytest.fixture
def their_raw(sandbox, second):
    keys = Keys(access_key=second[0]["aws_access_key_id"], secret_key=second[0]["aws_secret_access_key"])
    return sandbox.raw(keys=keys)


@pytest.fixture
def unblocked(ec2):
    yield
    ec2.disable_snapshot_block_public_access()


def permissions(ec2, snapshot_id):
    answer = ec2.describe_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")
    return answer["CreateVolumePermissions"]


def give(ec2, snapshot_id, *permissions, kind="Add"):
    return ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, CreateVolumePermission={kind: list(permissions)})


def seen(ec2, **parameters):
    return [one["SnapshotId"] for one in ec2.describe_snapshots(**parameters)["Snapshots"]]


@pytest.mark.behaviour("EC2 snapshots", "another account", "does not see, read, copy, change or delete a snapshot that "
                       "is not shared with it")  # fmt: skip
def test_what_is_not_shared_is_not_there(theirs, their_raw, shared, code_of):
    named = {"SnapshotId": shared}
    assert shared not in seen(theirs)
    assert code_of(theirs.describe_snapshots, SnapshotIds=[shared]) == "InvalidSnapshot.NotFound"
    assert code_of(theirs.create_volume, AvailabilityZone=ZONE, **named) == "InvalidSnapshot.NotFound"
    assert (
        code_of(theirs.copy_snapshot, SourceRegion="us-east-1", SourceSnapshotId=shared) == "InvalidSnapshot.NotFound"
    )
    assert code_of(theirs.delete_snapshot, **named) == "InvalidSnapshot.NotFound"
    assert code_of(theirs.create_tags, Resources=[shared], Tags=[{"Key": "a"}]) == "InvalidSnapshot.NotFound"
    add = {"Add": [{"Group": "all"}]}
    assert code_of(theirs.modify_snapshot_attribute, CreateVolumePermission=add, **named) == "InvalidSnapshot.NotFound"
    assert their_raw.ebs("GET", f"/snapshots/{shared}/blocks")[:2] == (404, "ResourceNotFoundException")


@pytest.mark.behaviour("EC2 snapshots", "ModifySnapshotAttribute, another account", "once given permission it sees the "
                       "snapshot (not its tags), makes volumes and copies of its bytes, also after the owner has "
                       "deleted it, and reads it by EBS direct; it cannot change it")  # fmt: skip
def test_what_is_shared_with_an_account(sandbox, theirs, their_raw, second, shared, blocks, code_of):
    ec2 = sandbox.client("ec2")
    give(ec2, shared, {"UserId": second[1]})
    assert permissions(ec2, shared) == [{"UserId": second[1]}]
    (found,) = theirs.describe_snapshots(SnapshotIds=[shared])["Snapshots"]
    assert (found["OwnerId"], found["State"], found["Tags"]) == ("123456789012", "completed", [])
    assert seen(theirs, Filters=[{"Name": "tag:Name", "Values": ["mine"]}]) == []
    expected = {0: blocks("a"), 3: blocks("b")}
    assert their_raw.read(shared) == expected
    for call, parameters in (
        (theirs.delete_snapshot, {}),
        (theirs.describe_snapshot_attribute, {"Attribute": "createVolumePermission"}),
        (theirs.reset_snapshot_attribute, {"Attribute": "createVolumePermission"}),
    ):
        assert code_of(call, SnapshotId=shared, **parameters) == "AuthFailure"
    copied = theirs.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=shared)["SnapshotId"]
    volume_id = theirs.create_volume(AvailabilityZone=ZONE, SnapshotId=shared)["VolumeId"]
    ec2.delete_snapshot(SnapshotId=shared)
    theirs.get_waiter("snapshot_completed").wait(SnapshotIds=[copied], WaiterConfig=WAIT)
    theirs.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig=WAIT)
    assert their_raw.read(copied) == expected
    with open(sandbox.directory / "volumes" / volume_id / "data", "rb") as data:
        assert [data.read(BLOCK) for _ in range(4)] == [blocks("a"), bytes(BLOCK), bytes(BLOCK), blocks("b")]
    assert code_of(ec2.describe_volumes, VolumeIds=[volume_id]) == "InvalidVolume.NotFound"
    there = sandbox.client("ec2", region_name="eu-west-1", **second[0])
    again = there.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=copied)["SnapshotId"]
    there.get_waiter("snapshot_completed").wait(SnapshotIds=[again], WaiterConfig=WAIT)


@pytest.mark.behaviour("EC2 snapshots", "ModifySnapshotAttribute", "permissions are added, removed and reset, in both "
                       "forms; a malformed account, a group but `all`, or both at once is refused")  # fmt: skip
def test_permissions_come_and_go(ec2, theirs, second, shared, code_of):
    users = ["111111111111", second[1]]
    add = {"SnapshotId": shared, "Attribute": "createVolumePermission", "OperationType": "add"}
    ec2.modify_snapshot_attribute(**add, UserIds=users)
    give(ec2, shared, {"UserId": users[0]})
    assert permissions(ec2, shared) == [{"UserId": one} for one in users]
    ec2.modify_snapshot_attribute(**{**add, "OperationType": "remove"}, UserIds=users[:1])
    assert permissions(ec2, shared) == [{"UserId": users[1]}]
    for bad, code in (
        ({"CreateVolumePermission": {"Add": [{"UserId": "me"}]}}, "InvalidUserID.Malformed"),
        ({"CreateVolumePermission": {"Add": [{"Group": "some"}]}}, "InvalidParameterValue"),
        ({"CreateVolumePermission": {"Add": [{"Group": "all"}], "Remove": [{"UserId": users[1]}]}},
         "InvalidParameterCombination"),
        ({"UserIds": users}, "InvalidParameterValue"),
        ({"Attribute": "productCodes"}, "InvalidParameterValue"),
        ({}, "MissingParameter"),
    ):  # fmt: skip
        assert code_of(ec2.modify_snapshot_attribute, SnapshotId=shared, **bad) == code
    assert permissions(ec2, shared) == [{"UserId": users[1]}]
    ec2.reset_snapshot_attribute(SnapshotId=shared, Attribute="createVolumePermission")
    assert permissions(ec2, shared) == []
    assert shared not in seen(theirs)


@pytest.mark.behaviour("EC2 snapshots", "DescribeSnapshots", "OwnerIds and RestorableByUserIds tell own, explicitly "
                       "shared and public snapshots apart, for both accounts")  # fmt: skip
def test_owners_and_readers(ec2, theirs, raw, second, unblocked):
    private, explicit, public = raw.snapshot({}), raw.snapshot({}), raw.snapshot({})
    give(ec2, explicit, {"UserId": second[1]})
    give(ec2, public, {"Group": "all"})
    ours = {private: "private", explicit: "explicit", public: "public"}

    def named(client, **parameters):
        return sorted(ours[one] for one in seen(client, **parameters) if one in ours)

    assert named(theirs) == ["explicit", "public"]
    assert named(theirs, OwnerIds=["self"]) == []
    assert named(theirs, OwnerIds=["123456789012"]) == ["explicit", "public"]
    assert named(theirs, RestorableByUserIds=["self"]) == ["explicit"]
    assert named(theirs, RestorableByUserIds=["all"]) == ["public"]
    assert named(ec2) == ["explicit", "private", "public"]
    assert named(ec2, RestorableByUserIds=["self"]) == ["explicit", "private", "public"]
    assert named(ec2, RestorableByUserIds=[second[1]]) == ["explicit"]
    assert named(ec2, RestorableByUserIds=["all"]) == ["public"]


@pytest.mark.behaviour("EBS direct", "public snapshots", "another account can copy one but not read it: "
                       "AccessDeniedException, UNAUTHORIZED_ACCOUNT; its owner can")  # fmt: skip
def test_a_public_snapshot_is_not_read_by_ebs_direct(ec2, theirs, raw, their_raw, shared, blocks, unblocked):
    index, token = raw.list(f"/snapshots/{shared}/blocks")[0]
    give(ec2, shared, {"Group": "all"})
    refused = (403, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT")
    assert their_raw.ebs("GET", f"/snapshots/{shared}/blocks")[:3] == refused
    path = f"/snapshots/{shared}/blocks/{index}?{urlencode({'blockToken': token})}"
    assert their_raw.ebs("GET", path)[:3] == refused
    assert raw.read(shared) == {0: blocks("a"), 3: blocks("b")}
    copied = theirs.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=shared)["SnapshotId"]
    theirs.get_waiter("snapshot_completed").wait(SnapshotIds=[copied], WaiterConfig=WAIT)
    assert their_raw.read(copied) == {0: blocks("a"), 3: blocks("b")}


@pytest.mark.behaviour("EC2 snapshots", "Enable/Disable/GetSnapshotBlockPublicAccess", "block-new-sharing refuses new "
                       "public snapshots, block-all-sharing hides those that are public until it is lifted; other "
                       "regions are not concerned")  # fmt: skip
def test_public_access_is_blocked(sandbox, ec2, theirs, raw, shared, unblocked, code_of):
    assert ec2.get_snapshot_block_public_access_state()["State"] == "unblocked"
    give(ec2, shared, {"Group": "all"})
    assert ec2.enable_snapshot_block_public_access(State="block-new-sharing")["State"] == "block-new-sharing"
    assert shared in seen(theirs)
    add = {"Add": [{"Group": "all"}]}
    other = raw.snapshot({})
    assert (
        code_of(ec2.modify_snapshot_attribute, SnapshotId=other, CreateVolumePermission=add) == "OperationNotPermitted"
    )
    ec2.enable_snapshot_block_public_access(State="block-all-sharing")
    assert shared not in seen(theirs)
    assert permissions(ec2, shared) == [{"Group": "all"}]
    elsewhere = sandbox.client("ec2", region_name="eu-west-1")
    assert elsewhere.get_snapshot_block_public_access_state()["State"] == "unblocked"
    assert code_of(ec2.enable_snapshot_block_public_access, State="unblocked") == "InvalidParameterValue"
    assert ec2.disable_snapshot_block_public_access()["State"] == "unblocked"
    assert shared in seen(theirs)
