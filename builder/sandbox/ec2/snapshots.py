"""DescribeSnapshots and DeleteSnapshot."""

from __future__ import annotations

import re
from collections.abc import Mapping

from builder.sandbox.cloud import EVERYBODY, Cloud
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
from builder.sandbox.records import Image, Snapshot
from builder.sandbox.wire import Caller, Refusal

# Every filter of DescribeSnapshots in the model's documentation.
_FILTERS = (
    "description", "encrypted", "owner-alias", "owner-id", "progress", "snapshot-id", "start-time", "status",
    "storage-tier", "transfer-type", "volume-id", "volume-size",
)  # fmt: skip
_NO_VOLUME = "vol-ffffffff"  # what EC2 shows for a snapshot that no volume was the source of


def require(cloud: Cloud, caller: Caller, snapshot_id: str) -> Snapshot:
    """Return the caller's own snapshot. Raises Refusal, in other words for one that is only shared with them."""
    snapshot = require_readable(cloud, caller, snapshot_id)
    if snapshot.account != caller.account:
        raise Refusal("AuthFailure", f"Not authorized for snapshot '{snapshot_id}': another account owns it.")
    return snapshot


def require_readable(cloud: Cloud, caller: Caller, snapshot_id: str) -> Snapshot:
    """Return a snapshot that the caller may make volumes and copies of: their own or a shared one. Raises Refusal."""
    if not re.fullmatch(r"snap-[0-9a-f]{8,17}", snapshot_id):
        raise Refusal("InvalidParameterValue", f"Value ({snapshot_id}) for parameter snapshotId is invalid. "
                      "Expected: 'snap-...'.")  # fmt: skip
    snapshot = cloud.readable_snapshot(caller, snapshot_id)
    if snapshot is None:
        raise Refusal("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return snapshot


def _describe_snapshots(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _FILTERS)
    if ids := values.get("SnapshotIds"):
        if values.get("MaxResults") is not None:
            raise Refusal("InvalidParameterCombination", "The parameter SnapshotIds cannot be used with MaxResults")
        found = [require_readable(cloud, caller, snapshot_id) for snapshot_id in dict.fromkeys(ids)]
    else:
        found = [one for one in list(cloud.state.all(Snapshot).values()) if cloud.may_read(caller, one)]
    owners = {caller.account if owner == "self" else owner for owner in values.get("OwnerIds", ())}
    readers = set(values.get("RestorableByUserIds", ()))
    found = [
        one
        for one in found
        if (not owners or one.account in owners)
        and (not readers or any(_restorable(cloud, caller, one, reader) for reader in readers))
        and matches(_traits(cloud, one), _tags(caller, one), filters)
    ]
    page, token = paged(found, lambda one: f"{one.start_time:020.6f}{one.snapshot_id}", values)
    return {"Snapshots": [shape(cloud, one, caller) for one in page], "NextToken": token}


def _restorable(cloud: Cloud, caller: Caller, snapshot: Snapshot, reader: str) -> bool:
    """Say whether `reader`, a word of RestorableByUserIds, has permission by itself: not by that of everybody."""
    mine = snapshot.account == caller.account
    if reader == EVERYBODY:
        return cloud.is_public(snapshot)
    if reader in ("self", caller.account):
        return mine or caller.account in snapshot.create_volume_permissions
    return mine and reader in snapshot.create_volume_permissions


def _tags(caller: Caller, snapshot: Snapshot) -> Mapping[str, str]:
    """Return the tags that the caller sees: those of another account's snapshot are that account's own."""
    return snapshot.tags if snapshot.account == caller.account else {}


def shape(cloud: Cloud, snapshot: Snapshot, caller: Caller | None = None) -> Values:
    """Return the snapshot as EC2 describes it to `caller`; without one, to its owner."""
    status = cloud.status(snapshot)
    shown: dict[str, object] = {
        "SnapshotId": snapshot.snapshot_id,
        "VolumeId": snapshot.volume_id or _NO_VOLUME,
        "State": status,
        "StartTime": snapshot.start_time,
        "Progress": cloud.progress(snapshot),
        "OwnerId": snapshot.account,
        "Description": snapshot.description,
        "VolumeSize": snapshot.volume_size,
        "Encrypted": snapshot.encrypted,
        "KmsKeyId": snapshot.kms_key_id,
        "StorageTier": "standard",
        "TransferType": _transfer(snapshot),
        "CompletionDurationMinutes": snapshot.completion_minutes,
        "Tags": tag_list(snapshot.tags if caller is None else _tags(caller, snapshot)),
    }
    if status == "error":
        shown["StateMessage"] = snapshot.failure or f"No block was written for {snapshot.timeout} minutes."
    if status == "completed" and snapshot.sealed_time is not None:
        shown["CompletionTime"] = snapshot.sealed_time + cloud.settle
        shown["FullSnapshotSizeInBytes"] = cloud.disks.allocated(snapshot.snapshot_id)
    return shown


def _transfer(snapshot: Snapshot) -> str:
    return "standard" if snapshot.completion_minutes is None else "time-based"


def _traits(cloud: Cloud, snapshot: Snapshot) -> Traits:
    return {
        "description": [snapshot.description],
        "encrypted": [boolean(value=snapshot.encrypted)],
        "owner-alias": [],
        "owner-id": [snapshot.account],
        "progress": [cloud.progress(snapshot)],
        "snapshot-id": [snapshot.snapshot_id],
        "start-time": [moment(snapshot.start_time)],
        "status": [cloud.status(snapshot)],
        "storage-tier": ["standard"],
        "transfer-type": [_transfer(snapshot)],
        "volume-id": [snapshot.volume_id or _NO_VOLUME],
        "volume-size": [str(snapshot.volume_size)],
    }


def _delete_snapshot(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        snapshot = require(cloud, caller, values["SnapshotId"])
        if user := next((image for image in cloud.state.all(Image).values() if _uses(image, snapshot)), None):
            message = f"The snapshot {snapshot.snapshot_id} is currently in use by {user.image_id}"
            raise Refusal("InvalidSnapshot.InUse", message)
        cloud.forget(snapshot)
    cloud.free(snapshot)
    return {}


def _uses(image: Image, snapshot: Snapshot) -> bool:
    devices = () if image.deregistered else image.block_devices
    return any(device.snapshot_id == snapshot.snapshot_id for device in devices)


ACTIONS: dict[str, Handler] = {"DescribeSnapshots": _describe_snapshots, "DeleteSnapshot": _delete_snapshot}
