"""The step kind `snapshot`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from pydantic import Field

from builder.cloud import ebs, snapshots, volumes
from builder.cloud.api import Call, Cloud
from builder.cloud.claims import Claim, only, tag_problems
from builder.cloud.ledger import Ledger
from builder.cloud.wait import left_by_a_kill
from builder.digest import BLOCK
from builder.errors import UsageError
from builder.image.raw import RawReader
from builder.image.stream import ImageReader
from pipelines.artifact import AnyArtifact, File, ImageFile, Snapshot, Volume
from pipelines.step import NOTHING, Before, CloudStep, Foreseen, Inputs, Options, Reference, Work

_DIRECT = tuple(Call("ebs", action) for action in ("StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot"))
_READING = tuple(Call("ebs", action) for action in ("ListSnapshotBlocks", "GetSnapshotBlock"))
_OF_VOLUME = tuple(
    Call("ec2", action) for action in ("DescribeSnapshots", "DescribeVolumes", "DetachVolume", "CreateSnapshot")
)


class SnapshotOptions(Options):
    """How the image becomes a snapshot."""

    description: str = Field(default="", max_length=255, description="the snapshot's description in the cloud")
    volume_size: int | None = Field(
        default=None, ge=1, le=65536, description="GiB of the volume; by default as few as hold the image, never fewer"
    )
    tags: dict[str, str] = Field(default_factory=dict, description="tags of the snapshot, set as it is created")
    verify: bool = Field(
        default=True,
        description="read the whole snapshot back and compare its digest with the image's; of a volume where the cloud "
        "has the EBS direct APIs, else what was read back from the device must do",
    )
    parent: Annotated[str | None, Reference(Snapshot)] = Field(
        default=None, description="id of an earlier snapshot step: only blocks that differ from it are sent"
    )
    parent_snapshot: str | None = Field(
        default=None, description="id of a snapshot that the cloud has already, in the role of `parent`: `snap-…`"
    )
    connections: int = Field(
        default=ebs.CONNECTIONS,
        ge=1,
        le=256,
        exclude=True,
        description="blocks that are sent or read back at the same time",
    )


class SnapshotStep(CloudStep[SnapshotOptions]):
    """Upload an image into a new EBS snapshot, or take one of a volume that was written to.

    Blocks of 512 KiB go through the EBS direct APIs, straight from the image's data extents; zero and unallocated
    blocks are never sent. Each block and the whole are checksummed. After a crash the upload goes on where it was.

    Of a volume (`from:` the `write` step), for clouds that have no such APIs: it is detached, so that all that was
    written is on it, and CreateSnapshot takes it as it is. `volume_size`, `parent` and `connections` are not for it.
    """

    options = SnapshotOptions
    accepts = (ImageFile, File, Volume)
    returns = Snapshot

    def check(self, options: SnapshotOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        wrong = []
        if options.parent and options.parent_snapshot:
            wrong.append("`parent` and `parent_snapshot` exclude each other: a snapshot has one parent")
        if options.parent_snapshot and not options.parent_snapshot.startswith("snap-"):
            wrong.append(f"`parent_snapshot` must be the id of a snapshot (snap-…), not {options.parent_snapshot!r}")
        return [*wrong, *tag_problems(options.tags)]

    def calls(self, options: SnapshotOptions) -> Sequence[Call]:
        """Return every kind of API call that the step may make."""
        reads = options.verify or options.parent or options.parent_snapshot
        reading = _READING if reads else ()
        return (Call("ec2", "DescribeSnapshots"), *_DIRECT, *reading)

    def calls_upon(self, options: SnapshotOptions, source: type[AnyArtifact] | None) -> Sequence[Call]:
        """Return the calls for a volume, where it is one; whether it can be read back depends on the cloud."""
        return _OF_VOLUME if source is Volume else self.calls(options)

    def preflight(
        self, options: SnapshotOptions, cloud: Cloud, may_be_ours: Callable[[str], bool], before: Before = NOTHING
    ) -> None:
        """Refuse what a volume has no use for."""
        given = [name for name in ("volume_size", "parent", "parent_snapshot") if getattr(options, name) is not None]
        if before.source.returns is Volume and given:
            raise UsageError(
                f"`{given[0]}` of step `snapshot` is for an image that is uploaded, not for a volume",
                hint="Remove it; the size is that of the `volume` step.",
            )

    def foresee(self, options: SnapshotOptions, source: Foreseen) -> Foreseen:
        """Return the size of the volume, when it is said or follows from an image that is there."""
        image = source.result
        if options.volume_size is None and isinstance(image, ImageFile):
            return Foreseen(volume_size=ebs.volume_size(image.virtual_size, None))
        return Foreseen(volume_size=options.volume_size)

    def find(self, options: SnapshotOptions, inputs: Inputs, claim: Claim, cloud: Cloud) -> str | None:
        """Return the id of the snapshot that carries the claim."""
        return only(claim, [found.snapshot_id for found in cloud.find_snapshots(claim)], "snapshot")

    def start(self, options: SnapshotOptions, inputs: Inputs, claim: Claim, cloud: Cloud, work: Work) -> str:
        """Start the snapshot under the claim's token; of a volume, once nothing holds it any more."""
        if isinstance(inputs.source, Volume):
            look = partial(self.find, options, inputs, claim, cloud)  # CreateSnapshot takes no token
            left = left_by_a_kill(look, intended=work.intended, what="the snapshot", progress=work.progress)
            if left:
                return left
            _let_go(inputs.source, cloud, work)
            tags = {**work.labels, **options.tags}
            return cloud.create_snapshot(claim, inputs.source.volume_id, description=options.description, tags=tags)
        with work.store.open_image(_image(inputs)) as reader:
            size = ebs.volume_size(reader.virtual_size, options.volume_size)
        # Nothing here may differ between two runs: the same token with other parameters is a ConflictException.
        started = cloud.start_snapshot(
            claim,
            volume_size=size,
            description=options.description,
            tags={**work.labels, **options.tags},
            parent=_parent(options, inputs),
        )
        return started.snapshot_id

    def finish(self, options: SnapshotOptions, inputs: Inputs, effect: str, cloud: Cloud, work: Work) -> Snapshot:
        """Send the blocks, seal the snapshot, wait for it, and read it back."""
        if isinstance(inputs.source, Volume):
            return self._of_volume(options, inputs.source, effect, cloud, work)
        image = _image(inputs)
        with work.store.open_image(image) as reader, Ledger(work.scratch / "blocks", effect) as ledger:
            virtual_size = reader.virtual_size
            publication = snapshots.Publication(
                reader=reader,
                cloud=cloud,
                snapshot_id=effect,
                cache=work.outside.cache / "blocks",
                expected=_expected(image, reader),
                parent=_parent(options, inputs),
                connections=options.connections,
                progress=work.progress,
            )
            sent = publication.publish(ledger)
        if options.verify:
            work.progress.total(2 * sent.blocks * BLOCK)  # what was sent is read back
            with Ledger(work.scratch / "read-back", effect) as ledger:
                snapshots.verify(
                    cloud,
                    effect,
                    sent.content,
                    virtual_size,
                    ledger=ledger,
                    connections=options.connections,
                    progress=work.progress,
                )
        return Snapshot(
            snapshot_id=effect,
            region=cloud.region,
            volume_size=ebs.volume_size(virtual_size, options.volume_size),
            content=sent.content,
            blocks=sent.blocks,
            verified=options.verify,
        )

    def _of_volume(self, options: SnapshotOptions, volume: Volume, effect: str, cloud: Cloud, work: Work) -> Snapshot:
        """Wait for the snapshot, and read it back where that can be done."""
        if volume.content is None or volume.blocks is None or volume.content_size is None:
            raise UsageError(
                f"nothing has been written to volume {volume.volume_id}",
                hint="Let `snapshot` take the result of a `write` step, not the `volume` itself.",
            )
        snapshots.wait_completed(cloud, effect, progress=work.progress)
        verified = options.verify and cloud.capabilities.ebs_direct
        if verified:
            work.progress.total(volume.blocks * BLOCK)
            with Ledger(work.scratch / "read-back", effect) as ledger:
                snapshots.verify(
                    cloud,
                    effect,
                    volume.content,
                    volume.content_size,
                    ledger=ledger,
                    connections=options.connections,
                    progress=work.progress,
                )
        elif options.verify:
            work.progress.note(
                f"this cloud cannot read {effect} back; what was read back is the device of {volume.volume_id}"
            )
        return Snapshot(
            snapshot_id=effect,
            region=cloud.region,
            volume_size=volume.size,
            content=volume.content,
            blocks=volume.blocks,
            verified=verified,
        )

    def discard(self, effect: str, cloud: Cloud, work: Work) -> None:
        """Delete the snapshot that failed."""
        cloud.delete_snapshot(effect)

    def present(self, artifact: AnyArtifact, cloud: Cloud) -> bool:
        """Say whether the cloud still has the snapshot, whole."""
        assert isinstance(artifact, Snapshot)
        record = cloud.describe_snapshot(artifact.snapshot_id)
        return record is not None and record.status == snapshots.COMPLETED


def _let_go(volume: Volume, cloud: Cloud, work: Work) -> None:
    """Return once no instance has the volume: what a guest still holds in its memory would be missing."""
    record = cloud.describe_volume(volume.volume_id)
    for attachment in record.attachments if record else ():
        work.progress.note(f"detaching {volume.volume_id} from {attachment.instance_id}")
        cloud.detach_volume(volume.volume_id, attachment.instance_id)
    volumes.wait_detached(cloud, volume.volume_id, progress=work.progress)


def _image(inputs: Inputs) -> File | ImageFile:
    assert isinstance(inputs.source, File | ImageFile)
    return inputs.source


def _expected(image: File | ImageFile, reader: ImageReader) -> str | None:
    """Return the digest that the content must have, where the artifact's name is that of a raw disk's content."""
    # The store names any sparse file by its blocks; those of a qcow2 file are not those of the disk inside it, and
    # those of a disk not those of a partition.
    if isinstance(image, ImageFile):
        raw = image.format == "raw" and image.window is None
    else:
        raw = isinstance(reader, RawReader)
    return image.digest if raw and image.digest.startswith("blocks:") else None


def _parent(options: SnapshotOptions, inputs: Inputs) -> str | None:
    named = inputs.named.get("parent")
    return named.snapshot_id if isinstance(named, Snapshot) else options.parent_snapshot
