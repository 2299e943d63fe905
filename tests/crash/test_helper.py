"""Kill -9 anywhere in the twelve steps through a helper, then resume: one image, the right bytes, nothing left."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder import proc
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
    words: tuple[str, ...]
    disk: Path

    def run(self, number: int, *more: str, **environment: str) -> Any:
        words = (*self.words, "--var", f"image=twelve-{number}", *more)
        return self.emi("run", EBS_VIA_HELPER, *words, timeout=600, **environment)

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
        yield Twelve(emi, shelf(request.param), request.param, (*cloud, *words), tiny_disk)


@pytest.mark.sweep
@pytest.mark.timeout(7200)
def test_every_change(twelve: Twelve, tmp_path: Path, capsys: Any) -> None:
    said = twelve.sweep(changes, tmp_path / "points")
    with capsys.disabled():
        print(f"\ncrash sweep of ebs-via-helper, {said}")
