"""The step kind `volume`, on a helper that is leased beside it: a light machine of the sandbox."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from builder.cloud.api import BlockDevice, Cloud, ImageSpec
from builder.cloud.claims import Claim
from builder.cloud.eucalyptus import Eucalyptus
from builder.cloud.images import wait_available
from builder.cloud.settings import Settings
from builder.cloud.snapshots import wait_completed
from builder.cloud.volumes import VolumeSpec, wait_created
from builder.errors import CloudConflict, CloudNotFound, UsageError
from builder.progress import SILENT
from builder.sandbox import lifecycle
from pipelines import logins
from pipelines.artifact import Helper
from pipelines.home import Home
from pipelines.kinds import load
from pipelines.step import Inputs, Outside, Work
from pipelines.store import FileStore
from pipelines.targets import SANDBOX, open_target

HELPER, VOLUME = load("helper"), load("volume")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A home, and a cloud whose instances are light machines."""

    home: Home
    cloud: Cloud
    image_id: str

    def work(self, claim: Claim) -> Work:
        """Return where a lease works."""
        root = self.home.root
        scratch = self.home.leases / claim.token[:32]
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        outside = Outside(recipe_directory=root, cache=root, store=FileStore(root / "objects"))
        remote = lambda helper: logins.log_in(helper, root, self.cloud, SILENT)  # noqa: E731 - as Work has it
        return Work(scratch=scratch, outside=outside, pins={}, progress=SILENT, claim=claim, remote=remote)

    def helper(self, claim: Claim) -> Helper:
        """Lease a helper."""
        options, work = HELPER.options(image_id=self.image_id), self.work(claim)
        assert HELPER.find(options, claim, self.cloud) is None
        HELPER.preflight(options, self.cloud)
        held = HELPER.acquire(options, Inputs(), claim, self.cloud, work)
        assert HELPER.find(options, claim, self.cloud) == held
        found = HELPER.ready(options, Inputs(), held, self.cloud, work)
        assert HELPER.present(held, self.cloud)
        assert (self.home.root / found.key_file).stat().st_mode & 0o777 == 0o600
        assert f"{found.user}@{found.address}" in HELPER.by_hand(options, held, found, self.home.root)
        return found

    def give_back(self, claim: Claim, helper: Helper) -> None:
        """Release the helper."""
        options = HELPER.options(image_id=self.image_id)
        HELPER.release(options, helper.instance_id, self.cloud, self.work(claim))
        assert HELPER.find(options, claim, self.cloud) is None
        assert not HELPER.present(helper.instance_id, self.cloud)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = Home(tmp_path_factory.mktemp("volume") / "home").make()
    lifecycle.start(home.sandbox, machines="light")
    cloud = open_target(SANDBOX, home).cloud
    zone, claim = cloud._call("ec2", "DescribeAvailabilityZones")["AvailabilityZones"][0]["ZoneName"], Claim("image")
    volume = cloud.create_volume(claim, VolumeSpec(size=1, zone=zone))
    wait_created(cloud, volume)
    snapshot = cloud.create_snapshot(claim, volume, description="", tags={})
    wait_completed(cloud, snapshot)
    spec = ImageSpec(name="image", block_devices=[BlockDevice(device_name="/dev/xvda", snapshot_id=snapshot)])
    image = wait_available(cloud, cloud.register_image(claim, spec)).image_id
    yield Place(home=home, cloud=cloud, image_id=image)
    lifecycle.stop(home.sandbox)


def test_a_volume_is_attached_found_parted_and_removed(place) -> None:
    cloud, of_helper, claim = place.cloud, Claim(secrets.token_hex(8)), Claim(secrets.token_hex(8))
    helper = place.helper(of_helper)
    inputs, work = Inputs(named={"helper": helper}), place.work(claim)
    options = VOLUME.options(helper="h", size=2, volume_type="gp3")
    VOLUME.preflight(options, cloud)
    held = VOLUME.acquire(options, inputs, claim, cloud, work)
    assert VOLUME.find(options, claim, cloud) == held
    made = VOLUME.ready(options, inputs, held, cloud, work)
    assert (made.volume_id, made.size, made.zone, made.helper) == (held, 2, helper.zone, helper)
    assert VOLUME.ready(options, inputs, held, cloud, work).device == made.device  # attached already
    with work.remote(helper) as shell:
        assert shell.run(["blockdev", "--getsize64", made.device]).stdout == b"%d\n" % (2 << 30)
        assert shell.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.decode().strip() == made.boot
    elsewhere = Inputs(named={"helper": helper.model_copy(update={"instance_id": "i-0123456789abcdef0"})})
    with pytest.raises(CloudConflict, match=f"is attached to {helper.instance_id}, which is running"):
        VOLUME.ready(options, elsewhere, held, cloud, work)
    far = Inputs(named={"helper": helper.model_copy(update={"zone": "elsewhere"})})
    with pytest.raises(CloudNotFound, match="and its helper in elsewhere"):
        VOLUME.ready(options, far, held, cloud, work)
    for _ in range(2):
        VOLUME.part(options, held, cloud, work)
    assert cloud.describe_volume(held).state == "available"
    place.give_back(of_helper, helper)
    assert VOLUME.present(held, cloud)
    for _ in range(2):
        VOLUME.release(options, held, cloud, work)
    assert not VOLUME.present(held, cloud)
    assert held in VOLUME.by_hand(options, held, None, place.home.root)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, "give the `size`"),
        ({"size": 1, "encrypted": False, "kms_key_id": "k"}, "`kms_key_id` is for"),
        ({"size": 1, "tags": {"aws:x": "y"}}, "reserved"),
    ],
)
def test_what_is_wrong_with_the_options_is_told(told, said) -> None:
    assert any(said in problem for problem in VOLUME.check(VOLUME.options(helper="h", **told)))


def test_what_a_cloud_cannot_do_is_told_before_anything_is_made() -> None:
    cloud = Eucalyptus(Settings(region="eucalyptus"))
    with pytest.raises(UsageError, match="takes no Encrypted"):
        VOLUME.preflight(VOLUME.options(helper="h", size=1, encrypted=True), cloud)
    VOLUME.preflight(VOLUME.options(helper="h", size=1, volume_type="fast"), cloud)
