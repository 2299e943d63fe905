"""CreateTags, DeleteTags, DescribeTags."""

from __future__ import annotations

import pytest


@pytest.fixture
def tagged(sandbox):
    """A client in a region, an image and its snapshot there, each with tags."""
    region = "eu-west-3"
    raw, ec2 = sandbox.raw(region=region), sandbox.client("ec2", region_name=region)
    snapshot_id = raw.snapshot({}, Tags=[{"Key": "Name", "Value": "bytes"}])
    image_id = ec2.register_image(
        Name=f"of {snapshot_id}",
        RootDeviceName="/dev/xvda",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id}}],
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "Name", "Value": "disk"}]}],
    )["ImageId"]
    yield ec2, image_id, snapshot_id
    ec2.deregister_image(ImageId=image_id)
    ec2.delete_snapshot(SnapshotId=snapshot_id)


def listed(ec2, *filters):
    named = [{"Name": name, "Values": values} for name, values in filters]
    return [(tag["ResourceId"], tag["Key"], tag["Value"]) for tag in ec2.describe_tags(Filters=named)["Tags"]]


@pytest.mark.behaviour("EC2 tags", "CreateTags, DeleteTags", "added, replaced, taken away by key, by key and value, "
                       "and all; of several resources at once")  # fmt: skip
def test_tags_are_added_replaced_and_taken_away(tagged):
    ec2, image_id, snapshot_id = tagged
    ec2.create_tags(Resources=[image_id, snapshot_id], Tags=[{"Key": "a", "Value": "1"}, {"Key": "Name", "Value": "n"}])
    (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    (snapshot,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert image["Tags"] == snapshot["Tags"] == [{"Key": "Name", "Value": "n"}, {"Key": "a", "Value": "1"}]
    ec2.delete_tags(Resources=[image_id], Tags=[{"Key": "Name", "Value": "other"}, {"Key": "a", "Value": "1"}])
    ec2.delete_tags(Resources=[snapshot_id], Tags=[{"Key": "Name"}])
    assert listed(ec2) == [(image_id, "Name", "n"), (snapshot_id, "a", "1")]
    ec2.delete_tags(Resources=[image_id, snapshot_id])
    assert listed(ec2) == []


@pytest.mark.behaviour("EC2 tags", "DescribeTags", "every filter of the model's documentation")
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([("key", ["Name"])], ["image", "snapshot"]),
        ([("value", ["by*"])], ["snapshot"]),
        ([("resource-type", ["image"])], ["image"]),
        ([("resource-id", ["snap-*"])], ["snapshot"]),
        ([("tag:Name", ["disk"])], ["image"]),
        ([("tag:Other", ["disk"])], []),
    ],
)
def test_filters_of_describe_tags(tagged, filters, expected):
    ec2, image_id, snapshot_id = tagged
    ids = {"image": image_id, "snapshot": snapshot_id}
    assert [found[0] for found in listed(ec2, *filters)] == [ids[name] for name in expected]


@pytest.mark.behaviour("EC2 tags", "CreateTags", "one unknown resource or forbidden tag among several changes nothing")
@pytest.mark.parametrize(
    ("resource", "tags", "code"),
    [
        ("ami-0123456789abcdef0", [("a", "b")], "InvalidAMIID.NotFound"),
        ("snap-0123456789abcdef0", [("a", "b")], "InvalidSnapshot.NotFound"),
        ("i-0123456789abcdef0", [("a", "b")], "InvalidInstanceID.NotFound"),
        ("vol-0123456789abcdef0", [("a", "b")], "InvalidVolume.NotFound"),
        ("vpc-0123456789abcdef0", [("a", "b")], "InvalidID"),
        (None, [("AWS:a", "b")], "InvalidParameterValue"),
        (None, [("x" * 128, "b")], "InvalidParameterValue"),
        (None, [("a", "b" * 256)], "InvalidParameterValue"),
        (None, [("a", "b"), ("a", "c")], "InvalidParameterValue"),
        (None, [(str(number), "b") for number in range(50)], "TagLimitExceeded"),
    ],
)
def test_tags_that_are_refused_change_nothing(tagged, code_of, resource, tags, code):
    ec2, image_id, snapshot_id = tagged
    before = listed(ec2)
    listed_tags = [{"Key": key, "Value": value} for key, value in tags]
    assert code_of(ec2.create_tags, Resources=[snapshot_id, resource or image_id], Tags=listed_tags) == code
    assert listed(ec2) == before


def test_a_filter_that_is_refused(tagged, code_of):
    assert code_of(tagged[0].describe_tags, Filters=[{"Name": "colour", "Values": ["x"]}]) == "InvalidParameterValue"


@pytest.mark.behaviour("EC2 tags", "DescribeTags", "pages hold every tag once")
def test_pages_of_tags(tagged):
    ec2, image_id, _ = tagged
    ec2.create_tags(Resources=[image_id], Tags=[{"Key": f"k{number:02}", "Value": ""} for number in range(20)])
    pages = list(ec2.get_paginator("describe_tags").paginate(PaginationConfig={"PageSize": 8}))
    assert [len(page["Tags"]) for page in pages] == [8, 8, 6]
    assert len({(tag["ResourceId"], tag["Key"]) for page in pages for tag in page["Tags"]}) == 22


@pytest.mark.behaviour("EC2 tags", "tag-on-create, CreateTags, DescribeTags", "volumes, snapshots, images, instances "
                       "have tags from the call that makes them; DescribeTags knows each by its type")  # fmt: skip
def test_every_kind_of_resource_has_tags(sandbox):
    ec2, raw = sandbox.client("ec2", region_name="eu-west-2"), sandbox.raw(region="eu-west-2")

    def tags(kind):
        return [{"ResourceType": kind, "Tags": [{"Key": "kind", "Value": kind}]}]

    volume_id = ec2.create_volume(AvailabilityZone="eu-west-2a", Size=1, TagSpecifications=tags("volume"))["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig={"Delay": 0.05})
    taken = ec2.create_snapshot(VolumeId=volume_id, TagSpecifications=tags("snapshot"))["SnapshotId"]
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[taken], WaiterConfig={"Delay": 0.05})
    copied = {"SourceRegion": "eu-west-2", "SourceSnapshotId": taken}
    copied = ec2.copy_snapshot(**copied, TagSpecifications=tags("snapshot"))["SnapshotId"]
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": raw.snapshot({})}}]
    image_id = ec2.register_image(
        Name="tagged", RootDeviceName="/dev/xvda", BlockDeviceMappings=devices, TagSpecifications=tags("image"),
        Architecture="x86_64", VirtualizationType="hvm",
    )["ImageId"]  # fmt: skip
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 0.05})
    wish = {"ImageId": image_id, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro"}
    (instance,) = ec2.run_instances(**wish, TagSpecifications=tags("instance"))["Instances"]
    made = {volume_id: "volume", taken: "snapshot", copied: "snapshot", image_id: "image"}
    made[instance["InstanceId"]] = "instance"
    found = {one["ResourceId"]: one for one in ec2.describe_tags()["Tags"]}
    assert {name: one["ResourceType"] for name, one in found.items()} == made
    assert {name: one["Value"] for name, one in found.items()} == made
    ec2.create_tags(Resources=list(made), Tags=[{"Key": "more", "Value": "x"}])
    filters = [{"Name": "key", "Values": ["more"]}]
    assert {one["ResourceId"] for one in ec2.describe_tags(Filters=filters)["Tags"]} == set(made)
    ec2.delete_tags(Resources=list(made), Tags=[{"Key": "kind"}, {"Key": "more"}])
    assert ec2.describe_tags()["Tags"] == []


@pytest.mark.behaviour("EC2 tags", "DescribeTags", "the tags of what is deleted are gone with it")
def test_the_tags_of_what_is_gone_are_gone(sandbox, code_of):
    ec2 = sandbox.client("ec2", region_name="ap-south-1")
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
    volume_id = ec2.create_volume(AvailabilityZone="ap-south-1a", Size=1, TagSpecifications=tags)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig={"Delay": 0.05})
    assert listed(ec2) == [(volume_id, "a", "b")]
    ec2.delete_volume(VolumeId=volume_id)
    ec2.get_waiter("volume_deleted").wait(VolumeIds=[volume_id], WaiterConfig={"Delay": 0.05})
    assert listed(ec2) == []
    assert code_of(ec2.create_tags, Resources=[volume_id], Tags=[{"Key": "a"}]) == "InvalidVolume.NotFound"
