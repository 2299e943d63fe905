"""The step kind `register`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from builder.bundle.records import is_id_of
from builder.cloud import images, registration
from builder.cloud.api import BlockDevice, Call, Cloud, ImageSpec
from builder.cloud.claims import TAG, Claim, only, tag_problems, taken_by
from builder.errors import UsageError
from pipelines.artifact import AnyArtifact, BundleLocation, MachineImage, Snapshot
from pipelines.step import Before, CloudStep, Foreseen, ForeseenBundle, Inputs, Options, Reference, Work

# EC2's RegisterImage: "3-128 alphanumeric characters, parentheses, square brackets, spaces, periods, slashes, dashes,
# single quotes, at-signs, or underscores". Clouds that take fewer say so in their capabilities.
_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
_DEVICE = re.compile(r"/dev/(sd|xvd|vd|hd)[a-z]{1,2}[0-9]{0,2}")
_VIRTUAL = re.compile(r"ephemeral\d{1,2}|swap")
_NOTHING = Before()
_BOOTS = {"kernel": "kernel_id", "ramdisk": "ramdisk_id"}
# What only a root volume has, and what only a machine has.
_FORESEEN = "of a step before"  # stands for an id that is not known yet
_OF_A_VOLUME = ("root_device", "volume_type", "volume_size", "delete_on_termination", "boot_mode", "tpm")


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
    architecture: Literal["x86_64", "arm64", "i386"] | None = Field(
        default=None, description="of the kernel in the image; a bundle's own when left out, else x86_64"
    )
    virtualization: Literal["hvm", "paravirtual"] = Field(
        default="hvm",
        description="`hvm` for a disk that boots by itself, `paravirtual` for one with a kernel beside it",
    )
    kernel: Annotated[str | None, Reference(MachineImage)] = Field(
        default=None, description="the `register` step of the kernel (EKI) that a paravirtual image boots with"
    )
    ramdisk: Annotated[str | None, Reference(MachineImage)] = Field(
        default=None, description="the `register` step of its ramdisk (ERI)"
    )
    kernel_id: str | None = Field(default=None, description="a kernel that is registered already: `aki-…` or `eki-…`")
    ramdisk_id: str | None = Field(default=None, description="a ramdisk that is registered already: `ari-…` or `eri-…`")
    platform: Literal["windows"] | None = Field(default=None, description="`windows`, for clouds that ask for it")
    root_device: str | None = Field(
        default=None, description="what the root volume is called: /dev/xvda on EC2, /dev/sda on Eucalyptus by default"
    )
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
    """Register a snapshot, or a bundle in a bucket, as a machine image; a bundle of a kernel or ramdisk as such.

    The image's name is unique in an account and region, which is what makes registering happen once: an image of that
    name which carries our claim is adopted, any other is refused, before anything is uploaded where that can be seen.
    So is what this cloud would refuse: names of images and devices, a paravirtual image without its kernel, a volume
    that is smaller than its snapshot.
    """

    options = RegisterOptions
    accepts = (Snapshot, BundleLocation)
    returns = MachineImage
    revision = 2

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
        return [*wrong, *_boot_problems(options), *_device_problems(options), *tag_problems(options.tags)]

    def calls(self, options: RegisterOptions) -> Sequence[Call]:
        """Return every kind of API call that the step may make."""
        return (Call("ec2", "DescribeImages"), Call("ec2", "RegisterImage"))

    def foresee(self, options: RegisterOptions, source: Foreseen) -> Foreseen:
        """Return what the bundle, if it is one, is known to be."""
        return Foreseen(bundle=source.bundle)

    def preflight(
        self, options: RegisterOptions, cloud: Cloud, may_be_ours: Callable[[str], bool], before: Before = _NOTHING
    ) -> None:
        """Raise UsageError for what this cloud refuses, CloudConflict when an image not to be adopted has the name."""
        there, bundle = before.source.result, before.source.bundle
        in_bucket = before.source.returns is BundleLocation or isinstance(there, BundleLocation)
        _require_roles(options, before)
        boots = {role: _FORESEEN for role in _BOOTS if getattr(options, role)}
        if in_bucket:
            _require_unset(options, bundle.type if bundle else _type(there))
            place = there if isinstance(there, BundleLocation) else _somewhere(bundle, options)
            spec = _bundle_spec(options, place, boots, {})
            registration.require(spec, cloud.capabilities, _manifest(place, bundle))
        else:
            size = there.volume_size if isinstance(there, Snapshot) else before.source.volume_size
            _require_room(options, size)
            snapshot = there.snapshot_id if isinstance(there, Snapshot) else _FORESEEN
            spec = _volume_spec(options, snapshot, cloud, boots, {})
            registration.require(spec, cloud.capabilities)
        holder = cloud.image_by_name(options.name)
        if holder is None or may_be_ours(holder.tags.get(TAG, "")):
            return
        known = there is not None and TAG not in holder.tags and not cloud.capabilities.tag_on_register
        if known and images.made_of(holder, spec):
            return  # killed between registering and tagging; `start` will adopt it
        raise taken_by(holder)

    def find(self, options: RegisterOptions, inputs: Inputs, claim: Claim, cloud: Cloud) -> str | None:
        """Return the id of the image that carries the claim."""
        return only(claim, [found.image_id for found in cloud.find_images(claim)], "image")

    def start(self, options: RegisterOptions, inputs: Inputs, claim: Claim, cloud: Cloud, work: Work) -> str:
        """Register the image under its name, or adopt it when a lagging describe hid it from `find`."""
        source, tags = inputs.source, {**work.labels, **options.tags}
        boots = {role: image.image_id for role, image in inputs.named.items() if isinstance(image, MachineImage)}
        if isinstance(source, BundleLocation):
            _require_unset(options, source.type)
            return cloud.register_image(claim, _bundle_spec(options, source, boots, tags))
        assert isinstance(source, Snapshot)
        _require_room(options, source.volume_size)
        return cloud.register_image(claim, _volume_spec(options, source.snapshot_id, cloud, boots, tags))

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


def _boot_problems(options: RegisterOptions) -> list[str]:
    wrong = []
    for role, other in _BOOTS.items():
        id_ = getattr(options, other)
        if getattr(options, role) and id_:
            wrong.append(f"`{role}` and `{other}` each say which {role}; give one of them")
        if id_ and not is_id_of(role, id_):
            wrong.append(f"{id_!r} is no {role}'s id, such as e{role[0]}i-1a2b3c4d")
        if options.virtualization == "hvm" and (getattr(options, role) or id_):
            wrong.append(f"`{role}` is for paravirtual images; an hvm image boots by itself")
    if options.virtualization == "paravirtual" and (options.boot_mode or options.tpm or options.sriov):
        wrong.append("`boot_mode`, `tpm` and `sriov` are for hvm images")
    if options.virtualization == "paravirtual" and options.architecture == "arm64":
        wrong.append("arm64 has no paravirtual images")
    return wrong


def _device_problems(options: RegisterOptions) -> list[str]:
    root = [options.root_device] if options.root_device else []
    names = [*root, *(device.device_name for device in options.block_devices)]
    wrong = [
        f"{name!r} is no device name: clouds take /dev/sda1, /dev/xvda, …"
        for name in names
        if not _DEVICE.fullmatch(name)
    ]
    wrong += [
        f"the device name {name} is used twice" for name in sorted({one for one in names if names.count(one) > 1})
    ]
    for device in options.block_devices:
        if device.virtual_name and (device.volume_size or device.volume_type or device.snapshot):
            wrong.append(f"{device.device_name}: an instance store (`virtual_name`) has no size, type or snapshot")
        elif device.virtual_name and not _VIRTUAL.fullmatch(device.virtual_name):
            wrong.append(f"{device.device_name}: {device.virtual_name!r} is no instance store: ephemeral0, …, or swap")
        elif not device.virtual_name and not device.snapshot and not device.volume_size:
            wrong.append(f"{device.device_name}: an empty volume needs `volume_size`")
    return wrong


def _require_roles(options: RegisterOptions, before: Before) -> None:
    """Raise UsageError where `kernel` names the step of something else than a kernel."""
    for role, foreseen in before.named.items():
        if foreseen.bundle is not None and foreseen.bundle.type != role:
            raise UsageError(
                f"`{role}` of the image {options.name!r} is a step that registers a {foreseen.bundle.type}",
                hint=f"Its `bundle` step needs `type: {role}`.",
            )


def _require_unset(options: RegisterOptions, kind: str) -> None:
    """Raise UsageError for options that an image in the instance store, or of that type, has not."""
    machine = ("virtualization", "ena", "sriov", "imds") if kind != "machine" else ()
    for name in (*_OF_A_VOLUME, *machine):
        if name in options.model_fields_set and getattr(options, name) not in (None, "hvm"):
            what = "an image in the instance store has no root volume" if kind == "machine" else f"a {kind} has none"
            raise UsageError(
                f"the image {options.name!r} is made of a bundle and has `{name}`: {what}",
                hint=f"Leave `{name}` out of the step `register`.",
            )


def _require_room(options: RegisterOptions, snapshot_size: int | None) -> None:
    if options.volume_size is not None and snapshot_size is not None and options.volume_size < snapshot_size:
        raise UsageError(
            f"`volume_size` of the image {options.name!r} is {options.volume_size} GiB, but its snapshot has"
            f" {snapshot_size} GiB",
            hint="Raise `volume_size` or leave it out; a `resize` step makes the disk itself smaller.",
        )


def _type(result: AnyArtifact | None) -> Literal["machine", "kernel", "ramdisk"]:
    return result.type if isinstance(result, BundleLocation) else "machine"


def _somewhere(bundle: ForeseenBundle | None, options: RegisterOptions) -> BundleLocation:
    """Return what stands for a bundle that is not there yet, and of which nothing may be known: it comes from afar."""
    return BundleLocation(
        bucket="bucket",
        manifest_key=f"{bundle.name if bundle else 'bundle'}.manifest.xml",
        region="",
        type=bundle.type if bundle else "machine",
        architecture=bundle.architecture if bundle else options.architecture or "x86_64",
        manifest_sha256="",
        keys=(),
    )


def _manifest(place: BundleLocation, bundle: ForeseenBundle | None) -> registration.Manifest | None:
    """Return what is known of the manifest; of one that came from elsewhere, not which kernel it names: None."""
    if bundle is None:
        return None
    return registration.Manifest(
        name=place.manifest_key.rpartition("/")[2],
        type=place.type,
        architecture=place.architecture,
        kernel=bundle.kernel,
        ramdisk=bundle.ramdisk,
    )


def _bundle_spec(
    options: RegisterOptions, place: BundleLocation, boots: Mapping[str, str], tags: dict[str, str]
) -> ImageSpec:
    machine = place.type == "machine"
    by_itself = machine and options.virtualization == "hvm"
    return ImageSpec(
        name=options.name,
        description=options.description,
        image_location=place.location,
        architecture=options.architecture or place.architecture,
        root_device_name=None,
        virtualization_type=options.virtualization if machine else None,
        kernel_id=boots.get("kernel") or options.kernel_id,
        ramdisk_id=boots.get("ramdisk") or options.ramdisk_id,
        platform=options.platform,
        ena_support=options.ena if by_itself else None,
        sriov_net_support="simple" if options.sriov and by_itself else None,
        imds_support=options.imds if machine else None,
        block_devices=tuple(_device(device) for device in options.block_devices),
        tags=tags,
    )


def _volume_spec(
    options: RegisterOptions, snapshot_id: str, cloud: Cloud, boots: Mapping[str, str], tags: dict[str, str]
) -> ImageSpec:
    name = options.root_device or cloud.capabilities.root_device
    root = BlockDevice(
        device_name=name,
        snapshot_id=snapshot_id,
        volume_size=options.volume_size,
        volume_type=options.volume_type,
        delete_on_termination=options.delete_on_termination,
    )
    return ImageSpec(
        name=options.name,
        description=options.description,
        architecture=options.architecture or "x86_64",
        root_device_name=name,
        virtualization_type=options.virtualization,
        kernel_id=boots.get("kernel") or options.kernel_id,
        ramdisk_id=boots.get("ramdisk") or options.ramdisk_id,
        platform=options.platform,
        boot_mode=options.boot_mode,
        ena_support=options.ena if options.virtualization == "hvm" else None,
        sriov_net_support="simple" if options.sriov else None,
        imds_support=options.imds,
        tpm_support=options.tpm,
        block_devices=(root, *(_device(device) for device in options.block_devices)),
        tags=tags,
    )


def _device(device: Device) -> BlockDevice:
    return BlockDevice(
        device_name=device.device_name,
        snapshot_id=device.snapshot,
        volume_size=device.volume_size,
        volume_type=device.volume_type,
        delete_on_termination=device.delete_on_termination,
        virtual_name=device.virtual_name,
    )
