"""CopyImage: an image again, with its bytes and all its fields, in the region of the call."""

from __future__ import annotations

import time
from dataclasses import replace

from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import idempotency, image_snapshots, images
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.ec2.copies import copy_snapshot
from builder.sandbox.ec2.register import check_words
from builder.sandbox.records import BlockDevice, Image, Snapshot
from builder.sandbox.wire import Caller, Refusal

_ACTION = "CopyImage"
_UNSUPPORTED = ("DestinationOutpostArn", "DestinationAvailabilityZone", "DestinationAvailabilityZoneId")


def _copy_image(cloud: Cloud, caller: Caller, values: Values) -> Values:
    check_words(values)
    for name in _UNSUPPORTED:
        if values.get(name):
            raise Refusal("UnsupportedOperation", f"The sandbox does not support {name}.")
    wish = {**values, "CompletionDurationMinutes": values.get("SnapshotCopyCompletionDurationMinutes")}
    tags = image_snapshots.tags(values)
    there = replace(caller, region=values["SourceRegion"])
    with cloud.state.lock:
        known = idempotency.before(cloud, caller, _ACTION, values)
        if known is not None:
            return {"ImageId": known}
        source = _source(cloud, there, values["SourceImageId"])
        images.require_free_name(cloud, caller, values["Name"])
        image_id = new_id(cloud.personality.image_prefix("machine"))
        with image_snapshots.kept_or_removed(cloud) as made:
            devices = []
            for device in source.block_devices:
                if device.snapshot_id is None:
                    devices.append(device)
                    continue
                snapshot = copy_snapshot(
                    cloud,
                    caller,
                    _readable(cloud, there, device),
                    region=caller.region,
                    description=_description(image_id, source, device),
                    tags=tags["snapshot"],
                    values=wish,
                )
                made.append(snapshot)
                devices.append(replace(device, snapshot_id=snapshot.snapshot_id, encrypted=snapshot.encrypted))
            mine = values.get("CopyImageTags") and source.account == caller.account
            copied = _copied(caller, source, values, image_id, {**(source.tags if mine else {}), **tags["image"]})
            image = replace(copied, block_devices=tuple(devices))
            # One transaction: never an image without its snapshots, nor snapshots without their image.
            cloud.state.put(*made, image, *idempotency.used(caller, _ACTION, values, image_id))
    return {"ImageId": image_id}


def _source(cloud: Cloud, there: Caller, image_id: str) -> Image:
    source = images.require_visible(cloud, there, image_id)
    if (state := cloud.image_state(source)) != "available":
        raise Refusal("IncorrectState", f"The image '{image_id}' is '{state}', not 'available'.")
    return source


def _readable(cloud: Cloud, there: Caller, device: BlockDevice) -> Snapshot:
    """Return the snapshot behind a device. Raises Refusal when it is not shared with the caller, or gone."""
    snapshot = cloud.readable_snapshot(there, device.snapshot_id or "")
    if snapshot is None:
        raise Refusal("InvalidRequest", "You do not have permission to access the storage of this ami")
    return snapshot


def _description(image_id: str, source: Image, device: BlockDevice) -> str:
    return (
        f"Copied for DestinationAmi {image_id} from SourceAmi {source.image_id} for SourceSnapshot "
        f"{device.snapshot_id}. Task created on {int(time.time() * 1000):,}."
    )


def _copied(caller: Caller, source: Image, values: Values, image_id: str, tags: dict[str, str]) -> Image:
    """Return the copy: all that the image is, and nothing of what was done with it (permissions, deprecation, …)."""
    return replace(
        source,
        image_id=image_id,
        account=caller.account,
        region=caller.region,
        name=values["Name"],
        creation_time=time.time(),
        description=values.get("Description", ""),
        tags=tags,
        launch_permissions=(),
        deprecation_time=None,
        protected=False,
        cooldown=False,
        protected_until=None,
        source_image_id=source.image_id,
        source_image_region=source.region,
        source_instance_id=None,
        last_launched_time=None,
    )


ACTIONS: dict[str, Handler] = {_ACTION: _copy_image}
