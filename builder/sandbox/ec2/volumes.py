"""CreateVolume, DescribeVolumes, DeleteVolume; and making volumes as a part of RunInstances."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Mapping
from dataclasses import replace

from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import encryption, idempotency, places, snapshots
from builder.sandbox.ec2.action import (
    Handler,
    Traits,
    Values,
    boolean,
    check_filters,
    matches,
    maybe,
    moment,
    paged,
    tag_list,
)
from builder.sandbox.ec2.tags import specified
from builder.sandbox.ec2.volume_rules import performance
from builder.sandbox.records import GIB, Attachment, Snapshot, Volume
from builder.sandbox.wire import Caller, Refusal

# Every filter of DescribeVolumes in the model's documentation.
_FILTERS = (
    "attachment.attach-time", "attachment.delete-on-termination", "attachment.device", "attachment.instance-id",
    "attachment.status", "availability-zone", "availability-zone-id", "create-time", "encrypted", "fast-restored",
    "multi-attach-enabled", "operator.managed", "operator.principal", "size", "snapshot-id", "status", "volume-id",
    "volume-type",
)  # fmt: skip
_RATES = (100, 300)  # MiB/s of VolumeInitializationRate


def not_found(volume_id: str) -> Refusal:
    """Return what is said of a volume that is not there."""
    return Refusal("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")


def require(cloud: Cloud, caller: Caller, volume_id: str) -> Volume:
    """Return the caller's volume, one being deleted too. Raises Refusal."""
    if not re.fullmatch(r"vol-[0-9a-f]{8,17}", volume_id):
        message = f"Value ({volume_id}) for parameter volumeId is invalid. Expected: 'vol-...'."
        raise Refusal("InvalidParameterValue", message)
    volume = cloud.volume(caller, volume_id)
    if volume is None:
        raise not_found(volume_id)
    return volume


def make_volume(
    cloud: Cloud,
    caller: Caller,
    values: Values,
    *,
    zone: str,
    tags: Mapping[str, str] | None = None,
    attachment: Attachment | None = None,
    reader: Caller | None = None,
) -> Volume:
    """Return a volume that is being created, not yet kept: put it into the state, then `cloud.begin(volume)`.

    `values` holds Size, SnapshotId, VolumeType, Iops, Throughput, Encrypted and KmsKeyId as CreateVolume knows them. A
    crash before the record is kept leaves an orphan file, which the next start sweeps away. Moves no bytes and may be
    called under the state's lock. `reader` is whose right to read the snapshot counts, if not the caller's: an image
    may be shared without its snapshots, and who launches it reads them as its owner does. Raises Refusal.
    """
    snapshot = _source(cloud, reader or caller, values)
    size = _size(values, snapshot)
    chosen = performance(
        values.get("VolumeType") or cloud.default_volume_type, size, values.get("Iops"), values.get("Throughput")
    )
    encrypted, key = encryption.decide(cloud, caller, values, inherited=snapshot)
    volume_id = new_id("vol")
    now = time.time()
    _make_file(cloud, volume_id, size, snapshot)
    return Volume(
        volume_id=volume_id,
        account=caller.account,
        region=caller.region,
        zone=zone,
        size=size,
        volume_type=chosen.volume_type,
        iops=chosen.iops,
        throughput=chosen.throughput,
        create_time=now,
        ready_time=now if snapshot is None else None,
        lineage=volume_id if snapshot is None else snapshot.lineage,
        snapshot_id=snapshot.snapshot_id if snapshot is not None else None,
        initialization_rate=values.get("VolumeInitializationRate"),
        encrypted=encrypted,
        kms_key_id=key,
        tags=dict(tags or {}),
        attachment=attachment,
    )


def _source(cloud: Cloud, caller: Caller, values: Values) -> Snapshot | None:
    if not (snapshot_id := values.get("SnapshotId")):
        return None
    snapshot = snapshots.require_readable(cloud, caller, snapshot_id)
    if (status := cloud.status(snapshot)) != "completed":
        raise Refusal("IncorrectState", f"Snapshot '{snapshot_id}' is in invalid state - {status}")
    return snapshot


def _size(values: Values, snapshot: Snapshot | None) -> int:
    size: int | None = values.get("Size")
    if snapshot is None:
        if size is None:
            raise Refusal("MissingParameter", "The request must contain the parameter size/snapshot")
        return size
    if size is not None and size < snapshot.volume_size:
        message = (
            f"Volume of size {size}GB is smaller than snapshot '{snapshot.snapshot_id}', "
            f"expect size >= {snapshot.volume_size}GB"
        )
        raise Refusal("InvalidParameterValue", message)
    return snapshot.volume_size if size is None else size


def _make_file(cloud: Cloud, volume_id: str, size: int, snapshot: Snapshot | None) -> None:
    source = cloud.disk(snapshot) if snapshot is not None else None
    try:
        cloud.volumes.create(volume_id, size * GIB, source)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        message = f"The sandbox's filesystem holds no file of {size} GiB."
        raise Refusal("InvalidParameterValue", message) from error


def _create_volume(cloud: Cloud, caller: Caller, values: Values) -> Values:
    for unsupported in ("OutpostArn", "Operator", "MultiAttachEnabled"):
        if values.get(unsupported):
            raise Refusal("UnsupportedOperation", f"The sandbox does not support {unsupported}.")
    zone = _zone(caller, values)
    tags = specified(values.get("TagSpecifications", ()), "volume")
    _check_rate(values)
    with cloud.state.lock:
        if (answer := idempotency.before(cloud, caller, "CreateVolume", values)) is not None:
            first: Values = answer
            return first
        volume = make_volume(cloud, caller, values, zone=zone, tags=tags)
        shape = _shape(cloud, volume)
        cloud.state.put(volume, *idempotency.used(caller, "CreateVolume", values, shape))
    cloud.begin(volume)
    return shape


def _zone(caller: Caller, values: Values) -> str:
    name, zone_id = values.get("AvailabilityZone"), values.get("AvailabilityZoneId")
    if name and zone_id:
        message = "The parameters AvailabilityZone and AvailabilityZoneId cannot be used together"
        raise Refusal("InvalidParameterCombination", message)
    if not name and not zone_id:
        raise Refusal("MissingParameter", "The request must contain the parameter zone")
    known = places.zones(caller.region)
    for zone, its_id in known.items():
        if name == zone or zone_id == its_id:
            return zone
    raise Refusal("InvalidZone.NotFound", f"The zone '{name or zone_id}' does not exist.")


def _check_rate(values: Values) -> None:
    rate = values.get("VolumeInitializationRate")
    if rate is None:
        return
    if not values.get("SnapshotId"):
        message = "The parameter volumeInitializationRate is only supported for volumes created from snapshots."
        raise Refusal("InvalidParameterCombination", message)
    if not _RATES[0] <= rate <= _RATES[1]:
        raise Refusal("InvalidParameterValue", f"Value ({rate}) for parameter volumeInitializationRate is invalid.")


def _delete_volume(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        volume = require(cloud, caller, values["VolumeId"])
        if held := cloud.attachment(volume):
            message = f"Volume {volume.volume_id} is currently attached to {held[0].instance_id}"
            raise Refusal("VolumeInUse", message)
        if (state := cloud.volume_state(volume)) == "deleting":
            raise not_found(volume.volume_id)
        if state == "creating":
            raise Refusal("IncorrectState", f"The volume '{volume.volume_id}' is 'creating'.")
        cloud.state.put(replace(volume, delete_time=time.time(), attachment=None))
    cloud.volumes.remove(volume.volume_id)
    return {}


def _describe_volumes(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _FILTERS)
    found = [one for one in asked_for(cloud, caller, values) if matches(_traits(cloud, one), one.tags, filters)]
    page, token = paged(found, lambda one: f"{one.create_time:020.6f}{one.volume_id}", values)
    return {"Volumes": [_shape(cloud, one) for one in page], "NextToken": token}


def asked_for(cloud: Cloud, caller: Caller, values: Values) -> list[Volume]:
    """Return the volumes of a call's VolumeIds, or all of the caller's. Raises Refusal."""
    if ids := values.get("VolumeIds"):
        if values.get("MaxResults") is not None:
            raise Refusal("InvalidParameterCombination", "The parameter volumes cannot be used with MaxResults")
        return [require(cloud, caller, volume_id) for volume_id in dict.fromkeys(ids)]
    return [one for one in list(cloud.state.all(Volume).values()) if cloud.volume(caller, one.volume_id)]


def attachment_shape(cloud: Cloud, volume: Volume) -> list[Values]:
    """Return the volume's attachments as EC2 describes them."""
    found = cloud.attachment(volume)
    return [] if found is None else [attachment_in(volume, *found)]


def attachment_in(volume: Volume, attachment: Attachment, state: str) -> Values:
    """Return an attachment in a state, as EC2 shows it."""
    return {
        "AttachTime": attachment.attach_time,
        "DeleteOnTermination": attachment.delete_on_termination,
        "Device": attachment.device,
        "InstanceId": attachment.instance_id,
        "State": state,
        "VolumeId": volume.volume_id,
    }


def _shape(cloud: Cloud, volume: Volume) -> Values:
    return {
        "Attachments": attachment_shape(cloud, volume),
        "AvailabilityZone": volume.zone,
        "AvailabilityZoneId": places.zones(volume.region)[volume.zone],
        "CreateTime": volume.create_time,
        "Encrypted": volume.encrypted,
        "Iops": volume.iops,
        "KmsKeyId": volume.kms_key_id,
        "MultiAttachEnabled": volume.multi_attach_enabled,
        "Size": volume.size,
        "SnapshotId": volume.snapshot_id or "",
        "State": cloud.volume_state(volume),
        "Tags": tag_list(volume.tags),
        "Throughput": volume.throughput,
        "VolumeId": volume.volume_id,
        "VolumeInitializationRate": volume.initialization_rate,
        "VolumeType": volume.volume_type,
    }


def _traits(cloud: Cloud, volume: Volume) -> Traits:
    attached = cloud.attachment(volume)
    held: Traits = {}
    if attached is not None:
        attachment, state = attached
        held = {
            "attachment.attach-time": [moment(attachment.attach_time)],
            "attachment.delete-on-termination": [boolean(value=attachment.delete_on_termination)],
            "attachment.device": [attachment.device],
            "attachment.instance-id": [attachment.instance_id],
            "attachment.status": [state],
        }
    return {
        **dict.fromkeys(_FILTERS, ()),
        **held,
        "availability-zone": [volume.zone],
        "availability-zone-id": [places.zones(volume.region)[volume.zone]],
        "create-time": [moment(volume.create_time)],
        "encrypted": [boolean(value=volume.encrypted)],
        "fast-restored": ["false"],
        "multi-attach-enabled": [boolean(value=volume.multi_attach_enabled)],
        "operator.managed": ["false"],
        "size": [str(volume.size)],
        "snapshot-id": maybe(volume.snapshot_id),
        "status": [cloud.volume_state(volume)],
        "volume-id": [volume.volume_id],
        "volume-type": [volume.volume_type],
    }


ACTIONS: dict[str, Handler] = {
    "CreateVolume": _create_volume,
    "DeleteVolume": _delete_volume,
    "DescribeVolumes": _describe_volumes,
}
