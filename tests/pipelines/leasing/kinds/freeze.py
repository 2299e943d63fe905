"""A step that makes a snapshot of what is in a volume."""

from __future__ import annotations

from pydantic import Field

from builder.cloud import snapshots
from builder.cloud.api import Call
from builder.cloud.claims import only
from builder.errors import CloudNotFound
from pipelines.artifact import Snapshot, Volume
from pipelines.step import CloudStep, Options
from tests.pipelines.leasing import world


class FreezeOptions(Options):
    """What it is called."""

    description: str = Field(default="", description="of the snapshot")


class FreezeStep(CloudStep[FreezeOptions]):
    """Take a snapshot of a volume."""

    options = FreezeOptions
    accepts = (Volume,)
    returns = Snapshot

    def calls(self, options):
        actions = ("StartSnapshot", "CompleteSnapshot")
        return (Call("ec2", "DescribeSnapshots"), *(Call("ebs", action) for action in actions))

    def find(self, options, inputs, claim, cloud):
        return only(claim, [found.snapshot_id for found in cloud.find_snapshots(claim)], "snapshot")

    def start(self, options, inputs, claim, cloud, work):
        volume = inputs.source
        if cloud.describe_volume(volume.volume_id) is None:
            raise CloudNotFound(f"{volume.volume_id} is gone")
        assert world.read(volume.volume_id) == volume.content
        world.detach(volume.volume_id)  # as `snapshot` does: what a guest has not written yet would be missing
        started = cloud.start_snapshot(
            claim, volume_size=volume.size, description=options.description, tags=work.labels, parent=None
        )
        return started.snapshot_id

    def finish(self, options, inputs, effect, cloud, work):
        record = cloud.describe_snapshot(effect)
        if record is None or record.status != snapshots.COMPLETED:
            cloud.complete_snapshot(effect, changed_blocks=0, checksum=None)
            snapshots.wait_completed(cloud, effect)
        return Snapshot(
            snapshot_id=effect,
            region=cloud.region,
            volume_size=inputs.source.size,
            content=inputs.source.content,
            blocks=0,
            verified=False,
        )

    def present(self, artifact, cloud):
        return cloud.describe_snapshot(artifact.snapshot_id) is not None

    def discard(self, effect, cloud, work):
        cloud.delete_snapshot(effect)
