"""DescribeImages and DeregisterImage."""

from __future__ import annotations

import re
from dataclasses import replace

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import (
    Handler,
    Traits,
    Values,
    boolean,
    check_filters,
    matches,
    moment,
    paged,
    tag_list,
)
from builder.sandbox.records import BlockDevice, Image
from builder.sandbox.wire import Caller, Refusal

# Filters of DescribeImages that images of the sandbox have values for; the rest of the model's list has none here.
_EMPTY_FILTERS = (
    "image-watermark.source-image-creation-time", "image-watermark.source-image-id",
    "image-watermark.source-image-region", "image-watermark.watermark-creation-time", "image-watermark.watermark-key",
    "instance-type-specification.supported-instance-type", "instance-type-specification.unsupported-instance-type",
    "owner-alias", "platform", "product-code", "product-code.type", "public-ssm-parameter-name",
    "scan-result.critical-fix-available-since", "scan-result.finding-scan-date",
    "scan-result.high-fix-available-since", "scan-result.highest-finding-severity-label",
    "scan-result.informational-fix-available-since", "scan-result.low-fix-available-since",
    "scan-result.medium-fix-available-since", "source-image-id", "source-image-region", "source-instance-id",
    "state-reason-code", "state-reason-message",
)  # fmt: skip
_FILTERS = (
    "architecture", "block-device-mapping.delete-on-termination", "block-device-mapping.device-name",
    "block-device-mapping.encrypted", "block-device-mapping.snapshot-id", "block-device-mapping.volume-size",
    "block-device-mapping.volume-type", "boot-mode", "creation-date", "description", "ena-support",
    "free-tier-eligible", "hypervisor", "image-allowed", "image-id", "image-type", "is-public", "kernel-id",
    "manifest-location", "name", "owner-id", "ramdisk-id", "root-device-name", "root-device-type",
    "sriov-net-support", "state", "virtualization-type",
)  # fmt: skip


def require(cloud: Cloud, caller: Caller, image_id: str) -> Image:
    """Return the caller's image. Raises Refusal, in other words for one that was deregistered."""
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", image_id):
        raise Refusal("InvalidAMIID.Malformed", f'Invalid id: "{image_id}" (expecting "ami-...")')
    image = cloud.image(caller, image_id)
    if image is None:
        raise Refusal("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if image.deregistered:
        raise Refusal("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is no longer available")
    return image


def _describe_images(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, (*_FILTERS, *_EMPTY_FILTERS))
    if ids := values.get("ImageIds"):
        if values.get("MaxResults") is not None:
            raise Refusal("InvalidParameterCombination", "The parameter ImageIds cannot be used with MaxResults")
        found = [_described(cloud, caller, image_id) for image_id in dict.fromkeys(ids)]
    else:
        mine = (caller.account, caller.region)
        known = list(cloud.state.all(Image).values())
        found = [one for one in known if (one.account, one.region) == mine and not one.deregistered]
    owners = {caller.account if owner == "self" else owner for owner in values.get("Owners", ())}
    users = set(values.get("ExecutableUsers", ()))
    found = [
        one
        for one in found
        if (not owners or one.account in owners)
        and (not users or users & {"self", one.account})
        and matches(_traits(cloud, one), one.tags, filters)
    ]
    page, token = paged(found, lambda one: f"{one.creation_time:020.6f}{one.image_id}", values)
    return {"Images": [_shape(cloud, one) for one in page], "NextToken": token}


def _described(cloud: Cloud, caller: Caller, image_id: str) -> Image:
    try:
        return require(cloud, caller, image_id)
    except Refusal as refusal:
        if refusal.code != "InvalidAMIID.Unavailable":
            raise
        # A describe call knows only what is there.
        raise Refusal("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist") from None


def _shape(cloud: Cloud, image: Image) -> Values:
    return {
        "Architecture": image.architecture,
        "BlockDeviceMappings": [device_shape(device) for device in image.block_devices],
        "BootMode": image.boot_mode,
        "CreationDate": moment(image.creation_time),
        "DeregistrationProtection": "disabled",
        "Description": image.description or None,
        "EnaSupport": image.ena_support,
        "Hypervisor": "xen",
        "ImageId": image.image_id,
        "ImageLocation": f"{image.account}/{image.name}",
        "ImageType": "machine",
        "ImdsSupport": image.imds_support,
        "KernelId": image.kernel_id,
        "Name": image.name,
        "OwnerId": image.account,
        "PlatformDetails": "Linux/UNIX",
        "Public": False,
        "RamdiskId": image.ramdisk_id,
        "RootDeviceName": image.root_device_name,
        "RootDeviceType": "ebs",
        "SriovNetSupport": image.sriov_net_support,
        "State": cloud.image_state(image),
        "StateReason": {"Code": "Client.InternalError", "Message": image.failure} if image.failure else None,
        "Tags": tag_list(image.tags),
        "TpmSupport": image.tpm_support,
        "UsageOperation": "RunInstances",
        "VirtualizationType": image.virtualization_type,
    }


def device_shape(device: BlockDevice) -> Values:
    """Return one entry of a block device mapping as EC2 describes it."""
    if device.no_device:
        return {"DeviceName": device.device_name, "NoDevice": ""}
    if device.virtual_name is not None:
        return {"DeviceName": device.device_name, "VirtualName": device.virtual_name}
    ebs = {
        "DeleteOnTermination": device.delete_on_termination,
        "Encrypted": False,
        "Iops": device.iops,
        "SnapshotId": device.snapshot_id,
        "Throughput": device.throughput,
        "VolumeSize": device.volume_size,
        "VolumeType": device.volume_type,
    }
    return {"DeviceName": device.device_name, "Ebs": ebs}


def _traits(cloud: Cloud, image: Image) -> Traits:
    volumes = [device for device in image.block_devices if device.is_ebs]
    return {
        **dict.fromkeys(_EMPTY_FILTERS, ()),
        "architecture": [image.architecture],
        "block-device-mapping.delete-on-termination": [boolean(value=one.delete_on_termination) for one in volumes],
        "block-device-mapping.device-name": [one.device_name for one in image.block_devices],
        "block-device-mapping.encrypted": ["false" for _ in volumes],
        "block-device-mapping.snapshot-id": [one.snapshot_id for one in volumes if one.snapshot_id],
        "block-device-mapping.volume-size": [str(one.volume_size) for one in volumes],
        "block-device-mapping.volume-type": [one.volume_type for one in volumes if one.volume_type],
        "boot-mode": _maybe(image.boot_mode),
        "creation-date": [moment(image.creation_time)],
        "description": _maybe(image.description),
        "ena-support": [boolean(value=image.ena_support)],
        "free-tier-eligible": ["false"],
        "hypervisor": ["xen"],
        "image-allowed": ["true"],
        "image-id": [image.image_id],
        "image-type": ["machine"],
        "is-public": ["false"],
        "kernel-id": _maybe(image.kernel_id),
        "manifest-location": [f"{image.account}/{image.name}"],
        "name": [image.name],
        "owner-id": [image.account],
        "ramdisk-id": _maybe(image.ramdisk_id),
        "root-device-name": [image.root_device_name],
        "root-device-type": ["ebs"],
        "sriov-net-support": _maybe(image.sriov_net_support),
        "state": [cloud.image_state(image)],
        "virtualization-type": [image.virtualization_type],
    }


def _maybe(value: str | None) -> list[str]:
    return [value] if value else []


def _deregister_image(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if values.get("DeleteAssociatedSnapshots"):
        raise Refusal("UnsupportedOperation", "The sandbox does not support DeleteAssociatedSnapshots.")
    with cloud.state.lock:
        image = require(cloud, caller, values["ImageId"])
        cloud.state.put(replace(image, deregistered=True))
    return {"Return": True}


ACTIONS: dict[str, Handler] = {"DescribeImages": _describe_images, "DeregisterImage": _deregister_image}
