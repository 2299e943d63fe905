"""ModifyImageAttribute, deprecation, disabling, protection and DeregisterImage, as an image's owner sees them."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from builder.sandbox import lifecycle
from builder.sandbox.records import Image
from builder.sandbox.state import State

AREA = "EC2 images"
ROOT = "/dev/xvda"
ABSENT = "ami-0123456789abcdef0"
FRIEND, OTHER = "111122223333", "444455556666"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}
MISSING = [
    (AREA, "ModifyImageAttribute", "product codes and organizations: UnsupportedOperation"),
    (AREA, "ListImagesInRecycleBin, RestoreImageFromRecycleBin", "UnsupportedOperation: there is no recycle bin"),
    (AREA, "GetAllowedImagesSettings and all of Allowed AMIs", "UnsupportedOperation"),
    (AREA, "CreateStoreImageTask, CreateRestoreImageTask, ImportImage, ExportImage", "UnsupportedOperation"),
    (AREA, "LastLaunchedTime", "shown at once; EC2 shows it a day later"),
]


@pytest.fixture
def register(ec2, completed):
    """Register an image and return its id when it is available."""

    def run(client=ec2, snapshot_id=completed, **more):
        devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}]
        wish = {"Name": f"image {time.time_ns()}", "RootDeviceName": ROOT, "BlockDeviceMappings": devices, **more}
        image_id = client.register_image(Architecture="x86_64", VirtualizationType="hvm", **wish)["ImageId"]
        client.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig=WAIT)
        return image_id

    return run


def described(ec2, image_id, **more):
    (image,) = ec2.describe_images(ImageIds=[image_id], **more)["Images"]
    return image


def permissions(ec2, image_id):
    answer = ec2.describe_image_attribute(ImageId=image_id, Attribute="launchPermission")
    return answer["LaunchPermissions"]


@pytest.mark.behaviour(
    AREA, "ModifyImageAttribute", "the description changes, in the structure's form and the older one"
)
@pytest.mark.behaviour(AREA, "ModifyImageAttribute", "imdsSupport becomes v2.0, nothing else, and cannot be undone")
def test_description_and_imds_support(ec2, register, code_of):
    image_id = register(Description="before")
    ec2.modify_image_attribute(ImageId=image_id, Description={"Value": "after"})
    assert described(ec2, image_id)["Description"] == "after"
    ec2.modify_image_attribute(ImageId=image_id, Attribute="description", Value="older")
    assert described(ec2, image_id)["Description"] == "older"
    assert "ImdsSupport" not in described(ec2, image_id)
    ec2.modify_image_attribute(ImageId=image_id, ImdsSupport={"Value": "v2.0"})
    assert described(ec2, image_id)["ImdsSupport"] == "v2.0"
    refused = {"ImageId": image_id, "ImdsSupport": {"Value": "v1.0"}}
    assert code_of(ec2.modify_image_attribute, **refused) == "InvalidParameterValue"
    assert described(ec2, image_id)["ImdsSupport"] == "v2.0"


@pytest.mark.behaviour(
    AREA, "ModifyImageAttribute", "launch permissions are added and removed, in both forms of the call"
)
@pytest.mark.behaviour(AREA, "ResetImageAttribute", "all launch permissions are gone")
def test_launch_permissions_change(ec2, register):
    image_id = register()
    both = [{"UserId": FRIEND}, {"UserId": OTHER}]
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": both})
    assert permissions(ec2, image_id) == both
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": both, "Remove": [{"UserId": "1" * 12}]})
    assert permissions(ec2, image_id) == both  # given again: there once
    older = {"Attribute": "launchPermission", "ImageId": image_id}
    ec2.modify_image_attribute(OperationType="remove", UserIds=[FRIEND], **older)
    assert permissions(ec2, image_id) == both[1:]
    ec2.modify_image_attribute(OperationType="add", UserIds=[FRIEND], **older)
    assert permissions(ec2, image_id) == both[::-1]
    ec2.reset_image_attribute(ImageId=image_id, Attribute="launchPermission")
    assert permissions(ec2, image_id) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, "MissingParameter"),
        ({"Attribute": "colour", "Value": "red"}, "InvalidParameterValue"),
        ({"Attribute": "bootMode", "Value": "uefi"}, "InvalidParameterValue"),
        ({"Description": {"Value": "x" * 256}}, "InvalidParameterValue"),
        ({"Description": {"Value": "x"}, "ImdsSupport": {"Value": "v2.0"}}, "InvalidParameterCombination"),
        ({"Attribute": "description", "ImdsSupport": {"Value": "v2.0"}}, "InvalidParameterCombination"),
        ({"Attribute": "launchPermission"}, "MissingParameter"),
        ({"Attribute": "launchPermission", "UserIds": [FRIEND]}, "InvalidParameterValue"),
        ({"Attribute": "launchPermission", "UserIds": [FRIEND], "OperationType": "give"}, "InvalidParameterValue"),
        ({"LaunchPermission": {"Add": [{"UserId": "me"}]}}, "InvalidAMIAttributeItemValue"),
        ({"LaunchPermission": {"Add": [{"Group": "everybody"}]}}, "InvalidAMIAttributeItemValue"),
        ({"LaunchPermission": {"Add": [{"OrganizationArn": "arn:x"}]}}, "UnsupportedOperation"),
        ({"OrganizationArns": ["arn:x"], "OperationType": "add"}, "UnsupportedOperation"),
        ({"ProductCodes": ["x"]}, "UnsupportedOperation"),
        ({"ImageId": ABSENT, "Description": {"Value": "x"}}, "InvalidAMIID.NotFound"),
        ({"ImageId": "ami", "Description": {"Value": "x"}}, "InvalidAMIID.Malformed"),
        ({"Description": {"Value": "x"}, "DryRun": True}, "DryRunOperation"),
    ],
)
@pytest.mark.behaviour(AREA, "ModifyImageAttribute", "what EC2 does not allow is refused and changes nothing")
def test_a_change_that_is_refused(ec2, register, code_of, change, code):
    image_id = register(Description="kept")
    assert code_of(ec2.modify_image_attribute, **{"ImageId": image_id, **change}) == code
    image = described(ec2, image_id)
    assert (image["Description"], permissions(ec2, image_id)) == ("kept", [])
    assert "ImdsSupport" not in image


@pytest.mark.behaviour(
    AREA, "EnableImageDeprecation", "DeprecationTime is shown to the minute; disabling takes it away"
)
def test_deprecation(ec2, register, code_of):
    image_id = register()
    at = dt.datetime(2031, 1, 1, 12, 0, 31, tzinfo=dt.UTC)
    ec2.enable_image_deprecation(ImageId=image_id, DeprecateAt=at)
    assert described(ec2, image_id)["DeprecationTime"] == "2031-01-01T12:01:00.000Z"
    for refused in (at.replace(year=2020), at.replace(year=2060)):
        wish = {"ImageId": image_id, "DeprecateAt": refused}
        assert code_of(ec2.enable_image_deprecation, **wish) == "InvalidParameterValue"
    assert described(ec2, image_id)["DeprecationTime"] == "2031-01-01T12:01:00.000Z"
    ec2.disable_image_deprecation(ImageId=image_id)
    assert "DeprecationTime" not in described(ec2, image_id)


@pytest.mark.behaviour(AREA, "DisableImage", "`disabled`, without permissions, not listed by default, not launched")
@pytest.mark.behaviour(AREA, "EnableImage", "`available` again; the permissions do not come back")
def test_an_image_is_disabled_and_enabled(ec2, register, code_of):
    image_id = register()
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [{"UserId": FRIEND}]})
    assert ec2.disable_image(ImageId=image_id)["Return"] is True
    assert ec2.describe_images(ImageIds=[image_id])["Images"] == []
    assert image_id not in str(ec2.describe_images(Owners=["self"]))
    assert described(ec2, image_id, IncludeDisabled=True)["State"] == "disabled"
    disabled = [{"Name": "state", "Values": ["disabled"]}]
    listed = ec2.describe_images(Owners=["self"], Filters=disabled, IncludeDisabled=True)["Images"]
    assert [one["ImageId"] for one in listed] == [image_id]
    assert permissions(ec2, image_id) == []
    assert code_of(ec2.run_instances, ImageId=image_id, MinCount=1, MaxCount=1) == "InvalidAMIID.Unavailable"
    share = {"LaunchPermission": {"Add": [{"UserId": FRIEND}]}}
    assert code_of(ec2.modify_image_attribute, ImageId=image_id, **share) == "InvalidAMIID.Unavailable"
    assert ec2.enable_image(ImageId=image_id)["Return"] is True
    assert described(ec2, image_id)["State"] == "available"
    assert permissions(ec2, image_id) == []


@pytest.mark.behaviour(AREA, "EnableImageDeregistrationProtection", "a protected image is not deregistered")
@pytest.mark.behaviour(AREA, "DisableImageDeregistrationProtection", "with a cooldown it is protected for another day")
def test_protection_from_deregistration(make_sandbox, code_of):
    running = make_sandbox()
    ec2, snapshot_id = running.client("ec2"), running.raw().snapshot({})
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}]
    named = {"ImageId": ec2.register_image(Name="kept", RootDeviceName=ROOT, BlockDeviceMappings=devices)["ImageId"]}

    def shown():
        return described(ec2, named["ImageId"])["DeregistrationProtection"]

    assert shown() == "disabled"
    ec2.enable_image_deregistration_protection(**named)
    assert shown() == "enabled-without-cooldown"
    assert code_of(ec2.deregister_image, **named) == "OperationNotPermitted"
    ec2.disable_image_deregistration_protection(**named)
    assert shown() == "disabled"
    ec2.enable_image_deregistration_protection(WithCooldown=True, **named)
    assert shown() == "enabled-with-cooldown"
    ec2.disable_image_deregistration_protection(**named)
    end = dt.datetime.fromisoformat(shown().removeprefix("disabled after "))
    assert abs(end - dt.datetime.now(dt.UTC) - dt.timedelta(days=1)) < dt.timedelta(minutes=1)
    assert code_of(ec2.deregister_image, **named) == "OperationNotPermitted"
    lifecycle.stop(running.directory)  # a day passes
    state = State(running.directory / "state.sqlite")
    image = state.all(Image)[named["ImageId"]]
    with state.lock:
        state.put(type(image)(**{**vars(image), "protected_until": image.protected_until - 86400}))
    state.close()
    running.restart()
    ec2 = running.client("ec2")
    assert shown() == "disabled"
    assert ec2.deregister_image(**named)["Return"] is True


@pytest.mark.behaviour(AREA, "DeregisterImage", "DeleteAssociatedSnapshots deletes them with their bytes, and says "
                       "what became of each; one that another image uses is skipped")  # fmt: skip
def test_snapshots_go_with_the_image(ec2, sandbox, raw, register, code_of):
    own, shared = raw.snapshot({}), raw.snapshot({})
    devices = [
        {"DeviceName": ROOT, "Ebs": {"SnapshotId": own}},
        {"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": shared}},
        {"DeviceName": "/dev/sdc", "Ebs": {"SnapshotId": own}},
    ]
    image_id, other_id = register(BlockDeviceMappings=devices), register(snapshot_id=shared)
    answer = ec2.deregister_image(ImageId=image_id, DeleteAssociatedSnapshots=True)
    results = {one["SnapshotId"]: one["ReturnCode"] for one in answer["DeleteSnapshotResults"]}
    assert (answer["Return"], results) == (True, {own: "success", shared: "skipped"})
    assert code_of(ec2.describe_snapshots, SnapshotIds=[own]) == "InvalidSnapshot.NotFound"
    assert not (sandbox.directory / "disks" / own).exists()
    assert raw.read(shared) == {}
    assert described(ec2, other_id)["State"] == "available"
    assert "DeleteSnapshotResults" not in ec2.deregister_image(ImageId=other_id)
    assert raw.read(shared) == {}  # nobody asked for its end


@pytest.mark.parametrize("call", ["list_images_in_recycle_bin", "get_allowed_images_settings"])
def test_what_is_not_emulated_says_so(ec2, code_of, call):
    assert code_of(getattr(ec2, call)) == "UnsupportedOperation"


@pytest.mark.behaviour(AREA, "DescribeImageAttribute", "lastLaunchedTime is that of the latest RunInstances")
def test_the_last_launch_is_known(ec2, register):
    image_id = register()
    asked = {"ImageId": image_id, "Attribute": "lastLaunchedTime"}
    assert ec2.describe_image_attribute(**asked)["LastLaunchedTime"] == {}
    made = ec2.run_instances(ImageId=image_id, InstanceType="t3.micro", MinCount=1, MaxCount=1)["Instances"][0]
    shown = ec2.describe_image_attribute(**asked)["LastLaunchedTime"]["Value"]
    assert abs(dt.datetime.fromisoformat(shown) - made["LaunchTime"]) < dt.timedelta(seconds=2)
    assert described(ec2, image_id)["LastLaunchedTime"] == shown
