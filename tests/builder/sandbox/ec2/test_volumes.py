"""Volumes: their bytes, their states, what EC2 allows of them, and every filter."""

from __future__ import annotations

import pytest

from builder.digest import BLOCK
from builder.sandbox.records import GIB

ZONE = "us-east-1a"
FOREIGN = "vol-0123456789abcdef0"
MISSING = [
    ("EC2 volumes", "CreateVolume", "MultiAttachEnabled, OutpostArn and Operator: UnsupportedOperation"),
    ("EC2 volumes", "ModifyVolume", "UnsupportedOperation; so are DescribeVolumesModifications and the recycle bin"),
    ("EC2 volumes", "Encrypted", "a property that is kept and inherited: the bytes lie in the clear, no KMS is asked"),
    ("EC2 volumes", "DescribeVolumeStatus", "every volume is `ok`"),
]


@pytest.mark.behaviour("EC2 volumes", "CreateVolume, empty", "a file of zeros of exactly its size, taking no space")
def test_an_empty_volume_is_zeros_of_its_size(make_volume, volume_file):
    file = volume_file(make_volume(Size=3))
    assert file.stat().st_size == 3 * GIB
    assert file.stat().st_blocks == 0


@pytest.mark.behaviour("EC2 volumes", "CreateVolume from a snapshot", "the volume's bytes equal the snapshot's, blocks "
                       "it does not have are zeros, also when the snapshot is deleted at once")  # fmt: skip
def test_a_volume_of_a_snapshot_has_its_bytes(raw, ec2, make_volume, volume_file, blocks):
    data = {0: blocks("a"), 1: blocks("b"), 9: bytes(BLOCK), 2047: blocks("c")}
    snapshot_id = raw.snapshot(data)
    made = ec2.create_volume(AvailabilityZone=ZONE, SnapshotId=snapshot_id, Size=2)
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    ec2.get_waiter("volume_available").wait(VolumeIds=[made["VolumeId"]], WaiterConfig={"Delay": 0.05})
    (volume,) = ec2.describe_volumes(VolumeIds=[made["VolumeId"]])["Volumes"]
    assert (volume["Size"], volume["SnapshotId"], volume["State"]) == (2, snapshot_id, "available")
    file = volume_file(made["VolumeId"])
    assert file.stat().st_size == 2 * GIB
    with open(file, "rb") as opened:
        for index in (0, 1, 2, 9, 100, 2047, 2048, 4095):
            opened.seek(index * BLOCK)
            assert opened.read(BLOCK) == data.get(index, bytes(BLOCK))
    assert file.stat().st_blocks * 512 <= 4 * BLOCK + 4096
    assert sorted(entry.name for entry in file.parent.iterdir()) == ["data"]  # the snapshot's bytes are let go of


@pytest.mark.behaviour("EC2 volumes", "CreateVolume from a snapshot", "bytes of a block whose put was never answered "
                       "do not show in a volume")  # fmt: skip
def test_torn_bytes_of_a_snapshot_do_not_show(sandbox, raw, make_volume, volume_file, blocks):
    snapshot_id = raw.start()
    raw.put(snapshot_id, 3, blocks("a"))
    with open(sandbox.directory / "disks" / snapshot_id / "data", "r+b") as data:  # a put killed before its map byte
        data.seek(5 * BLOCK)
        data.write(b"torn")
    assert raw.complete(snapshot_id, 1)[0] == 202
    raw.wait(snapshot_id)
    with open(volume_file(make_volume(SnapshotId=snapshot_id)), "rb") as opened:
        assert opened.read(3 * BLOCK) == bytes(3 * BLOCK)
        assert opened.read(BLOCK) == blocks("a")
        assert opened.read(4 * BLOCK) == bytes(4 * BLOCK)


@pytest.mark.behaviour("EC2 volumes", "CreateVolume", "`creating` is seen before `available`; the waiter "
                       "volume_available waits for it")  # fmt: skip
@pytest.mark.behaviour("EC2 volumes", "DeleteVolume", "`deleting` is seen, then InvalidVolume.NotFound; the waiter "
                       "volume_deleted ends; the space is given back")  # fmt: skip
def test_states_are_really_seen(make_sandbox, code_of):
    running = make_sandbox(settle=2)
    ec2 = running.client("ec2")
    volume_id = ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig={"Delay": 0.05, "MaxAttempts": 200})
    assert ec2.create_volume(AvailabilityZone=ZONE, Size=1)["State"] == "creating"
    busy = ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    assert ec2.describe_volumes(VolumeIds=[busy])["Volumes"][0]["State"] == "creating"
    assert code_of(ec2.delete_volume, VolumeId=busy) == "IncorrectState"
    ec2.delete_volume(VolumeId=volume_id)
    assert ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"] == "deleting"
    assert not (running.directory / "volumes" / volume_id).exists()
    ec2.get_waiter("volume_deleted").wait(VolumeIds=[volume_id], WaiterConfig={"Delay": 0.05, "MaxAttempts": 200})
    assert code_of(ec2.describe_volumes, VolumeIds=[volume_id]) == "InvalidVolume.NotFound"
    assert code_of(ec2.delete_volume, VolumeId=volume_id) == "InvalidVolume.NotFound"
    assert volume_id not in str(ec2.describe_volumes())


@pytest.mark.behaviour("EC2 volumes", "CreateVolume", "every field and the defaults of each volume type, as EC2 "
                       "describes them")  # fmt: skip
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"Size": 10}, ("gp2", 10, 100, None)),
        ({"Size": 100, "VolumeType": "gp2"}, ("gp2", 100, 300, None)),
        ({"Size": 1, "VolumeType": "gp3"}, ("gp3", 1, 3000, 125)),
        ({"Size": 40, "VolumeType": "gp3", "Iops": 20000, "Throughput": 2000}, ("gp3", 40, 20000, 2000)),
        ({"Size": 4, "VolumeType": "io1", "Iops": 200}, ("io1", 4, 200, None)),
        ({"Size": 4, "VolumeType": "io2", "Iops": 4000}, ("io2", 4, 4000, None)),
        ({"Size": 125, "VolumeType": "st1"}, ("st1", 125, None, None)),
        ({"Size": 125, "VolumeType": "sc1"}, ("sc1", 125, None, None)),
        ({"Size": 1024, "VolumeType": "standard"}, ("standard", 1024, None, None)),
    ],
)
def test_types_and_their_defaults(ec2, make_volume, values, expected):
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
    volume_id = make_volume(**values, TagSpecifications=tags)
    (volume,) = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    assert tuple(volume.get(name) for name in ("VolumeType", "Size", "Iops", "Throughput")) == expected
    assert (volume["AvailabilityZone"], volume["SnapshotId"], volume["Encrypted"]) == (ZONE, "", False)
    assert (volume["Attachments"], volume["MultiAttachEnabled"]) == ([], False)
    assert volume["Tags"] == [{"Key": "a", "Value": "b"}]
    ec2.delete_volume(VolumeId=volume_id)


@pytest.mark.behaviour("EC2 volumes", "CreateVolume", "sizes, IOPS, throughput, zones and snapshots that EC2 does not "
                       "allow are refused with its codes, and nothing is made")  # fmt: skip
@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"AvailabilityZone": None, "Size": 1}, "MissingParameter"),
        ({"AvailabilityZone": "us-east-1z", "Size": 1}, "InvalidZone.NotFound"),
        ({"AvailabilityZone": "eu-west-1a", "Size": 1}, "InvalidZone.NotFound"),
        ({"AvailabilityZoneId": "us-east-1-az1", "Size": 1}, "InvalidParameterCombination"),
        ({}, "MissingParameter"),
        ({"Size": 0}, "InvalidParameterValue"),
        ({"Size": 16385}, "InvalidParameterValue"),
        ({"Size": 124, "VolumeType": "st1"}, "InvalidParameterValue"),
        ({"Size": 1025, "VolumeType": "standard"}, "InvalidParameterValue"),
        ({"Size": 1, "VolumeType": "gp9"}, "UnknownVolumeType"),
        ({"Size": 4, "VolumeType": "io1"}, "MissingParameter"),
        ({"Size": 4, "VolumeType": "io1", "Iops": 99}, "InvalidParameterValue"),
        ({"Size": 4, "VolumeType": "io1", "Iops": 201}, "InvalidParameterValue"),
        ({"Size": 10, "VolumeType": "gp2", "Iops": 3000}, "InvalidParameterCombination"),
        ({"Size": 10, "VolumeType": "gp3", "Iops": 2999}, "InvalidParameterValue"),
        ({"Size": 10, "VolumeType": "gp3", "Iops": 5001}, "InvalidParameterValue"),
        ({"Size": 10, "VolumeType": "gp3", "Throughput": 124}, "InvalidParameterValue"),
        ({"Size": 10, "VolumeType": "gp3", "Throughput": 751}, "InvalidParameterValue"),
        ({"Size": 10, "VolumeType": "gp2", "Throughput": 125}, "InvalidParameterCombination"),
        ({"SnapshotId": "snap-0123456789abcdef0"}, "InvalidSnapshot.NotFound"),
        ({"Size": 1, "VolumeInitializationRate": 100}, "InvalidParameterCombination"),
        ({"Size": 1, "KmsKeyId": "alias/aws/ebs"}, "InvalidParameterDependency"),
        ({"Size": 4, "VolumeType": "io1", "Iops": 100, "MultiAttachEnabled": True}, "UnsupportedOperation"),
        ({"Size": 1, "TagSpecifications": [{"ResourceType": "image"}]}, "InvalidParameterValue"),
    ],
)
def test_a_volume_that_is_refused(sandbox, ec2, code_of, values, code):
    before = sorted(sandbox.directory.glob("volumes/*"))
    wish = {name: value for name, value in {"AvailabilityZone": ZONE, **values}.items() if value is not None}
    assert code_of(ec2.create_volume, **wish) == code
    assert sorted(sandbox.directory.glob("volumes/*")) == before


@pytest.mark.behaviour("EC2 volumes", "CreateVolume from a snapshot", "a smaller size, a pending snapshot: refused")
def test_snapshots_that_make_no_volume(raw, ec2, code_of):
    two = raw.snapshot({}, VolumeSize=2)
    wish = {"AvailabilityZone": ZONE, "SnapshotId": two}
    assert code_of(ec2.create_volume, **wish, Size=1) == "InvalidParameterValue"
    assert code_of(ec2.create_volume, **wish, VolumeInitializationRate=99) == "InvalidParameterValue"
    assert code_of(ec2.create_volume, **{**wish, "SnapshotId": raw.start()}) == "IncorrectState"


@pytest.mark.behaviour("EC2 volumes", "CreateVolume, ClientToken", "the same request at once from eight connections "
                       "makes one volume; other parameters: IdempotentParameterMismatch; both also when the volume is "
                       "deleted")  # fmt: skip
def test_the_same_client_token_makes_one_volume(sandbox, ec2, together, code_of):
    wish = {"AvailabilityZone": ZONE, "Size": 1, "ClientToken": "volume one"}
    clients = [sandbox.client("ec2") for _ in range(8)]
    answers = together(*(lambda client=client: client.create_volume(**wish) for client in clients))
    (volume_id,) = {answer["VolumeId"] for answer in answers}
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig={"Delay": 0.05})
    for _ in range(2):
        assert code_of(ec2.create_volume, **{**wish, "Size": 2}) == "IdempotentParameterMismatch"
        assert ec2.create_volume(**wish)["VolumeId"] == volume_id
        if ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume_id]}])["Volumes"]:
            ec2.delete_volume(VolumeId=volume_id)
            ec2.get_waiter("volume_deleted").wait(VolumeIds=[volume_id], WaiterConfig={"Delay": 0.05})
    elsewhere = sandbox.client("ec2", region_name="eu-west-1")
    other = elsewhere.create_volume(**{**wish, "AvailabilityZone": "eu-west-1a"})["VolumeId"]
    assert other != volume_id


@pytest.fixture(scope="module")
def two(sandbox):
    """Two volumes in a region of their own, the second encrypted and of a snapshot, and a client there."""
    region = "sa-east-1"
    ec2, raw = sandbox.client("ec2", region_name=region), sandbox.raw(region=region)
    first = ec2.create_volume(
        AvailabilityZoneId="sa-east-1-az1", Size=5,
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "Owner", "Value": "TeamA"}]}],
    )["VolumeId"]  # fmt: skip
    second = ec2.create_volume(
        AvailabilityZone="sa-east-1b", SnapshotId=raw.snapshot({}), VolumeType="gp3", Encrypted=True
    )
    ids = [first, second["VolumeId"]]
    ec2.get_waiter("volume_available").wait(VolumeIds=ids, WaiterConfig={"Delay": 0.05})
    return ec2, ids, second["SnapshotId"]


@pytest.mark.behaviour("EC2 volumes", "DescribeVolumes", "every filter of the model's documentation (those of "
                       "attachments in the tests of AttachVolume)")  # fmt: skip
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("attachment.attach-time", "2*", []),
        ("attachment.delete-on-termination", "*", []),
        ("attachment.device", "*", []),
        ("attachment.instance-id", "*", []),
        ("attachment.status", "*", []),
        ("availability-zone", "sa-east-1a", [0]),
        ("availability-zone-id", "sa-east-1-az2", [1]),
        ("create-time", "2*T*Z", [0, 1]),
        ("encrypted", "true", [1]),
        ("encrypted", "false", [0]),
        ("fast-restored", "false", [0, 1]),
        ("fast-restored", "true", []),
        ("multi-attach-enabled", "false", [0, 1]),
        ("operator.managed", "false", [0, 1]),
        ("operator.principal", "*", []),
        ("size", "5", [0]),
        ("snapshot-id", "SNAPSHOT", [1]),
        ("status", "available", [0, 1]),
        ("status", "in-use", []),
        ("tag:Owner", "Team?", [0]),
        ("tag-key", "Owner", [0]),
        ("volume-id", "SECOND", [1]),
        ("volume-type", "gp3", [1]),
    ],
)
def test_filters_of_describe_volumes(two, name, value, expected):
    ec2, ids, snapshot_id = two
    value = value.replace("SECOND", ids[1]).replace("SNAPSHOT", snapshot_id)
    found = ec2.describe_volumes(Filters=[{"Name": name, "Values": [value]}])["Volumes"]
    assert [volume["VolumeId"] for volume in found] == [ids[number] for number in expected]


@pytest.mark.behaviour("EC2 volumes", "DescribeVolumes", "ids that are unknown or malformed, and unknown filters, are "
                       "refused; pages hold every volume once")  # fmt: skip
@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"VolumeIds": [FOREIGN]}, "InvalidVolume.NotFound"),
        ({"VolumeIds": ["snap-12345678"]}, "InvalidParameterValue"),
        ({"VolumeIds": [FOREIGN], "MaxResults": 5}, "InvalidParameterCombination"),
        ({"Filters": [{"Name": "colour", "Values": ["x"]}]}, "InvalidParameterValue"),
        ({"MaxResults": 1}, "InvalidParameterValue"),
    ],
)
def test_a_description_that_is_refused(ec2, code_of, parameters, code):
    assert code_of(ec2.describe_volumes, **parameters) == code


def test_pages_hold_every_volume_once(sandbox):
    ec2 = sandbox.client("ec2", region_name="ca-central-1")
    made = [ec2.create_volume(AvailabilityZone="ca-central-1a", Size=1)["VolumeId"] for _ in range(11)]
    pages = ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 5})
    assert [[one["VolumeId"] for one in page["Volumes"]] for page in pages] == [made[:5], made[5:10], made[10:]]


@pytest.mark.behaviour("EC2 volumes", "regions", "a volume is seen in its own region only")
def test_regions_do_not_see_each_other(sandbox, two, code_of):
    _, ids, _ = two
    elsewhere = sandbox.client("ec2", region_name="eu-central-1")
    assert elsewhere.describe_volumes()["Volumes"] == []
    assert code_of(elsewhere.describe_volumes, VolumeIds=ids) == "InvalidVolume.NotFound"
    assert code_of(elsewhere.delete_volume, VolumeId=ids[0]) == "InvalidVolume.NotFound"


@pytest.mark.behaviour("EC2 volumes", "DescribeVolumeStatus, Describe/ModifyVolumeAttribute", "the attribute is kept; "
                       "a volume is `ok` in its zone")  # fmt: skip
def test_status_and_attributes(two, code_of):
    ec2, ids, _ = two
    (status,) = ec2.describe_volume_status(VolumeIds=ids[:1])["VolumeStatuses"]
    assert (status["VolumeId"], status["VolumeStatus"]["Status"]) == (ids[0], "ok")
    filters = [{"Name": "availability-zone", "Values": ["sa-east-1b"]}]
    assert [one["VolumeId"] for one in ec2.describe_volume_status(Filters=filters)["VolumeStatuses"]] == ids[1:]
    asked = {"VolumeId": ids[0], "Attribute": "autoEnableIO"}
    assert ec2.describe_volume_attribute(**asked)["AutoEnableIO"] == {"Value": False}
    ec2.modify_volume_attribute(VolumeId=ids[0], AutoEnableIO={"Value": True})
    assert ec2.describe_volume_attribute(**asked)["AutoEnableIO"] == {"Value": True}
    assert code_of(ec2.modify_volume, VolumeId=ids[0], Size=9) == "UnsupportedOperation"
