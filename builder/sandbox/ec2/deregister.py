"""DeregisterImage, and the protection from it."""

from __future__ import annotations

import time
from dataclasses import replace

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import images
from builder.sandbox.ec2.action import Handler, Values, moment
from builder.sandbox.records import Image, Snapshot
from builder.sandbox.wire import Caller, Refusal

_COOLDOWN = 24 * 3600  # seconds (EnableImageDeregistrationProtection, WithCooldown)


def _deregister_image(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        image = images.require(cloud, caller, values["ImageId"])
        _check_protection(image)
        results, freed = _snapshots(cloud, image) if values.get("DeleteAssociatedSnapshots") else (None, [])
        # One transaction: never an image without its snapshots, nor snapshots of nobody that ought to be gone.
        cloud.state.change(put=[replace(image, deregistered=True)], remove=freed)
        for snapshot in freed:
            cloud.forget(snapshot)
    for snapshot in freed:
        cloud.free(snapshot)
    return {"Return": True, "DeleteSnapshotResults": results}


def _check_protection(image: Image) -> None:
    if image.protected:
        message = f"The image {image.image_id} cannot be deregistered: its deregistration protection is enabled."
        raise Refusal("OperationNotPermitted", message)
    if image.protected_until is not None and time.time() < image.protected_until:
        message = (
            f"The image {image.image_id} cannot be deregistered before {moment(image.protected_until)}: "
            "its deregistration protection was disabled within the cooldown period."
        )
        raise Refusal("OperationNotPermitted", message)


def _snapshots(cloud: Cloud, image: Image) -> tuple[list[Values], list[Snapshot]]:
    """Return what becomes of each snapshot of the image in EC2's words, and those that go with it."""
    others = {
        device.snapshot_id
        for other in cloud.state.all(Image).values()
        if other.image_id != image.image_id and not other.deregistered
        for device in other.block_devices
    }
    results: list[Values] = []
    gone = []
    for snapshot_id in dict.fromkeys(device.snapshot_id for device in image.block_devices if device.snapshot_id):
        snapshot = cloud.state.all(Snapshot).get(snapshot_id)
        if snapshot is None:
            code = "client-error"
        elif snapshot.account != image.account:
            code = "missing-permissions"
        elif snapshot_id in others:
            code = "skipped"
        else:
            code = "success"
            gone.append(snapshot)
        results.append({"SnapshotId": snapshot_id, "ReturnCode": code})
    return results, gone


def _enable(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        image = images.require(cloud, caller, values["ImageId"])
        cooldown = bool(values.get("WithCooldown"))
        protected = replace(image, protected=True, cooldown=cooldown, protected_until=None)
        cloud.state.put(protected)
    return {"Return": images.protection(protected)}


def _disable(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        image = images.require(cloud, caller, values["ImageId"])
        if image.protected:
            until = time.time() + _COOLDOWN if image.cooldown else None
            image = replace(image, protected=False, cooldown=False, protected_until=until)
            cloud.state.put(image)
    return {"Return": images.protection(image)}


ACTIONS: dict[str, Handler] = {
    "DeregisterImage": _deregister_image,
    "DisableImageDeregistrationProtection": _disable,
    "EnableImageDeregistrationProtection": _enable,
}
