"""CreateSnapshot and CopySnapshot: bytes as they were at one moment, states, lineage, and what a crash leaves."""

from __future__ import annotations

import os
import signal

import pytest

from builder.digest import BLOCK

ZONE = "us-east-1a"
FOREIGN = "snap-0123456789abcdef0"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}
MISSING = [
    ("EC2 snapshots", "CreateSnapshots", "one volume after the other: not all of the same moment"),
    ("EC2 snapshots", "CreateSnapshot", "without reflink (ext4) the volume's data is copied before the answer"),
    ("EC2 snapshots", "CopySnapshot", "Outposts, Local Zones: UnsupportedOperation; a CMK of KMS is a name only"),
    ("EC2 snapshots", "tiering, lock, recycle bin, fast snapshot restore", "UnsupportedOperation"),
]  # fmt: skip


def write(file, data):
    """Write {block index: bytes} into a volume's file, as a machine would."""
    with open(file, "r+b") as opened:
        for index, content in data.items():
            opened.seek(index * BLOCK)
            opened.write(content)


@pytest.mark.behaviour("EC2 snapshots", "CreateSnapshot", "the snapshot's blocks are the volume's bytes; blocks of "
                       "zeros, written or not, are not listed")  # fmt: skip
@pytest.mark.behaviour("EC2 snapshots", "CreateSnapshot", "point in time: what is written to the volume after the "
                       "answer is not in the snapshot")  # fmt: skip
def test_a_snapshot_is_what_the_volume_was(raw, ec2, make_volume, volume_file, completed_snapshot, blocks):
    volume_id = make_volume(Size=1)
    file = volume_file(volume_id)
    short = b"x" + bytes(BLOCK - 1)
    write(file, {0: blocks("a"), 5: bytes(BLOCK), 6: short[:1], 2047: blocks("end")})
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "emi:claim", "Value": "1"}]}]
    made = ec2.create_snapshot(VolumeId=volume_id, Description="d", TagSpecifications=tags)
    write(file, {0: blocks("later"), 7: blocks("later")})
    assert (made["State"], made["VolumeId"], made["VolumeSize"]) == ("pending", volume_id, 1)
    found = completed_snapshot(made["SnapshotId"])
    assert (found["Progress"], found["VolumeId"], found["Description"]) == ("100%", volume_id, "d")
    assert (found["Tags"], found["OwnerId"]) == ([{"Key": "emi:claim", "Value": "1"}], "123456789012")
    assert raw.read(made["SnapshotId"]) == {0: blocks("a"), 6: short, 2047: blocks("end")}


@pytest.mark.behaviour("EC2 snapshots", "CreateSnapshot", "`pending` with a progress that grows to 100% is seen before "
                       "`completed`; the waiter snapshot_completed waits for it")  # fmt: skip
def test_progress_is_really_seen(make_sandbox, blocks):
    running = make_sandbox()
    ec2 = running.client("ec2")
    volume_id = ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig=WAIT)
    write(running.directory / "volumes" / volume_id / "data", dict.fromkeys(range(1024), blocks(1)))
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    seen = []
    while seen[-1:] != [("completed", 100)]:
        (one,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
        seen.append((one["State"], int(one["Progress"].removesuffix("%"))))
    assert seen == sorted(seen, key=lambda entry: entry[1])
    assert any(state == "pending" and 0 < progress < 99 for state, progress in seen)
    assert {state for state, progress in seen if progress < 100} == {"pending"}


@pytest.mark.behaviour("EC2 snapshots", "CreateSnapshot", "ListChangedBlocks between two snapshots of one volume, and "
                       "between one and the snapshot the volume came from, names what differs")  # fmt: skip
def test_snapshots_of_one_volume_are_compared(raw, ec2, make_volume, volume_file, completed_snapshot, blocks):
    origin = raw.snapshot({0: blocks("a"), 1: blocks("b")})
    volume_id = make_volume(SnapshotId=origin)
    first = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    write(volume_file(volume_id), {1: bytes(BLOCK), 2: blocks("c")})
    second = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    for snapshot_id in (first, second):
        completed_snapshot(snapshot_id)
    for before, after, expected in ((origin, first, []), (first, second, [1, 2]), (origin, second, [1, 2])):
        answer = raw.ebs("GET", f"/snapshots/{after}/changedblocks?firstSnapshotId={before}")[3]
        assert [one["BlockIndex"] for one in answer["ChangedBlocks"]] == expected
    assert raw.read(second) == {0: blocks("a"), 2: blocks("c")}


@pytest.mark.behaviour("EC2 snapshots", "CreateSnapshot", "unknown volumes, foreign tags and too long descriptions are "
                       "refused and leave nothing")  # fmt: skip
@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"VolumeId": "vol-0123456789abcdef0"}, "InvalidVolume.NotFound"),
        ({"VolumeId": "x"}, "InvalidParameterValue"),
        ({"Description": "x" * 256}, "InvalidParameterValue"),
        ({"TagSpecifications": [{"ResourceType": "volume"}]}, "InvalidParameterValue"),
        ({"Location": "local"}, "UnsupportedOperation"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_a_snapshot_that_is_refused(sandbox, ec2, make_volume, code_of, values, code):
    volume_id = make_volume(Size=1)
    before = sorted(sandbox.directory.glob("disks/*"))
    assert code_of(ec2.create_snapshot, **{"VolumeId": volume_id, **values}) == code
    assert sorted(sandbox.directory.glob("disks/*")) == before


@pytest.mark.behaviour("EC2 snapshots", "CopySnapshot", "across regions: bytes and size equal, own description and "
                       "tags, `pending` before `completed`; it outlives its source")  # fmt: skip
def test_a_copy_across_regions(make_sandbox, blocks):
    running = make_sandbox(settle=2)
    raw = running.raw()
    data = {0: blocks("a"), 9: bytes(BLOCK), 4095: blocks("b")}
    source = raw.snapshot(data, VolumeSize=2, Description="source", Tags=[{"Key": "Name", "Value": "source"}])
    there = running.client("ec2", region_name="eu-west-1")
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "Name", "Value": "copy"}]}]
    wish = {"SourceRegion": "us-east-1", "SourceSnapshotId": source, "Description": "copy"}
    made = there.copy_snapshot(**wish, TagSpecifications=tags)
    assert made["Tags"] == tags[0]["Tags"]
    (found,) = there.describe_snapshots(SnapshotIds=[made["SnapshotId"]])["Snapshots"]
    assert (found["State"], found["VolumeSize"], found["Description"]) == ("pending", 2, "copy")
    assert int(found["Progress"].removesuffix("%")) < 100
    running.client("ec2").delete_snapshot(SnapshotId=source)
    there.get_waiter("snapshot_completed").wait(SnapshotIds=[made["SnapshotId"]], WaiterConfig=WAIT)
    (found,) = there.describe_snapshots(SnapshotIds=[made["SnapshotId"]])["Snapshots"]
    assert (found["Tags"], found["VolumeId"], found["Progress"]) == (tags[0]["Tags"], "vol-ffffffff", "100%")
    assert running.raw(region="eu-west-1").read(made["SnapshotId"]) == data


@pytest.mark.behaviour("EC2 snapshots", "CopySnapshot", "within a region; the deprecated DestinationRegion and a "
                       "PresignedUrl are accepted; a time-based copy shows its duration")  # fmt: skip
def test_a_copy_within_a_region(sandbox, raw, ec2, completed, completed_snapshot, blocks):
    wish = {"SourceRegion": "us-east-1", "SourceSnapshotId": completed, "DestinationRegion": "us-east-1"}
    copied = ec2.copy_snapshot(**wish, CompletionDurationMinutes=30)["SnapshotId"]
    found = completed_snapshot(copied)
    assert (found["TransferType"], found["CompletionDurationMinutes"]) == ("time-based", 30)
    filters = [{"Name": "transfer-type", "Values": ["time-based"]}]
    assert [one["SnapshotId"] for one in ec2.describe_snapshots(Filters=filters)["Snapshots"]] == [copied]
    assert raw.read(copied) == raw.read(completed) == {index: blocks(index) for index in (0, 7, 2047)}
    child = raw.start(ParentSnapshotId=copied)  # a child of a copy is its own
    raw.put(child, 0, blocks("other"))
    raw.complete(child, 1)
    raw.wait(child)
    assert raw.read(completed)[0] == raw.read(copied)[0] == blocks(0)
    assert raw.read(child)[0] == blocks("other")


@pytest.mark.behaviour("EC2 snapshots", "CopySnapshot", "a source that is unknown, in another region or pending, and "
                       "parameters that do not fit are refused")  # fmt: skip
@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"SourceSnapshotId": FOREIGN}, "InvalidSnapshot.NotFound"),
        ({"SourceRegion": "eu-west-1"}, "InvalidSnapshot.NotFound"),
        ({"SourceSnapshotId": "PENDING"}, "IncorrectState"),
        ({"SourceRegion": ""}, "MissingParameter"),
        ({"DestinationRegion": "eu-west-1"}, "InvalidParameterValue"),  # boto3 would put another in its place
        ({"Encrypted": "false"}, "InvalidParameterValue"),
        ({"KmsKeyId": "alias/aws/ebs"}, "InvalidParameterDependency"),
        ({"Encrypted": "true", "KmsKeyId": "alias/mine"}, "UnsupportedOperation"),
        ({"CompletionDurationMinutes": 20}, "InvalidParameterValue"),
        ({"DestinationOutpostArn": "arn:x"}, "UnsupportedOperation"),
        ({"TagSpecification.1.ResourceType": "image"}, "InvalidParameterValue"),
    ],
)
def test_a_copy_that_is_refused(sandbox, raw, completed, values, code):
    values = {name: raw.start() if value == "PENDING" else value for name, value in values.items()}
    before = sorted(sandbox.directory.glob("disks/*"))
    wish = {"SourceRegion": "us-east-1", "SourceSnapshotId": completed, **values}
    assert raw.ec2(Action="CopySnapshot", **wish)[1] == code
    assert sorted(sandbox.directory.glob("disks/*")) == before


@pytest.mark.behaviour("EC2 snapshots", "CreateSnapshot, kill -9", "a snapshot that was acknowledged while its work "
                       "was under way is completed by the next server, whole")  # fmt: skip
@pytest.mark.behaviour("EC2 volumes", "CreateVolume from a snapshot, kill -9", "a volume that was acknowledged becomes "
                       "available by the next server, with all its bytes")  # fmt: skip
def test_work_goes_on_after_a_kill(make_sandbox, blocks):
    """Killed right after the answer, three times; the work begins anew each time."""
    running = make_sandbox()
    data = {index: blocks(index % 5) for index in range(0, 2048, 8)}
    origin = running.raw().snapshot(data)
    for _ in range(3):
        ec2 = running.client("ec2")
        volume_id = ec2.create_volume(AvailabilityZone=ZONE, SnapshotId=origin)["VolumeId"]
        os.kill(running.endpoint.pid, signal.SIGKILL)
        running.restart()
        ec2 = running.client("ec2")
        ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig=WAIT)
        snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
        os.kill(running.endpoint.pid, signal.SIGKILL)
        running.restart()
        ec2 = running.client("ec2")
        ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot_id], WaiterConfig=WAIT)
        assert running.raw().read(snapshot_id) == data


@pytest.mark.behaviour(
    "EC2 snapshots", "DeleteSnapshot", "a pending one too: its work ends and its space is given back"
)
def test_a_snapshot_deleted_while_it_is_taken(sandbox, ec2, make_volume, volume_file, blocks, code_of):
    volume_id = make_volume(Size=1)
    write(volume_file(volume_id), {index: blocks(index % 3) for index in range(512)})
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    assert code_of(ec2.describe_snapshots, SnapshotIds=[snapshot_id]) == "InvalidSnapshot.NotFound"
    after = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[after], WaiterConfig=WAIT)
    assert not (sandbox.directory / "disks" / snapshot_id).exists()
