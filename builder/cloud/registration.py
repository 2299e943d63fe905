"""What a cloud would refuse of a registration, told before anything is made or sent for it. Pure: nothing is asked.

The rules are the clouds' own, as their Capabilities say them, and those that all of them share: RegisterImage of the
EC2 API reference, Eucalyptus' ImageManager.java and Images.java (section 2.1 of the facts).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from builder.cloud.api import Capabilities, ImageSpec
from builder.errors import UsageError

_EPHEMERAL = re.compile(r"ephemeral\d+")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is known of the manifest of an image that is to lie in the instance store."""

    name: str  # of the file, or what it begins with
    type: Literal["machine", "kernel", "ramdisk"]
    architecture: str
    kernel: bool = False  # it names one
    ramdisk: bool = False


def require(spec: ImageSpec, able: Capabilities, manifest: Manifest | None = None) -> None:
    """Raise UsageError that says all that the cloud would refuse; `manifest` None: not known, or no instance store."""
    wrong = list(_problems(spec, able, manifest))
    if wrong:
        raise UsageError(
            f"the cloud would refuse the image {spec.name!r}: {'; '.join(wrong)}",
            hint="Correct the step `register`, or the `bundle` step before it; nothing was sent.",
        )


def _problems(spec: ImageSpec, able: Capabilities, manifest: Manifest | None) -> Iterator[str]:
    if not able.image_name.admits(spec.name):
        yield f"an image's name may have {able.image_name.words} here"
    if spec.architecture is not None and spec.architecture not in able.architectures:
        yield f"this cloud has no machines of the architecture {spec.architecture}"
    yield from _unknown_fields(spec, able)
    yield from _devices(spec, able)
    if manifest is not None:
        yield from _of_bundle(spec, able, manifest)


def _unknown_fields(spec: ImageSpec, able: Capabilities) -> Iterator[str]:
    """Yield the fields that decide something and that the cloud's RegisterImage does not take."""
    boots_by_itself = spec.boot_mode in (None, "legacy-bios")
    fields = {
        "BootMode": None if boots_by_itself else spec.boot_mode,
        "TpmSupport": spec.tpm_support,
        "SriovNetSupport": spec.sriov_net_support,
        "Platform": spec.platform,
    }
    for name, value in fields.items():
        if value is not None and name not in able.register_fields:
            yield f"RegisterImage takes no {name} here"


def _devices(spec: ImageSpec, able: Capabilities) -> Iterator[str]:
    names = [device.device_name for device in spec.block_devices]
    names += [spec.root_device_name] if spec.root_device_name and spec.root_device_name not in names else []
    for name in sorted({one for one in names if names.count(one) > 1}):
        yield f"the device name {name} is used twice"
    for name in names:
        if not able.device_name.admits(name):
            yield f"{name!r} is no device name here: {able.device_name.words}"
    if spec.image_location is None:
        return
    ephemeral = [one for one in spec.block_devices if _EPHEMERAL.fullmatch(one.virtual_name or "")]
    if able.most_ephemeral is not None and len(ephemeral) > able.most_ephemeral:
        yield f"an instance-store image has at most {able.most_ephemeral} ephemeral volume here, not {len(ephemeral)}"
    for device in spec.block_devices:
        if not device.virtual_name and not able.ebs_in_bundles:
            yield f"{device.device_name}: an instance-store image has no EBS volumes here"


def _of_bundle(spec: ImageSpec, able: Capabilities, manifest: Manifest) -> Iterator[str]:
    if spec.architecture not in (None, manifest.architecture):
        yield f"its architecture is {spec.architecture}, but the bundle was made for {manifest.architecture}"
    if manifest.type != "machine":
        if able.kernels is not None:
            yield f"{able.kernels.why} {able.kernels.instead}"
        if spec.block_devices or spec.kernel_id or spec.ramdisk_id or spec.platform:
            yield f"a {manifest.type} has no devices, platform, kernel or ramdisk of its own"
        return
    if spec.virtualization_type != "paravirtual":
        if manifest.kernel or manifest.ramdisk:
            yield "its manifest names a kernel, which an hvm image does not boot with: `virtualization: paravirtual`"
        return
    for field, given, named in (
        ("KernelId", spec.kernel_id, manifest.kernel),
        ("RamdiskId", spec.ramdisk_id, manifest.ramdisk),
    ):
        if field in able.paravirtual_needs and not given and not named:
            word = field.removesuffix("Id").lower()
            yield f"a paravirtual image boots with a {word} here: `{word}` or `{word}_id`, if not in its manifest"
