"""RegisterImage, DescribeImages, DescribeImageAttribute, DeregisterImage."""

from __future__ import annotations

import base64
import datetime as dt
import time

import pytest

AREA = "EC2 images"
ROOT = "/dev/xvda"
FOREIGN_SNAPSHOT, FOREIGN_IMAGE = "snap-0123456789abcdef0", "ami-0123456789abcdef0"
MISSING = [
    (AREA, "RegisterImage", "billing products: UnsupportedOperation"),
    (AREA, "DescribeImages", "watermarks, scan results, product codes: no image has any; the platform is always Linux"),
]


@pytest.fixture
def wish(completed):
    """The least that RegisterImage needs, under a name of the test's own."""
    return {
        "Name": f"image {time.time_ns()}",
        "RootDeviceName": ROOT,
        "BlockDeviceMappings": [{"DeviceName": ROOT, "Ebs": {"SnapshotId": completed}}],
    }


def described(ec2, image_id):
    (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    return image


@pytest.mark.behaviour(AREA, "RegisterImage", "every field of the call is described again as given, tags included")
@pytest.mark.behaviour(AREA, "DescribeImageAttribute", "uefiData and description as registered")
def test_every_field_comes_back(ec2, wish, completed):
    uefi_data = base64.b64encode(b"AMZNUEFI" + bytes(60000)).decode()
    wish |= {
        "Description": 'all <of> & "it"', "Architecture": "x86_64", "VirtualizationType": "hvm", "BootMode": "uefi",
        "EnaSupport": True, "SriovNetSupport": "simple", "ImdsSupport": "v2.0", "TpmSupport": "v2.0",
        "UefiData": uefi_data, "KernelId": "aki-12345678", "RamdiskId": "ari-12345678",
        "TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "emi:claim", "Value": "ü*?"}]}],
        "BlockDeviceMappings": [
            {"DeviceName": ROOT, "Ebs": {"SnapshotId": completed, "VolumeSize": 9, "VolumeType": "gp3", "Iops": 4000,
                                         "Throughput": 250, "DeleteOnTermination": False}},
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/sdc", "NoDevice": ""},
            {"DeviceName": "/dev/sdd", "Ebs": {"VolumeSize": 5}},
        ],
    }  # fmt: skip
    image_id = ec2.register_image(**wish)["ImageId"]
    image = described(ec2, image_id)
    same = ("Name", "Description", "Architecture", "VirtualizationType", "BootMode", "EnaSupport", "SriovNetSupport",
            "ImdsSupport", "TpmSupport", "KernelId", "RamdiskId", "RootDeviceName")  # fmt: skip
    assert {name: image[name] for name in same} == {name: wish[name] for name in same}
    assert image["Tags"] == [{"Key": "emi:claim", "Value": "ü*?"}]
    assert image["BlockDeviceMappings"] == [
        {"DeviceName": ROOT, "Ebs": {"SnapshotId": completed, "VolumeSize": 9, "VolumeType": "gp3", "Iops": 4000,
                                     "Throughput": 250, "DeleteOnTermination": False, "Encrypted": False}},
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        {"DeviceName": "/dev/sdc", "NoDevice": ""},
        {"DeviceName": "/dev/sdd", "Ebs": {"VolumeSize": 5, "VolumeType": "gp2", "DeleteOnTermination": True,
                                           "Encrypted": False}},
    ]  # fmt: skip
    assert (image["OwnerId"], image["ImageLocation"]) == ("123456789012", f"123456789012/{wish['Name']}")
    assert (image["RootDeviceType"], image["ImageType"], image["Public"]) == ("ebs", "machine", False)
    born = dt.datetime.fromisoformat(image["CreationDate"])
    assert abs(born - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    answer = ec2.describe_image_attribute(ImageId=image_id, Attribute="uefiData")
    assert answer["UefiData"]["Value"] == uefi_data
    answer = ec2.describe_image_attribute(ImageId=image_id, Attribute="description")
    assert answer["Description"]["Value"] == wish["Description"]


@pytest.mark.behaviour(AREA, "RegisterImage", "defaults as documented: i386, paravirtual, gp2")
def test_defaults_are_those_of_ec2(ec2, wish, completed):
    image = described(ec2, ec2.register_image(**wish)["ImageId"])
    assert (image["Architecture"], image["VirtualizationType"], image["EnaSupport"]) == ("i386", "paravirtual", False)
    assert not {"BootMode", "TpmSupport", "ImdsSupport", "SriovNetSupport", "KernelId", "Description"} & set(image)
    expected = {"SnapshotId": completed, "VolumeSize": 1, "VolumeType": "gp2", "DeleteOnTermination": True}
    assert image["BlockDeviceMappings"][0]["Ebs"] == expected | {"Encrypted": False}


@pytest.mark.behaviour(AREA, "RegisterImage", "`pending` before `available`; the waiter image_available waits")
def test_an_image_is_pending_before_it_is_available(make_sandbox):
    running = make_sandbox(settle=2)
    ec2, snapshot_id = running.client("ec2"), running.raw().snapshot({})
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}]
    wish = {"Name": "slow", "RootDeviceName": ROOT, "BlockDeviceMappings": devices}
    image_id = ec2.register_image(**wish)["ImageId"]
    assert described(ec2, image_id)["State"] == "pending"
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 1})
    assert described(ec2, image_id)["State"] == "available"


@pytest.mark.behaviour(AREA, "RegisterImage", "a name is taken until its image is deregistered")
@pytest.mark.behaviour(AREA, "DeregisterImage", "gone from descriptions; again: InvalidAMIID.Unavailable")
def test_a_name_is_taken_until_its_image_is_deregistered(ec2, wish, code_of):
    image_id = ec2.register_image(**wish)["ImageId"]
    assert code_of(ec2.register_image, **wish) == "InvalidAMIName.Duplicate"
    assert ec2.deregister_image(ImageId=image_id)["Return"] is True
    assert code_of(ec2.describe_images, ImageIds=[image_id]) == "InvalidAMIID.NotFound"
    assert code_of(ec2.deregister_image, ImageId=image_id) == "InvalidAMIID.Unavailable"
    assert image_id not in str(ec2.describe_images(Owners=["self"])["Images"])
    assert ec2.register_image(**wish)["ImageId"] != image_id


@pytest.mark.behaviour(AREA, "RegisterImage", "of six at the same time with one name, one succeeds")
def test_a_name_at_the_same_time_is_given_once(ec2, wish, sandbox, together):
    def register():
        try:
            return sandbox.client("ec2").register_image(**wish)["ImageId"]
        except ec2.exceptions.ClientError as error:
            return error.response["Error"]["Code"]

    results = together(*[register] * 6)
    assert sorted(result.partition("-")[0] for result in results) == ["InvalidAMIName.Duplicate"] * 5 + ["ami"]


@pytest.mark.behaviour(AREA, "RegisterImage", "what the fields or their combination forbid is refused")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Name": "ab"}, "InvalidAMIName.Malformed"),
        ({"Name": "x" * 129}, "InvalidAMIName.Malformed"),
        ({"Name": "semi;colon"}, "InvalidAMIName.Malformed"),
        ({"Name": "ümlaut"}, "InvalidAMIName.Malformed"),
        ({"Description": "x" * 256}, "InvalidParameterValue"),
        ({"Architecture": "x86"}, "InvalidParameterValue"),
        ({"VirtualizationType": "container"}, "InvalidParameterValue"),
        ({"BootMode": "bios"}, "InvalidParameterValue"),
        ({"SriovNetSupport": "none"}, "InvalidParameterValue"),
        ({"ImdsSupport": "v1.0"}, "InvalidParameterValue"),
        ({"TpmSupport": "v1.2", "BootMode": "uefi"}, "InvalidParameterValue"),
        ({"TpmSupport": "v2.0", "BootMode": "legacy-bios", "VirtualizationType": "hvm"}, "InvalidParameterCombination"),
        ({"TpmSupport": "v2.0", "VirtualizationType": "hvm"}, "InvalidParameterCombination"),
        ({"BootMode": "uefi"}, "InvalidParameterCombination"),
        ({"EnaSupport": True}, "InvalidParameterCombination"),
        ({"Architecture": "arm64", "BootMode": "legacy-bios", "VirtualizationType": "hvm"},
         "InvalidParameterCombination"),
        ({"UefiData": "not base64!"}, "InvalidParameterValue"),
        ({"UefiData": base64.b64encode(bytes(70000)).decode()}, "InvalidParameterValue"),
        ({"KernelId": "kernel"}, "InvalidParameterValue"),
        ({"RamdiskId": "ami-1"}, "InvalidParameterValue"),
        ({"RootDeviceName": "/dev/sda1"}, "InvalidBlockDeviceMapping"),
        ({"RootDeviceName": ""}, "MissingParameter"),
        ({"BlockDeviceMappings": []}, "InvalidBlockDeviceMapping"),
        ({"BillingProducts": ["bp-1"]}, "UnsupportedOperation"),
        ({"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}]},
         "InvalidParameterValue"),
        ({"TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "aws:a", "Value": "b"}]}]},
         "InvalidParameterValue"),
    ],
)  # fmt: skip
def test_a_registration_that_is_refused(ec2, wish, code_of, change, code):
    before = len(ec2.describe_images(Owners=["self"])["Images"])
    assert code_of(ec2.register_image, **{**wish, **change}) == code
    assert len(ec2.describe_images(Owners=["self"])["Images"]) == before


@pytest.mark.behaviour(AREA, "RegisterImage", "snapshots, sizes, types and IOPS that do not fit are refused")
@pytest.mark.parametrize(
    ("device", "code"),
    [
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": FOREIGN_SNAPSHOT}}, "InvalidSnapshot.NotFound"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "snapshot"}}, "InvalidParameterValue"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "pending"}}, "IncorrectState"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "two", "VolumeSize": 1}}, "InvalidBlockDeviceMapping"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "two", "VolumeSize": 65537}}, "InvalidBlockDeviceMapping"),
        ({"DeviceName": ROOT, "Ebs": {"VolumeSize": 1}}, "InvalidBlockDeviceMapping"),
        ({"DeviceName": ROOT, "Ebs": {"VolumeType": "gp2"}}, "MissingParameter"),
        ({"DeviceName": ROOT, "VirtualName": "ephemeral0"}, "InvalidBlockDeviceMapping"),
        ({"DeviceName": ROOT, "VirtualName": "floppy"}, "InvalidParameterValue"),
        ({"DeviceName": "", "Ebs": {"SnapshotId": "two"}}, "MissingParameter"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "two", "VolumeType": "gp9"}}, "InvalidParameterValue"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "two", "Iops": 100}}, "InvalidParameterCombination"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "two", "VolumeType": "io2"}}, "MissingParameter"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "two", "Throughput": 125}}, "InvalidParameterCombination"),
        ({"DeviceName": ROOT, "Ebs": {"SnapshotId": "two", "Encrypted": True}}, "InvalidBlockDeviceMapping"),
    ],
)
def test_a_block_device_that_is_refused(ec2, raw, wish, code_of, device, code):
    named = {"pending": raw.start, "two": lambda: raw.snapshot({}, VolumeSize=2)}
    ebs = dict(device.get("Ebs", {}))
    if make := named.get(ebs.get("SnapshotId")):
        ebs["SnapshotId"] = make()
    devices = [{**device, "Ebs": ebs} if ebs else device]
    assert code_of(ec2.register_image, **{**wish, "BlockDeviceMappings": devices}) == code


def test_two_mappings_of_one_device_are_refused(ec2, wish, code_of):
    wish["BlockDeviceMappings"] *= 2
    assert code_of(ec2.register_image, **wish) == "InvalidBlockDeviceMapping"


@pytest.mark.behaviour(AREA, "RegisterImage, DeregisterImage", "DryRun changes nothing")
def test_a_dry_run_changes_nothing(ec2, wish, code_of):
    assert code_of(ec2.register_image, **wish, DryRun=True) == "DryRunOperation"
    image_id = ec2.register_image(**wish)["ImageId"]
    assert code_of(ec2.deregister_image, ImageId=image_id, DryRun=True) == "DryRunOperation"
    assert described(ec2, image_id)["ImageId"] == image_id


@pytest.fixture(scope="module")
def zoo(sandbox, blocks):
    """Three images in a region of their own, and a client there."""
    region = "ap-south-1"
    raw, ec2 = sandbox.raw(region=region), sandbox.client("ec2", region_name=region)
    small, large = raw.snapshot({0: blocks("s")}), raw.snapshot({}, VolumeSize=3)
    ids = []
    for name, snapshot_id, root, more in (
        ("debian-12 amd64", small, "/dev/xvda",
         {"Architecture": "x86_64", "VirtualizationType": "hvm", "BootMode": "uefi-preferred", "EnaSupport": True,
          "ImdsSupport": "v2.0"}),
        ("debian-12 arm64", large, "/dev/xvda",
         {"Architecture": "arm64", "VirtualizationType": "hvm", "BootMode": "uefi", "Description": "for Graviton"}),
        ("star-fish", small, "/dev/sda1", {"KernelId": "aki-11111111", "RamdiskId": "ari-11111111"}),
    ):  # fmt: skip
        tags = [{"Key": "Name", "Value": name}, {"Key": f"only-{len(ids)}", "Value": "a*b"}]
        ids.append(
            ec2.register_image(
                Name=name, RootDeviceName=root,
                BlockDeviceMappings=[{"DeviceName": root, "Ebs": {"SnapshotId": snapshot_id}}],
                TagSpecifications=[{"ResourceType": "image", "Tags": tags}], **more,
            )["ImageId"]
        )  # fmt: skip
    return ec2, ids, (small, large)


@pytest.mark.behaviour(AREA, "DescribeImages", "documented filters, with wildcards, their escapes, and case")
@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("architecture", ["x86_64"], [0]),
        ("architecture", ["x86_64", "arm64"], [0, 1]),
        ("architecture", ["sparc"], []),
        ("block-device-mapping.delete-on-termination", ["true"], [0, 1, 2]),
        ("block-device-mapping.device-name", ["/dev/sda?"], [2]),
        ("block-device-mapping.encrypted", ["true"], []),
        ("block-device-mapping.snapshot-id", ["SMALL"], [0, 2]),
        ("block-device-mapping.snapshot-id", ["LARGE"], [1]),
        ("block-device-mapping.volume-size", ["3"], [1]),
        ("block-device-mapping.volume-type", ["gp2"], [0, 1, 2]),
        ("boot-mode", ["uefi"], [1]),
        ("boot-mode", ["uefi*"], [0, 1]),
        ("creation-date", ["2???-*Z"], [0, 1, 2]),
        ("description", ["*Graviton"], [1]),
        ("ena-support", ["true"], [0]),
        ("ena-support", ["false"], [1, 2]),
        ("free-tier-eligible", ["true"], []),
        ("hypervisor", ["xen"], [0, 1, 2]),
        ("image-allowed", ["true"], [0, 1, 2]),
        ("image-id", ["ami-*"], [0, 1, 2]),
        ("image-type", ["machine"], [0, 1, 2]),
        ("is-public", ["false"], [0, 1, 2]),
        ("is-public", ["true"], []),
        ("kernel-id", ["aki-11111111"], [2]),
        ("manifest-location", ["123456789012/debian*"], [0, 1]),
        ("name", ["debian-12*"], [0, 1]),
        ("name", ["debian-1? amd64"], [0]),
        ("name", ["DEBIAN*"], []),
        ("name", ["debian-12 amd64", "star-fish"], [0, 2]),
        ("name", ["debian.12*"], []),
        ("owner-id", ["123456789012"], [0, 1, 2]),
        ("owner-id", ["999999999999"], []),
        ("platform", ["windows"], []),
        ("product-code", ["*"], []),
        ("ramdisk-id", ["ari-*"], [2]),
        ("root-device-name", ["/dev/sda1"], [2]),
        ("root-device-type", ["ebs"], [0, 1, 2]),
        ("root-device-type", ["instance-store"], []),
        ("source-instance-id", ["*"], []),
        ("sriov-net-support", ["simple"], []),
        ("state", ["available", "pending"], [0, 1, 2]),
        ("state", ["failed"], []),
        ("state-reason-code", ["*"], []),
        ("tag:Name", ["debian-12*"], [0, 1]),
        ("tag:Name", ["x"], []),
        ("tag:only-1", ["a\\*b"], [1]),
        ("tag:only-1", ["a\\?b"], []),
        ("tag-key", ["only-?"], [0, 1, 2]),
        ("tag-key", ["only-2"], [2]),
        ("virtualization-type", ["hvm"], [0, 1]),
    ],
)
def test_filters_of_describe_images(zoo, name, values, expected):
    ec2, ids, (small, large) = zoo
    values = [value.replace("SMALL", small).replace("LARGE", large) for value in values]
    found = ec2.describe_images(Filters=[{"Name": name, "Values": values}])["Images"]
    assert [image["ImageId"] for image in found] == [ids[number] for number in expected]


def test_filters_narrow_each_other(zoo):
    ec2, ids, _ = zoo
    filters = [{"Name": "name", "Values": ["debian*"]}, {"Name": "architecture", "Values": ["arm64"]}]
    assert [image["ImageId"] for image in ec2.describe_images(Filters=filters)["Images"]] == [ids[1]]


@pytest.mark.behaviour(AREA, "DescribeImages", "unknown filters, ids, page sizes and tokens are refused")
@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"Filters": [{"Name": "colour", "Values": ["red"]}]}, "InvalidParameterValue"),
        ({"Filters": [{"Name": "name"}]}, "InvalidParameterValue"),
        ({"Filters": [{"Name": "name", "Values": [str(number) for number in range(201)]}]}, "FilterLimitExceeded"),
        ({"ImageIds": [FOREIGN_IMAGE]}, "InvalidAMIID.NotFound"),
        ({"ImageIds": ["ami-x"]}, "InvalidAMIID.Malformed"),
        ({"ImageIds": [FOREIGN_IMAGE], "MaxResults": 5}, "InvalidParameterCombination"),
        ({"MaxResults": 4}, "InvalidParameterValue"),
        ({"NextToken": "x"}, "InvalidNextToken"),
        ({"NextToken": base64.b64encode(b"before:x").decode()}, "InvalidNextToken"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_a_description_that_is_refused(ec2, code_of, parameters, code):
    assert code_of(ec2.describe_images, **parameters) == code


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        ({"Owners": ["self"]}, 3),
        ({"Owners": ["123456789012"]}, 3),
        ({"Owners": ["amazon"]}, 0),
        ({"Owners": ["amazon", "self"]}, 3),
        ({"ExecutableUsers": ["self"]}, 0),  # "with explicit launch permissions": one's own have none
        ({"ExecutableUsers": ["all"]}, 0),
        ({"IncludeDeprecated": True, "IncludeDisabled": True}, 3),
    ],
)
def test_owners_and_users(zoo, parameters, count):
    assert len(zoo[0].describe_images(**parameters)["Images"]) == count


@pytest.mark.behaviour(AREA, "DescribeImages", "pages hold each image once, also when some go between")
def test_pages_survive_what_happens_between_them(sandbox):
    ec2 = sandbox.client("ec2", region_name="eu-north-1")
    snapshot_id = sandbox.raw(region="eu-north-1").snapshot({})
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}]
    ids = [
        ec2.register_image(Name=f"page {number}", RootDeviceName=ROOT, BlockDeviceMappings=devices)["ImageId"]
        for number in range(12)
    ]
    first = ec2.describe_images(MaxResults=5)
    ec2.deregister_image(ImageId=ids[1])
    ec2.deregister_image(ImageId=ids[4])  # the last of the first page
    second = ec2.describe_images(MaxResults=5, NextToken=first["NextToken"])
    third = ec2.describe_images(MaxResults=5, NextToken=second["NextToken"])
    pages = [[image["ImageId"] for image in page["Images"]] for page in (first, second, third)]
    assert pages == [ids[:5], ids[5:10], ids[10:]]
    assert "NextToken" not in third
    paginator = ec2.get_paginator("describe_images")
    assert len(list(paginator.paginate(PaginationConfig={"PageSize": 5}).search("Images[]"))) == 10


@pytest.mark.behaviour(AREA, "DescribeImages", "images belong to their region")
def test_images_of_another_region_are_not_seen(ec2, sandbox, wish, code_of):
    image_id = ec2.register_image(**wish)["ImageId"]
    elsewhere = sandbox.client("ec2", region_name="us-west-2")
    assert code_of(elsewhere.describe_images, ImageIds=[image_id]) == "InvalidAMIID.NotFound"
    assert code_of(elsewhere.register_image, **wish) == "InvalidSnapshot.NotFound"
