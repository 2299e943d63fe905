"""Eucalyptus' client: what goes over the wire by release, and the sandbox of that personality, crashes included."""

from __future__ import annotations

import hashlib
import pickle
import re
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from builder import proc
from builder.bundle import keys, manifest, stream
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.records import Bundler, ContentKey, Manifest, Part, Shape
from builder.cloud.api import BlockDevice, Call, ImageSpec
from builder.cloud.claims import TAG, Claim
from builder.cloud.eucalyptus import Eucalyptus, capabilities, query_dialect, s3_dialect
from builder.cloud.images import wait_available
from builder.cloud.releases import Release
from builder.cloud.session import Session
from builder.cloud.settings import Settings
from builder.cloud.snapshots import wait_completed
from builder.cloud.wait import wait_until
from builder.errors import CloudConflict, CloudDenied, CloudError, UsageError
from builder.image.raw import RawReader
from builder.sandbox import lifecycle
from builder.sandbox.faults import client as faults

NEW, OLD, UNKNOWN = Release((5, 1)), Release((3, 2)), Release()
SERVICES = ("ec2", "s3", "iam", "sts", "bootstrap")


def settings(url: str, release: Release = NEW, **more) -> Settings:
    return Settings(
        region="eucalyptus",
        endpoints={service: f"{url}/services/{service}" for service in SERVICES},
        access_key="AKI",
        secret_key="secret",
        s3=s3_dialect(release),
        query=query_dialect(release),
        **more,
    )


def xml(text: str, status: int = 200):
    return status, {"Content-Type": "text/xml"}, text.encode()


def refusal(code: str, status: int = 400, message: str = "no"):
    return xml(
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>", status
    )


WHO = xml(
    "<GetCallerIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><GetCallerIdentityResult>"
    "<Account>000111222333</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)
USER = xml(
    "<GetUserResponse xmlns='https://iam.amazonaws.com/doc/2010-05-08/'><GetUserResult><User><Path>/</Path>"
    "<UserName>admin</UserName><UserId>AID</UserId><CreateDate>2015-01-01T00:00:00Z</CreateDate>"
    "<Arn>arn:aws:iam::000111222333:user/admin</Arn></User></GetUserResult></GetUserResponse>"
)


def asked(server, number: int = 0) -> dict[str, str]:
    """Return the form fields of what the server was asked."""
    return {name: values[0] for name, values in parse_qs(server.heard[number][3].decode()).items()}


def test_parameters_that_botocore_adds_are_left_out_and_those_it_does_not_know_are_sent(script) -> None:
    server = script(
        xml("<CreateVolumeResponse/>"), xml("<RegisterImageResponse><imageId>emi-1</imageId></RegisterImageResponse>")
    )
    session = Session(settings(server.url))
    session.call("ec2", "CreateVolume", {"AvailabilityZone": "one", "Size": 1})
    session.call("ec2", "RegisterImage", {"Name": "windows", "Platform": "windows"})
    volume = {"Action": "CreateVolume", "Version": "2016-11-15", "AvailabilityZone": "one", "Size": "1"}
    assert asked(server, 0) == volume
    assert asked(server, 1)["Platform"] == "windows"
    assert [heard[1] for heard in server.heard] == ["/services/ec2"] * 2


@pytest.mark.parametrize(
    ("release", "mark"), [(NEW, "AWS4-HMAC-SHA256"), (UNKNOWN, "AWS4-HMAC-SHA256"), (OLD, "HmacSHA256")]
)
def test_queries_are_signed_as_the_release_wants(script, release, mark) -> None:
    server = script(WHO)
    assert Session(settings(server.url, release)).call("sts", "GetCallerIdentity", {})["Account"] == "000111222333"
    heard = {name.lower(): value for name, value in server.heard[0][2].items()}
    assert mark in heard.get("authorization", "") or asked(server).get("SignatureMethod") == mark


@pytest.mark.parametrize(
    ("release", "signature"),
    [("3.4", "AWS AKI:"), ("4.3", "AWS AKI:"), ("4.4", "AWS4-"), ("5.1", "AWS4-"), ("", "AWS AKI:")],
)
def test_objects_are_put_path_style_with_a_plain_digest(script, release, signature) -> None:
    server = script((200, {"ETag": '"x"'}, b""))
    session = Session(settings(server.url, Release.parse(release) if release else UNKNOWN))
    session.call("s3", "PutObject", {"Bucket": "bucket", "Key": "a/key", "Body": b"data"})
    command, path, headers, body = server.heard[0]
    heard = {name.lower(): value for name, value in headers.items()}
    assert (command, path, body) == ("PUT", "/services/s3/bucket/a/key", b"data")
    assert heard["authorization"].startswith(signature)
    assert heard.get("x-amz-content-sha256", hashlib.sha256(b"data").hexdigest()) == hashlib.sha256(b"data").hexdigest()
    assert not {"x-amz-checksum-crc32", "x-amz-trailer", "content-encoding"} & heard.keys()


@pytest.mark.parametrize(
    ("release", "scenes", "calls"),
    [
        (NEW, [WHO], ["sts:GetCallerIdentity"]),
        (NEW, [refusal("AccessDenied", 403), USER], ["sts:GetCallerIdentity", "iam:GetUser"]),
        (UNKNOWN, [USER], ["iam:GetUser"]),
        (UNKNOWN, [refusal("AccessDenied", 403), WHO], ["iam:GetUser", "sts:GetCallerIdentity"]),
    ],
)
def test_the_account_is_asked_by_what_the_release_has(script, release, scenes, calls) -> None:
    made: list[str] = []
    server = script(*scenes)
    cloud = Eucalyptus(settings(server.url, release), release=release, on_call=lambda call: made.append(str(call)))
    assert [cloud.account(), cloud.account()] == ["000111222333"] * 2
    assert made == calls


def test_an_account_that_is_configured_is_not_asked(script) -> None:
    server = script(refusal("AccessDenied", 403))
    assert Eucalyptus(settings(server.url), account="000000000001").account() == "000000000001"
    assert server.heard == []
    with pytest.raises(CloudDenied):
        Eucalyptus(settings(server.url), retry=0).answer()


def test_a_service_without_an_endpoint_is_never_looked_for_at_aws() -> None:
    only = replace(settings("http://127.0.0.1:1"), endpoints={"ec2": "http://127.0.0.1:1/services/compute"})
    with pytest.raises(UsageError, match="no endpoint is configured for the service s3; there are ec2"):
        Session(only).call("s3", "ListBuckets", {})


def test_the_certificate_for_bundles_is_asked_of_the_bootstrap_service(script) -> None:
    def item(usage: str, text: str) -> str:
        return (
            f"<item><serviceType>compute</serviceType><certificateUsage>{usage}</certificateUsage>"
            f"<certificateFormat>pem</certificateFormat><certificate>{text}</certificate></item>"
        )

    found = item("password-encryption", "other") + item("image-bundling", "-----BEGIN CERTIFICATE-----")
    answer = (
        "<DescribeServiceCertificatesResponseType xmlns='http://www.eucalyptus.com/ns/bootstrap/2017-05-04/'>{}</{}>"
    )
    name = "DescribeServiceCertificatesResponseType"
    server = script(
        xml(answer.format(f"<serviceCertificates>{found}</serviceCertificates>", name)), xml(answer.format("", name))
    )
    cloud = Eucalyptus(settings(server.url), release=NEW)
    assert cloud.bundling_certificate() == b"-----BEGIN CERTIFICATE-----\n"
    assert asked(server) == {
        "Action": "DescribeServiceCertificates",
        "Version": "eucalyptus",
        "Format": "pem",
        "FingerprintDigest": "SHA-256",
    }
    with pytest.raises(UsageError, match="shows no certificate"):
        cloud.bundling_certificate()
    old = script(refusal("BindingFailure", message="Failed to construct message"))
    with pytest.raises(UsageError, match=r"cannot be asked for: .*Failed to construct") as caught:
        Eucalyptus(settings(old.url)).bundling_certificate()
    assert "EUCALYPTUS_CERT" in caught.value.hint
    with pytest.raises(UsageError, match=r"came with 4\.2"):
        Eucalyptus(settings(server.url), release=Release((4, 1))).bundling_certificate()


def test_tls_is_verified_with_the_cloud_s_own_authority_or_not_at_all(sandbox) -> None:
    endpoint = sandbox.endpoint
    url = {"sts": endpoint.tls_url}
    keys_ = {"access_key": endpoint.access_key, "secret_key": endpoint.secret_key, "region": endpoint.region}
    for trust in ({"ca_file": endpoint.ca_file}, {"verify": False}):
        assert Session(Settings(endpoints=url, **keys_, **trust)).call("sts", "GetCallerIdentity", {})["Account"]
    with pytest.raises(CloudError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        Session(Settings(endpoints=url, **keys_)).call("sts", "GetCallerIdentity", {})
    assert "ca_file" in caught.value.hint


@pytest.mark.parametrize(
    ("release", "root", "lacking"),
    [
        ("3.4", False, True),
        ("4.0", True, True),
        ("4.4.1", True, False),
        ("4.4.2", False, False),
        ("5.1", False, False),
        ("", True, False),
    ],
)
def test_what_a_release_can_do_is_known_without_a_call(release, root, lacking) -> None:
    able = capabilities(Release.parse(release) if release else UNKNOWN)
    assert able.bucket_root == root
    assert (Call("bootstrap", "DescribeServiceCertificates") in able.lacks) == lacking
    assert not able.ebs_direct
    assert not able.tag_on_register
    assert (Call("ec2", "CreateVolume") in able.tags_at_once) == (release == "5.1")
    names = ("/dev/sda", "/dev/sda1", "/dev/vdb", "/dev/sdb1", "/dev/xvda", "/dev/xvdb", "sda", "/dev/sdaa")
    assert [able.device_name.admits(name) for name in names] == [True] * 3 + [False] * 5
    assert not able.image_name.admits("with space")
    for empty in ("CopyImage", "CopySnapshot", "ImportImage", "ImportSnapshot"):
        with pytest.raises(UsageError, match="answers this call with success and does nothing"):
            able.require(Call("ec2", empty))


@pytest.mark.parametrize("text", ["", "new", "4.", "5.1.x", "4.4.4.4.4", "٤.٤"])
def test_what_is_no_release_is_refused(text) -> None:
    with pytest.raises(UsageError, match="is no release of Eucalyptus"):
        Release.parse(text)


def test_the_direct_apis_say_what_to_do_instead() -> None:
    cloud = Eucalyptus(settings("http://127.0.0.1:1"))
    for call in (cloud.start_snapshot, cloud.put_block, cloud.complete_snapshot, cloud.list_blocks, cloud.get_block):
        with pytest.raises(UsageError, match="no EBS direct APIs") as caught:
            call()
        assert "`bundle`, `upload` and `register`" in caught.value.hint


# Against the sandbox
@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lifecycle.Endpoint]:
    directory = tmp_path_factory.mktemp("eucalyptus")
    yield lifecycle.start(directory, personality="eucalyptus")
    lifecycle.stop(directory)


def settings_of(place: lifecycle.Endpoint) -> Settings:
    found = settings("", Release.parse(place.release))
    endpoints = {service: place.service(service) for service in SERVICES}
    return replace(found, endpoints=endpoints, access_key=place.access_key, secret_key=place.secret_key)


@pytest.fixture(scope="module")
def cloud(place: lifecycle.Endpoint) -> Eucalyptus:
    return Eucalyptus(settings_of(place), release=Release.parse(place.release))


@pytest.fixture
def bundle(cloud: Eucalyptus, place: lifecycle.Endpoint, tmp_path: Path) -> str:
    """A machine's bundle of one part, in a bucket of its own; its location."""
    files = lifecycle.identity(place.directory)
    certificate = Certificate.load(cloud.bundling_certificate(), "the cloud")
    name, bucket, key = f"image-{secrets.token_hex(4)}", f"bucket-{secrets.token_hex(4)}", ContentKey.fresh()
    (tmp_path / "image").write_bytes(secrets.token_bytes(4096))
    (tmp_path / "parts").mkdir()
    stream_ = stream.write(RawReader(tmp_path / "image"), tmp_path / "parts", Shape(name=name), key)
    made = Manifest(
        bundler=Bundler(name="test", version="1", release="0"),
        architecture="x86_64",
        name=name,
        user=files.account,
        tar_sha1=stream_.tar_sha1,
        size=stream_.size,
        bundled_size=stream_.bundled_size,
        for_cloud=keys.encrypt(key, certificate),
        parts=tuple(Part(filename=part.filename, sha1=part.sha1) for part in stream_.parts),
    )
    text = manifest.write(made, PrivateKey.load(files.private_key.read_bytes(), "the account"))
    cloud.s3.ensure_bucket(bucket)
    for part in stream_.parts:
        cloud.s3.put(bucket, part.filename, (tmp_path / "parts" / part.filename).read_bytes(), acl="aws-exec-read")
    cloud.s3.put(bucket, f"{name}.manifest.xml", text, acl="aws-exec-read")
    return f"{bucket}/{name}.manifest.xml"


def spec(location: str, **more) -> ImageSpec:
    wanted = {"name": location.rpartition("/")[2].removesuffix(".manifest.xml"), "tags": {"Name": "one"}} | more
    return ImageSpec(image_location=location, root_device_name=None, **wanted)


def test_a_bundle_is_registered_and_carries_claim_and_tags(cloud, bundle, claim) -> None:
    image_id = cloud.register_image(claim, spec(bundle))
    assert re.match("[ea]mi-", image_id)
    found = wait_available(cloud, image_id)
    shown = (found.image_location, found.root_device_type, found.virtualization_type)
    assert shown == (bundle, "instance-store", "hvm")
    assert found.tags == {TAG: claim.token, "Name": "one"}
    assert [one.image_id for one in cloud.find_images(claim)] == [image_id]
    assert cloud.register_image(claim, spec(bundle)) == image_id
    cloud.deregister_image(image_id)


REGISTERING = """
import pickle, sys
from builder.cloud.eucalyptus import Eucalyptus
settings, release, claim, spec = pickle.loads(bytes.fromhex(sys.argv[1]))
Eucalyptus(settings, release=release).register_image(claim, spec)
"""


@pytest.mark.parametrize(
    ("moment", "there", "tagged"),
    [("before ec2:RegisterImage", 0, 0), ("after ec2:RegisterImage", 1, 0), ("after ec2:CreateTags", 1, 1)],
)
def test_a_kill_at_any_moment_leaves_one_image_and_it_is_found(cloud, bundle, claim, place, moment, there, tagged):
    wanted = spec(bundle)
    words = pickle.dumps((settings_of(place), NEW, claim, wanted)).hex()
    proc.run([sys.executable, "-c", REGISTERING, words], environment={"EMI_CRASH_AT": moment}, allowed=[-9])
    holder = cloud.image_by_name(wanted.name)
    assert [holder is not None, len(cloud.find_images(claim))] == [there, tagged]
    image_id = cloud.register_image(claim, wanted)
    assert image_id == (holder.image_id if holder else image_id)
    assert [one.image_id for one in cloud.find_images(claim)] == [image_id]
    assert cloud.image_by_name(wanted.name).tags == {TAG: claim.token, "Name": "one"}


def test_an_untagged_image_of_our_very_snapshot_is_adopted_and_of_another_is_not(cloud, claim) -> None:
    zone = cloud._call("ec2", "DescribeAvailabilityZones")["AvailabilityZones"][0]["ZoneName"]
    volume = cloud._call("ec2", "CreateVolume", AvailabilityZone=zone, Size=1)["VolumeId"]
    wait_until(
        lambda: cloud._call("ec2", "DescribeVolumes", VolumeIds=[volume])["Volumes"][0],
        lambda found: found["State"] == "available",
        what=volume,
    )
    ours, other = (cloud._call("ec2", "CreateSnapshot", VolumeId=volume)["SnapshotId"] for _ in range(2))
    for snapshot in (ours, other):
        wait_completed(cloud, snapshot)

    def of(snapshot: str) -> ImageSpec:
        disk = (BlockDevice(device_name="/dev/sda", snapshot_id=snapshot),)
        return ImageSpec(name=f"disk-{claim.token[:8]}", root_device_name=None, architecture=None, block_devices=disk)

    image_id = cloud._call("ec2", "RegisterImage", **cloud._registration(claim, of(ours)))["ImageId"]
    with pytest.raises(CloudConflict, match=f"is taken by {image_id}"):
        cloud.register_image(claim, of(other))
    assert cloud.register_image(claim, of(ours)) == image_id
    found = wait_available(cloud, image_id)
    # each would be another by Eucalyptus' own defaults
    assert (found.architecture, found.virtualization_type, found.root_device_name) == ("x86_64", "hvm", "/dev/sda")
    assert (found.root_device_type, found.tags) == ("ebs", {TAG: claim.token})


def test_a_lost_answer_of_either_call_leaves_one_image(cloud, bundle, claim, place) -> None:
    lost = {"effect": "lost", "service": "ec2", "first": 1}
    faults.put(place, [{"call": "RegisterImage", **lost}, {"call": "CreateTags", **lost}])
    image_id = cloud.register_image(claim, spec(bundle))
    assert [row.acted for row in faults.rows(place)] == [1, 1]
    faults.clear(place)
    assert [one.image_id for one in cloud.find_images(claim)] == [image_id]


@pytest.mark.parametrize("claimed", [True, False])
def test_an_image_of_something_else_is_never_taken_over(cloud, bundle, claim, claimed) -> None:
    other = Claim(secrets.token_hex(8))
    holder = cloud.register_image(other, spec(bundle))
    location = bundle if claimed else bundle.replace("bucket-", "other-")
    if not claimed:
        cloud._call("ec2", "DeleteTags", Resources=[holder], Tags=[{"Key": TAG}])
        bucket, _, key = location.partition("/")
        cloud.s3.ensure_bucket(bucket)
        cloud.s3.put(bucket, key, cloud.s3.read(*bundle.split("/")), acl="aws-exec-read")
    with pytest.raises(CloudConflict, match=f"is taken by {holder}"):
        cloud.register_image(claim, spec(location))


def test_what_it_takes_no_parameter_for_is_refused_before_any_call(cloud, bundle, claim) -> None:
    disk = (BlockDevice(device_name="/dev/xvda", snapshot_id="snap-1"),)
    ephemeral = tuple(
        BlockDevice(device_name=f"/dev/sd{one}", virtual_name=f"ephemeral{n}") for n, one in enumerate("bc")
    )
    for changed, words in (
        (spec(bundle, boot_mode="uefi"), "BootMode"),
        (spec(bundle, tpm_support="v2.0"), "TpmSupport"),
        (spec(bundle, architecture="arm64"), "arm64"),
        (spec(bundle, name="with space"), "name"),
        (spec(bundle, block_devices=ephemeral), "ephemeral"),
        (ImageSpec(name="of-a-disk", root_device_name="/dev/xvda", block_devices=disk), "/dev/xvda"),
    ):
        with pytest.raises(UsageError, match=words):
            cloud.register_image(claim, changed)


def test_refusals_that_come_as_failures_of_the_server_are_final_and_say_what_to_do(cloud, bundle, claim) -> None:
    bucket, _, key = bundle.partition("/")
    cloud.s3.set_acl(bucket, key, "private")
    with pytest.raises(CloudError, match="Failed to read manifest") as caught:
        cloud.register_image(claim, spec(bundle))
    assert not caught.value.retryable
    assert "aws-exec-read" in caught.value.hint


def test_the_account_and_the_certificate_are_the_sandbox_s_own(cloud, place) -> None:
    files = lifecycle.identity(place.directory)
    assert cloud.account() == files.account
    assert cloud.bundling_certificate().strip() == files.cloud_certificate.read_bytes().strip()
