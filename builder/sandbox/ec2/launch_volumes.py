"""The volumes that RunInstances makes: the image's block device mapping, and what the call changes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import volumes
from builder.sandbox.ec2.action import Values
from builder.sandbox.records import Attachment, BlockDevice, Image, Instance, Snapshot, Volume
from builder.sandbox.wire import Caller, Refusal

# How an image's mapping and CreateVolume call the same thing.
_NAMES = {
    "SnapshotId": "SnapshotId", "VolumeSize": "Size", "VolumeType": "VolumeType", "Iops": "Iops",
    "Throughput": "Throughput", "Encrypted": "Encrypted", "KmsKeyId": "KmsKeyId",
    "VolumeInitializationRate": "VolumeInitializationRate",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A volume to make: `values` are those of CreateVolume."""

    device: str
    values: Values
    delete_on_termination: bool


def wanted(cloud: Cloud, image: Image, entries: Iterable[Values]) -> list[Wanted]:
    """Return the volumes of the image's mapping, changed as the entries of a call say. Raises Refusal."""
    found = {one.device_name: _of_image(one) for one in image.block_devices if one.is_ebs}
    named: set[str] = set()
    for entry in entries:
        name = entry.get("DeviceName")
        if not name:
            raise Refusal("MissingParameter", "The request must contain the parameter deviceName")
        if name in named:
            message = f"The device '{name}' is used in more than one block-device mapping"
            raise Refusal("InvalidBlockDeviceMapping", message)
        named.add(name)
        changed = _changed(image, name, found.pop(name, None), entry)
        if changed is not None:
            found[name] = changed
    for one in found.values():
        _check_size(cloud, one)
    return list(found.values())


def _of_image(device: BlockDevice) -> Wanted:
    values = {
        "SnapshotId": device.snapshot_id,
        "Size": device.volume_size,
        "VolumeType": device.volume_type,
        "Iops": device.iops,
        "Throughput": device.throughput,
        "Encrypted": device.encrypted or None,
    }
    return Wanted(
        device=device.device_name,
        values={name: value for name, value in values.items() if value is not None},
        delete_on_termination=device.delete_on_termination,
    )


def _changed(image: Image, name: str, known: Wanted | None, entry: Values) -> Wanted | None:
    """Return the device `name` as the entry wants it, or None when there is to be no volume."""
    root = name == image.root_device_name
    ebs = entry.get("Ebs", {})
    if "NoDevice" in entry or entry.get("VirtualName"):
        if root:
            message = f"The root device '{name}' cannot be left out of the block device mapping"
            raise Refusal("InvalidBlockDeviceMapping", message)
        return None
    if root and ebs.get("SnapshotId") not in (None, known.values.get("SnapshotId") if known else None):
        raise Refusal("InvalidBlockDeviceMapping", "snapshotId cannot be modified on root device")
    for parameter in ebs:
        if parameter not in _NAMES and parameter != "DeleteOnTermination":
            raise Refusal("UnsupportedOperation", f"The sandbox does not support Ebs.{parameter}.")
    values = dict(known.values) if known else {}
    if ebs.get("VolumeType") not in (None, values.get("VolumeType")):  # another type: its own performance
        values = {key: value for key, value in values.items() if key not in ("Iops", "Throughput")}
    values |= {_NAMES[key]: value for key, value in ebs.items() if key in _NAMES}
    keeps = known.delete_on_termination if known else True
    return Wanted(device=name, values=values, delete_on_termination=ebs.get("DeleteOnTermination", keeps))


def _check_size(cloud: Cloud, one: Wanted) -> None:
    snapshot = cloud.state.all(Snapshot).get(one.values.get("SnapshotId", ""))
    if snapshot is not None and one.values.get("Size", snapshot.volume_size) < snapshot.volume_size:
        message = (
            f"Volume of size {one.values['Size']}GB is smaller than snapshot '{snapshot.snapshot_id}', "
            f"expect size >= {snapshot.volume_size}GB"
        )
        raise Refusal("InvalidBlockDeviceMapping", message)


@contextmanager
def made(
    cloud: Cloud, caller: Caller, image: Image, instances: Iterable[Instance], *, entries: Iterable[Values],
    tags: Mapping[str, str],
) -> Iterator[list[Volume]]:  # fmt: skip
    """Give the new volumes of new instances, attached, for the caller to keep; removed again when that fails.

    A crash before they are kept leaves orphan files for the next start to sweep away. Raises Refusal.
    """
    owner = replace(caller, account=image.account)
    of_image = {device.snapshot_id for device in image.block_devices}
    found: list[Volume] = []
    try:
        wishes = wanted(cloud, image, entries)
        for instance in instances:
            for one in wishes:
                attachment = Attachment(
                    instance_id=instance.instance_id,
                    device=one.device,
                    attach_time=instance.launch_time,
                    delete_on_termination=one.delete_on_termination,
                )
                reader = owner if one.values.get("SnapshotId") in of_image else caller
                found.append(
                    volumes.make_volume(
                        cloud, caller, one.values, zone=instance.zone, tags=tags, attachment=attachment, reader=reader
                    )
                )
        yield found
    except BaseException:
        for volume in found:
            cloud.volumes.remove(volume.volume_id)
        raise
    for volume in found:
        cloud.begin(volume)
