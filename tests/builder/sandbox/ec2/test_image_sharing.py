"""Images as a second account sees them: shared, public, deprecated, and what it may not do with them."""

from __future__ import annotations

import time

import pytest

from builder.sandbox import lifecycle
from builder.sandbox.access import accounts
from builder.sandbox.records import Image
from builder.sandbox.state import State

AREA = "EC2 images"
ROOT = "/dev/xvda"
OWNER = "123456789012"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}


@pytest.fixture(scope="module")
def second(sandbox):
    """A second account of the sandbox."""
    lifecycle.stop(sandbox.directory)
    state = State(sandbox.directory / "state.sqlite")
    made = accounts.add(state, "second")
    state.close()
    sandbox.restart()
    return made


@pytest.fixture(scope="module")
def clients(sandbox, second):
    """Return EC2 clients of a region: the owner's and the second account's."""

    def make(region="us-east-1"):
        keys = {"aws_access_key_id": second.access_key, "aws_secret_access_key": second.secret_key}
        return sandbox.client("ec2", region_name=region), sandbox.client("ec2", region_name=region, **keys)

    return make


@pytest.fixture
def shared(sandbox, clients, blocks):
    """Register an image of the owner's: shared(region) returns (id, snapshot id)."""

    def run(region="us-east-1", **more):
        ours, _ = clients(region)
        snapshot_id = sandbox.raw(region=region).snapshot({5: blocks("shared")})
        devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}]
        wish = {"Name": f"image {time.time_ns()}", "RootDeviceName": ROOT, "BlockDeviceMappings": devices, **more}
        image_id = ours.register_image(Architecture="x86_64", VirtualizationType="hvm", **wish)["ImageId"]
        ours.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig=WAIT)
        return image_id, snapshot_id

    return run


def share(ec2, image_id, **permission):
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [permission]})


def ids(ec2, **parameters):
    return [one["ImageId"] for one in ec2.describe_images(**parameters)["Images"]]


@pytest.mark.behaviour(AREA, "DescribeImages", "another account's image is invisible until it is shared, then visible "
                       "without its owner's tags, and invisible again after the reset")  # fmt: skip
def test_an_image_is_seen_by_whom_it_is_shared_with(clients, second, shared, code_of):
    ours, theirs = clients("eu-west-1")
    tags = [{"ResourceType": "image", "Tags": [{"Key": "secret", "Value": "x"}]}]
    image_id, snapshot_id = shared("eu-west-1", TagSpecifications=tags)
    assert code_of(theirs.describe_images, ImageIds=[image_id]) == "InvalidAMIID.NotFound"
    assert ids(theirs) == []
    share(ours, image_id, UserId=second.account)
    (image,) = theirs.describe_images(ImageIds=[image_id])["Images"]
    assert (image["OwnerId"], image["Public"], "Tags" in image) == (OWNER, False, False)
    assert image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == snapshot_id
    assert ids(theirs) == [image_id]
    assert ids(theirs, Filters=[{"Name": "tag:secret", "Values": ["x"]}]) == []
    assert ids(ours, Filters=[{"Name": "tag:secret", "Values": ["x"]}]) == [image_id]
    ours.reset_image_attribute(ImageId=image_id, Attribute="launchPermission")
    assert code_of(theirs.describe_images, ImageIds=[image_id]) == "InvalidAMIID.NotFound"


@pytest.mark.behaviour(AREA, "DescribeImages", "Owners, ExecutableUsers and is-public select as each account may know")
def test_owners_and_executable_users(clients, second, shared):
    region = "eu-west-2"
    ours, theirs = clients(region)
    ours.disable_image_block_public_access()
    private, explicit, public = (shared(region)[0] for _ in range(3))
    share(ours, explicit, UserId=second.account)
    share(ours, public, Group="all")
    assert ids(ours) == [private, explicit, public]
    assert ids(theirs) == [explicit, public]
    assert ids(theirs, Owners=["self"]) == []
    assert ids(theirs, Owners=[OWNER]) == [explicit, public]
    assert ids(theirs, ExecutableUsers=["self"]) == ids(theirs, ExecutableUsers=[second.account]) == [explicit]
    assert ids(ours, ExecutableUsers=[second.account]) == [explicit]
    assert ids(theirs, ExecutableUsers=[OWNER]) == []
    assert ids(ours, ExecutableUsers=["all"]) == ids(theirs, ExecutableUsers=["all"]) == [public]
    assert ids(theirs, ExecutableUsers=["all", "self"]) == [explicit, public]
    assert ids(theirs, Filters=[{"Name": "is-public", "Values": ["true"]}]) == [public]
    assert ids(ours, Filters=[{"Name": "is-public", "Values": ["false"]}]) == [private, explicit]
    (image,) = theirs.describe_images(ImageIds=[public])["Images"]
    born, end = image["CreationDate"], image["DeprecationTime"]
    assert (image["Public"], int(end[:4]) - int(born[:4])) == (True, 2)  # public ones live two years


@pytest.mark.behaviour(AREA, "DescribeImages", "an owner that is no account is InvalidUserID.Malformed")
def test_an_owner_must_be_one(clients, code_of):
    assert code_of(clients()[1].describe_images, Owners=["me"]) == "InvalidUserID.Malformed"


@pytest.mark.parametrize(
    ("call", "more"),
    [
        ("modify_image_attribute", {"Description": {"Value": "mine now"}}),
        ("reset_image_attribute", {"Attribute": "launchPermission"}),
        ("describe_image_attribute", {"Attribute": "launchPermission"}),
        ("deregister_image", {"DeleteAssociatedSnapshots": True}),
        ("enable_image_deprecation", {"DeprecateAt": "2031-01-01T00:00:00Z"}),
        ("disable_image_deprecation", {}),
        ("disable_image", {}),
        ("enable_image", {}),
        ("enable_image_deregistration_protection", {}),
        ("disable_image_deregistration_protection", {}),
    ],
)
@pytest.mark.behaviour(AREA, "every call that changes an image", "AuthFailure for another account, shared or not")
def test_only_the_owner_changes_an_image(clients, second, shared, code_of, call, more):
    ours, theirs = clients()
    image_id, _ = shared(Description="ours")
    assert code_of(getattr(theirs, call), ImageId=image_id, **more) == "AuthFailure"
    share(ours, image_id, UserId=second.account)
    assert code_of(getattr(theirs, call), ImageId=image_id, **more) == "AuthFailure"
    (image,) = ours.describe_images(ImageIds=[image_id])["Images"]
    assert (image["State"], image["Description"]) == ("available", "ours")
    assert not {"DeprecationTime"} & set(image)
    assert image["DeregistrationProtection"] == "disabled"


def deprecate(sandbox, image_id):
    """Let an image have been deprecated a minute ago, which no call can ask for."""
    lifecycle.stop(sandbox.directory)
    state = State(sandbox.directory / "state.sqlite")
    image = state.all(Image)[image_id]
    with state.lock:
        state.put(type(image)(**{**vars(image), "deprecation_time": time.time() - 60}))
    state.close()
    sandbox.restart()


@pytest.mark.behaviour(AREA, "DescribeImages", "a deprecated image is listed to its owner, to others only by id or "
                       "with IncludeDeprecated, and can still be launched")  # fmt: skip
def test_deprecated_images_are_hidden_from_others(sandbox, clients, second, shared):
    region = "eu-west-3"
    image_id, _ = shared(region)
    share(clients(region)[0], image_id, UserId=second.account)
    deprecate(sandbox, image_id)
    ours, theirs = clients(region)
    assert ids(ours) == [image_id]
    assert (ids(theirs), ids(theirs, IncludeDeprecated=True), ids(theirs, ImageIds=[image_id])) == (
        [],
        [image_id],
        [image_id],
    )
    wish = {"ImageId": image_id, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    assert theirs.run_instances(**wish)["OwnerId"] == second.account


@pytest.mark.behaviour(
    AREA, "EnableImageBlockPublicAccess", "on at first; images cannot be made public, public ones stay"
)
@pytest.mark.behaviour(
    AREA, "ModifyImageAttribute", "the sixth public image of an account in a region is over its quota"
)
def test_public_access(clients, shared, code_of):
    region = "ap-south-1"
    ours, theirs = clients(region)
    images = [shared(region)[0] for _ in range(6)]
    public = {"LaunchPermission": {"Add": [{"Group": "all"}]}}
    assert ours.get_image_block_public_access_state()["ImageBlockPublicAccessState"] == "block-new-sharing"
    assert code_of(ours.modify_image_attribute, ImageId=images[0], **public) == "OperationNotPermitted"
    assert ids(theirs) == []
    ours.disable_image_block_public_access()
    assert ours.get_image_block_public_access_state()["ImageBlockPublicAccessState"] == "unblocked"
    assert theirs.get_image_block_public_access_state()["ImageBlockPublicAccessState"] == "block-new-sharing"
    for image_id in images[:5]:
        ours.modify_image_attribute(ImageId=image_id, **public)
    assert code_of(ours.modify_image_attribute, ImageId=images[5], **public) == "ResourceLimitExceeded"
    assert ids(theirs) == images[:5]
    state = "block-new-sharing"
    ours.enable_image_block_public_access(ImageBlockPublicAccessState=state)
    assert ids(theirs) == images[:5]
    ours.deregister_image(ImageId=images[0])
    assert code_of(ours.modify_image_attribute, ImageId=images[5], **public) == "OperationNotPermitted"
    wrong = {"ImageBlockPublicAccessState": "block-all"}
    assert code_of(ours.enable_image_block_public_access, **wrong) == "InvalidParameterValue"


@pytest.mark.behaviour(AREA, "RunInstances of a shared image", "launched without permission for its snapshots: the "
                       "volumes are the launcher's, with the bytes; AuthFailure before it is shared")  # fmt: skip
def test_a_shared_image_is_launched(sandbox, clients, second, shared, code_of, blocks):
    ours, theirs = clients()
    image_id, snapshot_id = shared()
    wish = {"ImageId": image_id, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    assert code_of(theirs.run_instances, **wish) == "AuthFailure"
    share(ours, image_id, UserId=second.account)
    (made,) = theirs.run_instances(**wish)["Instances"]
    theirs.get_waiter("instance_running").wait(InstanceIds=[made["InstanceId"]], WaiterConfig=WAIT)
    (volume,) = theirs.describe_volumes()["Volumes"]
    assert (volume["SnapshotId"], volume["State"]) == (snapshot_id, "in-use")
    with open(sandbox.directory / "volumes" / volume["VolumeId"] / "data", "rb") as file:
        file.seek(5 << 19)
        assert file.read(1 << 19) == blocks("shared")
    assert code_of(theirs.describe_snapshots, SnapshotIds=[snapshot_id]) == "InvalidSnapshot.NotFound"
    assert code_of(ours.describe_instances, InstanceIds=[made["InstanceId"]]) == "InvalidInstanceID.NotFound"


@pytest.mark.behaviour(AREA, "CopyImage of a shared image", "InvalidRequest without permission for its snapshots; with "
                       "it the copy is the caller's, with the bytes and without the owner's tags")  # fmt: skip
def test_a_shared_image_is_copied(sandbox, clients, second, shared, code_of, blocks):
    ours, theirs = clients()
    tags = [{"ResourceType": "image", "Tags": [{"Key": "k", "Value": "v"}]}]
    image_id, snapshot_id = shared(TagSpecifications=tags)
    wish = {"SourceImageId": image_id, "SourceRegion": "us-east-1", "Name": "taken", "CopyImageTags": True}
    assert code_of(theirs.copy_image, **wish) == "InvalidAMIID.NotFound"
    share(ours, image_id, UserId=second.account)
    assert code_of(theirs.copy_image, **wish) == "InvalidRequest"
    allowed = {"CreateVolumePermission": {"Add": [{"UserId": second.account}]}}
    ours.modify_snapshot_attribute(SnapshotId=snapshot_id, **allowed)
    copy_id = theirs.copy_image(**wish)["ImageId"]
    theirs.get_waiter("image_available").wait(ImageIds=[copy_id], WaiterConfig=WAIT)
    (copy,) = theirs.describe_images(ImageIds=[copy_id])["Images"]
    assert (copy["OwnerId"], copy["SourceImageId"], "Tags" in copy) == (second.account, image_id, False)
    ours.deregister_image(ImageId=image_id, DeleteAssociatedSnapshots=True)  # the copy needs nobody
    keys = theirs._request_signer._credentials
    raw = sandbox.raw(keys=type(sandbox.raw()._keys)(access_key=keys.access_key, secret_key=keys.secret_key))
    assert raw.read(copy["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]) == {5: blocks("shared")}
