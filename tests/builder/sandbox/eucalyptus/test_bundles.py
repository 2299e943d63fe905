"""RegisterImage of instance-store images on Eucalyptus: what its code checks, and what a launch would find out."""

from __future__ import annotations

import re

import pytest
from botocore.config import Config  # noqa: TID251 - the client that users bring

from builder.sandbox.faults import client

AREA = "Eucalyptus: images"
HVM = {"VirtualizationType": "hvm"}
OLD = Config(signature_version="s3", s3={"addressing_style": "path"}, parameter_validation=False)


def register(cloud, location, name, **values):
    return cloud.ec2.register_image(Name=name, ImageLocation=location, **values)["ImageId"]


@pytest.mark.behaviour(AREA, "RegisterImage", "an instance-store image from a bundle in its S3: emi-…, its manifest "
                       "as ImageLocation, root /dev/sda for hvm")  # fmt: skip
@pytest.mark.behaviour(AREA, "DeregisterImage", "the bundle's objects stay")
def test_a_bundle_becomes_an_image(cloud, bundled):
    location = cloud.upload(bundled(cloud.identity), prefix="some/place/")
    image_id = register(cloud, f"/{location}", "of-a-bundle", **HVM)
    image = cloud.described(image_id)
    assert re.fullmatch("emi-[0-9a-f]{17}", image_id)
    assert image["State"] == "available", image.get("StateReason")
    assert (image["ImageLocation"], image["RootDeviceType"]) == (location, "instance-store")
    assert (image["ImageType"], image["OwnerId"]) == ("machine", cloud.identity.account)
    assert (image["RootDeviceName"], image["Platform"], image["Architecture"]) == ("/dev/sda", "linux", "x86_64")
    assert "KernelId" not in image
    bucket, key = location.split("/", 1)
    cloud.ec2.deregister_image(ImageId=image_id)
    assert cloud.s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > 1000


@pytest.mark.behaviour(AREA, "RegisterImage", "kernel, ramdisk and root of one machine: eki-…, eri-…, emi-… with "
                       "their ids, paravirtual and /dev/sda1 by default")  # fmt: skip
def test_three_bundles_become_a_paravirtual_image(cloud, bundled, refusal):
    def typed(kind):
        return lambda text: text.replace("<type>machine", f"<type>{kind}")

    kernel = register(cloud, cloud.upload(bundled(cloud.identity, "k", change=typed("kernel"))), "a-kernel")
    ramdisk = register(cloud, cloud.upload(bundled(cloud.identity, "initrd-1")), "a-ramdisk")
    location = cloud.upload(bundled(cloud.identity, "root"))
    root = register(cloud, location, "a-root", KernelId=kernel, RamdiskId=ramdisk)
    shapes = [cloud.described(one) for one in (kernel, ramdisk, root)]
    assert [one["ImageId"][:4] for one in shapes] == ["eki-", "eri-", "emi-"]
    assert [one["ImageType"] for one in shapes] == ["kernel", "ramdisk", "machine"]
    assert {one["State"] for one in shapes} == {"available"}
    assert (shapes[2]["KernelId"], shapes[2]["RamdiskId"]) == (kernel, ramdisk)
    assert (shapes[2]["VirtualizationType"], shapes[2]["RootDeviceName"]) == ("paravirtual", "/dev/sda1")
    assert "VirtualizationType" not in shapes[0]
    code, status, message = refusal(cloud.ec2.register_image, Name="no-kernel", ImageLocation=location)
    assert (code, status, message) == ("MissingParameter", 400, "Kernel ID must be specified")
    missing = refusal(cloud.ec2.register_image, Name="no-ramdisk", ImageLocation=location, KernelId=kernel)
    assert missing[::2] == ("MissingParameter", "Ramdisk ID must be specified")


@pytest.mark.behaviour(AREA, "RegisterImage", "kernel and ramdisk of the manifest itself count, a mapping of `ami` "
                       "names the root")  # fmt: skip
def test_the_manifest_may_say_kernel_and_root(cloud, bundled):
    def change(text):
        mapping = "<mapping><virtual>ami</virtual><device>sda2</device></mapping>"
        said = f"<block_device_mapping>{mapping}</block_device_mapping><kernel_id>eki-0123abcd</kernel_id>"
        return text.replace("</machine_", f"{said}<ramdisk_id>eri-0123abcd</ramdisk_id></machine_", 1)

    image = cloud.described(register(cloud, cloud.upload(bundled(cloud.identity, change=change)), "self-said"))
    assert (image["KernelId"], image["RamdiskId"]) == ("eki-0123abcd", "eri-0123abcd")
    assert image["RootDeviceName"] == "/dev/sda2"


@pytest.mark.behaviour(AREA, "RegisterImage", "a manifest that is not readable for aws-exec-read, absent, too large "
                       "or no manifest: InternalFailure, 500, Failed to read manifest file")  # fmt: skip
def test_a_manifest_must_be_there_and_readable(cloud, bundled, refusal):
    bucket = cloud.bucket()
    private = cloud.upload(bundled(cloud.identity), acl=None)
    public = cloud.upload(bundled(cloud.identity, "public"), acl="public-read")
    large = cloud.upload({"large.manifest.xml": b"<manifest>" + b" " * (5 << 20)})
    broken = cloud.upload({"broken.manifest.xml": b"<manifest><image>"})
    hostile = cloud.upload({"hostile.manifest.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]><manifest>&b;</manifest>"})
    for location in (private, f"{bucket}/absent.manifest.xml", "no-such-bucket/a", large, broken, hostile):
        code, status, message = refusal(cloud.ec2.register_image, Name="unreadable", ImageLocation=location, **HVM)
        assert (code, status) == ("InternalFailure", 500)
        assert message.startswith(f"Failed to read manifest file: {location}"), message
    for location in ("nothing", "b/a", "bucket/"):
        code, _, message = refusal(cloud.ec2.register_image, Name="nowhere", ImageLocation=location, **HVM)
        assert (code, message) == ("InternalFailure", f"Invalid image location: {location}")
    assert cloud.described(register(cloud, public, "for-everybody", **HVM))["State"] == "available"


@pytest.mark.behaviour(AREA, "RegisterImage", "a manifest of another account's user: AuthFailure, Manifest is not "
                       "accessible")  # fmt: skip
@pytest.mark.behaviour(AREA, "RegisterImage", "only administrators (the first account) register kernels and ramdisks")
def test_whose_a_bundle_is(cloud, second, bundled, refusal):
    location = second.upload(bundled(second.identity, "theirs"))
    assert second.described(register(second, location, "theirs", **HVM))["State"] == "available"
    code, status, message = refusal(cloud.ec2.register_image, Name="not-mine", ImageLocation=location, **HVM)
    assert (code, status, message) == ("AuthFailure", 400, "Manifest is not accessible")
    for name, kind in (("vmlinuz-6.1", "kernel"), ("initrd-6.1", "ramdisk")):
        kernel = second.upload(bundled(second.identity, name))
        found = refusal(second.ec2.register_image, Name=name, ImageLocation=kernel)
        assert found == ("InternalFailure", 500, f"Only administrators can register {kind} images.")
    typed = bundled(second.identity, "k", change=lambda text: text.replace(">machine<", ">kernel<"))
    found = refusal(second.ec2.register_image, Name="typed", ImageLocation=second.upload(typed))
    assert found[2] == "Only administrators can register kernel images."


@pytest.mark.behaviour(AREA, "RegisterImage", "what a launch would find out ends as `failed` with a StateReason: "
                       "another cloud's certificate, lost, altered, unreadable parts, another tar")  # fmt: skip
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("certificate", "ec2_encrypted_key was not made with this cloud's certificate"),
        ("lost", "part 1 is not at "),
        ("altered", "the SHA-1 of part 0 is "),
        ("private", "part 0 is not at "),
        ("tar", "the SHA-1 of its tar is "),
        ("size", "its parts have "),
        ("bomb", "its gzip stream expands to more than "),
    ],
)
def test_what_a_launch_would_find_out(cloud, bundled, spoil, reason):
    changes = {
        "tar": lambda text: re.sub(r"(</type><digest algorithm='SHA1'>)\w{4}", r"\g<1>0000", text),
        "size": lambda text: re.sub(r"(<bundled_size>)(\d+)", lambda m: f"{m[1]}{int(m[2]) + 1}", text),
    }
    changes["bomb"] = lambda text: re.sub(r"(<size>)\d+", r"\g<1>1", text)
    other = cloud.identity.certificate if spoil == "certificate" else None
    noise = bytes(range(256)) * 2 + spoil.encode() * 200 + bytes((2 << 20) * (spoil == "bomb"))
    files = bundled(
        cloud.identity, spoil, image=noise, certificate=other, part_size=200, change=changes.get(spoil, str)
    )
    first, second, *_ = files
    if spoil == "altered":
        files[first] = b"\0" + files[first][1:]
    location = cloud.upload({name: data for name, data in files.items() if (name, spoil) != (second, "lost")})
    if spoil == "private":
        cloud.s3.put_object_acl(Bucket=location.split("/")[0], Key=first, ACL="private")
    image = cloud.described(register(cloud, location, f"spoilt-{spoil}", **HVM))
    assert image["State"] == "failed"
    assert image["StateReason"]["Code"] == "Sandbox.BundleUnfit"
    assert reason in image["StateReason"]["Message"]
    again = register(cloud, location, f"spoilt-{spoil}", **HVM)  # the name of a failed image is free
    assert again != image["ImageId"]


@pytest.mark.behaviour(AREA, "RegisterImage", "EBS mappings, two ephemerals and odd devices are refused for a bundle; "
                       "one ephemeral and suppressed devices are kept")  # fmt: skip
def test_devices_of_an_instance_store_image(cloud, bundled, refusal):
    location = cloud.upload(bundled(cloud.identity))
    ephemeral = [{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}, {"DeviceName": "/dev/sdc", "NoDevice": ""}]
    image = cloud.described(register(cloud, location, "ephemeral", BlockDeviceMappings=ephemeral, **HVM))
    assert image["BlockDeviceMappings"] == ephemeral
    for device, words in (
        ({"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1}}, "Ebs block device mappings are not supported"),
        (
            {"DeviceName": "/dev/sdb1", "VirtualName": "ephemeral0"},
            "/dev/sdb1 is not supported. Device name cannot be a",
        ),
        ({"DeviceName": "/dev/sdb", "VirtualName": "ephemeral4"}, "Virtual device name must be of the form ephemeral"),
        ({"DeviceName": "/dev/nvme1", "VirtualName": "ephemeral0"}, "Device name /dev/nvme1 is invalid"),
        ({"DeviceName": "sdc", "VirtualName": "ephemeral1"}, "assigned multiple times"),
        ({"DeviceName": "/dev/sdd", "VirtualName": "ephemeral1"}, "Only one ephemeral device is supported."),
    ):
        mapped = [*(ephemeral if "multiple" in words or "Only" in words else []), device]
        code, status, message = refusal(
            cloud.ec2.register_image, Name="odd", ImageLocation=location, BlockDeviceMappings=mapped, **HVM
        )
        assert (code, status) == ("InternalFailure", 500)
        assert words in message


@pytest.mark.behaviour(AREA, "RegisterImage", "an architecture beyond i386, x86_64 and other: InternalFailure")
def test_architectures_are_an_enumeration(cloud, bundled, refusal):
    files = bundled(cloud.identity, change=lambda text: text.replace("x86_64", "arm64"))
    location = cloud.upload(files)
    code, status, message = refusal(cloud.ec2.register_image, Name="arm", ImageLocation=location, **HVM)
    assert (code, status) == ("InternalFailure", 500)
    assert message.endswith("Architecture.arm64")


@pytest.mark.behaviour(AREA, "RegisterImage", "4.0 to 4.4.1 look for parts at the bucket's root, 4.4.2 and later "
                       "beside the manifest")  # fmt: skip
@pytest.mark.behaviour(AREA, "RegisterImage", "4.0.2 to 4.1 refuse a manifest whose signature is nobody's, others do "
                       "not look")  # fmt: skip
def test_releases_differ(cloud_of, bundled, refusal):
    old = cloud_of("4.1.2")
    old.s3 = old.running.client("s3", config=OLD)
    files = bundled(old.identity)
    *parts, manifest = files
    bucket = old.bucket()
    old.upload({name: files[name] for name in parts}, bucket=bucket)
    location = old.upload({manifest: files[manifest]}, bucket=bucket, prefix="deep/")
    assert old.described(register(old, location, "at-the-root", **HVM))["State"] == "available"
    beside = old.upload(files, prefix="deep/")
    assert "part 0 is not at " in old.described(register(old, beside, "beside", **HVM))["StateReason"]["Message"]
    unsigned = re.sub(b"<signature>.*</signature>", b"<signature>UNSIGNED</signature>", files[manifest])
    location = old.upload({manifest: unsigned}, bucket=bucket)
    found = refusal(old.ec2.register_image, Name="unsigned", ImageLocation=location, **HVM)
    assert found[:2] == ("InternalFailure", 500)


@pytest.mark.behaviour("Faults", "stuck, fail", "images of Eucalyptus, whose ids are others, are held and fail too")
def test_faults_know_these_ids(cloud, bundled):
    location = cloud.upload(bundled(cloud.identity))
    end = cloud.running.endpoint
    client.put(end, [{"effect": "fail", "call": "RegisterImage", "reason": "told so"}])
    image = cloud.described(register(cloud, location, "told-to-fail", **HVM))
    client.clear(end)
    assert (image["State"], image["StateReason"]["Message"]) == ("failed", "told so")
