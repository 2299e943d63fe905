"""An image's block device mapping as a call gives it: checked, with EC2's defaults filled in."""

from __future__ import annotations

import re
from typing import Any

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import snapshots
from builder.sandbox.ec2.action import Values
from builder.sandbox.records import BlockDevice
from builder.sandbox.wire import Caller, Refusal

_VOLUME_TYPES = ("standard", "io1", "io2", "gp2", "gp3", "sc1", "st1")
IOPS_TYPES = ("io1", "io2", "gp3")
_LARGEST_VOLUME = 65536  # GiB


def device(cloud: Cloud, caller: Caller, entry: Values) -> BlockDevice:
    """Return the device that an entry of BlockDeviceMappings describes. Raises Refusal."""
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
    if "Encrypted" in ebs and ebs.get("SnapshotId"):
        message = f"the encrypted flag cannot be specified since device {name} has a snapshot specified."
        raise Refusal("InvalidBlockDeviceMapping", message)
    volume_type = ebs.get("VolumeType", cloud.default_volume_type)
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
    snapshot = snapshots.require_readable(cloud, caller, snapshot_id)
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
    if ebs.get("Iops") is not None and volume_type not in IOPS_TYPES:
        message = f"The parameter iops is not supported for {volume_type} volumes."
        raise Refusal("InvalidParameterCombination", message)
    if ebs.get("Iops") is None and volume_type in ("io1", "io2"):
        raise Refusal("MissingParameter", f"The parameter iops must be specified for {volume_type} volumes.")
    if ebs.get("Throughput") is not None and volume_type != "gp3":
        message = f"The parameter throughput is not supported for {volume_type} volumes."
        raise Refusal("InvalidParameterCombination", message)


def check_devices(root: str, devices: tuple[BlockDevice, ...]) -> None:
    """Raise Refusal when a device is mapped twice, or the root device to no snapshot."""
    check_names(devices)
    boot = next((device for device in devices if device.device_name == root), None)
    if boot is None or boot.snapshot_id is None:
        message = f"The root device '{root}' is not mapped to a snapshot in the block device mapping"
        raise Refusal("InvalidBlockDeviceMapping", message)


def check_names(devices: tuple[BlockDevice, ...]) -> None:
    """Raise Refusal when a device is mapped twice."""
    names = [device.device_name for device in devices]
    for name in names:
        if names.count(name) > 1:
            message = f"The device '{name}' is used in more than one block-device mapping"
            raise Refusal("InvalidBlockDeviceMapping", message)


def _invalid(value: Any, name: str) -> Refusal:
    return Refusal("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")
