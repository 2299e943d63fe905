"""The step kind `volume`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from builder.cloud import ebs
from builder.cloud.api import Call, Cloud
from builder.cloud.claims import Claim, only, tag_problems
from builder.cloud.volumes import (
    VolumeRecord,
    VolumeSpec,
    free_device,
    wait_attached,
    wait_created,
    wait_detached,
)
from builder.cloud.wait import Patience, left_by_a_kill
from builder.errors import CloudConflict, CloudFailed, CloudNotFound, CloudTrouble, DeviceAbsent, UsageError
from builder.remote import abilities, listing
from builder.remote.command import Shell
from builder.remote.devices import EDGE, Wanted, find
from pipelines.artifact import AnyArtifact, File, Helper, ImageFile, Volume
from pipelines.lease import LeaseStep
from pipelines.step import NOTHING, Before, Inputs, Options, Reference, Work

_CREATE = Call("ec2", "CreateVolume")
_ASKED = Patience(deadline=120, settle=0)  # for a guest to let go of a device that nothing uses
_FORCED = Patience(deadline=300, settle=0)
_ENDING = frozenset({"shutting-down", "terminated", "stopped"})


class VolumeOptions(Options):
    """How large the volume is, and of which kind."""

    helper: Annotated[str, Reference(Helper)] = Field(
        description="the `helper` step whose instance it is attached to; it is made in the zone of that"
    )
    image: Annotated[str | None, Reference((ImageFile, File))] = Field(
        default=None, description="the step whose image it is to hold: as many GiB as hold it, when `size` is left out"
    )
    size: int | None = Field(default=None, ge=1, le=65536, description="GiB")
    volume_type: str | None = Field(default=None, description="the kind of volume; the cloud's default when left out")
    encrypted: bool | None = Field(default=None, description="encrypt it; the account's default when left out")
    kms_key_id: str | None = Field(default=None, description="the key to encrypt with; the account's default")
    tags: dict[str, str] = Field(default_factory=dict, description="tags of the volume, set as it is created")


class VolumeStep(LeaseStep[VolumeOptions]):
    """Lease an empty EBS volume that is attached to a helper, for `write` and `snapshot`.

    Its block device in the helper is found by the volume's serial, or, where the cloud gives devices none, as the one
    that appeared with the attachment, in the volume's size and empty: never by a letter. In doubt nothing is touched.

    When a step fails the volume stays, for `emi resume`: what is written in it need not be sent again. It is deleted
    when the last step that needs it is done.
    """

    options = VolumeOptions
    returns = Volume
    outlives_failure = True

    def check(self, options: VolumeOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        wrong = list(tag_problems(options.tags))
        if options.image is None and options.size is None:
            wrong.append("give the `size` in GiB, or the step whose `image` it is to hold")
        if options.kms_key_id and options.encrypted is False:
            wrong.append("`kms_key_id` is for a volume that is `encrypted`")
        return wrong

    def calls(self, options: VolumeOptions) -> Sequence[Call]:
        """Return every kind of API call that the step may make."""
        actions = ("AttachVolume", "CreateTags", "CreateVolume", "DeleteVolume", "DescribeInstances", "DescribeVolumes",
                   "DetachVolume")  # fmt: skip
        return tuple(Call("ec2", action) for action in actions)

    def preflight(self, options: VolumeOptions, cloud: Cloud, before: Before = NOTHING) -> None:
        """Raise UsageError for what this cloud has no parameter for."""
        given = {"Encrypted": options.encrypted, "KmsKeyId": options.kms_key_id, "VolumeType": options.volume_type}
        for name, value in given.items():
            if value and name not in cloud.capabilities.volume_fields:
                raise UsageError(
                    f"CreateVolume takes no {name} on this cloud", hint="Leave it out of the step `volume`."
                )

    def find(self, options: VolumeOptions, claim: Claim, cloud: Cloud) -> str | None:
        """Return the id of the volume that carries the claim."""
        return only(claim, [one.volume_id for one in cloud.find_volumes(claim)], "volume")

    def acquire(self, options: VolumeOptions, inputs: Inputs, claim: Claim, cloud: Cloud, work: Work) -> str:
        """Create it in the helper's zone; what a killed attempt may have made is waited for first."""
        if _CREATE not in cloud.capabilities.client_tokens:
            look = partial(self.find, options, claim, cloud)
            left = left_by_a_kill(look, intended=work.intended, what="the volume", progress=work.progress)
            if left:
                return left
        size = _size(options, inputs, work)
        work.progress.note(f"creating a volume of {size} GiB in {_helper(inputs).zone}")
        spec = VolumeSpec(
            size=size,
            zone=_helper(inputs).zone,
            volume_type=options.volume_type,
            encrypted=options.encrypted or bool(options.kms_key_id) or None,
            kms_key_id=options.kms_key_id,
            tags={**work.labels, **options.tags},
        )
        return cloud.create_volume(claim, spec)

    def ready(self, options: VolumeOptions, inputs: Inputs, held: str, cloud: Cloud, work: Work) -> Volume:
        """Attach it to the helper and find its device there."""
        helper = _helper(inputs)
        record = wait_created(cloud, held, progress=work.progress)
        if record.size != (size := _size(options, inputs, work)):
            raise CloudFailed(f"volume {held} has {record.size} GiB, and {size} are wanted now")
        if record.zone != helper.zone:
            raise CloudNotFound(f"volume {held} is in {record.zone}, and its helper in {helper.zone}")
        _free_of_others(cloud, record, helper, work)
        with work.remote(helper) as shell:
            device, boot = _attached(cloud, record, helper, shell, _edges(inputs, record, work), work)
        work.progress.note(f"{held} is {device} of {helper.instance_id}")
        return Volume(
            volume_id=held,
            size=record.size,
            zone=record.zone,
            encrypted=record.encrypted,
            kms_key_id=options.kms_key_id,
            helper=helper,
            device=device,
            boot=boot,
        )

    def present(self, held: str, cloud: Cloud) -> bool:
        """Say whether the cloud still has it, not failed."""
        record = cloud.describe_volume(held)
        return record is not None and record.state in ("creating", "available", "in-use")

    def zone(self, options: VolumeOptions, held: str, cloud: Cloud) -> str | None:
        """Return its zone: only an instance there can have it."""
        record = cloud.describe_volume(held)
        return record.zone if record else None

    def part(self, options: VolumeOptions, held: str, cloud: Cloud, work: Work) -> None:
        """Detach it; a guest that does not let go is not asked again."""
        _detach(cloud, held, work)

    def release(self, options: VolumeOptions, held: str, cloud: Cloud, work: Work) -> None:
        """Detach and delete it."""
        _detach(cloud, held, work)
        cloud.delete_volume(held)

    def by_hand(self, options: VolumeOptions, held: str, artifact: AnyArtifact | None, home: Path) -> str:
        """Return where it is, and how to remove it."""
        return f"`emi gc --older-than 0 --yes {held}` removes it"


def _helper(inputs: Inputs) -> Helper:
    found = inputs.named["helper"]
    assert isinstance(found, Helper)
    return found


def _size(options: VolumeOptions, inputs: Inputs, work: Work) -> int:
    image = inputs.named.get("image")
    if not isinstance(image, File | ImageFile):
        assert options.size is not None
        return options.size
    with work.store.open_image(image) as reader:
        return ebs.volume_size(reader.virtual_size, options.size)


def _free_of_others(cloud: Cloud, record: VolumeRecord, helper: Helper, work: Work) -> None:
    """Return when no instance but the helper has the volume. One that runs and has it is not robbed of it."""
    for one in record.attachments:
        if one.instance_id == helper.instance_id:
            continue
        other = cloud.describe_instance(one.instance_id)
        if other is not None and other.state not in _ENDING:
            raise CloudConflict(
                f"volume {record.volume_id} is attached to {one.instance_id}, which is {other.state}",
                hint=f"Detach it from {one.instance_id}, then `emi resume`.",
            )
        _detach(cloud, record.volume_id, work)


def _attached(
    cloud: Cloud, record: VolumeRecord, helper: Helper, shell: Shell, ours: Sequence[str], work: Work
) -> tuple[str, str]:
    """Return the device in the helper and the boot in which that is its name.

    Where no serial tells, the volume is attached anew to see what appears.
    """
    wanted, able = Wanted(volume_id=record.volume_id, size=record.size << 30), abilities.ask(shell)
    if record.attached_to(helper.instance_id):
        wait_attached(cloud, record.volume_id, helper.instance_id, progress=work.progress)
        try:
            return find(shell, able, wanted, patience=10).path, able.boot_id
        except DeviceAbsent:
            _detach(cloud, record.volume_id, work)
    before = listing.read(shell)
    _attach(cloud, record.volume_id, helper.instance_id, work)
    return find(shell, able, wanted, before=before, ours=ours, patience=120).path, before.boot_id


def _attach(cloud: Cloud, volume_id: str, instance_id: str, work: Work) -> None:
    record = cloud.describe_instance(instance_id)
    if record is None:
        raise CloudNotFound(f"helper {instance_id} is gone, says the cloud")
    device = free_device([record.root_device_name, *(name for name, _ in record.devices)])
    work.progress.note(f"attaching {volume_id} to {instance_id}")
    cloud.attach_volume(volume_id, instance_id, device)
    wait_attached(cloud, volume_id, instance_id, progress=work.progress)


def _detach(cloud: Cloud, volume_id: str, work: Work) -> None:
    """Return when nothing holds the volume. A guest that does not let go in time loses it."""
    record = cloud.describe_volume(volume_id)
    held = record.attachments[0] if record and record.attachments else None
    if held is None:
        return
    cloud.detach_volume(volume_id, held.instance_id)
    try:
        wait_detached(cloud, volume_id, patience=_ASKED, progress=work.progress)
    except CloudTrouble:
        work.progress.note(f"{held.instance_id} does not let go of {volume_id}: detaching it by force")
        cloud.detach_volume(volume_id, held.instance_id, force=True)
        wait_detached(cloud, volume_id, patience=_FORCED, progress=work.progress)


def _edges(inputs: Inputs, record: VolumeRecord, work: Work) -> Sequence[str]:
    """Return the digests of the image's first and last MiB as the volume has them: what a killed write may leave."""
    image = inputs.named.get("image")
    if not isinstance(image, File | ImageFile):
        return ()
    with work.store.open_image(image) as reader:
        starts = (0, (record.size << 30) - EDGE)
        return [hashlib.sha256(reader.pread(EDGE, start)).hexdigest() for start in starts]
