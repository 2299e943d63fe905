"""The calls of EC2 about volumes and snapshots of them: volumes.Volumes, and api.Cloud's snapshots by EC2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder.cloud import records
from builder.cloud.api import Call, SnapshotRecord
from builder.cloud.calls import Calls, filters
from builder.cloud.claims import TAG, Claim, only
from builder.cloud.volumes import VolumeRecord, VolumeSpec
from builder.errors import CloudConflict, CloudError, CloudNotFound, UsageError

_OVER = frozenset({"deleting", "deleted"})
_MOST_DESCRIPTION = 255  # characters


class Ec2Volumes(Calls):
    """Volumes and snapshots of one account in one region."""

    # Volumes
    def find_volumes(self, claim: Claim) -> Sequence[VolumeRecord]:
        """Return our volumes that carry the claim's tag, but those that are about to be gone."""
        found = self._pages("DescribeVolumes", "Volumes", Filters=filters(f"tag:{TAG}", claim.token))
        return [one for item in found if (one := records.volume(item)).state not in _OVER]

    def create_volume(self, claim: Claim, spec: VolumeSpec) -> str:
        """Create an empty volume under the claim and return its id at once.

        With a client token the same call twice makes one volume. Without (Eucalyptus) an answer that was lost is looked
        for by the claim's tag before the call is made again; where tags come after the call (before 5.0) nothing
        can be found then, and a crash between the two leaves an empty volume that nothing tells to be ours.
        Raises UsageError for what this cloud has no parameter for.
        """
        action = "CreateVolume"
        request = {**self._volume(spec), **self._marks(action, claim, spec.tags, "volume")}
        if Call("ec2", action) in self.capabilities.client_tokens:
            made = str(self._call("ec2", action, **request, ClientToken=claim.token)["VolumeId"])
        else:
            made = self._create(action, "VolumeId", lambda: self._volume_of(claim), **request)
        self._know(made)
        self._mark_after(action, claim, spec.tags, made)
        return made

    def describe_volume(self, volume_id: str) -> VolumeRecord | None:
        """Return the volume, or None when the cloud says it does not exist."""
        self._know(volume_id)
        try:
            found = self._pages("DescribeVolumes", "Volumes", VolumeIds=[volume_id])
        except CloudNotFound:
            return None
        return records.volume(found[0]) if found else None

    def attach_volume(self, volume_id: str, instance_id: str, device: str) -> None:
        """Begin to attach it; fine when it is attached there already. Raises CloudConflict when another has it."""
        request = {"VolumeId": volume_id, "InstanceId": instance_id, "Device": device}
        try:
            self._call("ec2", "AttachVolume", (volume_id,), **request)
        except CloudError as error:
            held = self._attachments(volume_id, error)
            if held is None or not held.attachments:
                raise
            if held.attached_to(instance_id) is None:
                other = held.attachments[0].instance_id
                raise CloudConflict(
                    f"volume {volume_id} is attached to {other}",
                    hint=f"Detach it from {other} if nothing there uses it, then `emi resume`.",
                ) from error

    def detach_volume(self, volume_id: str, instance_id: str, *, force: bool = False) -> None:
        """Begin to detach it; fine when it is not attached there, or on its way."""
        request: dict[str, Any] = {
            "VolumeId": volume_id,
            "InstanceId": instance_id,
            **({"Force": True} if force else {}),
        }
        try:
            self._call("ec2", "DetachVolume", **request)
        except CloudNotFound:
            return
        except CloudError as error:
            held = self._attachments(volume_id, error)
            attachment = held.attached_to(instance_id) if held else None
            if attachment is not None and (force or attachment.state != "detaching"):
                raise

    def delete_volume(self, volume_id: str) -> None:
        """Delete it; fine when it is gone already. Raises CloudConflict when it is attached."""
        try:
            self._call("ec2", "DeleteVolume", VolumeId=volume_id)
        except CloudNotFound:
            return

    def _volume(self, spec: VolumeSpec) -> dict[str, Any]:
        request = records.volume_request(spec)
        for name in ("Encrypted", "KmsKeyId", "VolumeType"):
            if request.get(name) and name not in self.capabilities.volume_fields:
                raise UsageError(
                    f"CreateVolume takes no {name} on this cloud", hint="Leave it out, or choose another cloud."
                )
        return request

    def _volume_of(self, claim: Claim) -> str | None:
        return only(claim, [one.volume_id for one in self.find_volumes(claim)], "volume")

    def _attachments(self, volume_id: str, error: CloudError) -> VolumeRecord | None:
        """Return what holds the volume after a refusal, which may be that of a repeated call."""
        if error.retryable:
            raise error
        return self.describe_volume(volume_id)

    # Snapshots
    def find_snapshots(self, claim: Claim) -> Sequence[SnapshotRecord]:
        """Return our own snapshots that carry the claim's tag, whatever their status."""
        return self._snapshots(filters(f"tag:{TAG}", claim.token))

    def describe_snapshot(self, snapshot_id: str) -> SnapshotRecord | None:
        """Return the snapshot, or None when the cloud says it does not exist."""
        self._know(snapshot_id)
        try:
            found = self._pages("DescribeSnapshots", "Snapshots", SnapshotIds=[snapshot_id])
        except CloudNotFound:
            return None
        return records.snapshot(found[0]) if found else None

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete it; fine when it is gone already. Raises CloudConflict when an image uses it."""
        try:
            self._call("ec2", "DeleteSnapshot", SnapshotId=snapshot_id)
        except CloudNotFound:
            return

    def create_snapshot(self, claim: Claim, volume_id: str, *, description: str, tags: Mapping[str, str]) -> str:
        """Begin a snapshot of what is on the volume now, under the claim, and return its id at once.

        Where tags come after the call (Eucalyptus before 5.0) the claim's token is in the description too, so that what
        a crash left between the two is found: an untagged snapshot of this volume that says so is tagged and returned.
        """
        action = "CreateSnapshot"
        at_once = self._tags_at_once(action)
        text = description if at_once else _with_token(description, claim)

        def left() -> str | None:
            if at_once:
                found = self.find_snapshots(claim)
            else:
                found = [one for one in self._snapshots(_of(volume_id)) if one.description == text]
            return only(claim, [one.snapshot_id for one in found], "snapshot")

        made = None if at_once else left()
        if made is None:
            request = {"VolumeId": volume_id, **({"Description": text} if text else {})}
            marks = self._marks(action, claim, tags, "snapshot")
            made = self._create(action, "SnapshotId", left, **request, **marks)
        self._know(made)
        self._mark_after(action, claim, tags, made)
        return made

    def _snapshots(self, wanted: Sequence[Mapping[str, Any]]) -> Sequence[SnapshotRecord]:
        found = self._pages("DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=wanted)
        return [records.snapshot(item) for item in found]


def _of(volume_id: str) -> list[dict[str, Any]]:
    return filters("volume-id", volume_id)


def _with_token(description: str, claim: Claim) -> str:
    mark = f"{TAG} {claim.token}"
    return f"{description[: _MOST_DESCRIPTION - len(mark) - 1]} {mark}".strip()
