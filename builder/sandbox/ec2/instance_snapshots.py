"""CreateSnapshots: of the volumes of one instance, all or none."""

from __future__ import annotations

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import instance_states, snapshots
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.ec2.copies import snapshot_volume
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import Instance, Snapshot, Volume
from builder.sandbox.wire import Caller, Refusal

_MOST_DESCRIPTION = 255  # characters
_SHOWN = (
    "Description", "Encrypted", "OwnerId", "Progress", "SnapshotId", "StartTime", "State", "Tags", "VolumeId",
    "VolumeSize",
)  # fmt: skip


def _create_snapshots(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if values.get("OutpostArn") or values.get("Location") == "local":
        raise Refusal("UnsupportedOperation", "The sandbox has no Outposts and no Local Zones.")
    if len(description := values.get("Description", "")) > _MOST_DESCRIPTION:
        raise Refusal("InvalidParameterValue", f"Description is longer than {_MOST_DESCRIPTION} characters")
    own = specified(values.get("TagSpecifications", ()), "snapshot")
    copied = values.get("CopyTagsFromSource") == "volume"
    made: list[Snapshot] = []
    try:
        for volume in _volumes(cloud, caller, values["InstanceSpecification"]):
            tags = {**(volume.tags if copied else {}), **own}
            made.append(snapshot_volume(cloud, volume, description=description, tags=tags))
    except BaseException:
        for snapshot in made:
            cloud.free(snapshot)
        raise
    with cloud.state.lock:
        cloud.state.put(*made)
    # Described before their work begins: the answer says pending, as EC2's does.
    shown = [{name: snapshots.shape(cloud, one)[name] for name in _SHOWN} for one in made]
    for snapshot in made:
        cloud.begin(snapshot)
    return {"Snapshots": shown}


def _volumes(cloud: Cloud, caller: Caller, wanted: Values) -> list[Volume]:
    if not (instance_id := wanted.get("InstanceId")):
        raise Refusal("MissingParameter", "The request must contain the parameter InstanceId")
    instance = instance_states.require(cloud, caller, instance_id)
    attached = [one for one in list(cloud.state.all(Volume).values()) if _is_attached(cloud, one, instance)]
    excluded = set(wanted.get("ExcludeDataVolumeIds", ()))
    known = {one.volume_id for one in attached if not _is_root(one, instance)}
    if unknown := sorted(excluded - known):
        message = f"The volumes {', '.join(unknown)} are no data volumes of the instance '{instance_id}'"
        raise Refusal("InvalidParameterValue", message)
    found = [one for one in attached if one.volume_id not in excluded]
    if wanted.get("ExcludeBootVolume"):
        found = [one for one in found if not _is_root(one, instance)]
    if not found:
        raise Refusal("InvalidParameterValue", f"The instance '{instance_id}' has no volume to take a snapshot of")
    return found


def _is_attached(cloud: Cloud, volume: Volume, instance: Instance) -> bool:
    found = cloud.attachment(volume)
    return found is not None and found[0].instance_id == instance.instance_id


def _is_root(volume: Volume, instance: Instance) -> bool:
    return volume.attachment is not None and volume.attachment.device == instance.root_device_name


ACTIONS: dict[str, Handler] = {"CreateSnapshots": _create_snapshots}
