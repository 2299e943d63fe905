"""RegisterImage of an EBS-backed image: every field is checked and kept."""

from __future__ import annotations

import base64
import binascii
import re
import time
from typing import Any

from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import snapshots
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import BlockDevice, Image
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
_VOLUME_TYPES = ("standard", "io1", "io2", "gp2", "gp3", "sc1", "st1")
_IOPS_TYPES = ("io1", "io2", "gp3")
_LARGEST_VOLUME = 65536  # GiB


def _register_image(cloud: Cloud, caller: Caller, values: Values) -> Values:
    _check(values)
    tags = specified(values.get("TagSpecifications", ()), "image")
    with cloud.state.lock:
        name = values["Name"]
        for other in cloud.state.all(Image).values():
            same = (other.account, other.region, other.name) == (caller.account, caller.region, name)
            if same and not other.deregistered:
                message = f"AMI name {name} is already in use by AMI {other.image_id}"
                raise Refusal("InvalidAMIName.Duplicate", message)
        devices = tuple(_device(cloud, caller, entry) for entry in values.get("BlockDeviceMappings", ()))
        _check_devices(values["RootDeviceName"], devices)
        image = Image(
            image_id=new_id("ami"),
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


def _check(values: Values) -> None:
    """Raise Refusal for what is wrong with the request by itself."""
    if not _NAME.fullmatch(values["Name"]):
        message = (
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, "
            "'(', ')', '.', '-', '/' and '_'"
        )
        raise Refusal("InvalidAMIName.Malformed", message)
    for name in ("ImageLocation", "BillingProducts"):
        if values.get(name):
            raise Refusal("UnsupportedOperation", f"The sandbox does not support RegisterImage with {name}.")
    if not values.get("RootDeviceName"):
        raise Refusal("MissingParameter", "The request must contain the parameter RootDeviceName")
    for name, allowed in _CHOICES.items():
        if (value := values.get(name)) is not None and value not in allowed:
            raise _invalid(value, name[0].lower() + name[1:])
    if len(values.get("Description", "")) > _MOST_DESCRIPTION:
        raise Refusal("InvalidParameterValue", f"Description is longer than {_MOST_DESCRIPTION} characters")
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


def _device(cloud: Cloud, caller: Caller, entry: Values) -> BlockDevice:
    name = entry.get("DeviceName")
    if not name:
        raise Refusal("MissingParameter", "The request must contain the parameter deviceName")
    if "NoDevice" in entry:
        return BlockDevice(device_name=name, no_device=True)
    if (virtual := entry.get("VirtualName")) is not None:
        if not re.fullmatch(r"ephemeral\d{1,2}", virtual):
            raise _invalid(virtual, "virtualName")
        return BlockDevice(device_name=name, virtual_name=virtual)
    ebs = entry.get("Ebs", {})
    for unsupported in ("KmsKeyId", "OutpostArn"):
        if ebs.get(unsupported):
            raise Refusal("UnsupportedOperation", f"The sandbox does not support {unsupported}.")
    if ebs.get("Encrypted"):
        raise Refusal("UnsupportedOperation", "The sandbox keeps no encrypted volumes.")
    volume_type = ebs.get("VolumeType", "gp2")
    _check_performance(volume_type, ebs)
    return BlockDevice(
        device_name=name,
        snapshot_id=ebs.get("SnapshotId"),
        volume_size=_volume_size(cloud, caller, ebs),
        volume_type=volume_type,
        delete_on_termination=ebs.get("DeleteOnTermination", True),
        iops=ebs.get("Iops"),
        throughput=ebs.get("Throughput"),
    )


def _volume_size(cloud: Cloud, caller: Caller, ebs: Values) -> int:
    size: int | None = ebs.get("VolumeSize")
    if size is not None and not 1 <= size <= _LARGEST_VOLUME:
        raise Refusal("InvalidBlockDeviceMapping", f"Volume of size {size}GB is not between 1 and {_LARGEST_VOLUME}GB")
    snapshot_id = ebs.get("SnapshotId")
    if snapshot_id is None:
        if size is None:
            raise Refusal("MissingParameter", "The request must contain the parameter size or snapshotId")
        return size
    snapshot = snapshots.require(cloud, caller, snapshot_id)
    if (status := cloud.status(snapshot)) != "completed":
        message = f"Snapshot '{snapshot_id}' is not in the 'completed' state: it is {status}"
        raise Refusal("IncorrectState", message)
    if size is not None and size < snapshot.volume_size:
        message = (
            f"Volume of size {size}GB is smaller than snapshot '{snapshot_id}', expect size >= {snapshot.volume_size}GB"
        )
        raise Refusal("InvalidBlockDeviceMapping", message)
    return size or snapshot.volume_size


def _check_performance(volume_type: str, ebs: Values) -> None:
    if volume_type not in _VOLUME_TYPES:
        raise _invalid(volume_type, "volumeType")
    if ebs.get("Iops") is not None and volume_type not in _IOPS_TYPES:
        message = f"The parameter iops is not supported for {volume_type} volumes."
        raise Refusal("InvalidParameterCombination", message)
    if ebs.get("Iops") is None and volume_type in ("io1", "io2"):
        raise Refusal("MissingParameter", f"The parameter iops must be specified for {volume_type} volumes.")
    if ebs.get("Throughput") is not None and volume_type != "gp3":
        message = f"The parameter throughput is not supported for {volume_type} volumes."
        raise Refusal("InvalidParameterCombination", message)


def _check_devices(root: str, devices: tuple[BlockDevice, ...]) -> None:
    names = [device.device_name for device in devices]
    for name in names:
        if names.count(name) > 1:
            message = f"The device '{name}' is used in more than one block-device mapping"
            raise Refusal("InvalidBlockDeviceMapping", message)
    boot = next((device for device in devices if device.device_name == root), None)
    if boot is None or boot.snapshot_id is None:
        message = f"The root device '{root}' is not mapped to a snapshot in the block device mapping"
        raise Refusal("InvalidBlockDeviceMapping", message)


def _invalid(value: Any, name: str) -> Refusal:
    return Refusal("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")


ACTIONS: dict[str, Handler] = {"RegisterImage": _register_image}
