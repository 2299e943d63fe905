"""Parameters that Eucalyptus binds and those that it does not, by release; paths and signatures."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from botocore.config import Config  # noqa: TID251 - the client that users bring

from builder.sandbox import lifecycle

AREA = "Eucalyptus: calls"
TAGGED = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
ZONE = "one"


@pytest.fixture
def unbound(refusal):
    """Return the fields that a call fails to bind; none when it succeeds."""

    def run(call, **parameters):
        code, status, message = refusal(call, **parameters)
        assert (code, status) == ("400 Bad Request", 400), message
        head, *lines = message.strip().split("\n")
        assert head == "Failed to bind the following fields:"
        return {line.partition(" = ")[0] for line in lines}

    return run


@pytest.mark.behaviour(AREA, "every call of EC2", "a parameter that the release does not know: `Failed to bind the "
                       "following fields`, with each field")  # fmt: skip
def test_unknown_parameters_are_not_bound(cloud, unbound):
    ec2 = cloud.ec2
    volume = unbound(ec2.create_volume, AvailabilityZone=ZONE, Size=1)
    assert volume == {"ClientToken"}  # botocore's own doing
    ours = {"AvailabilityZone": ZONE, "Size": 1, "DryRun": True, "Throughput": 125}
    assert unbound(ec2.create_volume, **ours) == {"ClientToken", "DryRun", "Throughput"}
    assert unbound(ec2.describe_images, IncludeDeprecated=True) == {"IncludeDeprecated"}
    assert unbound(ec2.describe_images, MaxResults=10) == {"MaxResults"}
    image = {"Name": "n", "EnaSupport": True, "BootMode": "uefi", "ImageLocation": "bucket/key"}
    specified = {"TagSpecifications": [{**TAGGED[0], "ResourceType": "image"}]}
    found = unbound(ec2.register_image, **image, **specified)
    assert {name.partition(".")[0] for name in found} == {"EnaSupport", "BootMode", "TagSpecification"}
    assert unbound(ec2.import_snapshot, DiskContainer={"Url": "s3://a/b"}) == {"DiskContainer.Url"}
    mapped = [{"DeviceName": "/dev/sda", "Ebs": {"SnapshotId": "snap-01234567", "Throughput": 1, "KmsKeyId": "k"}}]
    devices = unbound(ec2.register_image, Name="n", BlockDeviceMappings=mapped)
    assert devices == {"BlockDeviceMapping.1.Ebs.KmsKeyId", "BlockDeviceMapping.1.Ebs.Throughput"}


@pytest.mark.behaviour(AREA, "CreateVolume, CreateSnapshot, RunInstances", "tags at creation from 5.0 on, refused by "
                       "4.4")  # fmt: skip
@pytest.mark.behaviour(AREA, "DescribeSnapshots, DescribeVolumes", "MaxResults from 4.4.3 on")
def test_what_the_release_decides(cloud, cloud_of, unbound):
    ec2 = cloud.running.client("ec2")
    ec2.meta.events.register("before-call.ec2.CreateVolume", without_token)
    volume = ec2.create_volume(AvailabilityZone=ZONE, Size=1, TagSpecifications=TAGGED)
    assert volume["VolumeType"] == "standard"
    assert ec2.describe_volumes(MaxResults=5)["Volumes"][0]["Tags"] == TAGGED[0]["Tags"]
    old = cloud_of("4.4").ec2
    old.meta.events.register("before-call.ec2.CreateVolume", without_token)
    tags = {f"TagSpecification.1.{name}" for name in ("ResourceType", "Tag.1.Key", "Tag.1.Value")}
    assert unbound(old.create_volume, AvailabilityZone=ZONE, Size=1, TagSpecifications=TAGGED) == tags
    assert unbound(old.describe_snapshots, MaxResults=5) == {"MaxResults"}
    assert old.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"].startswith("vol-")


def without_token(params, **_):
    params["body"].pop("ClientToken", None)


@pytest.mark.behaviour(AREA, "CopyImage, CopySnapshot, ImportImage, ImportSnapshot", "answered with success, and "
                       "nothing is done")  # fmt: skip
@pytest.mark.behaviour(AREA, "calls that Eucalyptus never had", "refused: no message of that type")
def test_calls_that_do_nothing(cloud, refusal):
    answer = cloud.ec2.copy_image(Name="copy", SourceImageId="emi-01234567", SourceRegion="eucalyptus")
    assert "ImageId" not in answer
    assert "SnapshotId" not in cloud.ec2.copy_snapshot(SourceSnapshotId="snap-01234567", SourceRegion="eucalyptus")
    code, status, message = refusal(cloud.ec2.enable_image_deprecation, ImageId="emi-01234567")
    assert (code, status) == ("400 Bad Request", 400)
    assert message == "Failed to construct message of type EnableImageDeprecation"


@pytest.mark.behaviour(AREA, "RegisterImage", "of a snapshot: i386, hvm and /dev/sda by default, /dev/sda1 becomes "
                       "/dev/sda, deleted on termination")  # fmt: skip
def test_an_image_of_a_snapshot(cloud, refusal):
    snapshot = {"Ebs": {"SnapshotId": made_snapshot(cloud)}}
    for name, root, wanted in (("plain", None, "/dev/sda"), ("sda1", "/dev/sda1", "/dev/sda"), ("vda", "vda", "vda")):
        mapped = [{"DeviceName": root or "/dev/sda", **snapshot}]
        said = {"RootDeviceName": root} if root else {}
        image_id = cloud.ec2.register_image(Name=name, BlockDeviceMappings=mapped, **said)["ImageId"]
        image = cloud.described(image_id)
        assert (image["Architecture"], image["VirtualizationType"], image["Platform"]) == ("i386", "hvm", "linux")
        assert image["RootDeviceName"] == image["BlockDeviceMappings"][0]["DeviceName"] == wanted
        ebs = image["BlockDeviceMappings"][0]["Ebs"]
        assert (ebs["DeleteOnTermination"], ebs["VolumeType"], ebs["VolumeSize"]) == (True, "standard", 1)
    for root, words in (("/dev/sdb", "Invalid request:  the request must specify"), ("/dev/sda2", "Invalid request")):
        mapped = [{"DeviceName": "/dev/sda", **snapshot}]
        found = refusal(cloud.ec2.register_image, Name="odd", RootDeviceName=root, BlockDeviceMappings=mapped)
        assert found[:2] == ("InternalFailure", 500)
        assert found[2].startswith(words)
    partition = [{"DeviceName": "/dev/sda2", **snapshot}]
    found = refusal(cloud.ec2.register_image, Name="odd", RootDeviceName="/dev/sda2", BlockDeviceMappings=partition)
    assert found[2] == "/dev/sda2 is not supported. Device name cannot be a partition"
    for name, code in (
        ("a b", "InvalidAMIName.Malformed"),
        ("ab", "InvalidAMIName.Malformed"),
        ("plain", "InvalidAMIName.Duplicate"),
    ):
        assert refusal(cloud.ec2.register_image, Name=name, BlockDeviceMappings=mapped)[:2] == (code, 400)
    found = refusal(cloud.ec2.register_image, Name="new", Description="d" * 256, BlockDeviceMappings=mapped)
    assert found[0] == "InvalidParameter"
    found = refusal(cloud.ec2.register_image, Name="new", VirtualizationType="xen", BlockDeviceMappings=mapped)
    assert found[2] == "Unknown virtualization-type"


@pytest.mark.behaviour(AREA, "RegisterImage", "Platform=windows, which botocore does not know, makes it hvm")
def test_platform_is_taken(cloud, bundled):
    location = cloud.upload(bundled(cloud.identity))

    def windows(params, **_):
        params["body"]["Platform"] = "windows"

    client = cloud.running.client("ec2")
    client.meta.events.register("before-call.ec2.RegisterImage", windows)
    image = cloud.described(client.register_image(Name="win", ImageLocation=location)["ImageId"])
    assert (image["Platform"], image["VirtualizationType"]) == ("windows", "hvm")


def made_snapshot(cloud):
    ec2 = cloud.running.client("ec2")
    ec2.meta.events.register("before-call.ec2.CreateVolume", without_token)
    volume_id = ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    wait = {"Delay": 0.05, "MaxAttempts": 400}
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig=wait)
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot_id], WaiterConfig=wait)
    return snapshot_id


@pytest.mark.behaviour(AREA, "every call", "region and service of the signature's scope are not looked at, nor its "
                       "path; the path says the service, in old words too")  # fmt: skip
def test_paths_say_the_service(cloud, refusal):
    endpoint = cloud.running.endpoint
    for path, service, region in (
        ("compute", "ec2", "anywhere"), ("Eucalyptus", "ec2", "us-west-2"), ("Euare", "iam", "eucalyptus"),
    ):  # fmt: skip
        client = cloud.running.client(service, endpoint_url=f"{endpoint.url}/services/{path}", region_name=region)
        answer = client.describe_regions() if service == "ec2" else client.list_users()
        assert "Regions" not in answer or [one["RegionName"] for one in answer["Regions"]] == ["eucalyptus"]
    tokens = cloud.running.client("sts", region_name="nowhere-1")
    assert tokens.get_caller_identity()["Account"] == cloud.identity.account
    raw = cloud.running.raw(region="elsewhere")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"Action": "DescribeRegions", "Version": "2016-11-15"})
    for service in ("ec2", "anything"):
        assert raw.call("POST", "/services/compute", body, form, service=service)[0] == 200
    signed_elsewhere = raw.signed("POST", "/", body, form, service="ec2")
    assert raw.call("POST", "/services/compute", body, signed_elsewhere, service=None)[0] == 200
    for path in ("/", "/services/ebs", "/services/"):
        assert raw.call("POST", path, body, form, service="ec2")[0] == 404
    assert (
        raw.call("POST", "/services/compute", body.replace("Regions", "Images"), signed_elsewhere, service=None)[0]
        == 401
    )


@pytest.mark.behaviour(AREA, "DescribeServiceCertificates of Empyrean", "the certificate that bundles are made for, "
                       "as PEM, with its fingerprint")  # fmt: skip
def test_empyrean_tells_the_certificate(cloud, second):
    raw = cloud.running.raw()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    words = {"Action": "DescribeServiceCertificates", "Version": "eucalyptus", "Format": "pem"}
    words |= {"Filter.1.Name": "certificate-usage", "Filter.1.Value.1": "image-bundling"}
    status, _, data = raw.call("POST", "/services/Empyrean", urlencode(words), form, service="bootstrap")
    text = data.decode()
    certificate = re.search("<certificate>(.*?)</certificate>", text, re.DOTALL)[1]
    assert (status, certificate) == (200, cloud.identity.cloud_certificate.read_text())
    assert "<certificateUsage>image-bundling</certificateUsage>" in text
    assert "<serviceType>compute</serviceType>" in text
    assert re.search("<certificateFingerprint>([0-9A-F]{2}:){31}[0-9A-F]{2}<", text)
    other = urlencode({**words, "Filter.1.Value.1": "other"})
    assert b"<certificate>" not in raw.call("POST", "/services/Empyrean", other, form, service="bootstrap")[2]
    assert raw.call("POST", "/services/Empyrean", urlencode(words), form, service=None)[0] == 403


@pytest.mark.behaviour(AREA, "every call of EC2", "Signature Version 2 is taken, over the whole path")
def test_signature_version_2_is_taken(cloud):
    old = cloud.running.client("ec2", config=Config(signature_version="v2", parameter_validation=False))
    assert old.describe_regions()["Regions"][0]["Endpoint"].endswith("/services/compute")


def test_another_account_has_its_own_pair(cloud, second):
    first, other = cloud.identity, second.identity
    assert first.cloud_certificate == other.cloud_certificate
    assert first.certificate.read_bytes() != other.certificate.read_bytes()
    for file in (first.cloud_certificate, first.private_key, other.private_key):
        assert file.stat().st_mode & 0o777 == 0o600
    assert lifecycle.identity(cloud.running.directory) == first


@pytest.mark.behaviour(
    AREA, "ListAccountAliases of Euare", "`eucalyptus` is the administrators' account, others by their names"
)
def test_accounts_have_aliases(cloud, second):
    assert cloud.running.client("iam").list_account_aliases()["AccountAliases"] == ["eucalyptus"]
    assert second.client("iam").list_account_aliases()["AccountAliases"] == ["second"]
