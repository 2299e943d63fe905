"""CopyImage and CreateImage: bytes and fields, states with progress, failure, and what is refused."""

from __future__ import annotations

import base64
import time
from dataclasses import replace

import pytest
from botocore.exceptions import WaiterError  # noqa: TID251 - the client that users bring

from builder.digest import BLOCK
from builder.sandbox import lifecycle
from builder.sandbox.faults import client as faults
from builder.sandbox.records import Snapshot
from builder.sandbox.state import State

AREA = "EC2 images"
ROOT, DATA = "/dev/xvda", "/dev/sdf"
THERE = "eu-central-1"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}
ABSENT = "ami-0123456789abcdef0"
MISSING = [
    (AREA, "CopyImage", "Outposts and Local Zones: UnsupportedOperation"),
    (AREA, "CreateImage", "SnapshotLocation is refused: there are no Local Zones; nothing reboots, for nothing runs"),
]
# What a copy shares with its source; all else is its own.
SAME = (
    "Architecture", "BootMode", "EnaSupport", "Hypervisor", "ImageType", "ImdsSupport", "KernelId", "PlatformDetails",
    "RamdiskId", "RootDeviceName", "RootDeviceType", "SriovNetSupport", "TpmSupport", "UsageOperation",
    "VirtualizationType",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(ec2, sandbox, blocks):
    """An image with a value in every field: its id."""
    raw = sandbox.raw()
    first, second = raw.snapshot({0: blocks(0), 2047: blocks(1)}), raw.snapshot({9: blocks(9)}, VolumeSize=2)
    devices = [
        {"DeviceName": ROOT, "Ebs": {"SnapshotId": first, "VolumeSize": 9, "VolumeType": "gp3", "Iops": 4000,
                                     "Throughput": 250, "DeleteOnTermination": False}},
        {"DeviceName": DATA, "Ebs": {"SnapshotId": second}},
        {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 5}},
        {"DeviceName": "/dev/sdh", "VirtualName": "ephemeral0"},
        {"DeviceName": "/dev/sdi", "NoDevice": ""},
    ]  # fmt: skip
    image_id = ec2.register_image(
        Name="source", Description="the source", Architecture="x86_64", VirtualizationType="hvm", BootMode="uefi",
        EnaSupport=True, SriovNetSupport="simple", ImdsSupport="v2.0", TpmSupport="v2.0", KernelId="aki-12345678",
        RamdiskId="ari-12345678", UefiData=base64.b64encode(b"AMZNUEFI" + bytes(500)).decode(), RootDeviceName=ROOT,
        BlockDeviceMappings=devices,
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]}],
    )["ImageId"]  # fmt: skip
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig=WAIT)
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [{"UserId": "111122223333"}]})
    return image_id


@pytest.fixture
def there(sandbox):
    return sandbox.client("ec2", region_name=THERE)


def described(ec2, image_id):
    (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    return image


def available(ec2, image_id):
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig=WAIT)
    return described(ec2, image_id)


def snapshots(image):
    return [one["Ebs"]["SnapshotId"] for one in image["BlockDeviceMappings"] if "SnapshotId" in one.get("Ebs", {})]


def without_ids(image):
    return [
        {**one, "Ebs": {key: value for key, value in one["Ebs"].items() if key != "SnapshotId"}}
        if "Ebs" in one
        else one
        for one in image["BlockDeviceMappings"]
    ]


@pytest.mark.parametrize("region", ["us-east-1", THERE])
@pytest.mark.behaviour(AREA, "CopyImage", "within a region and across: the snapshots' bytes and every field of the "
                       "image are equal; permissions do not come along")  # fmt: skip
def test_a_copy_is_equal(ec2, sandbox, source, region):
    client, raw = sandbox.client("ec2", region_name=region), sandbox.raw(region=region)
    name = f"copy in {region}"
    wish = {"SourceImageId": source, "SourceRegion": "us-east-1", "Name": name, "Description": "d"}
    copy_id = client.copy_image(**wish)["ImageId"]
    copy, origin = available(client, copy_id), described(ec2, source)
    assert {key: copy[key] for key in SAME} == {key: origin[key] for key in SAME}
    assert (copy["Name"], copy["Description"], copy["OwnerId"]) == (name, "d", "123456789012")
    assert (copy["SourceImageId"], copy["SourceImageRegion"]) == (source, "us-east-1")
    assert "Tags" not in copy
    assert without_ids(copy) == without_ids(origin)
    assert not set(snapshots(copy)) & set(snapshots(origin))
    for mine, original in zip(snapshots(copy), snapshots(origin), strict=True):
        assert raw.read(mine) == sandbox.raw().read(original) != {}
    for attribute in ("uefiData", "launchPermission"):
        there = client.describe_image_attribute(ImageId=copy_id, Attribute=attribute)
        here = ec2.describe_image_attribute(ImageId=source, Attribute=attribute)
        assert there.get("UefiData") == here.get("UefiData")
        assert there.get("LaunchPermissions", []) == []


@pytest.mark.behaviour(AREA, "CopyImage", "a copy lives on when its source is deregistered with its snapshots")
def test_a_copy_outlives_its_source(ec2, sandbox, raw, there, blocks):
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": raw.snapshot({1: blocks("gone")})}}]
    first = ec2.register_image(Name="mortal", RootDeviceName=ROOT, BlockDeviceMappings=devices)["ImageId"]
    available(ec2, first)
    copy_id = there.copy_image(SourceImageId=first, SourceRegion="us-east-1", Name="immortal")["ImageId"]
    ec2.deregister_image(ImageId=first, DeleteAssociatedSnapshots=True)
    (snapshot_id,) = snapshots(available(there, copy_id))
    assert sandbox.raw(region=THERE).read(snapshot_id) == {1: blocks("gone")}


@pytest.mark.behaviour(
    AREA, "CopyImage", "tags: those given to image and snapshots, and the source's with CopyImageTags"
)
@pytest.mark.behaviour(AREA, "CopyImage", "with Encrypted its snapshots and mapping are encrypted")
def test_tags_and_encryption(there, source):
    tags = [
        {"ResourceType": "image", "Tags": [{"Key": "b", "Value": "mine"}, {"Key": "c", "Value": "3"}]},
        {"ResourceType": "snapshot", "Tags": [{"Key": "emi:claim", "Value": "x"}]},
    ]
    wish = {"SourceImageId": source, "SourceRegion": "us-east-1", "Name": "tagged", "Encrypted": True}
    copy = available(there, there.copy_image(CopyImageTags=True, TagSpecifications=tags, **wish)["ImageId"])
    assert {tag["Key"]: tag["Value"] for tag in copy["Tags"]} == {"a": "1", "b": "mine", "c": "3"}
    assert [one["Ebs"]["Encrypted"] for one in copy["BlockDeviceMappings"][:2]] == [True, True]
    for one in there.describe_snapshots(SnapshotIds=snapshots(copy))["Snapshots"]:
        assert (one["Tags"], one["Encrypted"]) == ([{"Key": "emi:claim", "Value": "x"}], True)
        assert one["Description"].startswith(f"Copied for DestinationAmi {copy['ImageId']} from SourceAmi {source}")


@pytest.mark.behaviour(AREA, "CopyImage", "`pending` as long as one of its snapshots is, whose progress grows; the "
                       "waiter image_available waits for it")  # fmt: skip
def test_a_copy_is_pending_with_its_snapshots(make_sandbox):
    running = make_sandbox(settle=2)
    ec2, snapshot_id = running.client("ec2"), running.raw().snapshot({})
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}]
    first = ec2.register_image(Name="first", RootDeviceName=ROOT, BlockDeviceMappings=devices)["ImageId"]
    refused = ec2.exceptions.ClientError
    with pytest.raises(refused, match="IncorrectState"):  # not yet available
        ec2.copy_image(SourceImageId=first, SourceRegion="us-east-1", Name="copy")
    available(ec2, first)
    copy_id = ec2.copy_image(SourceImageId=first, SourceRegion="us-east-1", Name="copy")["ImageId"]
    (mine,) = snapshots(described(ec2, copy_id))
    seen = []
    while not seen or seen[-1][0] == "pending":
        image = described(ec2, copy_id)["State"]
        snapshot = ec2.describe_snapshots(SnapshotIds=[mine])["Snapshots"][0]
        seen.append((image, snapshot["State"], int(snapshot["Progress"].rstrip("%"))))
        time.sleep(0.05)
    assert seen[0][:2] == ("pending", "pending")
    assert seen[-1] == ("available", "completed", 100)
    assert {state for image, state, _ in seen if image == "available"} == {"completed"}
    assert sorted({percent for _, _, percent in seen}) == list(dict.fromkeys(percent for _, _, percent in seen))


@pytest.mark.behaviour(AREA, "CopyImage", "when a snapshot ends in error the image is `failed` with a StateReason")
def test_a_copy_fails_with_its_snapshot(make_sandbox):
    running = make_sandbox(settle=2)
    ec2, snapshot_id = running.client("ec2"), running.raw().snapshot({})
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}]
    first = ec2.register_image(Name="first", RootDeviceName=ROOT, BlockDeviceMappings=devices)["ImageId"]
    available(ec2, first)
    copy_id = ec2.copy_image(SourceImageId=first, SourceRegion="us-east-1", Name="copy")["ImageId"]
    (mine,) = snapshots(described(ec2, copy_id))
    lifecycle.stop(running.directory)
    state = State(running.directory / "state.sqlite")
    with state.lock:  # as if its disk had failed
        state.put(replace(state.all(Snapshot)[mine], failure="no space left"))
    state.close()
    running.restart()
    image = described(running.client("ec2"), copy_id)
    assert (image["State"], image["StateReason"]["Code"]) == ("failed", "Client.InternalError")
    assert mine in image["StateReason"]["Message"]
    with pytest.raises(WaiterError, match="failed"):
        available(running.client("ec2"), copy_id)


@pytest.mark.behaviour(AREA, "CopyImage", "a copy that the fault table lets fail is `failed`, and found as such")
def test_a_copy_that_is_made_to_fail(sandbox, there, source):
    faults.put(sandbox.endpoint, [{"effect": "fail", "call": "CopyImage"}])
    try:
        wish = {"SourceImageId": source, "SourceRegion": "us-east-1", "Name": "doomed"}
        copy_id = there.copy_image(**wish)["ImageId"]
    finally:
        faults.clear(sandbox.endpoint)
    image = described(there, copy_id)
    assert (image["State"], image["StateReason"]["Code"]) == ("failed", "Client.InternalError")
    failed = [{"Name": "state", "Values": ["failed"]}]
    assert [one["ImageId"] for one in there.describe_images(Filters=failed)["Images"]] == [copy_id]


@pytest.mark.behaviour(AREA, "CopyImage with a ClientToken", "one copy, also when asked at the same time and after its "
                       "end; IdempotentParameterMismatch for another")  # fmt: skip
def test_a_client_token_copies_once(sandbox, there, source, together, code_of):
    token = f"token {time.time_ns()}"
    wish = {"SourceImageId": source, "SourceRegion": "us-east-1", "Name": "once", "ClientToken": token}
    made = together(*[lambda: sandbox.client("ec2", region_name=THERE).copy_image(**wish)["ImageId"]] * 4)
    assert len(set(made)) == 1
    assert code_of(there.copy_image, **{**wish, "Name": "twice"}) == "IdempotentParameterMismatch"
    there.deregister_image(ImageId=made[0], DeleteAssociatedSnapshots=True)
    assert there.copy_image(**wish)["ImageId"] == made[0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"SourceImageId": ABSENT}, "InvalidAMIID.NotFound"),
        ({"SourceImageId": "ami"}, "InvalidAMIID.Malformed"),
        ({"SourceRegion": THERE}, "InvalidAMIID.NotFound"),
        ({"Name": "x"}, "InvalidAMIName.Malformed"),
        ({"Name": "source", "there": False}, "InvalidAMIName.Duplicate"),
        ({"Description": "x" * 256}, "InvalidParameterValue"),
        ({"KmsKeyId": "alias/aws/ebs"}, "InvalidParameterDependency"),
        ({"SnapshotCopyCompletionDurationMinutes": 7}, "InvalidParameterValue"),
        ({"DestinationOutpostArn": "arn:x"}, "UnsupportedOperation"),
        ({"TagSpecifications": [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]},
         "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)  # fmt: skip
@pytest.mark.behaviour(AREA, "CopyImage", "what is refused leaves neither an image nor a snapshot nor its bytes")
def test_a_copy_that_is_refused(ec2, sandbox, there, source, code_of, change, code):
    def left():
        return len(list((sandbox.directory / "disks").iterdir())), len(
            client.describe_images(Owners=["self"])["Images"]
        )

    change = dict(change)
    client = there if change.pop("there", True) else ec2
    before = left()
    wish = {"SourceImageId": source, "SourceRegion": "us-east-1", "Name": "refused", **change}
    assert code_of(client.copy_image, **wish) == code
    assert left() == before


@pytest.fixture
def instance(ec2, source):
    """An instance of the source with its volumes, running: its description."""
    (made,) = ec2.run_instances(ImageId=source, InstanceType="m5.large", MinCount=1, MaxCount=1)["Instances"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[made["InstanceId"]], WaiterConfig=WAIT)
    return ec2.describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0]["Instances"][0]


@pytest.mark.behaviour(AREA, "CreateImage", "snapshots of all volumes with the bytes they have now; the instance's "
                       "fields; SourceInstanceId; `pending` before `available`")  # fmt: skip
def test_an_image_of_an_instance(ec2, raw, source, instance, volume_file, blocks):
    ids = {one["DeviceName"]: one["Ebs"]["VolumeId"] for one in instance["BlockDeviceMappings"]}
    with open(volume_file(ids[ROOT]), "r+b") as file:  # as the machine would
        file.seek(7 * BLOCK)
        file.write(blocks("written"))
    tags = [{"ResourceType": kind, "Tags": [{"Key": "k", "Value": kind}]} for kind in ("image", "snapshot")]
    wish = {"InstanceId": instance["InstanceId"], "Description": "of i", "NoReboot": True, "TagSpecifications": tags}
    image_id = ec2.create_image(Name=f"of {instance['InstanceId']}", **wish)["ImageId"]
    assert described(ec2, image_id)["State"] == "pending"
    image, origin = available(ec2, image_id), described(ec2, source)
    assert {key: image[key] for key in SAME} == {key: origin[key] for key in SAME}
    assert (image["SourceInstanceId"], image["Description"]) == (instance["InstanceId"], "of i")
    assert image["Tags"] == [{"Key": "k", "Value": "image"}]
    found = {one["DeviceName"]: one["Ebs"] for one in image["BlockDeviceMappings"]}
    assert [(found[name]["VolumeSize"], found[name]["DeleteOnTermination"]) for name in (ROOT, DATA, "/dev/sdg")] == [
        (9, False),
        (2, True),
        (5, True),
    ]
    assert (found[ROOT]["VolumeType"], found[ROOT]["Iops"], found[ROOT]["Throughput"]) == ("gp3", 4000, 250)
    assert raw.read(found[ROOT]["SnapshotId"]) == {0: blocks(0), 7: blocks("written"), 2047: blocks(1)}
    assert raw.read(found[DATA]["SnapshotId"]) == {9: blocks(9)}
    (snapshot,) = ec2.describe_snapshots(SnapshotIds=[found[ROOT]["SnapshotId"]])["Snapshots"]
    assert snapshot["Description"] == f"Created by CreateImage({instance['InstanceId']}) for {image_id}"
    assert (snapshot["VolumeId"], snapshot["Tags"]) == (ids[ROOT], [{"Key": "k", "Value": "snapshot"}])
    listed = ec2.describe_images(Filters=[{"Name": "source-instance-id", "Values": [instance["InstanceId"]]}])["Images"]
    assert [one["ImageId"] for one in listed] == [image_id]


@pytest.mark.behaviour(
    AREA, "CreateImage", "BlockDeviceMappings leave devices out, add some, change DeleteOnTermination"
)
def test_the_mapping_is_merged(ec2, instance, completed):
    changes = [
        {"DeviceName": ROOT, "Ebs": {"DeleteOnTermination": True}},
        {"DeviceName": DATA, "NoDevice": ""},
        {"DeviceName": "/dev/sdx", "Ebs": {"SnapshotId": completed}},
        {"DeviceName": "/dev/sdy", "VirtualName": "ephemeral1"},
    ]
    wish = {"InstanceId": instance["InstanceId"], "Name": f"merged {time.time_ns()}", "BlockDeviceMappings": changes}
    image = available(ec2, ec2.create_image(**wish)["ImageId"])
    found = {one["DeviceName"]: one.get("Ebs", one) for one in image["BlockDeviceMappings"]}
    assert set(found) == {ROOT, "/dev/sdg", "/dev/sdx", "/dev/sdy"}
    assert (found[ROOT]["DeleteOnTermination"], found["/dev/sdx"]["SnapshotId"]) == (True, completed)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"InstanceId": "i-0123456789abcdef0"}, "InvalidInstanceID.NotFound"),
        ({"Name": "x"}, "InvalidAMIName.Malformed"),
        ({"Name": "source"}, "InvalidAMIName.Duplicate"),
        ({"BlockDeviceMappings": [{"DeviceName": ROOT, "Ebs": {"VolumeSize": 20}}]}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": [{"DeviceName": ROOT, "Ebs": {"SnapshotId": "snap-1"}}]}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/sdx", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}]},
         "InvalidSnapshot.NotFound"),
        ({"SnapshotLocation": "local"}, "InvalidParameterCombination"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)  # fmt: skip
@pytest.mark.behaviour(AREA, "CreateImage", "what is refused leaves neither an image nor a snapshot nor its bytes")
def test_an_image_that_is_refused(ec2, sandbox, instance, code_of, change, code):
    def left():
        return len(list((sandbox.directory / "disks").iterdir())), len(ec2.describe_images(Owners=["self"])["Images"])

    before = left()
    assert code_of(ec2.create_image, **{"InstanceId": instance["InstanceId"], "Name": "refused", **change}) == code
    assert left() == before


def test_a_terminated_instance_makes_no_image(ec2, instance, code_of):
    named = {"InstanceId": instance["InstanceId"]}
    ec2.terminate_instances(InstanceIds=[named["InstanceId"]])
    assert code_of(ec2.create_image, Name="too late", **named) == "IncorrectInstanceState"
