"""A lease that stands for a volume, attached to a machine."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from builder.cloud.api import Call
from builder.cloud.claims import only
from builder.cloud.volumes import VolumeSpec, wait_created
from builder.errors import CloudNotFound
from pipelines.artifact import Helper, Volume
from pipelines.lease import LeaseStep
from pipelines.step import Options, Reference
from tests.pipelines.leasing import world


class DiskOptions(Options):
    """How it is made."""

    on: Annotated[str, Reference(Helper)] = Field(description="the machine")
    size: int = Field(default=2, description="GiB")


class DiskStep(LeaseStep[DiskOptions]):
    """Lease a volume."""

    options = DiskOptions
    returns = Volume
    outlives_failure = True

    def calls(self, options):
        return [Call("ec2", name) for name in ("DescribeVolumes", "CreateVolume", "DeleteVolume")]

    def find(self, options, claim, cloud):
        return only(claim, [found.volume_id for found in cloud.find_volumes(claim)], "volume")

    def acquire(self, options, inputs, claim, cloud, work):
        zone = inputs.named["on"].zone
        return cloud.create_volume(claim, VolumeSpec(size=options.size, zone=zone, tags=work.labels))

    def ready(self, options, inputs, held, cloud, work):
        helper = inputs.named["on"]
        if (zone := wait_created(cloud, held).zone) != helper.zone:
            raise CloudNotFound(f"{held} is in {zone}, {helper.instance_id} in {helper.zone}")
        world.attach(held, helper.instance_id)
        return Volume(volume_id=held, size=options.size, zone=helper.zone, helper=helper, device="/dev/vdb")

    def present(self, held, cloud):
        record = cloud.describe_volume(held)  # one that was just deleted is shown for a moment
        return record is not None and record.state != "deleting"

    def zone(self, options, held, cloud):
        record = cloud.describe_volume(held)
        return record and record.zone

    def part(self, options, held, cloud, work):
        world.detach(held)

    def release(self, options, held, cloud, work):
        world.detach(held)
        cloud.delete_volume(held)

    def by_hand(self, options, held, artifact, home):
        return f"`emi gc {held}` removes it"
