"""The step `register` with what lies in a bucket: kernel, ramdisk and machines, on a cloud like Eucalyptus."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.bundle.bundle_file import Owner, Said, bundle_file
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.records import Shape
from builder.cloud.bundles import Delivery, Destination, Item, Marks
from builder.cloud.claims import RECIPE_TAG, TAG, Claim
from builder.digest import file_sha256
from builder.errors import CloudConflict, UsageError
from builder.progress import SILENT
from builder.sandbox import lifecycle
from pipelines.artifact import BundleLocation, MachineImage
from pipelines.home import Home
from pipelines.kinds import load
from pipelines.step import Before, Foreseen, Inputs, Outside, Work
from pipelines.steps.register import Device, RegisterOptions
from pipelines.store import FileStore
from pipelines.targets import Target, open_target

STEP = load("register")
BUCKET = "registered"


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Iterator[Target]:
    home = Home(tmp_path_factory.mktemp("home")).make()
    yield open_target("sandbox:eucalyptus", home)
    lifecycle.stop(home.sandbox_eucalyptus)


@pytest.fixture(scope="module")
def owner(target) -> Owner:
    who = target.bundling()
    return Owner(
        account=who.account,
        cloud=Certificate.load(who.cloud_certificate, "cloud"),
        user=Certificate.load(who.user_certificate, "user"),
        private_key=PrivateKey.load(who.private_key, "user"),
    )


@pytest.fixture(scope="module")
def lying(target, owner, tmp_path_factory) -> dict[str, BundleLocation]:
    """A bundle of each type, in a bucket."""
    return {
        type_: _placed(target, owner, tmp_path_factory.mktemp(type_), type_)
        for type_ in ("kernel", "ramdisk", "machine")
    }


def _placed(target: Target, owner: Owner, place: Path, type_: str) -> BundleLocation:
    image = place / "image"
    image.write_bytes(bytes(0x438) + b"\x53\xef" + random.Random(type_).randbytes(5000) + bytes(300 << 10))
    path, says = bundle_file(image, place, Shape(name=f"the-{type_}"), owner, Said(type=type_))
    to = Destination(bucket=BUCKET, prefix="", manifest=path.name)
    marks = Marks(claim="lying", recipe="lying", run="")
    delivery = Delivery(target.cloud.s3, to, marks, acl="aws-exec-read")
    delivery.begin(None)
    delivery.send_all([
        Item(name=part.filename, path=place / part.filename, size=(place / part.filename).stat().st_size,
             digest=f"sha1:{part.sha1}")
        for part in says.parts
    ])  # fmt: skip
    digest = file_sha256(path)
    delivery.commit(Item(name=path.name, path=path, size=path.stat().st_size, digest=digest), {"lying"})
    return BundleLocation(
        bucket=BUCKET, manifest_key=path.name, region="eucalyptus", type=type_, architecture="x86_64",
        manifest_sha256=digest.removeprefix("sha256:"), keys=tuple(part.filename for part in says.parts),
    )  # fmt: skip


@pytest.fixture
def work(tmp_path) -> Work:
    outside = Outside(recipe_directory=tmp_path, cache=tmp_path, store=FileStore(tmp_path))
    return Work(scratch=tmp_path, outside=outside, pins={}, progress=SILENT, labels={RECIPE_TAG: "test"})


def make(options: RegisterOptions, source: BundleLocation, target: Target, work: Work, **named) -> MachineImage:
    """Run the step as the runner does, its preflight first."""
    inputs, claim, cloud = Inputs(source=source, named=named), Claim(options.name), target.cloud
    assert STEP.check(options) == []
    STEP.preflight(options, cloud, bool, Before(source=Foreseen(result=source)))
    effect = STEP.find(options, inputs, claim, cloud) or STEP.start(options, inputs, claim, cloud, work)
    made = STEP.finish(options, inputs, effect, cloud, work)
    assert isinstance(made, MachineImage)
    assert STEP.present(made, cloud)
    return made


def test_kernel_and_ramdisk_are_registered_as_such_and_boot_a_paravirtual_machine(target, lying, work):
    kernel, ramdisk = (
        make(RegisterOptions(name=f"a-{role}"), lying[role], target, work) for role in ("kernel", "ramdisk")
    )
    assert (kernel.image_id[:4], ramdisk.image_id[:4]) == ("eki-", "eri-")
    options = RegisterOptions(
        name="paravirtual",
        description="d",
        virtualization="paravirtual",
        kernel="k",
        ramdisk_id=ramdisk.image_id,
        block_devices=(Device(device_name="/dev/sdb", virtual_name="ephemeral0"),),
        tags={"Name": "n"},
    )
    made = make(options, lying["machine"], target, work, kernel=kernel)
    (seen,) = target.cloud._call("ec2", "DescribeImages", ImageIds=[made.image_id])["Images"]
    assert {name: seen.get(name) for name in ("KernelId", "RamdiskId", "VirtualizationType", "Description")} == {
        "KernelId": kernel.image_id, "RamdiskId": ramdisk.image_id, "VirtualizationType": "paravirtual",
        "Description": "d",
    }  # fmt: skip
    assert (seen["ImageType"], seen["RootDeviceType"], seen["Architecture"]) == ("machine", "instance-store", "x86_64")
    assert seen["ImageLocation"].endswith(f"{BUCKET}/the-machine.manifest.xml")
    assert ("/dev/sdb", "ephemeral0") in {
        (one["DeviceName"], one.get("VirtualName")) for one in seen["BlockDeviceMappings"]
    }
    tags = {tag["Key"]: tag["Value"] for tag in seen["Tags"]}
    assert tags == {"Name": "n", RECIPE_TAG: "test", TAG: Claim("paravirtual").token}


def test_a_windows_machine_is_registered_as_one(target, lying, work):
    made = make(RegisterOptions(name="windows", platform="windows"), lying["machine"], target, work)
    record = target.cloud.describe_image(made.image_id)
    assert record
    assert (record.platform, record.virtualization_type) == ("windows", "hvm")


def test_an_image_that_was_registered_and_not_yet_tagged_when_we_were_killed_is_adopted(target, lying, work):
    options, source = RegisterOptions(name="untagged"), lying["machine"]
    target.cloud._call(
        "ec2", "RegisterImage", Name="untagged", ImageLocation=source.location, VirtualizationType="hvm",
        Architecture="x86_64",
    )  # fmt: skip
    elsewhere = source.model_copy(update={"manifest_key": "another.manifest.xml"})
    with pytest.raises(CloudConflict, match="'untagged' is taken by emi-"):
        STEP.preflight(options, target.cloud, bool, Before(source=Foreseen(result=elsewhere)))
    made = make(options, source, target, work)
    assert [found.image_id for found in target.cloud.find_images(Claim("untagged"))] == [made.image_id]


def test_what_only_a_volume_has_is_refused_at_the_start_as_well(target, lying, work):
    options = RegisterOptions(name="volume", volume_type="gp2")
    with pytest.raises(UsageError, match="has `volume_type`: an image in the instance store has no root volume"):
        STEP.start(options, Inputs(source=lying["machine"]), Claim("volume"), target.cloud, work)
