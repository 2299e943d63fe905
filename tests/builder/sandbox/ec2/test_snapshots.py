"""DescribeSnapshots and DeleteSnapshot."""

from __future__ import annotations

import pytest

FOREIGN = "snap-0123456789abcdef0"


@pytest.fixture(scope="module")
def pair(sandbox, blocks):
    """A completed and a pending snapshot in a region of their own, with clients there."""
    region = "sa-east-1"
    raw = sandbox.raw(region=region)
    done = raw.snapshot({0: blocks(1)}, Description="done", Tags=[{"Key": "emi:claim", "Value": "one"}])
    pending = raw.start(VolumeSize=3, Description="pending", Tags=[{"Key": "emi:claim", "Value": "two"}])
    return sandbox.client("ec2", region_name=region), (done, pending)


@pytest.mark.behaviour("EC2 snapshots", "DescribeSnapshots", "every filter of the model's documentation, with "
                       "wildcards")  # fmt: skip
@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("description", ["do*"], [0]),
        ("encrypted", ["false"], [0, 1]),
        ("encrypted", ["true"], []),
        ("owner-alias", ["amazon"], []),
        ("owner-id", ["123456789012"], [0, 1]),
        ("progress", ["100%"], [0]),
        ("progress", ["0%"], [1]),
        ("snapshot-id", ["DONE"], [0]),
        ("start-time", ["2*T*Z"], [0, 1]),
        ("status", ["completed"], [0]),
        ("status", ["pending"], [1]),
        ("status", ["error"], []),
        ("storage-tier", ["standard"], [0, 1]),
        ("tag:emi:claim", ["one"], [0]),
        ("tag:emi:claim", ["one", "two"], [0, 1]),
        ("tag-key", ["emi:*"], [0, 1]),
        ("transfer-type", ["standard"], [0, 1]),
        ("volume-id", ["vol-ffffffff"], [0, 1]),
        ("volume-size", ["3"], [1]),
    ],
)
def test_filters_of_describe_snapshots(pair, name, values, expected):
    ec2, ids = pair
    values = [value.replace("DONE", ids[0]) for value in values]
    found = ec2.describe_snapshots(Filters=[{"Name": name, "Values": values}])["Snapshots"]
    assert [snapshot["SnapshotId"] for snapshot in found] == [ids[number] for number in expected]


@pytest.mark.behaviour("EC2 snapshots", "DescribeSnapshots", "OwnerIds and RestorableByUserIds")
@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"OwnerIds": ["self"]}, 2),
        ({"OwnerIds": ["amazon"]}, 0),
        ({"RestorableByUserIds": ["self"]}, 2),
        ({"RestorableByUserIds": ["all"]}, 0),
    ],
)
def test_owners_and_readers(pair, parameters, expected):
    assert len(pair[0].describe_snapshots(**parameters)["Snapshots"]) == expected


@pytest.mark.behaviour("EC2 snapshots", "DescribeSnapshots", "unknown or malformed ids, filters, page sizes and "
                       "tokens are refused")  # fmt: skip
@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"SnapshotIds": [FOREIGN]}, "InvalidSnapshot.NotFound"),
        ({"SnapshotIds": ["ami-12345678"]}, "InvalidParameterValue"),
        ({"SnapshotIds": [FOREIGN], "MaxResults": 5}, "InvalidParameterCombination"),
        ({"Filters": [{"Name": "state", "Values": ["completed"]}]}, "InvalidParameterValue"),
        ({"MaxResults": 1}, "InvalidParameterValue"),
        ({"NextToken": "?"}, "InvalidNextToken"),
    ],
)
def test_a_description_that_is_refused(ec2, code_of, parameters, code):
    assert code_of(ec2.describe_snapshots, **parameters) == code


@pytest.mark.behaviour("EC2 snapshots", "DescribeSnapshots", "pages hold every snapshot once although one is deleted "
                       "between them")  # fmt: skip
def test_pages_hold_every_snapshot_once(sandbox):
    region = "ca-central-1"
    raw, ec2 = sandbox.raw(region=region), sandbox.client("ec2", region_name=region)
    ids = [raw.start() for _ in range(11)]
    first = ec2.describe_snapshots(MaxResults=5)
    ec2.delete_snapshot(SnapshotId=ids[0])
    second = ec2.describe_snapshots(MaxResults=5, NextToken=first["NextToken"])
    third = ec2.describe_snapshots(MaxResults=5, NextToken=second["NextToken"])
    pages = [[one["SnapshotId"] for one in page["Snapshots"]] for page in (first, second, third)]
    assert pages == [ids[:5], ids[5:10], ids[10:]]


@pytest.mark.behaviour("EC2 snapshots", "DeleteSnapshot", "gone with its bytes; DryRun changes nothing")
def test_a_deleted_snapshot_is_gone_with_its_bytes(sandbox, raw, ec2, blocks, code_of):
    snapshot_id = raw.snapshot({index: blocks(index) for index in range(8)})
    disk = sandbox.directory / "disks" / snapshot_id
    assert (disk / "data").stat().st_blocks * 512 == 8 * 512 * 1024
    assert code_of(ec2.delete_snapshot, SnapshotId=snapshot_id, DryRun=True) == "DryRunOperation"
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    assert not disk.exists()
    assert code_of(ec2.delete_snapshot, SnapshotId=snapshot_id) == "InvalidSnapshot.NotFound"
    assert raw.put(snapshot_id, 0, blocks(0))[:2] == (404, "ResourceNotFoundException")


@pytest.mark.behaviour("EC2 snapshots", "DeleteSnapshot", "a pending one too")
def test_a_pending_snapshot_can_be_deleted(raw, ec2, blocks):
    snapshot_id = raw.start()
    raw.put(snapshot_id, 0, blocks(0))
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    assert raw.complete(snapshot_id, 1)[:3] == (404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")


@pytest.mark.behaviour("EC2 snapshots", "DeleteSnapshot", "InvalidSnapshot.InUse as long as an image uses it")
def test_a_snapshot_in_use_is_kept(raw, ec2, code_of):
    snapshot_id = raw.snapshot({})
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id}}]
    image = ec2.register_image(Name=f"uses {snapshot_id}", RootDeviceName="/dev/xvda", BlockDeviceMappings=devices)
    assert code_of(ec2.delete_snapshot, SnapshotId=snapshot_id) == "InvalidSnapshot.InUse"
    assert raw.read(snapshot_id) == {}
    ec2.deregister_image(ImageId=image["ImageId"])
    ec2.delete_snapshot(SnapshotId=snapshot_id)
