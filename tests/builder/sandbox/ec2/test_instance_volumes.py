"""The volumes of instances: made of the image's mapping, attached, deleted or left; attributes; and CreateImage."""

from __future__ import annotations

import pytest

from builder.digest import BLOCK

AREA = "EC2 instances (records only)"
ROOT, DATA, EMPTY = "/dev/xvda", "/dev/sdf", "/dev/sdg"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}


@pytest.fixture(scope="module")
def image(ec2, sandbox, completed, blocks):
    """An image with a root device, a second snapshot, an empty volume and an instance store."""
    second = sandbox.raw().snapshot({3: blocks("second")})
    devices = [
        {"DeviceName": ROOT, "Ebs": {"SnapshotId": completed}},
        {"DeviceName": DATA, "Ebs": {"SnapshotId": second, "VolumeSize": 2, "DeleteOnTermination": False}},
        {"DeviceName": EMPTY, "Ebs": {"VolumeSize": 8, "VolumeType": "gp3", "Iops": 4000}},
        {"DeviceName": "/dev/sdh", "VirtualName": "ephemeral0"},
    ]
    wish = {"Name": "with volumes", "RootDeviceName": ROOT, "BlockDeviceMappings": devices, "ImdsSupport": "v2.0"}
    image_id = ec2.register_image(Architecture="x86_64", VirtualizationType="hvm", EnaSupport=True, **wish)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig=WAIT)
    return image_id


@pytest.fixture
def launch(ec2, image):
    """Launch an instance and return its description once it runs."""

    def run(**parameters):
        wish = {"ImageId": image, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **parameters}
        (made,) = ec2.run_instances(**wish)["Instances"]
        ec2.get_waiter("instance_running").wait(InstanceIds=[made["InstanceId"]], WaiterConfig=WAIT)
        return described(ec2, made["InstanceId"])

    return run


def described(ec2, instance_id):
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def mapped(instance):
    return {one["DeviceName"]: one["Ebs"] for one in instance["BlockDeviceMappings"]}


def volumes_of(ec2, instance):
    filters = [{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}]
    found = ec2.describe_volumes(Filters=filters)["Volumes"]
    return {one["Attachments"][0]["Device"]: one for one in found}


@pytest.mark.behaviour(AREA, "RunInstances", "volumes hold the snapshots' bytes, attached in the instance's zone")
@pytest.mark.behaviour(AREA, "RunInstances", "pending until each of its volumes is created; tags on create of both")
def test_volumes_are_made_of_the_mapping(ec2, launch, blocks, volume_file):
    tags = [
        {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "i"}]},
        {"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "v"}]},
    ]
    instance = launch(TagSpecifications=tags, Placement={"AvailabilityZone": "us-east-1c"})
    found = volumes_of(ec2, instance)
    assert set(found) == set(mapped(instance)) == {ROOT, DATA, EMPTY}
    assert [(found[name]["Size"], found[name]["VolumeType"]) for name in (ROOT, DATA, EMPTY)] == [
        (1, "gp2"),
        (2, "gp2"),
        (8, "gp3"),
    ]
    assert (found[EMPTY]["Iops"], {one["State"] for one in found.values()}) == (4000, {"in-use"})
    assert {one["AvailabilityZone"] for one in found.values()} == {"us-east-1c"}
    assert all(one["Tags"] == [{"Key": "Name", "Value": "v"}] for one in found.values())
    assert instance["Tags"] == [{"Key": "Name", "Value": "i"}]
    assert [mapped(instance)[name]["DeleteOnTermination"] for name in (ROOT, DATA, EMPTY)] == [True, False, True]
    assert instance["MetadataOptions"]["HttpTokens"] == "required"  # as the image asks for
    with (
        open(volume_file(found[ROOT]["VolumeId"]), "rb") as root,
        open(volume_file(found[DATA]["VolumeId"]), "rb") as data,
    ):
        content = root.read()
        for index in (0, 7, 2047):
            assert content[index * BLOCK : (index + 1) * BLOCK] == blocks(index)
        data.seek(3 * BLOCK)
        assert data.read(BLOCK) == blocks("second")


@pytest.mark.behaviour(
    AREA, "RunInstances", "BlockDeviceMappings change size, type and DeleteOnTermination, add and omit"
)
def test_the_mapping_can_be_changed(ec2, launch, completed):
    changes = [
        {
            "DeviceName": ROOT,
            "Ebs": {"VolumeSize": 5, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": False},
        },
        {"DeviceName": DATA, "NoDevice": ""},
        {"DeviceName": "/dev/sdz", "Ebs": {"SnapshotId": completed}},
    ]
    found = volumes_of(ec2, launch(BlockDeviceMappings=changes))
    assert set(found) == {ROOT, EMPTY, "/dev/sdz"}
    assert (found[ROOT]["Size"], found[ROOT]["VolumeType"], found[ROOT]["Encrypted"]) == (5, "gp3", True)
    assert found[ROOT]["Attachments"][0]["DeleteOnTermination"] is False
    assert found["/dev/sdz"]["SnapshotId"] == completed


@pytest.mark.parametrize(
    ("device", "code"),
    [
        ({"DeviceName": ROOT, "NoDevice": ""}, "InvalidBlockDeviceMapping"),
        ({"DeviceName": DATA, "Ebs": {"VolumeSize": 0}}, "InvalidBlockDeviceMapping"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}, "InvalidBlockDeviceMapping"),
        ({"DeviceName": DATA, "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}, "InvalidSnapshot.NotFound"),
        ({"DeviceName": ROOT, "Ebs": {"VolumeType": "io2"}}, "InvalidParameterValue"),  # at least 4 GiB
        ({"DeviceName": ROOT, "Ebs": {"VolumeType": "gp9"}}, "UnknownVolumeType"),
        ({"DeviceName": "/dev/sdk", "Ebs": {}}, "MissingParameter"),
        ({"Ebs": {"VolumeSize": 1}}, "MissingParameter"),
        ({"DeviceName": ROOT, "Ebs": {"OutpostArn": "arn:x"}}, "UnsupportedOperation"),
    ],
)
@pytest.mark.behaviour(AREA, "RunInstances", "a mapping that is refused leaves neither a volume nor its file")
def test_a_mapping_that_is_refused(ec2, sandbox, image, code_of, device, code):
    def there():
        return sorted(entry.name for entry in (sandbox.directory / "volumes").iterdir())

    before = there(), len(ec2.describe_volumes()["Volumes"])
    wish = {"ImageId": image, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    assert code_of(ec2.run_instances, BlockDeviceMappings=[device], **wish) == code
    assert (there(), len(ec2.describe_volumes()["Volumes"])) == before


@pytest.mark.behaviour(AREA, "TerminateInstances", "volumes go or stay as DeleteOnTermination says, with their bytes")
def test_volumes_go_or_stay_with_the_instance(ec2, launch, volume_file, code_of):
    instance = launch()
    ids = {name: ebs["VolumeId"] for name, ebs in mapped(instance).items()}
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[instance["InstanceId"]], WaiterConfig=WAIT)
    ec2.get_waiter("volume_available").wait(VolumeIds=[ids[DATA]], WaiterConfig=WAIT)
    ec2.get_waiter("volume_deleted").wait(VolumeIds=[ids[ROOT], ids[EMPTY]], WaiterConfig=WAIT)
    assert code_of(ec2.describe_volumes, VolumeIds=[ids[ROOT]]) == "InvalidVolume.NotFound"
    assert [volume_file(ids[name]).exists() for name in (ROOT, DATA, EMPTY)] == [False, True, False]
    assert described(ec2, instance["InstanceId"])["BlockDeviceMappings"] == []


def test_an_instance_starts_only_with_its_root_volume(ec2, launch, code_of):
    instance = launch()
    ids, root = [instance["InstanceId"]], mapped(instance)[ROOT]["VolumeId"]
    ec2.stop_instances(InstanceIds=ids)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=ids, WaiterConfig=WAIT)
    ec2.detach_volume(VolumeId=root)
    ec2.get_waiter("volume_available").wait(VolumeIds=[root], WaiterConfig=WAIT)
    assert code_of(ec2.start_instances, InstanceIds=ids) == "InvalidParameterValue"
    ec2.attach_volume(VolumeId=root, InstanceId=ids[0], Device=ROOT)
    ec2.start_instances(InstanceIds=ids)
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=WAIT)
    assert mapped(described(ec2, ids[0]))[ROOT]["VolumeId"] == root


@pytest.mark.behaviour(AREA, "DescribeInstanceAttribute", "user data and every other attribute as they were given")
@pytest.mark.behaviour(
    AREA, "ModifyInstanceAttribute", "what is changed is described and obeyed, in the state it needs"
)
def test_attributes(ec2, launch, code_of):
    instance = launch(UserData="#!/bin/sh\nü", DisableApiTermination=True)
    name = {"InstanceId": instance["InstanceId"]}

    def shown(attribute):
        answer = ec2.describe_instance_attribute(Attribute=attribute, **name)
        return next(value for key, value in answer.items() if key not in ("InstanceId", "ResponseMetadata"))

    assert shown("userData") == {"Value": "IyEvYmluL3NoCsO8"}
    assert (shown("instanceType"), shown("rootDeviceName")) == ({"Value": "t3.micro"}, {"Value": ROOT})
    assert (shown("disableApiTermination"), shown("disableApiStop")) == ({"Value": True}, {"Value": False})
    assert {one["DeviceName"] for one in shown("blockDeviceMapping")} == {ROOT, DATA, EMPTY}
    assert code_of(ec2.describe_instance_attribute, Attribute="colour", **name) == "InvalidParameterValue"
    assert code_of(ec2.terminate_instances, InstanceIds=[name["InstanceId"]]) == "OperationNotPermitted"
    change = [{"DeviceName": DATA, "Ebs": {"DeleteOnTermination": True}}]
    ec2.modify_instance_attribute(BlockDeviceMappings=change, **name)
    assert mapped(described(ec2, name["InstanceId"]))[DATA]["DeleteOnTermination"] is True
    assert (
        code_of(ec2.modify_instance_attribute, InstanceType={"Value": "t3.large"}, **name) == "IncorrectInstanceState"
    )
    ec2.stop_instances(InstanceIds=[name["InstanceId"]])
    ec2.get_waiter("instance_stopped").wait(InstanceIds=[name["InstanceId"]], WaiterConfig=WAIT)
    ec2.modify_instance_attribute(InstanceType={"Value": "t3.large"}, **name)
    ec2.modify_instance_attribute(UserData={"Value": b"new"}, **name)
    ec2.modify_instance_attribute(Attribute="disableApiTermination", Value="false", **name)
    assert (shown("instanceType"), shown("userData")) == ({"Value": "t3.large"}, {"Value": "bmV3"})
    both = {"InstanceType": {"Value": "t3.micro"}, "EbsOptimized": {"Value": True}}
    assert code_of(ec2.modify_instance_attribute, **both, **name) == "InvalidParameterCombination"
    assert code_of(ec2.modify_instance_attribute, SourceDestCheck={"Value": False}, **name) == "UnsupportedOperation"
    ec2.terminate_instances(InstanceIds=[name["InstanceId"]])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[name["InstanceId"]], WaiterConfig=WAIT)
