"""DescribeImageAttribute: the one call that shows an image's UEFI variables again."""

from __future__ import annotations

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import images
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.wire import Caller, Refusal


def _describe_image_attribute(cloud: Cloud, caller: Caller, values: Values) -> Values:
    image = images.require(cloud, caller, values["ImageId"])
    devices = [images.device_shape(device) for device in image.block_devices]
    known: dict[str, Values] = {
        "blockDeviceMapping": {"BlockDeviceMappings": devices},
        "bootMode": {"BootMode": {"Value": image.boot_mode}},
        "description": {"Description": {"Value": image.description}},
        "imdsSupport": {"ImdsSupport": {"Value": image.imds_support}},
        "kernel": {"KernelId": {"Value": image.kernel_id}},
        "launchPermission": {"LaunchPermissions": []},
        "ramdisk": {"RamdiskId": {"Value": image.ramdisk_id}},
        "sriovNetSupport": {"SriovNetSupport": {"Value": image.sriov_net_support}},
        "tpmSupport": {"TpmSupport": {"Value": image.tpm_support}},
        "uefiData": {"UefiData": {"Value": image.uefi_data}},
    }
    attribute = values["Attribute"]
    if attribute not in known:
        raise Refusal("InvalidParameterValue", f"Value ({attribute}) for parameter attribute is invalid.")
    return {"ImageId": image.image_id, **known[attribute]}


ACTIONS: dict[str, Handler] = {"DescribeImageAttribute": _describe_image_attribute}
