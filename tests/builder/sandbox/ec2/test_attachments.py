"""AttachVolume and DetachVolume as states. No machine runs behind an instance yet."""

from __future__ import annotations

import time

import pytest

ZONE = "us-east-1a"
FOREIGN = "i-0123456789abcdef0"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}
MISSING = [("EC2 volumes", "AttachVolume", "a state only, where instances are records")]


@pytest.fixture(scope="module")
def image_id(sandbox):
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": sandbox.raw().snapshot({})}}]
    ec2 = sandbox.client("ec2")
    made = ec2.register_image(
        Name="attachments", RootDeviceName="/dev/xvda", Architecture="x86_64", VirtualizationType="hvm",
        BlockDeviceMappings=devices,
    )["ImageId"]  # fmt: skip
    ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig=WAIT)
    return made


@pytest.fixture
def run(ec2, image_id):
    """Run an instance in a zone and return its id when it is running."""

    def start(zone=ZONE, client=ec2, wait="instance_running"):
        placed = {"Placement": {"AvailabilityZone": zone}, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro"}
        (instance,) = client.run_instances(ImageId=image_id, **placed)["Instances"]
        client.get_waiter(wait).wait(InstanceIds=[instance["InstanceId"]], WaiterConfig=WAIT)
        return instance["InstanceId"]

    return start


def described(ec2, volume_id):
    return ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]


@pytest.mark.behaviour("EC2 volumes", "AttachVolume", "`attaching`, `attached`, `detaching` and gone are seen in turn, "
                       "the volume `in-use` meanwhile; the waiters volume_in_use and volume_available end")  # fmt: skip
@pytest.mark.behaviour("EC2 volumes", "DetachVolume", "without InstanceId and Device; a second one meanwhile is "
                       "IncorrectState, with Force it is answered")  # fmt: skip
def test_states_are_really_seen(make_sandbox, code_of):
    running = make_sandbox(settle=2)
    ec2 = running.client("ec2")
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": running.raw().snapshot({})}}]
    image_id = ec2.register_image(Name="one", RootDeviceName="/dev/xvda", BlockDeviceMappings=devices)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig=WAIT)
    placed = {"Placement": {"AvailabilityZone": ZONE}, "MinCount": 1, "MaxCount": 1}
    (instance,) = ec2.run_instances(ImageId=image_id, **placed)["Instances"]
    volume_id = ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    named = {"VolumeId": volume_id, "InstanceId": instance["InstanceId"], "Device": "/dev/sdf"}
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance["InstanceId"]], WaiterConfig=WAIT)
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig=WAIT)
    assert ec2.attach_volume(**named)["State"] == "attaching"
    volume = described(ec2, volume_id)
    assert (volume["State"], volume["Attachments"][0]["State"]) == ("in-use", "attaching")
    ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume_id], WaiterConfig=WAIT)
    while described(ec2, volume_id)["Attachments"][0]["State"] != "attached":
        time.sleep(0.05)
    answer = ec2.detach_volume(VolumeId=volume_id)
    assert (answer["State"], answer["Device"], answer["InstanceId"]) == ("detaching", "/dev/sdf", named["InstanceId"])
    volume = described(ec2, volume_id)
    assert (volume["State"], volume["Attachments"][0]["State"]) == ("in-use", "detaching")
    assert code_of(ec2.detach_volume, VolumeId=volume_id) == "IncorrectState"
    assert ec2.detach_volume(VolumeId=volume_id, Force=True)["State"] == "detaching"
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig=WAIT)
    assert described(ec2, volume_id)["Attachments"] == []
    assert code_of(ec2.detach_volume, VolumeId=volume_id) == "IncorrectState"


@pytest.mark.behaviour("EC2 volumes", "AttachVolume", "a volume in use, one of another zone, a device name that is "
                       "taken or is none, an instance that is not there are refused with EC2's codes")  # fmt: skip
@pytest.mark.behaviour("EC2 volumes", "DeleteVolume", "VolumeInUse as long as it is attached")
def test_attachments_that_are_refused(ec2, run, make_volume, code_of):
    instance_id, elsewhere = run(), run("us-east-1b")
    first, second = make_volume(Size=1), make_volume(Size=1)
    named = {"VolumeId": first, "InstanceId": instance_id, "Device": "/dev/sdf"}
    for change, code in (
        ({"InstanceId": elsewhere}, "InvalidVolume.ZoneMismatch"),
        ({"InstanceId": FOREIGN}, "InvalidInstanceID.NotFound"),
        ({"InstanceId": "x"}, "InvalidInstanceID.Malformed"),
        ({"VolumeId": "vol-0123456789abcdef0"}, "InvalidVolume.NotFound"),
        ({"Device": "/dev/nvme1n1"}, "InvalidParameterValue"),
        ({"Device": "/dev/xvda"}, "InvalidParameterValue"),  # the root volume has it
        ({"DryRun": True}, "DryRunOperation"),
    ):
        assert code_of(ec2.attach_volume, **{**named, **change}) == code
    assert described(ec2, first)["State"] == "available"
    ec2.attach_volume(**named)
    assert code_of(ec2.attach_volume, **named) == "VolumeInUse"
    assert code_of(ec2.attach_volume, **{**named, "VolumeId": second}) == "InvalidParameterValue"
    assert code_of(ec2.delete_volume, VolumeId=first) == "VolumeInUse"
    assert code_of(ec2.detach_volume, VolumeId=first, InstanceId=elsewhere) == "InvalidAttachment.NotFound"
    assert code_of(ec2.detach_volume, VolumeId=first, Device="/dev/sdg") == "InvalidAttachment.NotFound"
    assert described(ec2, first)["Attachments"][0]["InstanceId"] == instance_id
    ec2.detach_volume(VolumeId=first, InstanceId=instance_id, Device="/dev/sdf")
    ec2.get_waiter("volume_available").wait(VolumeIds=[first], WaiterConfig=WAIT)
    ec2.attach_volume(**{**named, "VolumeId": second})  # the name is free again
    ec2.delete_volume(VolumeId=first)


@pytest.mark.behaviour("EC2 volumes", "AttachVolume", "of eight at once for one volume exactly one wins")
def test_one_of_many_attachments_wins(sandbox, ec2, run, make_volume, together):
    instance_id, volume_id = run(), make_volume(Size=1)

    def attach(letter):
        form = {"VolumeId": volume_id, "InstanceId": instance_id, "Device": f"/dev/sd{letter}"}
        return sandbox.raw().ec2(Action="AttachVolume", **form)[1]

    answers = together(*(lambda letter=letter: attach(letter) for letter in "fghijklm"))
    assert sorted(answers, key=str) == [None, *["VolumeInUse"] * 7]


@pytest.mark.behaviour("EC2 volumes", "DetachVolume", "the root volume of a running instance: OperationNotPermitted; "
                       "of a stopped one it is detached")  # fmt: skip
def test_a_root_volume_stays_until_the_instance_is_stopped(ec2, run, code_of):
    instance_id = run()
    filters = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    (root,) = ec2.describe_volumes(Filters=filters)["Volumes"]
    assert code_of(ec2.detach_volume, VolumeId=root["VolumeId"]) == "OperationNotPermitted"
    ec2.stop_instances(InstanceIds=[instance_id])
    ec2.get_waiter("instance_stopped").wait(InstanceIds=[instance_id], WaiterConfig=WAIT)
    assert ec2.detach_volume(VolumeId=root["VolumeId"])["State"] == "detaching"


@pytest.mark.behaviour("EC2 volumes", "DescribeVolumes", "the filters of attachments: time, device, instance, state, "
                       "delete-on-termination")  # fmt: skip
def test_filters_of_attachments(ec2, run, make_volume):
    instance_id, volume_id = run(), make_volume(Size=1)
    ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device="/dev/sdq")
    for name, value in (
        ("attachment.attach-time", "2*T*Z"),
        ("attachment.delete-on-termination", "false"),
        ("attachment.device", "/dev/sdq"),
        ("attachment.instance-id", instance_id),
        ("attachment.status", "attach*"),
        ("status", "in-use"),
    ):
        found = ec2.describe_volumes(Filters=[{"Name": name, "Values": [value]}])["Volumes"]
        assert volume_id in [volume["VolumeId"] for volume in found], name
        other = ec2.describe_volumes(Filters=[{"Name": name, "Values": ["nothing"]}])["Volumes"]
        assert other == []


@pytest.mark.behaviour("EC2 snapshots", "CreateSnapshots", "of all volumes of an instance but those excluded, with "
                       "their bytes and tags; one that is refused makes none")  # fmt: skip
def test_snapshots_of_all_volumes_of_an_instance(raw, ec2, run, make_volume, volume_file, code_of):
    instance_id = run()
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "data"}]}]
    data = [make_volume(Size=1, TagSpecifications=tags) for _ in range(2)]
    for volume_id, device in zip(data, ("/dev/sdf", "/dev/sdg"), strict=True):
        ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)
        with open(volume_file(volume_id), "r+b") as file:
            file.write(volume_id.encode())
    filters = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    every = {one["VolumeId"] for one in ec2.describe_volumes(Filters=filters)["Volumes"]}
    before = len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"])
    for wrong in ({"InstanceId": FOREIGN}, {"InstanceId": instance_id, "ExcludeDataVolumeIds": ["vol-12345678"]}):
        assert code_of(ec2.create_snapshots, InstanceSpecification=wrong).startswith("Invalid")
    assert len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == before
    made = ec2.create_snapshots(InstanceSpecification={"InstanceId": instance_id})["Snapshots"]
    assert {one["VolumeId"] for one in made} == every
    assert len(every) == 3
    wanted = {"InstanceId": instance_id, "ExcludeBootVolume": True, "ExcludeDataVolumeIds": data[:1]}
    (one,) = ec2.create_snapshots(InstanceSpecification=wanted, CopyTagsFromSource="volume")["Snapshots"]
    assert (one["VolumeId"], one["State"], one["Tags"]) == (data[1], "pending", tags[0]["Tags"])
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[one["SnapshotId"]], WaiterConfig=WAIT)
    assert raw.read(one["SnapshotId"])[0].rstrip(b"\0") == data[1].encode()
