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


def test_pages_of_tags(tagged):
    ec2, image_id, _ = tagged
    ec2.create_tags(Resources=[image_id], Tags=[{"Key": f"k{number:02}", "Value": ""} for number in range(20)])
    pages = list(ec2.get_paginator("describe_tags").paginate(PaginationConfig={"PageSize": 8}))
    assert [len(page["Tags"]) for page in pages] == [8, 8, 6]
    assert len({(tag["ResourceId"], tag["Key"]) for page in pages for tag in page["Tags"]}) == 22
