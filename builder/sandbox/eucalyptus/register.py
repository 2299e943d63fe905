"""RegisterImage as Eucalyptus does it: its rules for names, devices and manifests, and its defaults.

Source: ImageManager.register and ImageManifests of Eucalyptus, in the order of their checks. What they throw without a
code of its own reaches clients as InternalFailure with status 500.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from builder.bundle.limits import LARGEST_IMAGE_EUCALYPTUS
from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import block_devices, images, register_bundle
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.ec2.manifests import Facts, Place, Unreadable, fetch, place, read
from builder.sandbox.eucalyptus import devices, signatures
from builder.sandbox.eucalyptus.devices import DISK, PARTITION, failure
from builder.sandbox.records import Image
from builder.sandbox.wire import Caller, Refusal

_NAME = re.compile(r"[A-Za-z0-9()./_-]{3,128}")
_NAME_RULE = (
    "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', '-', '/' "
    "and '_'"
)
_ARCHITECTURES = ("i386", "x86_64", "other")
_PLATFORMS = ("linux", "windows")
_IDS = {"KernelId": re.compile("[ea]ki-[0-9A-Fa-f]{8,17}"), "RamdiskId": re.compile("[ea]ri-[0-9A-Fa-f]{8,17}")}
_ANY_ID = re.compile("[a-z]+-[0-9A-Fa-f]{8,17}")


def _register_image(cloud: Cloud, caller: Caller, values: Values) -> Values:
    check_words(values)
    with cloud.state.lock:
        images.require_free_name(cloud, caller, values["Name"])
    if (virtualization := values.get("VirtualizationType", "paravirtual").lower()) not in ("paravirtual", "hvm"):
        raise failure("Unknown virtualization-type")
    for name in _IDS:
        given = values.get(name)
        if given and given != "windows" and not _ANY_ID.fullmatch(given):
            raise Refusal("InvalidParameterValue", f"Value ({given}) for parameter image is invalid.")
    root = values.get("RootDeviceName", DISK)
    mapped = values.get("BlockDeviceMappings", ())
    if values.get("ImageLocation") is not None:
        image = _of_bundle(cloud, caller, values, virtualization)
    elif any(one.get("DeviceName") == root and one.get("Ebs", {}).get("SnapshotId") for one in mapped):
        image = _of_snapshot(cloud, caller, values, root)
    else:
        raise failure(
            "Invalid request:  the request must specify either ImageLocation for an instance-store image or a snapshot "
            "for the root device for an EBS image."
        )
    register_bundle.keep(cloud, caller, image)
    return {"ImageId": image.image_id}


def check_words(values: Values) -> None:
    """Raise Refusal for a name or description that images cannot have."""
    if not _NAME.fullmatch(values["Name"]):
        raise Refusal("InvalidAMIName.Malformed", _NAME_RULE)
    if len(values.get("Description", "")) > 255:
        raise Refusal("InvalidParameter", "AMI descriptions must be less than 256 characters long")


# EBS


def _of_snapshot(cloud: Cloud, caller: Caller, values: Values, root: str) -> Image:
    entries = [dict(one) for one in values["BlockDeviceMappings"]]
    devices.check(entries, of_snapshot=True)
    if root == PARTITION:  # the same disk, by the name that AWS has for it
        root = DISK
        for one in entries:
            one["DeviceName"] = DISK if one["DeviceName"] == PARTITION else one["DeviceName"]
    for one in entries:
        if "Ebs" in one:
            one["Ebs"] = {"VolumeType": "standard", **one["Ebs"]}
    windows = values.get("Platform", values.get("KernelId")) == "windows"
    return _image(
        cloud, caller, values,
        architecture=_word(values.get("Architecture", "i386"), _ARCHITECTURES, "Architecture"),
        virtualization_type="hvm",
        root_device_name=root,
        block_devices=tuple(block_devices.device(cloud, caller, one) for one in entries),
        platform=_word(values.get("Platform", "windows" if windows else "linux"), _PLATFORMS, "Platform"),
        kernel_id=None if windows else values.get("KernelId"),
        ramdisk_id=None if windows else values.get("RamdiskId"),
    )  # fmt: skip


# Instance store


def _of_bundle(cloud: Cloud, caller: Caller, values: Values, virtualization: str) -> Image:
    entries = values.get("BlockDeviceMappings", ())
    devices.check(entries, of_snapshot=False)
    where, facts = _manifest(cloud, caller, values["ImageLocation"])
    kind = facts.kind(where.name)
    windows = kind == "machine" and (where.name.startswith("windows") or facts.kernel_id == "windows")
    platform = _word(values.get("Platform", "windows" if windows else "linux"), _PLATFORMS, "Platform")
    ids = {name: _id(values, facts, name, own=kind == "machine" and not windows) for name in _IDS}
    if platform == "windows":
        virtualization = "hvm"
    if kind == "machine" and virtualization == "paravirtual":
        for name, word in (("KernelId", "Kernel"), ("RamdiskId", "Ramdisk")):
            if ids[name] is None:
                raise Refusal("MissingParameter", f"{word} ID must be specified")
    if facts.size > LARGEST_IMAGE_EUCALYPTUS:
        raise failure(
            f"Cannot register image of size {facts.size} bytes because it exceeds the configured maximum "
            f"instance-store image size of {LARGEST_IMAGE_EUCALYPTUS >> 30} GB. Please contact your administrator "
        )
    machine = kind == "machine"
    return _image(
        cloud, caller, values,
        kind=kind,
        architecture=_word(values.get("Architecture", facts.architecture), _ARCHITECTURES, "Architecture"),
        virtualization_type=virtualization if machine else "",
        root_device_name=_root(facts, virtualization) if machine else PARTITION,
        block_devices=tuple(block_devices.device(cloud, caller, one) for one in entries),
        platform=platform,
        kernel_id=ids["KernelId"] if machine else None,
        ramdisk_id=ids["RamdiskId"] if machine else None,
        image_location=where.location,
        unopened=True,
    )  # fmt: skip


def _manifest(cloud: Cloud, caller: Caller, location: str) -> tuple[Place, Facts]:
    where = place(location)
    if where is None:
        raise failure(f"Invalid image location: {location}")
    _check_may(cloud, caller, Facts.kind_by_name(where.name))
    try:
        facts = read(fetch(cloud, where))
    except Unreadable as error:
        raise failure(f"Failed to read manifest file: {where.location} ({error})") from error
    # The name alone counts in the code, which asks before it has read the manifest; what it means to do is done here.
    _check_may(cloud, caller, facts.kind(where.name))
    _word(facts.architecture, _ARCHITECTURES, "Architecture")
    signatures.check(cloud, facts)
    if facts.user != caller.account:
        raise Refusal("AuthFailure", "Manifest is not accessible")
    return where, facts


def _check_may(cloud: Cloud, caller: Caller, kind: str) -> None:
    if kind != "machine" and not cloud.personality.is_administrator(caller.account):
        raise failure(f"Only administrators can register {kind} images.")


def _id(values: Values, facts: Facts, name: str, *, own: bool) -> str | None:
    """Return the kernel's or ramdisk's id: the request's, else the manifest's own where that is one."""
    if given := values.get(name):
        return str(given)
    stated = {"KernelId": facts.kernel_id, "RamdiskId": facts.ramdisk_id}[name] or ""
    return stated if own and _IDS[name].fullmatch(stated) else None


def _root(facts: Facts, virtualization: str) -> str:
    if ami := facts.mappings.get("ami"):
        return f"/dev/{ami.removeprefix('/dev/')}"
    return DISK if virtualization == "hvm" else PARTITION


# Both


def _image(cloud: Cloud, caller: Caller, values: Values, *, kind: str = "machine", **fields: Any) -> Image:
    return Image(
        image_id=new_id(cloud.personality.image_prefix(kind)),
        image_type=kind,
        account=caller.account,
        region=caller.region,
        name=values["Name"],
        creation_time=time.time(),
        description=values.get("Description", ""),
        **fields,
    )


def _word(value: str | None, allowed: Sequence[str], kind: str) -> str:
    """Return a word of one of Eucalyptus' enumerations. Raises Refusal as Java's valueOf does."""
    if value is None or value not in allowed:
        raise failure(f"No enum constant com.eucalyptus.compute.common.ImageMetadata.{kind}.{value or ''}")
    return value


ACTIONS: dict[str, Handler] = {"RegisterImage": _register_image}
