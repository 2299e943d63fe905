"""CreateImage: an image of an instance, with snapshots of its volumes as they are now."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace

from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import block_devices, image_snapshots, images, instance_states
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.ec2.copies import snapshot_volume
from builder.sandbox.ec2.register import check_words
from builder.sandbox.records import Attachment, BlockDevice, Image, Instance, Snapshot, Volume
from builder.sandbox.wire import Caller, Refusal

_UNCHANGEABLE = ("SnapshotId", "VolumeSize", "Encrypted", "KmsKeyId")  # of what a volume is already there for


def _create_image(cloud: Cloud, caller: Caller, values: Values) -> Values:
    check_words(values)
    if values.get("SnapshotLocation"):
        message = "The parameter SnapshotLocation is for instances in Local Zones and on Outposts only."
        raise Refusal("InvalidParameterCombination", message)
    tags = image_snapshots.tags(values)
    instance = instance_states.require(cloud, caller, values["InstanceId"])
    if (state := instance_states.state_of(cloud, instance)) not in ("running", "stopped"):
        message = f"The instance '{instance.instance_id}' is not in the 'running' or 'stopped' state: it is '{state}'"
        raise Refusal("IncorrectInstanceState", message)
    if cloud.state.all(Image)[instance.image_id].root_device_type != "ebs":
        message = f"The instance '{instance.instance_id}' has no volume as its root: bundle it instead."
        raise Refusal("InvalidParameterValue", message)
    with cloud.state.lock:  # before the bytes are moved, and once more before the image is there
        images.require_free_name(cloud, caller, values["Name"])
    entries = _entries(values.get("BlockDeviceMappings", ()))
    image_id = new_id(cloud.personality.image_prefix("machine"))
    # As EC2 does it: what a guest has in its memory is on its volumes only once it has shut down.
    reboots = state == "running" and not values.get("NoReboot")
    resting = cloud.machines.at_rest(instance.instance_id) if reboots else nullcontext()
    with resting, image_snapshots.kept_or_removed(cloud) as made:
        devices: list[BlockDevice] = []
        for volume, attachment in _volumes(cloud, instance):
            entry = entries.pop(attachment.device, {})
            if "NoDevice" in entry and attachment.device != instance.root_device_name:
                continue
            _check_unchanged(attachment.device, entry)
            description = f"Created by CreateImage({instance.instance_id}) for {image_id}"
            snapshot = snapshot_volume(cloud, volume, description=description, tags=tags["snapshot"])
            made.append(snapshot)
            devices.append(_device(volume, attachment, snapshot, entry))
        devices += [block_devices.device(cloud, caller, entry) for entry in entries.values()]
        block_devices.check_devices(instance.root_device_name, tuple(devices))
        image = _image(cloud, instance, values, image_id)
        with cloud.state.lock:
            images.require_free_name(cloud, caller, values["Name"])
            # One transaction: never an image without its snapshots, nor snapshots without their image.
            cloud.state.put(*made, replace(image, block_devices=tuple(devices), tags=tags["image"]))
    return {"ImageId": image_id}


def _entries(given: Iterable[Values]) -> dict[str, Values]:
    entries: dict[str, Values] = {}
    for entry in given:
        name = entry.get("DeviceName")
        if not name:
            raise Refusal("MissingParameter", "The request must contain the parameter deviceName")
        if name in entries:
            message = f"The device '{name}' is used in more than one block-device mapping"
            raise Refusal("InvalidBlockDeviceMapping", message)
        entries[name] = entry
    return entries


def _volumes(cloud: Cloud, instance: Instance) -> list[tuple[Volume, Attachment]]:
    held = [(volume, cloud.attachment(volume)) for volume in list(cloud.state.all(Volume).values())]
    return [(volume, each[0]) for volume, each in held if each and each[0].instance_id == instance.instance_id]


def _check_unchanged(device: str, entry: Values) -> None:
    for name in _UNCHANGEABLE:
        if name in entry.get("Ebs", {}):
            message = f"{name} of the device '{device}' cannot be changed: the instance has a volume there."
            raise Refusal("InvalidBlockDeviceMapping", message)


def _device(volume: Volume, attachment: Attachment, snapshot: Snapshot, entry: Values) -> BlockDevice:
    chosen = volume.volume_type in block_devices.IOPS_TYPES  # gp2's IOPS follow from its size
    return BlockDevice(
        device_name=attachment.device,
        snapshot_id=snapshot.snapshot_id,
        volume_size=volume.size,
        volume_type=volume.volume_type,
        delete_on_termination=entry.get("Ebs", {}).get("DeleteOnTermination", attachment.delete_on_termination),
        iops=volume.iops if chosen else None,
        throughput=volume.throughput,
        encrypted=snapshot.encrypted,
    )


def _image(cloud: Cloud, instance: Instance, values: Values, image_id: str) -> Image:
    origin = cloud.state.all(Image)[instance.image_id]  # a tombstone at least
    return Image(
        image_id=image_id,
        account=instance.account,
        region=instance.region,
        name=values["Name"],
        creation_time=time.time(),
        description=values.get("Description", ""),
        architecture=instance.architecture,
        virtualization_type=instance.virtualization_type,
        root_device_name=instance.root_device_name,
        boot_mode=values.get("BootModeOverride") or instance.boot_mode,
        ena_support=instance.ena_support,
        sriov_net_support=instance.sriov_net_support,
        imds_support=origin.imds_support,
        tpm_support=instance.tpm_support,
        uefi_data=origin.uefi_data,
        kernel_id=instance.kernel_id,
        ramdisk_id=instance.ramdisk_id,
        source_instance_id=instance.instance_id,
    )


ACTIONS: dict[str, Handler] = {"CreateImage": _create_image}
