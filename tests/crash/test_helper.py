"""Kill -9 anywhere in the twelve steps through a helper, then resume: one image, the right bytes, nothing left."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder import proc
from builder.cloud.claims import Claim
from builder.cloud.wait import wait_until
from builder.sandbox import lifecycle
from tests.serving import serve

ROOT = Path(__file__).parents[2]
EBS_VIA_HELPER = ROOT / "recipes" / "ebs-via-helper.yaml"
# What the twelve steps change in the cloud, and what emi writes of it.
CHANGES = re.compile(r"(before|after) (journal:|ec2:(?!Describe))")
MIB = 1 << 20


@dataclass(frozen=True)
class Twelve:
    """The recipe in one of emi's sandboxes with light machines, under any number; and what is left there."""

    emi: Any
    shelf: Any
    cloud: str
    helper: str
    words: tuple[str, ...]
    disk: Path

    def run(self, number: int, *, recipe: Path = EBS_VIA_HELPER, **environment: str) -> Any:
        return self.emi("run", recipe, *self.words, "--var", f"image=twelve-{number}", timeout=600, **environment)

    def start(self, number: int, recipe: Path, **environment: str) -> Any:
        return self.emi.start("run", recipe, *self.words, "--var", f"image=twelve-{number}", **environment)

    def resume(self, number: int) -> None:
        """Go on: by `emi resume`, or by running the recipe again."""
        done = self.emi("resume", timeout=600) if number % 2 else self.run(number)
        assert done.code == 0, done.err

    def volumes(self) -> set[str]:
        """Return the volumes that are ours, helpers' own disks left out."""
        found = self.shelf.client("ec2").describe_volumes(Filters=[{"Name": "tag-key", "Values": ["emi:claim"]}])
        return {volume["VolumeId"] for volume in found["Volumes"]}

    def survives(self, number: int, point: str) -> bool:
        """Kill, resume, look; return whether the moment was reached (a poll may not have been needed)."""
        cut = self.run(number, EMI_CRASH_AT=point)
        assert cut.code in (-9, 0), (point, cut.err)
        began = self.volumes()
        if cut.code:
            self.resume(number)
        self.require_one(number, point, began)
        return bool(cut.code)

    def require_one(self, number: int, point: str, began: set[str]) -> None:
        """Expect one image of one snapshot, of the volume that there was, with the disk's bytes, and nothing else."""
        (image,) = self.shelf.images(f"twelve-{number}")
        (snapshot,) = self.snapshots(number)
        assert (image["State"], snapshot["State"]) == ("available", "completed"), point
        assert image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == snapshot["SnapshotId"], point
        assert not began or began == {snapshot["VolumeId"]}, point
        data = self.shelf.endpoint.directory / "disks" / snapshot["SnapshotId"] / "data"
        assert digest(data, self.disk.stat().st_size) == digest(self.disk, self.disk.stat().st_size), point
        self.require_nothing_left(point)

    def snapshots(self, number: int) -> list[dict[str, Any]]:
        filters = [{"Name": "description", "Values": [f"twelve-{number}"]}]
        return list(self.shelf.client("ec2").describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"])

    def require_nothing_left(self, point: str) -> None:
        ec2 = self.shelf.client("ec2")
        states = [
            one["State"]["Name"] for each in ec2.describe_instances()["Reservations"] for one in each["Instances"]
        ]
        assert set(states) <= {"terminated"}, point
        assert ec2.describe_volumes()["Volumes"] == [], point
        assert ec2.describe_key_pairs()["KeyPairs"] == [], point
        assert [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]] == ["default"], point
        assert list((self.emi.home / "leases").glob("*")) == [], point

    def everything(self) -> dict[str, str]:
        """Return all that helpers could have made: names and ids, with what says that it is the same as before."""
        ec2 = self.shelf.client("ec2")
        launched = [one for each in ec2.describe_instances()["Reservations"] for one in each["Instances"]]
        found = {one["InstanceId"]: one["State"]["Name"] for one in launched if one["State"]["Name"] != "terminated"}
        volumes = ec2.describe_volumes()["Volumes"]
        found |= {one["VolumeId"]: one["State"] for one in volumes if one["State"] != "deleting"}
        found |= {one["KeyName"]: one["KeyFingerprint"] for one in ec2.describe_key_pairs()["KeyPairs"]}
        found |= {one["GroupId"]: one["GroupName"] for one in ec2.describe_security_groups()["SecurityGroups"]}
        return found

    def sweep(self, choose: Callable[[list[str]], list[str]], log: Path) -> str:
        """Kill a run at each chosen moment; return what was done, in words."""
        done = self.run(9000, EMI_CRASH_LOG=str(log))
        assert done.code == 0, done.err
        self.require_one(9000, "none", set())
        points = choose(list(dict.fromkeys(log.read_text().splitlines())))
        assert len(points) >= 10
        missed = [point for number, point in enumerate(points) if not self.survives(number, point)]
        assert len(missed) <= len(points) // 10, missed
        return f"{self.cloud}: {len(points)} points, {len(points) - len(missed)} killed, then one image, nothing left"


def digest(path: Path, size: int) -> str:
    """Return the SHA-256 of a file's first `size` bytes."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while size > 0 and (piece := file.read(min(size, MIB))):
            found.update(piece)
            size -= len(piece)
    return found.hexdigest()


def changes(points: Iterable[str]) -> list[str]:
    """Keep the moments at which something is written or changed, and every eighth of the others."""
    kept: list[str] = []
    others: list[str] = []
    for point in points:
        (kept if CHANGES.match(point) else others).append(point)
    return kept + others[::8]


@pytest.fixture(params=["aws", "eucalyptus"])
def twelve(
    request: Any, emi: Any, shelf: Any, bundles_recipe: Path, small_root: Path, tiny_disk: Path, tmp_path: Path
) -> Iterator[Twelve]:
    """A publisher's qcow2 behind a web server, and a helper's image in the instance store."""
    directory = emi.home / ("sandbox" if request.param == "aws" else "sandbox-eucalyptus")
    lifecycle.start(directory, personality=request.param, machines="light")
    cloud = ("--cloud", "sandbox" if request.param == "aws" else "sandbox:eucalyptus")
    helper = emi.run(bundles_recipe, "--var", "n=0", "--var", f"disk={small_root}", *cloud)["outputs"]["image"]
    served = tmp_path / "served"
    served.mkdir()
    proc.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", tiny_disk, served / "disk.qcow2"])
    name = "disk.qcow2"
    (served / "SHA512SUMS").write_text(f"{hashlib.sha512((served / name).read_bytes()).hexdigest()}  {name}\n")
    with serve(served) as port:
        url = f"http://127.0.0.1:{port}"
        told = {"helper": helper, "user": "root", "url": f"{url}/{name}", "checksum": f"{url}/SHA512SUMS", "size": 1}
        words = [word for key, value in told.items() for word in ("--var", f"{key}={value}")]
        yield Twelve(emi, shelf(request.param), request.param, helper, (*cloud, *words), tiny_disk)


@pytest.mark.sweep
@pytest.mark.timeout(7200)
def test_every_change(twelve: Twelve, tmp_path: Path, capsys: Any) -> None:
    said = twelve.sweep(changes, tmp_path / "points")
    with capsys.disabled():
        print(f"\ncrash sweep of ebs-via-helper, {said}")


def like_ours(twelve: Twelve) -> dict[str, str]:
    """Make, as other tools do, instances, volumes, key pairs and groups that look nearly like ours; return them."""
    before, ec2, token = twelve.everything(), twelve.shelf.client("ec2"), Claim("somebody else's").token
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    # Eucalyptus' CreateVolume knows no ClientToken, which boto3 sends by itself.
    ec2.meta.events.register_last(
        "before-call.ec2.CreateVolume", lambda params, **_: params["body"].pop("ClientToken", None) and None
    )
    for key, value in (("emi:claims", token), ("emi:claim", token.upper()), ("emi:claim", token[:-1]), ("Name", token)):
        name = f"emi-{value}"[:255]
        launched = ec2.run_instances(ImageId=twelve.helper, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
        volume = ec2.create_volume(Size=1, AvailabilityZone=zone)["VolumeId"]
        ec2.create_tags(Resources=[launched, volume], Tags=[{"Key": key, "Value": value}])
        if name != f"emi-{token}":
            ec2.create_key_pair(KeyName=name + key[-1])
            ec2.create_security_group(GroupName=name + key[-1], Description="emi helper, made at 2024-05-06T07:08:09Z")
    settled = {"running", "available"}
    wait_until(
        lambda: [state for one, state in twelve.everything().items() if one.startswith(("i-", "vol-"))],
        lambda states: set(states) <= settled,
        what="what others made",
    )
    return {one: state for one, state in twelve.everything().items() if one not in before}


@pytest.mark.sweep
@pytest.mark.timeout(1800)
def test_gc_takes_what_killed_helpers_left_and_nothing_else(twelve: Twelve, tmp_path: Path) -> None:
    theirs = like_ours(twelve)
    before = twelve.everything()
    assert len([one for one in theirs if one.startswith("i-")]) == 4

    def gc(*words: str) -> dict[str, Any]:
        done = twelve.emi("gc", *twelve.words[:2], "--json", "--older-than", "0", *words)
        assert done.code == 0, done.err
        return dict(json.loads(done.out))

    names = [("ended", "after ec2:AttachVolume"), ("launched", "after ec2:RunInstances")]
    for name, point in names:
        assert twelve.run(1, recipe=renamed(tmp_path, name), EMI_CRASH_AT=point).code == -9
    ended = twelve.everything().keys() - before.keys()
    assert len([one for one in ended if one.startswith("i-")]) == 2

    working = twelve.start(2, renamed(tmp_path, "working"), EMI_STOP_AT="after ec2:AttachVolume")
    try:
        wait_until(
            lambda: Path(f"/proc/{working.pid}/stat").read_text().rpartition(")")[2].split()[0],
            lambda state: state == "T",
            what="a run in the middle of its work",
        )
        all_ = twelve.everything()
        seen = {one["id"]: one for one in gc()["things"]}
        assert {one for one, judged in seen.items() if judged["goes"]} == ended
        in_progress = {one for one, judged in seen.items() if judged["verdict"] == "in progress"}
        assert all_.keys() - before.keys() - ended <= in_progress
        assert not seen.keys() & theirs.keys()
        assert [one for one in seen.values() if one["goes"] and not (one["recipe"] and one["run"] and one["why"])] == []
        assert twelve.everything() == all_  # a dry run
        done = gc("--yes")
        assert ({one["id"] for one in done["removed"]}, done["refused"], done["kept"]) == (ended, [], [])
        assert twelve.everything() == {one: state for one, state in all_.items() if one not in ended}
    finally:
        working.kill()
        working.communicate()
    assert {one["id"] for one in gc("--yes")["removed"]} == all_.keys() - before.keys() - ended
    assert twelve.everything() == before


def renamed(place: Path, name: str) -> Path:
    """Return the recipe under another name: its helper is another."""
    path = place / f"{name}.yaml"
    path.write_text(EBS_VIA_HELPER.read_text().replace("name: ebs-via-helper", f"name: {name}", 1))
    return path
