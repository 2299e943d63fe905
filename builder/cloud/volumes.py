"""Volumes: what is asked of a cloud about them, the records that come back, and waiting for their states.

No boto3, no cloud's name; ec2_volumes.py makes the calls.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from builder.cloud.claims import Claim
from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudError, CloudFailed, CloudNotFound
from builder.progress import SILENT, Progress

# Names for AttachVolume that every cloud takes; EC2's guide recommends sd[f-p], and Eucalyptus makes vd[f-p] of them.
# What the guest calls the device is found there, by its serial: builder/remote/devices.py.
DEVICES = tuple(f"/dev/sd{letter}" for letter in "fghijklmnop")
_GONE = frozenset({"deleting", "deleted"})


@dataclass(frozen=True, kw_only=True)
class VolumeSpec:
    """What CreateVolume is asked for: EC2's own words; `size` in GiB; None leaves it to the cloud."""

    size: int
    zone: str
    volume_type: str | None = None
    encrypted: bool | None = None
    kms_key_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AttachmentRecord:
    """To which instance a volume is attached; `state` is attaching, attached, detaching or busy."""

    instance_id: str
    device: str
    state: str


@dataclass(frozen=True, kw_only=True)
class VolumeRecord:
    """A volume as the cloud describes it; `size` in GiB; `state` is creating, available, in-use, deleting or error."""

    volume_id: str
    state: str
    size: int
    zone: str
    volume_type: str = ""
    encrypted: bool = False
    snapshot_id: str | None = None
    attachments: Sequence[AttachmentRecord] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def attached_to(self, instance_id: str) -> AttachmentRecord | None:
        """Return the attachment to that instance, in whatever state, or None."""
        return next((one for one in self.attachments if one.instance_id == instance_id), None)


class Volumes(Protocol):
    """The calls of EC2 about volumes, and snapshots of them."""

    def find_volumes(self, claim: Claim) -> Sequence[VolumeRecord]:
        """Return our volumes that carry the claim's tag, but those that are about to be gone."""

    def create_volume(self, claim: Claim, spec: VolumeSpec) -> str:
        """Create an empty volume under the claim and return its id at once.

        Where the cloud takes a client token the same call twice makes one volume; elsewhere the claim's tag tells what
        an answer that was lost had made. Raises UsageError for what this cloud has no parameter for.
        """

    def describe_volume(self, volume_id: str) -> VolumeRecord | None:
        """Return the volume, or None when the cloud says it does not exist."""

    def attach_volume(self, volume_id: str, instance_id: str, device: str) -> None:
        """Begin to attach it; fine when it is attached there already. Raises CloudConflict when another has it."""

    def detach_volume(self, volume_id: str, instance_id: str, *, force: bool = False) -> None:
        """Begin to detach it; fine when it is not attached there, or on its way.

        With `force` the guest is not asked: what it has not written yet is lost, and its filesystems may break.
        """

    def delete_volume(self, volume_id: str) -> None:
        """Delete it; fine when it is gone already. Raises CloudConflict when it is attached."""

    def create_snapshot(self, claim: Claim, volume_id: str, *, description: str, tags: Mapping[str, str]) -> str:
        """Begin a snapshot of what is on the volume now, under the claim, and return its id at once.

        No cloud takes a client token for it. What an answer that was lost had made is found by the claim, within the
        time that a describe may lag (limits.py); `find_snapshots` finds it after a crash.
        """


def wait_created(
    cloud: Volumes, volume_id: str, *, patience: Patience | None = None, progress: Progress = SILENT
) -> VolumeRecord:
    """Return the volume once it can be attached, or is. Raises CloudFailed, CloudNotFound, CloudTrouble."""
    return wait_until(
        lambda: cloud.describe_volume(volume_id),
        is_created,
        what=f"volume {volume_id}",
        patience=patience,
        progress=progress,
    )


def is_created(record: VolumeRecord) -> bool:
    """Say whether the volume is there. Raises CloudFailed when it never will be, CloudNotFound when it was deleted."""
    if record.state == "error":
        raise CloudFailed(f"volume {record.volume_id} could not be created: the cloud says `error`")
    if record.state in _GONE:
        raise CloudNotFound(f"volume {record.volume_id} is {record.state}")
    return record.state in ("available", "in-use")


def wait_attached(
    cloud: Volumes,
    volume_id: str,
    instance_id: str,
    *,
    patience: Patience | None = None,
    progress: Progress = SILENT,
) -> AttachmentRecord:
    """Return the attachment once the cloud says that it is made; the guest may see the device a little later.

    Raises CloudError when the volume is detached again meanwhile, CloudNotFound, CloudTrouble.
    """

    def ready(record: VolumeRecord) -> bool:
        is_created(record)
        found = record.attached_to(instance_id)
        if found is None and record.state == "available":
            raise CloudError(f"volume {volume_id} is not attached to {instance_id}: it was detached meanwhile")
        return found is not None and found.state == "attached"

    what = f"volume {volume_id} at {instance_id}"
    record = wait_until(
        lambda: cloud.describe_volume(volume_id), ready, what=what, patience=patience, progress=progress
    )
    found = record.attached_to(instance_id)
    assert found is not None
    return found


def wait_detached(
    cloud: Volumes, volume_id: str, *, patience: Patience | None = None, progress: Progress = SILENT
) -> VolumeRecord | None:
    """Return the volume once nothing holds it, or None when it is gone.

    A guest that does not let go of it keeps it `detaching` until the time is over: then raises CloudTrouble.
    """
    try:
        record = wait_until(
            lambda: cloud.describe_volume(volume_id),
            lambda seen: not seen.attachments and seen.state != "in-use",
            what=f"volume {volume_id} to be let go",
            patience=patience,
            progress=progress,
        )
    except CloudNotFound:
        return None
    return None if record.state in _GONE else record


def free_device(taken: Collection[str]) -> str:
    """Return a device name for AttachVolume that none of the `taken` ones (/dev/sdf, xvdf, …) stands for.

    Raises CloudError when all are taken.
    """
    letters = {name.removeprefix("/dev/").removeprefix("xvd").removeprefix("sd").removeprefix("vd") for name in taken}
    for device in DEVICES:
        if device.removeprefix("/dev/sd") not in letters:
            return device
    raise CloudError(
        f"no device name is free: {', '.join(sorted(taken))} are taken",
        hint="Detach a volume from that instance, or use another instance.",
    )
