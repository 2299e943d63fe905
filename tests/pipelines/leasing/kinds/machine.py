"""A lease that stands for a helper: a volume of 1 GiB, which costs no boot."""

from __future__ import annotations

from pydantic import Field

from builder import durable
from builder.cloud.api import Call
from builder.cloud.claims import only
from builder.cloud.volumes import VolumeSpec, wait_created
from builder.errors import CloudError, CloudFailed
from pipelines.artifact import Helper
from pipelines.lease import LeaseStep
from pipelines.step import Options
from tests.pipelines.leasing import world


class MachineOptions(Options):
    """How it is made."""

    label: str = Field(default="", description="something that may change")


class MachineStep(LeaseStep[MachineOptions]):
    """Lease a machine."""

    options = MachineOptions
    returns = Helper

    def calls(self, options):
        return [Call("ec2", name) for name in ("DescribeVolumes", "CreateVolume", "DeleteVolume")]

    def find(self, options, claim, cloud):
        return only(claim, [found.volume_id for found in cloud.find_volumes(claim)], "volume")

    def acquire(self, options, inputs, claim, cloud, work):
        durable.write_file(work.scratch / "login", b"a private key")
        world.beside(claim.token).touch()
        zone = work.zone or world.next_zone()
        return cloud.create_volume(claim, VolumeSpec(size=1, zone=zone, tags=work.labels))

    def ready(self, options, inputs, held, cloud, work):
        zone = wait_created(cloud, held).zone
        if not (work.scratch / "login").exists():
            raise CloudFailed(f"nobody has the key of {held} any more")
        world.log("machine ready")
        key = f"leases/{work.scratch.name}/login"
        return Helper(instance_id=held, address="127.0.0.1", user="root", key_file=key, host_keys=(), zone=zone)

    def present(self, held, cloud):
        record = cloud.describe_volume(held)  # one that was just deleted is shown for a moment
        return record is not None and record.state != "deleting"

    def release(self, options, held, cloud, work):
        if (world.place() / "stuck").exists():
            raise CloudError(f"{held} does not go")
        world.require_free(held)
        cloud.delete_volume(held)
        self.clear(options, cloud, work)

    def clear(self, options, cloud, work):
        world.beside(work.claim.token).unlink(missing_ok=True)

    def by_hand(self, options, held, artifact, home):
        return f"ssh to {held} with a key below {home}"
