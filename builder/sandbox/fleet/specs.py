"""What an instance's records mean for its machine: disks, kernel, memory, metadata."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import security_groups
from builder.sandbox.ec2.bundle_look import Unfit
from builder.sandbox.fleet.store import InstanceStore
from builder.sandbox.machines.machine import Disk, Firmware, Forward, MachineSpec
from builder.sandbox.machines.metadata import Metadata
from builder.sandbox.machines.serials import bus_of, serial_of
from builder.sandbox.records import Attachment, Image, Instance, Volume

_SMALL = ("nano", "micro", "small")  # sizes of instance types that get the least memory
_MEMORY = {True: 512, False: 1024}  # MiB, whatever EC2 has: they share one machine
# "Paravirtual" images: what Eucalyptus' node controller gives a kernel that comes from outside.
_COMMAND_LINE = "root=/dev/vda1 console=ttyS0"


def attached(cloud: Cloud, instance: Instance) -> list[tuple[Volume, Attachment]]:
    """Return the volumes that the instance is to have, the root first, then by device."""
    found = [
        (volume, volume.attachment)
        for volume in list(cloud.state.all(Volume).values())
        if volume.attachment is not None
        and volume.attachment.instance_id == instance.instance_id
        and volume.attachment.detach_time is None
        and volume.delete_time is None
    ]
    return sorted(found, key=lambda each: (each[1].device != instance.root_device_name, each[1].device))


def serial(cloud: Cloud, volume: Volume, attachment: Attachment, *, at_boot: bool, root: bool = False) -> str:
    """Return what the guest reads as the volume's serial, in the way of the cloud that the sandbox is like."""
    eucalyptus = cloud.personality.is_eucalyptus
    return serial_of(volume.volume_id, attachment.device, eucalyptus=eucalyptus, at_boot=at_boot, root=root)


def of(
    cloud: Cloud, instance: Instance, directory: Path, *, store: InstanceStore, forwards: Sequence[Forward]
) -> MachineSpec:
    """Return the spec of an instance's machine, with its instance store made: that may take long.

    Raises Unfit and Unreadable when its image cannot be launched; OSError.
    """
    image = cloud.state.all(Image)[instance.image_id]
    if instance.architecture == "arm64":
        raise Unfit("the sandbox has machines for x86_64 only")
    disks = [
        _disk(cloud, volume, attachment, root=attachment.device == instance.root_device_name)
        for volume, attachment in attached(cloud, instance)
    ]
    if image.root_device_type != "ebs":
        disks.insert(0, _store_disk(cloud, instance, "root", store.root(cloud, instance, image)))
    disks += _ephemeral(cloud, instance, image, store)
    kernel = store.file(cloud, instance, "kernel", instance.kernel_id) if instance.kernel_id else None
    ramdisk = store.file(cloud, instance, "ramdisk", instance.ramdisk_id) if kernel and instance.ramdisk_id else None
    return MachineSpec(
        instance_id=instance.instance_id,
        directory=directory / instance.instance_id,
        disks=tuple(disks),
        metadata=lambda: metadata(cloud, instance),
        memory=_MEMORY[instance.instance_type.partition(".")[2] in _SMALL],
        bus=bus_of(eucalyptus=cloud.personality.is_eucalyptus),
        firmware=_firmware(instance),
        kernel=kernel,
        ramdisk=ramdisk,
        command_line=_COMMAND_LINE if kernel else "",
        address=instance.address,
        forwards=tuple(forwards),
    )


def _firmware(instance: Instance) -> Firmware:
    return "uefi" if (instance.boot_mode or "").startswith("uefi") else "bios"


def _disk(cloud: Cloud, volume: Volume, attachment: Attachment, *, root: bool) -> Disk:
    return Disk(
        volume_id=volume.volume_id,
        path=cloud.volumes.path(volume.volume_id),
        serial=serial(cloud, volume, attachment, at_boot=True, root=root),
        device=attachment.device,
    )


def _ephemeral(cloud: Cloud, instance: Instance, image: Image, store: InstanceStore) -> Iterable[Disk]:
    for device in image.block_devices:
        if device.virtual_name and not device.no_device:
            path = store.ephemeral(instance, device.virtual_name)
            yield _store_disk(cloud, instance, device.virtual_name, path, device.device_name)


def _store_disk(cloud: Cloud, instance: Instance, name: str, path: Path, device: str = "") -> Disk:
    """Return a disk of the instance store; what its serial says is our choice, after Eucalyptus' own."""
    device = device or instance.root_device_name
    if cloud.personality.is_eucalyptus:
        shown = serial_of(name, device, eucalyptus=True, at_boot=True, root=name == "root")
        return Disk(volume_id=name, path=path, serial=shown.replace("ebs1", name), device=device)
    return Disk(volume_id=name, path=path, serial=f"AWS{instance.instance_id[-8:]}{name[-9:]}", device=device)


def metadata(cloud: Cloud, launched: Instance) -> Metadata:
    """Return what the metadata service says of an instance at this moment."""
    instance = cloud.state.all(Instance).get(launched.instance_id, launched)
    options = instance.metadata_options
    address = instance.address or ""
    tags = dict(instance.tags) if options.instance_metadata_tags == "enabled" else None
    hvm = instance.virtualization_type != "paravirtual"
    return Metadata(
        instance_id=instance.instance_id,
        image_id=instance.image_id,
        instance_type=instance.instance_type,
        account=instance.account,
        region=instance.region,
        zone=instance.zone,
        reservation_id=instance.reservation_id,
        launch_time=instance.launch_time,
        local_ipv4=address,
        public_ipv4=address,
        launch_index=instance.launch_index,
        architecture=instance.architecture,
        kernel_id=instance.kernel_id,
        ramdisk_id=instance.ramdisk_id,
        profile="default-hvm" if hvm else "default-paravirtual",
        public_keys=((instance.key_name, instance.public_key),) if instance.key_name and instance.public_key else (),
        security_groups=tuple(str(one["GroupName"]) for one in security_groups.of_instance(cloud, instance)),
        mappings=_mappings(cloud, instance),
        tags=tags,
        user_data=base64.b64decode(instance.user_data) if instance.user_data else None,
        endpoint=options.http_endpoint != "disabled",
        tokens=not cloud.personality.is_eucalyptus,
        tokens_required=options.http_tokens == "required",
    )


def _mappings(cloud: Cloud, instance: Instance) -> dict[str, str]:
    """Return the block device mapping as the metadata service words it: `ami` and `root`, then `ebs1` and on."""
    root = instance.root_device_name
    found = {"ami": root.removeprefix("/dev/"), "root": root}
    others = [to.device for _, to in attached(cloud, instance) if to.device != root]
    return found | {f"ebs{number}": device.removeprefix("/dev/") for number, device in enumerate(others, 1)}
