"""RegisterImage: every field is checked and kept; of an instance-store image, register_bundle.py."""

from __future__ import annotations

import base64
import binascii
import re
import time
from typing import Any

from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import block_devices, images, register_bundle
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import Image
from builder.sandbox.wire import Caller, Refusal

_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")  # RegisterImage, Name: constraints
_MOST_DESCRIPTION = 255
_MOST_UEFI_DATA = 64 * 1024
_CHOICES = {
    "Architecture": ("i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac"),
    "BootMode": ("legacy-bios", "uefi", "uefi-preferred"),
    "ImdsSupport": ("v2.0",),
    "SriovNetSupport": ("simple",),
    "TpmSupport": ("v2.0",),
    "VirtualizationType": ("hvm", "paravirtual"),
}


def _register_image(cloud: Cloud, caller: Caller, values: Values) -> Values:
    _check(values)
    if values.get("ImageLocation"):
        return register_bundle.register(cloud, caller, values)
    tags = specified(values.get("TagSpecifications", ()), "image")
    with cloud.state.lock:
        name = values["Name"]
        images.require_free_name(cloud, caller, name)
        devices = tuple(block_devices.device(cloud, caller, entry) for entry in values.get("BlockDeviceMappings", ()))
        block_devices.check_devices(values["RootDeviceName"], devices)
        image = Image(
            image_id=new_id(cloud.personality.image_prefix("machine")),
            account=caller.account,
            region=caller.region,
            name=name,
            creation_time=time.time(),
            description=values.get("Description", ""),
            architecture=values.get("Architecture", "i386"),  # EC2's default for EBS-backed images
            virtualization_type=values.get("VirtualizationType", "paravirtual"),  # EC2's default
            root_device_name=values["RootDeviceName"],
            block_devices=devices,
            boot_mode=values.get("BootMode"),
            ena_support=values.get("EnaSupport", False),
            sriov_net_support=values.get("SriovNetSupport"),
            imds_support=values.get("ImdsSupport"),
            tpm_support=values.get("TpmSupport"),
            uefi_data=values.get("UefiData"),
            kernel_id=values.get("KernelId"),
            ramdisk_id=values.get("RamdiskId"),
            tags=tags,
        )
        cloud.state.put(image)
    return {"ImageId": image.image_id}


def check_words(values: Values) -> None:
    """Raise Refusal for a Name or a Description that EC2 does not allow for an image."""
    if not _NAME.fullmatch(values["Name"]):
        message = (
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, "
            "'(', ')', '.', '-', '/' and '_'"
        )
        raise Refusal("InvalidAMIName.Malformed", message)
    if len(values.get("Description", "")) > _MOST_DESCRIPTION:
        raise Refusal("InvalidParameterValue", f"Description is longer than {_MOST_DESCRIPTION} characters")


def _check(values: Values) -> None:
    """Raise Refusal for what is wrong with the request by itself."""
    check_words(values)
    if values.get("BillingProducts"):
        raise Refusal("UnsupportedOperation", "The sandbox does not support RegisterImage with BillingProducts.")
    if not values.get("RootDeviceName") and not values.get("ImageLocation"):
        raise Refusal("MissingParameter", "The request must contain the parameter RootDeviceName")
    for name, allowed in _CHOICES.items():
        if (value := values.get(name)) is not None and value not in allowed:
            raise _invalid(value, name[0].lower() + name[1:])
    for name, pattern in (("KernelId", r"aki-[0-9a-f]+"), ("RamdiskId", r"ari-[0-9a-f]+")):
        if (value := values.get(name)) is not None and not re.fullmatch(pattern, value):
            raise _invalid(value, name)
    _check_combinations(values)


def _check_combinations(values: Values) -> None:
    boot_mode = values.get("BootMode")
    paravirtual = values.get("VirtualizationType", "paravirtual") == "paravirtual"
    if values.get("TpmSupport") and boot_mode != "uefi":
        raise Refusal("InvalidParameterCombination", "TpmSupport requires BootMode uefi")
    if paravirtual and boot_mode in ("uefi", "uefi-preferred"):
        raise Refusal("InvalidParameterCombination", f"BootMode {boot_mode} requires VirtualizationType hvm")
    if paravirtual and (values.get("EnaSupport") or values.get("SriovNetSupport")):
        raise Refusal("InvalidParameterCombination", "Enhanced networking requires VirtualizationType hvm")
    if values.get("Architecture") == "arm64" and boot_mode == "legacy-bios":
        raise Refusal("InvalidParameterCombination", "Architecture arm64 requires BootMode uefi")
    if (uefi_data := values.get("UefiData")) is not None:
        try:
            if len(base64.b64decode(uefi_data, validate=True)) <= _MOST_UEFI_DATA:
                return
        except binascii.Error:
            pass
        raise _invalid("...", "uefiData")


def _invalid(value: Any, name: str) -> Refusal:
    return Refusal("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")


ACTIONS: dict[str, Handler] = {"RegisterImage": _register_image}
