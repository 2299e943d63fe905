"""Which block device mappings Eucalyptus takes (Images.validateBlockDeviceMappings)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from builder.sandbox.ec2.action import Values
from builder.sandbox.wire import Refusal

DISK, PARTITION = "/dev/sda", "/dev/sda1"  # what names the root: the whole disk, or as AWS names it
_NAME = re.compile(r"(?:/dev/)?(?:[svh]|xv)d[a-z][1-9]*")


def failure(message: str) -> Refusal:
    """Return what clients see of an exception without a code of its own."""
    return Refusal("InternalFailure", message, status=500)


def check(entries: Sequence[Values], *, of_snapshot: bool) -> None:
    """Raise Refusal for a mapping that an image of a snapshot, or else an instance-store image, cannot have."""
    names = [one.get("DeviceName", "").removeprefix("/dev/") for one in entries]
    for one, name in zip(entries, names, strict=True):
        if names.count(name) > 1:
            raise failure(f"{one['DeviceName']} is assigned multiple times")
    for one in entries:
        name = one.get("DeviceName", "")
        if not _NAME.fullmatch(name):
            raise failure(f"Device name {name} is invalid")
        if name[-1].isdigit() and not (of_snapshot and name == PARTITION and "sda" not in names):
            raise failure(f"{name} is not supported. Device name cannot be a partition")
        _check_kind(one, name, of_snapshot=of_snapshot)
    if sum(bool(one.get("VirtualName")) and "NoDevice" not in one for one in entries) > 1:
        raise failure("Only one ephemeral device is supported. More than one ephemeral device mappings found")


def _check_kind(entry: Values, name: str, *, of_snapshot: bool) -> None:
    """Raise Refusal for what is behind a device: nothing, an ephemeral disk or a volume."""
    if "NoDevice" in entry:
        if of_snapshot:
            raise failure(f"Block device mapping for {name} cannot be suppressed")
    elif virtual := entry.get("VirtualName"):
        if not re.fullmatch("ephemeral[0123]", virtual):
            raise failure(f"Virtual device name must be of the form ephemeral[0123]. Fix the mapping for {name}")
    elif "Ebs" not in entry:
        raise failure(f"Incorrectly constructed block device mapping for {name} . Refer to documentation")
    elif not of_snapshot:
        raise failure("Ebs block device mappings are not supported")
    elif entry["Ebs"].get("SnapshotId") is None and entry["Ebs"].get("VolumeSize") == 0:
        raise failure(f"Volume size for {name} cannot be 0")
