"""DescribeSnapshots and DeleteSnapshot."""

from __future__ import annotations

import re

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import Handler, Traits, Values, check_filters, matches, moment, paged, tag_list
from builder.sandbox.records import Image, Snapshot
from builder.sandbox.wire import Caller, Refusal

# Every filter of DescribeSnapshots in the model's documentation.
_FILTERS = (
    "description", "encrypted", "owner-alias", "owner-id", "progress", "snapshot-id", "start-time", "status",
    "storage-tier", "transfer-type", "volume-id", "volume-size",
)  # fmt: skip
_NO_VOLUME = "vol-ffffffff"  # what EC2 shows for a snapshot that no volume was the source of


def require(cloud: Cloud, caller: Caller, snapshot_id: str) -> Snapshot:
    """Return the caller's snapshot. Raises Refusal."""
    if not re.fullmatch(r"snap-[0-9a-f]{8,17}", snapshot_id):
        raise Refusal("InvalidParameterValue", f"Value ({snapshot_id}) for parameter snapshotId is invalid. "
                      "Expected: 'snap-...'.")  # fmt: skip
    snapshot = cloud.snapshot(caller, snapshot_id)
    if snapshot is None:
        raise Refusal("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return snapshot


def _describe_snapshots(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _FILTERS)
    if ids := values.get("SnapshotIds"):
        if values.get("MaxResults") is not None:
            raise Refusal("InvalidParameterCombination", "The parameter SnapshotIds cannot be used with MaxResults")
        found = [require(cloud, caller, snapshot_id) for snapshot_id in dict.fromkeys(ids)]
    else:
        mine = (caller.account, caller.region)
        found = [one for one in list(cloud.state.all(Snapshot).values()) if (one.account, one.region) == mine]
    owners = {caller.account if owner == "self" else owner for owner in values.get("OwnerIds", ())}
    readers = set(values.get("RestorableByUserIds", ()))
    found = [
        one
        for one in found
        if (not owners or one.account in owners)
        and (not readers or readers & {"self", one.account})
        and matches(_traits(cloud, one), one.tags, filters)
    ]
    page, token = paged(found, lambda one: f"{one.start_time:020.6f}{one.snapshot_id}", values)
    return {"Snapshots": [_shape(cloud, one) for one in page], "NextToken": token}


def _shape(cloud: Cloud, snapshot: Snapshot) -> Values:
    status = cloud.status(snapshot)
    shape = {
        "SnapshotId": snapshot.snapshot_id,
        "VolumeId": _NO_VOLUME,
        "State": status,
        "StartTime": snapshot.start_time,
        "Progress": cloud.progress(snapshot),
        "OwnerId": snapshot.account,
        "Description": snapshot.description,
        "VolumeSize": snapshot.volume_size,
        "Encrypted": False,
        "StorageTier": "standard",
        "Tags": tag_list(snapshot.tags),
    }
    if status == "error":
        shape["StateMessage"] = f"No block was written for {snapshot.timeout} minutes."
    if status == "completed" and snapshot.sealed_time is not None:
        shape["CompletionTime"] = snapshot.sealed_time + cloud.settle
        shape["FullSnapshotSizeInBytes"] = cloud.disks.allocated(snapshot.snapshot_id)
    return shape


def _traits(cloud: Cloud, snapshot: Snapshot) -> Traits:
    return {
        "description": [snapshot.description],
        "encrypted": ["false"],
        "owner-alias": [],
        "owner-id": [snapshot.account],
        "progress": [cloud.progress(snapshot)],
        "snapshot-id": [snapshot.snapshot_id],
        "start-time": [moment(snapshot.start_time)],
        "status": [cloud.status(snapshot)],
        "storage-tier": ["standard"],
        "transfer-type": ["standard"],
        "volume-id": [_NO_VOLUME],
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
