"""CopySnapshot and CreateSnapshot, and both as parts of calls that make images.

`copy_snapshot` and `snapshot_volume` bring the bytes where they belong and return a record that is **not yet kept**:
whoever calls puts it into the state, in one transaction with what belongs to it (`cloud.state.put`), and then lets
`cloud.begin(snapshot)` begin what is left to do. A crash before that transaction leaves an orphan disk, which the next
start sweeps away.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from dataclasses import replace

from builder.sandbox.cloud import Cloud, blocks_of, new_id
from builder.sandbox.ec2 import encryption, snapshots, volumes
from builder.sandbox.ec2.action import Handler, Values, tag_list
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import Snapshot, Volume
from builder.sandbox.wire import Caller, Refusal

_MOST_DESCRIPTION = 255  # characters
_LONGEST_COPY = 2880  # minutes: 48 hours


def copy_snapshot(
    cloud: Cloud,
    caller: Caller,
    source: Snapshot,
    *,
    region: str,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    values: Values | None = None,
) -> Snapshot:
    """Return a pending snapshot of the caller's in `region` with the bytes of `source`, not yet kept.

    A completed snapshot never changes, so the two share their files: no byte is moved, and either may be deleted.
    `values` are the call's Encrypted, KmsKeyId and CompletionDurationMinutes, if it has any. Raises Refusal when
    `source` is not completed. May be called under the state's lock.
    """
    values = values or {}
    if (status := cloud.status(source)) != "completed":
        message = f"Snapshot '{source.snapshot_id}' is not in the 'completed' state: it is {status}"
        raise Refusal("IncorrectState", message)
    there = replace(caller, region=region)
    encrypted, key = encryption.decide(cloud, there, values, inherited=source)
    minutes = _completion_minutes(values)
    snapshot_id = new_id("snap")
    cloud.disks.link(cloud.disk(source), snapshot_id)
    now = time.time()
    return Snapshot(
        snapshot_id=snapshot_id,
        account=caller.account,
        region=region,
        volume_size=source.volume_size,
        start_time=now,
        sealed_time=now,
        taken=True,
        lineage=source.lineage,
        description=description,
        tags=dict(tags or {}),
        encrypted=encrypted,
        kms_key_id=key,
        completion_minutes=minutes,
    )


def snapshot_volume(
    cloud: Cloud, volume: Volume, *, description: str = "", tags: Mapping[str, str] | None = None
) -> Snapshot:
    """Return a pending snapshot with the bytes that the volume has now, not yet kept.

    What is written to the volume once this has returned is not in it: the volume's file is cloned here and now, by
    reflink where the filesystem has it, else by copying its data (about half a second for a GiB of data). Do not call
    it under the state's lock. Raises Refusal for a volume that is not available or in use.
    """
    if (state := cloud.volume_state(volume)) not in ("available", "in-use"):
        raise Refusal("IncorrectState", f"The volume '{volume.volume_id}' is '{state}'.")
    cloud.machines.flush(volume)
    snapshot_id = new_id("snap")
    start = time.time()
    try:
        cloud.disks.take(snapshot_id, blocks_of(volume.size), cloud.volumes.path(volume.volume_id))
    except FileNotFoundError:  # deleted since the caller looked
        raise volumes.not_found(volume.volume_id) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"There is no space left for a snapshot of the volume '{volume.volume_id}'."
        raise Refusal("InsufficientCapacity", message, status=503) from error
    return Snapshot(
        snapshot_id=snapshot_id,
        account=volume.account,
        region=volume.region,
        volume_size=volume.size,
        start_time=start,
        taken=True,
        lineage=volume.lineage,
        volume_id=volume.volume_id,
        description=description,
        tags=dict(tags or {}),
        encrypted=volume.encrypted,
        kms_key_id=volume.kms_key_id,
    )


def _create_snapshot(cloud: Cloud, caller: Caller, values: Values) -> Values:
    _refuse(values, "OutpostArn")
    if values.get("Location") == "local":
        raise Refusal("UnsupportedOperation", "The sandbox has no Local Zones.")
    tags = specified(values.get("TagSpecifications", ()), "snapshot")
    volume = volumes.require(cloud, caller, values["VolumeId"])
    snapshot = snapshot_volume(cloud, volume, description=_description(values), tags=tags)
    with cloud.state.lock:
        cloud.state.put(snapshot)
    # Described before its work begins: the answer says pending, as EC2's does.
    shape = snapshots.shape(cloud, snapshot)
    cloud.begin(snapshot)
    return shape


def _copy_snapshot(cloud: Cloud, caller: Caller, values: Values) -> Values:
    for name in ("DestinationOutpostArn", "DestinationAvailabilityZone"):
        _refuse(values, name)
    # The model: a deprecated parameter, which means the region that the call is made in. PresignedUrl signs the call
    # in the source region, which we have no need of.
    if (region := values.get("DestinationRegion")) not in (None, "", caller.region):
        message = f"Value ({region}) for parameter destinationRegion is invalid. Expected: {caller.region}"
        raise Refusal("InvalidParameterValue", message)
    if values.get("Encrypted") is False:
        raise Refusal("InvalidParameterValue", "Value (false) for parameter encrypted is invalid.")
    tags = specified(values.get("TagSpecifications", ()), "snapshot")
    with cloud.state.lock:
        there = replace(caller, region=values["SourceRegion"])
        source = snapshots.require_readable(cloud, there, values["SourceSnapshotId"])
        snapshot = copy_snapshot(
            cloud,
            caller,
            source,
            region=caller.region,
            description=_description(values),
            tags=tags,
            values=values,
        )
        cloud.state.put(snapshot)
    return {"SnapshotId": snapshot.snapshot_id, "Tags": tag_list(snapshot.tags)}


def _completion_minutes(values: Values) -> int | None:
    minutes: int | None = values.get("CompletionDurationMinutes")
    if minutes is not None and (minutes % 15 or not 15 <= minutes <= _LONGEST_COPY):
        message = f"Value ({minutes}) for parameter completionDurationMinutes is invalid. Expected: a multiple of 15"
        raise Refusal("InvalidParameterValue", message)
    return minutes


def _description(values: Values) -> str:
    description: str = values.get("Description", "")
    if len(description) > _MOST_DESCRIPTION:
        raise Refusal("InvalidParameterValue", f"Description is longer than {_MOST_DESCRIPTION} characters")
    return description


def _refuse(values: Values, name: str) -> None:
    if values.get(name):
        raise Refusal("UnsupportedOperation", f"The sandbox does not support {name}.")


ACTIONS: dict[str, Handler] = {"CopySnapshot": _copy_snapshot, "CreateSnapshot": _create_snapshot}
