"""RegisterImage of instance-store images on EC2: what lies at ImageLocation is read and held against the call."""

from __future__ import annotations

import re
import time

import pytest
from botocore.exceptions import ClientError  # noqa: TID251 - the client that users bring

from builder.sandbox import lifecycle

AREA = "EC2 images"
LOCATION, PARTS = "RegisterImage with ImageLocation", "DescribeImages of an instance-store image"


@pytest.fixture(scope="module")
def identity(sandbox):
    return lifecycle.identity(sandbox.directory)


@pytest.fixture(scope="module")
def upload(sandbox):
    """Put a bundle's files into a new bucket and return the location of its manifest."""
    s3 = sandbox.client("s3")

    def put(files, bucket, *, ownership="ObjectWriter", acl="aws-exec-read"):
        s3.create_bucket(Bucket=bucket, ObjectOwnership=ownership)
        for name, data in files.items():
            s3.put_object(Bucket=bucket, Key=f"images/{name}", Body=data, **({"ACL": acl} if acl else {}))
        return f"{bucket}/images/{name}"

    return put


def settled(ec2, image_id):
    while (image := ec2.describe_images(ImageIds=[image_id])["Images"][0])["State"] == "pending":
        time.sleep(0.02)
    return image


@pytest.mark.behaviour(AREA, LOCATION, "the manifest is read from S3; ami-…, `pending` while the bundle is opened")
@pytest.mark.behaviour(AREA, PARTS, "ImageLocation, instance-store, kernel and ramdisk as the manifest or the call "
                       "says")  # fmt: skip
@pytest.mark.behaviour(AREA, "DescribeImages", "the filters root-device-type and manifest-location tell them apart")
def test_a_bundle_becomes_an_image(ec2, identity, upload, bundled, code_of):
    kernel = "</architecture><kernel_id>aki-12345678</kernel_id>"
    location = upload(bundled(identity, change=lambda text: text.replace("</architecture>", kernel)), "one")
    image_id = ec2.register_image(Name="bundled", ImageLocation=location, RamdiskId="ari-12345678")["ImageId"]
    image = settled(ec2, image_id)
    assert image_id.startswith("ami-")
    assert (image["State"], image.get("StateReason")) == ("available", None)
    assert (image["ImageLocation"], image["RootDeviceType"]) == (location, "instance-store")
    assert (image["KernelId"], image["RamdiskId"], image["ImageType"]) == ("aki-12345678", "ari-12345678", "machine")
    assert (image["VirtualizationType"], image["RootDeviceName"]) == ("paravirtual", "/dev/sda1")
    assert (image["Architecture"], image["OwnerId"], "Platform" in image) == ("x86_64", identity.account, False)
    for name, value in (("root-device-type", "instance-store"), ("manifest-location", location)):
        found = ec2.describe_images(Owners=["self"], Filters=[{"Name": name, "Values": [value]}])["Images"]
        assert [one["ImageId"] for one in found] == [image_id]
    run = ec2.run_instances(ImageId=image_id, MinCount=1, MaxCount=1)["Instances"][0]
    assert (run["RootDeviceType"], run["BlockDeviceMappings"]) == ("instance-store", [])
    ec2.get_waiter("instance_running").wait(InstanceIds=[run["InstanceId"]], WaiterConfig={"Delay": 0.05})
    assert code_of(ec2.create_image, InstanceId=run["InstanceId"], Name="again") == "InvalidParameterValue"
    assert code_of(ec2.stop_instances, InstanceIds=[run["InstanceId"]]) == "UnsupportedOperation"
    ec2.deregister_image(ImageId=image_id)


SPOILT = {  # what a manifest's text is changed by, and what EC2 says
    "no-user-key": ("<user_encrypted_key algorithm='AES-128-CBC'/>", "", "InvalidManifest"),
    "no-user-iv": ("<user_encrypted_iv/>", "", "InvalidManifest"),
    "no-signature": ("<signature>.*</signature>", "", "InvalidManifest"),
    "empty-signature": ("<signature>.*</signature>", "<signature/>", "InternalError"),
    "no-size": ("<size>.*</size>", "", "InvalidManifest"),
    "too-large": ("<size>.*</size>", f"<size>{(10 << 30) + 1}</size>", "InvalidManifest"),
    "odd-architecture": ("x86_64", "arm64", "InvalidManifest"),
    "no-parts": ("<parts .*</parts>", "<parts count='0'></parts>", "InvalidManifest"),
    "miscounted": (" count='", " count='1", "InvalidManifest"),
    "truncated": ("</manifest>", "", "InvalidManifest"),
    "kernel": (">machine<", ">kernel<", "AuthFailure"),
    "anothers": ("<user>\\d+", "<user>210987654321", "AuthFailure"),
}


@pytest.mark.behaviour(AREA, LOCATION, "not readable for aws-exec-read, absent, no manifest, or without what EC2 "
                       "wants in it: InvalidManifest; an empty signature: InternalError, 500")  # fmt: skip
@pytest.mark.parametrize("spoil", SPOILT)
def test_what_a_manifest_must_have(ec2, identity, upload, bundled, code_of, spoil):
    old, new, code = SPOILT[spoil]
    files = bundled(identity)
    manifest = list(files)[-1]
    before = files[manifest].decode()
    files[manifest] = re.sub(old, new, before).encode()
    assert files[manifest].decode() != before
    assert code_of(ec2.register_image, Name=spoil, ImageLocation=upload(files, spoil)) == code


def test_a_manifest_must_be_readable(ec2, identity, upload, bundled, code_of):
    private = upload(bundled(identity), "private", acl=None)
    for location in (private, "private/absent", "nothing", "absent/manifest"):
        assert code_of(ec2.register_image, Name="unreadable", ImageLocation=location) == "InvalidManifest"


@pytest.mark.behaviour("S3 permissions", "PutObject with the ACL aws-exec-read", "refused where ACLs are off, as in a "
                       "new bucket; else a grant for EC2's bundle account")  # fmt: skip
def test_aws_exec_read_is_an_acl(sandbox, identity, upload, bundled):
    with pytest.raises(ClientError, match="AccessControlListNotSupported"):
        upload(bundled(identity), "acls-off", ownership="BucketOwnerEnforced")
    bucket, key = upload(bundled(identity), "acls-on").split("/", 1)
    grants = sandbox.client("s3").get_object_acl(Bucket=bucket, Key=key)["Grants"]
    ids = {one["Permission"]: one["Grantee"]["ID"] for one in grants}
    assert ids["READ"] == "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c"


@pytest.mark.behaviour(AREA, LOCATION, "a bundle that could not be launched ends as `failed`, with a StateReason of "
                       "the sandbox's own; a restart in between changes nothing")  # fmt: skip
def test_a_bundle_for_another_cloud_fails(make_sandbox, bundled):
    running = make_sandbox()
    identity = lifecycle.identity(running.directory)
    s3, ec2 = running.client("s3"), running.client("ec2")
    s3.create_bucket(Bucket="images", ObjectOwnership="ObjectWriter")
    noise = bytes(index * index % 251 for index in range(1 << 20))
    for name, certificate in (("good", None), ("foreign", identity.certificate)):
        for file, data in bundled(identity, name, image=noise, certificate=certificate).items():
            s3.put_object(Bucket="images", Key=file, Body=data, ACL="aws-exec-read")
        ec2.register_image(Name=name, ImageLocation=f"images/{name}.manifest.xml")
    lifecycle.stop(running.directory)
    running.restart()
    ec2 = running.client("ec2")
    names = {one["Name"]: one["ImageId"] for one in ec2.describe_images(Owners=["self"])["Images"]}
    assert settled(ec2, names["good"])["State"] == "available"
    failed = settled(ec2, names["foreign"])
    assert (failed["State"], failed["StateReason"]["Code"]) == ("failed", "Sandbox.BundleUnfit")
    assert "ec2_encrypted_key was not made with this cloud's certificate" in failed["StateReason"]["Message"]
