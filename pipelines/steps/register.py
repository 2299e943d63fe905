"""The step kind `register`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from builder.cloud import images
from builder.cloud.api import BlockDevice, Call, Cloud, ImageSpec
from builder.cloud.claims import TAG, Claim, only, tag_problems, taken_by
from pipelines.artifact import AnyArtifact, MachineImage, Snapshot
from pipelines.step import Before, CloudStep, Inputs, Options, Work

# EC2's RegisterImage: "3-128 alphanumeric characters, parentheses, square brackets, spaces, periods, slashes, dashes,
# single quotes, at-signs, or underscores".
_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
_NOTHING = Before()
_DEVICE = re.compile(r"/dev/(sd|xvd)[a-z]{1,2}[0-9]{0,2}")


class Device(Options):
    """One more volume of every instance that is launched from the image."""

    device_name: str = Field(description="`/dev/sdb` or `/dev/xvdb`")
    volume_size: int | None = Field(default=None, ge=1, le=65536, description="GiB; the snapshot's when left out")
    volume_type: Literal["gp2", "gp3", "st1", "sc1", "standard"] | None = Field(
        default=None, description="the kind of volume; EC2's default when left out"
    )
    snapshot: str | None = Field(default=None, description="a snapshot to fill it from, `snap-…`; empty when left out")
    virtual_name: str | None = Field(default=None, description="`ephemeral0` and so on: an instance store instead")
    delete_on_termination: bool = Field(default=True, description="delete the volume with its instance")


class RegisterOptions(Options):
    """What EC2 is told about the image."""

    name: str = Field(description="the image's name, unique in the account and region")
    description: str = Field(default="", max_length=255, description="the image's description")
    architecture: Literal["x86_64", "arm64"] = Field(default="x86_64", description="of the kernel in the image")
    virtualization: Literal["hvm"] = Field(default="hvm", description="the kind of virtualization")
    root_device: str = Field(default="/dev/xvda", description="the name under which EC2 attaches the root volume")
    boot_mode: Literal["legacy-bios", "uefi", "uefi-preferred"] | None = Field(
        default=None, description="how the image boots; the architecture's default when left out"
    )
    ena: bool = Field(default=True, description="the image has the driver for enhanced networking (ENA)")
    sriov: bool = Field(default=False, description="the image has the driver for SR-IOV networking of older instances")
    imds: Literal["v2.0"] | None = Field(
        default="v2.0", description="`v2.0`: instances demand tokens from the metadata service (IMDSv2)"
    )
    tpm: Literal["v2.0"] | None = Field(
        default=None, description="`v2.0`: instances get a NitroTPM; needs `boot_mode: uefi`"
    )
    volume_type: Literal["gp2", "gp3", "standard"] | None = Field(
        default=None, description="the kind of root volume; EC2's default when left out"
    )
    volume_size: int | None = Field(default=None, ge=1, le=65536, description="GiB of the root volume; the snapshot's")
    delete_on_termination: bool = Field(default=True, description="delete the root volume with its instance")
    block_devices: tuple[Device, ...] = Field(default=(), description="further volumes of every instance")
    tags: dict[str, str] = Field(default_factory=dict, description="tags of the image, set as it is registered")


class RegisterStep(CloudStep[RegisterOptions]):
    """Register a snapshot as a machine image.

    The image's name is unique in an account and region, which is what makes registering happen once: an image of that
    name which carries our claim is adopted, any other is refused, before anything is uploaded where that can be seen.
    """

    options = RegisterOptions
    accepts = (Snapshot,)
    returns = MachineImage

    def check(self, options: RegisterOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        wrong = []
        if not _NAME.fullmatch(options.name):
            wrong.append(
                f"{options.name!r} cannot be an image's name:"
                " EC2 takes 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _"
            )
        if options.tpm and options.boot_mode != "uefi":
            wrong.append(f"`tpm: v2.0` needs `boot_mode: uefi`, not {options.boot_mode or 'the default'}")
        if options.architecture == "arm64" and options.boot_mode in ("legacy-bios", "uefi-preferred"):
            wrong.append(f"arm64 boots by uefi only, not by {options.boot_mode}")
        return [*wrong, *_device_problems(options), *tag_problems(options.tags)]

    def calls(self, options: RegisterOptions) -> Sequence[Call]:
        """Return every kind of API call that the step may make."""
        return (Call("ec2", "DescribeImages"), Call("ec2", "RegisterImage"))

    def preflight(
        self, options: RegisterOptions, cloud: Cloud, may_be_ours: Callable[[str], bool], before: Before = _NOTHING
    ) -> None:
        """Raise CloudConflict when an image that will not be adopted has the name."""
        holder = cloud.image_by_name(options.name)
        if holder is not None and not may_be_ours(holder.tags.get(TAG, "")):
            raise taken_by(holder)

    def find(self, options: RegisterOptions, inputs: Inputs, claim: Claim, cloud: Cloud) -> str | None:
        """Return the id of the image that carries the claim."""
        return only(claim, [found.image_id for found in cloud.find_images(claim)], "image")

    def start(self, options: RegisterOptions, inputs: Inputs, claim: Claim, cloud: Cloud, work: Work) -> str:
        """Register the image under its name, or adopt it when a lagging describe hid it from `find`."""
        assert isinstance(inputs.source, Snapshot)
        return cloud.register_image(claim, _spec(options, inputs.source, {**work.labels, **options.tags}))

    def finish(self, options: RegisterOptions, inputs: Inputs, effect: str, cloud: Cloud, work: Work) -> MachineImage:
        """Wait until the image is available."""
        record = images.wait_available(cloud, effect, progress=work.progress)
        return MachineImage(
            image_id=effect, name=record.name, region=cloud.region, snapshot_ids=tuple(record.snapshot_ids)
        )

    def discard(self, effect: str, cloud: Cloud, work: Work) -> None:
        """Deregister the image that failed; it would keep its name taken."""
        cloud.deregister_image(effect)

    def present(self, artifact: AnyArtifact, cloud: Cloud) -> bool:
        """Say whether the cloud still has the image, available."""
        assert isinstance(artifact, MachineImage)
        record = cloud.describe_image(artifact.image_id)
        return record is not None and record.state == images.AVAILABLE


def _device_problems(options: RegisterOptions) -> list[str]:
    names = [options.root_device, *(device.device_name for device in options.block_devices)]
    wrong = [
        f"{name!r} is no device name: EC2 takes /dev/sda1, /dev/xvda, …"
        for name in names
        if not _DEVICE.fullmatch(name)
    ]
    wrong += [
        f"the device name {name} is used twice" for name in sorted({one for one in names if names.count(one) > 1})
    ]
    for device in options.block_devices:
        if device.virtual_name and (device.volume_size or device.volume_type or device.snapshot):
            wrong.append(f"{device.device_name}: an instance store (`virtual_name`) has no size, type or snapshot")
        elif not device.virtual_name and not device.snapshot and not device.volume_size:
            wrong.append(f"{device.device_name}: an empty volume needs `volume_size`")
    return wrong


def _spec(options: RegisterOptions, snapshot: Snapshot, tags: dict[str, str]) -> ImageSpec:
    root = BlockDevice(
        device_name=options.root_device,
        snapshot_id=snapshot.snapshot_id,
        volume_size=options.volume_size,
        volume_type=options.volume_type,
        delete_on_termination=options.delete_on_termination,
    )
    further = (
        BlockDevice(
            device_name=device.device_name,
            snapshot_id=device.snapshot,
            volume_size=device.volume_size,
            volume_type=device.volume_type,
            delete_on_termination=device.delete_on_termination,
            virtual_name=device.virtual_name,
        )
        for device in options.block_devices
    )
    return ImageSpec(
        name=options.name,
        description=options.description,
        architecture=options.architecture,
        root_device_name=options.root_device,
        virtualization_type=options.virtualization,
        boot_mode=options.boot_mode,
        ena_support=options.ena,
        sriov_net_support="simple" if options.sriov else None,
        imds_support=options.imds,
        tpm_support=options.tpm,
        block_devices=(root, *further),
        tags=tags,
    )
