"""The step `register`: every field, every bad combination, and whose image a name is."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from builder.cloud.api import BlockDevice, ImageRecord, ImageSpec
from builder.cloud.aws import Aws, Settings
from builder.cloud.claims import RECIPE_TAG, TAG, Claim
from builder.cloud.cleanup import deregister
from builder.cloud.images import is_available
from builder.cloud.snapshots import wait_completed
from builder.digest import BLOCK
from builder.errors import CloudConflict, CloudFailed, CloudNotFound, UsageError
from builder.progress import SILENT
from builder.sandbox import audit, lifecycle
from pipelines.artifact import MachineImage, Snapshot
from pipelines.kinds import load
from pipelines.step import Before, Foreseen, Inputs, Outside, Work
from pipelines.steps.register import Device, RegisterOptions
from pipelines.store import FileStore

STEP = load("register")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sandbox")
    yield lifecycle.start(directory)
    lifecycle.stop(directory)


@pytest.fixture(scope="module")
def cloud(endpoint):
    keys = {"access_key": endpoint.access_key, "secret_key": endpoint.secret_key}
    made = Aws(Settings(region=endpoint.region, endpoint_url=endpoint.url, **keys))
    yield made
    made.close()


@pytest.fixture
def calls(endpoint, source):
    """Return what was called since the source was made."""
    start = audit.position(endpoint.directory)
    return lambda: [f"{call.service}:{call.action}" for call in audit.read_calls(endpoint.directory, start=start)]


@pytest.fixture
def source(cloud, request) -> Snapshot:
    sha256 = hashlib.sha256(b"\1" * BLOCK).digest()
    started = cloud.start_snapshot(Claim(request.node.name), volume_size=1, description="", tags={}, parent=None)
    cloud.put_block(started.snapshot_id, 0, b"\1" * BLOCK, sha256)
    cloud.complete_snapshot(started.snapshot_id, changed_blocks=1, checksum=hashlib.sha256(sha256).digest())
    wait_completed(cloud, started.snapshot_id)
    return Snapshot(
        snapshot_id=started.snapshot_id, region=cloud.region, volume_size=1, content="blocks:", blocks=1, verified=False
    )


@pytest.fixture
def work(tmp_path) -> Work:
    outside = Outside(recipe_directory=tmp_path, cache=tmp_path / "cache", store=FileStore(tmp_path))
    return Work(scratch=tmp_path, outside=outside, pins={}, progress=SILENT, labels={RECIPE_TAG: "test"})


@pytest.fixture
def name(request) -> str:
    return request.node.name.replace("[", "-").replace("]", "")[:100]


def make(options: RegisterOptions, source: Snapshot, claim: Claim, cloud: Aws, work: Work) -> MachineImage:
    """Run the step as the runner does."""
    inputs = Inputs(source=source)
    effect = STEP.find(options, inputs, claim, cloud) or STEP.start(options, inputs, claim, cloud, work)
    made = STEP.finish(options, inputs, effect, cloud, work)
    assert isinstance(made, MachineImage)
    return made


FULL = {
    "description": "d",
    "boot_mode": "uefi",
    "tpm": "v2.0",
    "sriov": True,
    "volume_type": "gp3",
    "volume_size": 3,
    "delete_on_termination": False,
    "root_device": "/dev/sda1",
    "block_devices": (
        Device(device_name="/dev/sdb", volume_size=7, volume_type="gp2"),
        Device(device_name="/dev/sdc", virtual_name="ephemeral0"),
    ),
    "tags": {"Name": "n"},
}
SEEN = {
    "Description": "d",
    "Architecture": "x86_64",
    "VirtualizationType": "hvm",
    "RootDeviceName": "/dev/sda1",
    "RootDeviceType": "ebs",
    "BootMode": "uefi",
    "EnaSupport": True,
    "SriovNetSupport": "simple",
    "ImdsSupport": "v2.0",
    "TpmSupport": "v2.0",
    "State": "available",
    "Public": False,
}
ROOT_VOLUME = {"VolumeSize": 3, "VolumeType": "gp3", "DeleteOnTermination": False, "Encrypted": False}
SECOND_VOLUME = {"VolumeSize": 7, "VolumeType": "gp2", "DeleteOnTermination": True, "Encrypted": False}


def test_every_field_reaches_the_cloud(cloud, calls, source, work, name):
    options = RegisterOptions(name=name, **FULL)
    made = make(options, source, Claim(name), cloud, work)
    assert made == MachineImage(
        image_id=made.image_id, name=name, region="us-east-1", snapshot_ids=(source.snapshot_id,)
    )
    assert set(calls()) == {str(call) for call in STEP.calls(options)}
    (seen,) = cloud._pages("DescribeImages", "Images", ImageIds=[made.image_id])
    assert {field: seen.get(field) for field in SEEN} == SEEN
    assert seen["Name"] == name
    assert seen["BlockDeviceMappings"] == [
        {"DeviceName": "/dev/sda1", "Ebs": {**ROOT_VOLUME, "SnapshotId": source.snapshot_id}},
        {"DeviceName": "/dev/sdb", "Ebs": SECOND_VOLUME},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"},
    ]
    tags = {tag["Key"]: tag["Value"] for tag in seen["Tags"]}
    assert tags == {"Name": "n", RECIPE_TAG: "test", TAG: Claim(name).token}
    assert STEP.present(made, cloud)
    deregister(cloud, made.image_id)
    assert not STEP.present(made, cloud)


def test_the_defaults_are_modest(cloud, source, work, name):
    made = make(RegisterOptions(name=name), source, Claim(name), cloud, work)
    (seen,) = cloud._pages("DescribeImages", "Images", ImageIds=[made.image_id])
    assert seen.get("BootMode") is None
    assert seen.get("TpmSupport") is None
    assert (seen["ImdsSupport"], seen["EnaSupport"]) == ("v2.0", True)
    assert seen["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 1


def test_what_is_ours_is_adopted_by_find_and_by_name(cloud, calls, source, work, name):
    options, mine = RegisterOptions(name=name), Claim(name)
    made = make(options, source, mine, cloud, work)
    assert make(options, source, mine, cloud, work) == made
    assert calls().count("ec2:RegisterImage") == 1
    assert STEP.start(options, Inputs(source=source), mine, cloud, work) == made.image_id
    STEP.preflight(options, cloud, bool)  # it carries a claim: perhaps ours


def test_a_foreign_image_of_that_name_is_refused_before_anything_is_spent(cloud, source, work, name):
    foreign = str(cloud._call("ec2", "RegisterImage", Name=name, RootDeviceName="/dev/xvda", BlockDeviceMappings=[
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": source.snapshot_id}}
    ])["ImageId"])  # fmt: skip
    options = RegisterOptions(name=name)
    for attempt in (
        lambda: STEP.preflight(options, cloud, bool),
        lambda: STEP.start(options, Inputs(source=source), Claim(name), cloud, work),
    ):
        with pytest.raises(CloudConflict, match=f"taken by {foreign} of account 123456789012"):
            attempt()
    assert STEP.find(options, Inputs(), Claim(name), cloud) is None
    STEP.preflight(RegisterOptions(name=f"{name} too"), cloud, bool)


def test_an_image_of_another_step_of_ours_is_not_taken_over(cloud, source, work, name):
    spec = ImageSpec(name=name, block_devices=(BlockDevice(device_name="/dev/xvda", snapshot_id=source.snapshot_id),))
    cloud.register_image(Claim("another step"), spec)
    with pytest.raises(CloudConflict, match="another step or an older recipe"):
        make(RegisterOptions(name=name), source, Claim(name), cloud, work)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "ab"}, "cannot be an image's name"),
        ({"name": "a" * 129}, "cannot be an image's name"),
        ({"name": "colon:colon"}, "cannot be an image's name"),
        ({"name": "ümlaut"}, "cannot be an image's name"),
        ({"name": "line\nbreak"}, "cannot be an image's name"),
        ({"tpm": "v2.0"}, "needs `boot_mode: uefi`, not the default"),
        ({"tpm": "v2.0", "boot_mode": "uefi-preferred"}, "needs `boot_mode: uefi`, not uefi-preferred"),
        ({"tpm": "v2.0", "boot_mode": "legacy-bios"}, "needs `boot_mode: uefi`, not legacy-bios"),
        ({"architecture": "arm64", "boot_mode": "legacy-bios"}, "arm64 boots by uefi only"),
        ({"architecture": "arm64", "boot_mode": "uefi-preferred"}, "arm64 boots by uefi only"),
        ({"root_device": "xvda"}, "no device name"),
        (
            {"root_device": "/dev/xvda", "block_devices": ({"device_name": "/dev/xvda", "volume_size": 1},)},
            "used twice",
        ),
        ({"block_devices": ({"device_name": "/dev/xvdb"},)}, "needs `volume_size`"),
        ({"block_devices": ({"device_name": "/dev/sdb", "virtual_name": "ephemeral0", "volume_size": 1},)}, "no size"),
        ({"tags": {"aws:cloudformation": "x"}}, "reserved"),
        ({"block_devices": ({"device_name": "/dev/sdb", "virtual_name": "scratch"},)}, "no instance store"),
        ({"kernel": "k"}, "an hvm image boots by itself"),
        ({"ramdisk_id": "ari-12345678"}, "an hvm image boots by itself"),
        ({"virtualization": "paravirtual", "kernel_id": "ari-12345678"}, "no kernel's id"),
        ({"virtualization": "paravirtual", "kernel": "k", "kernel_id": "aki-12345678"}, "each say which kernel"),
        ({"virtualization": "paravirtual", "sriov": True}, "for hvm images"),
        ({"virtualization": "paravirtual", "architecture": "arm64"}, "arm64 has no paravirtual"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(options, words):
    (problem,) = STEP.check(RegisterOptions(**{"name": "good name", **options}))
    assert words in problem


@pytest.mark.parametrize("name", ["abc", "a" * 128, "Debian 12 (x86_64) [v1.0] / it's @_-"])
def test_good_names_are_let_through(name):
    assert not STEP.check(RegisterOptions(name=name, tpm="v2.0", boot_mode="uefi"))


@pytest.mark.parametrize("options", [{"boot_mode": "bios"}, {"imds": "v1.0"}, {"virtualization": "xen"}, {"x": 1}])
def test_impossible_values_are_refused(options):
    with pytest.raises(ValidationError):
        RegisterOptions(name="good", **options)


def test_a_volume_that_is_smaller_than_its_snapshot_is_refused_before_anything_is_asked(cloud, calls, source, work):
    options = RegisterOptions(name="too small", volume_size=1)
    large = source.model_copy(update={"volume_size": 2})
    for before in (Before(source=Foreseen(result=large)), Before(source=Foreseen(volume_size=2))):
        with pytest.raises(UsageError, match="`volume_size` of the image 'too small' is 1 GiB, but its snapshot has 2"):
            STEP.preflight(options, cloud, bool, before)
    with pytest.raises(UsageError, match="its snapshot has 2 GiB"):
        STEP.start(options, Inputs(source=large), Claim("small"), cloud, work)
    assert calls() == []


@pytest.mark.parametrize(
    ("state", "error"),
    [("failed", CloudFailed), ("error", CloudFailed), ("invalid", CloudFailed), ("deregistered", CloudNotFound)],
)
def test_an_image_that_will_never_be_available_is_not_waited_for(state, error):
    with pytest.raises(error, match=f"ami-1 is {state}"):
        is_available(ImageRecord(image_id="ami-1", name="n", state=state, state_reason="the snapshot is bad"))
