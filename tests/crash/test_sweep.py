"""Kill -9 at every journal write, every cloud call and inside the block upload, then resume: exactly one of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

MUTATING = re.compile(r"(before|after) (journal:|ebs:(Start|Complete)|ec2:Register)")


def points_of(log: Path) -> list[str]:
    """Return every moment that a whole run reached, in its order."""
    return list(dict.fromkeys(log.read_text().splitlines()))


def thinned(points: Iterable[str]) -> list[str]:
    """Keep every write of ours and of the cloud's; of blocks and of reads a few, spread over the whole."""
    chosen, blocks, reads = [], [], []
    for point in points:
        (chosen if MUTATING.match(point) else blocks if "PutSnapshotBlock" in point else reads).append(point)
    return chosen + blocks[:: max(1, len(blocks) // 8)] + reads[:: max(1, len(reads) // 5)]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A recipe that can be run under any number, each with an image and a snapshot of its own."""

    emi: Any
    sight: Any
    recipe: Path
    connections: int
    words: Callable[[int], tuple[str, ...]]
    image: str  # the image's name, with {} for the number
    snapshot: str  # the snapshot's description, likewise

    def sweep(self, choose: Callable[[list[str]], list[str]], log: Path) -> str:
        """Kill a run at each chosen moment, resume it, and look; return what was done, in words."""
        self.emi.run(self.recipe, *self.words(9000))  # what all runs share is done now: they reach the same points
        began = self.sight.position()
        self.emi.run(self.recipe, *self.words(9001), EMI_CRASH_LOG=str(log))
        blocks = self.puts_since(began)
        points = choose(points_of(log))
        assert len(points) >= 15
        assert sum("PutSnapshotBlock" in point for point in points) >= 3
        missed = [point for number, point in enumerate(points, start=1) if not self.survives(number, point, blocks)]
        assert len(missed) <= len(points) // 10, missed
        killed = len(points) - len(missed)
        return (
            f"crash sweep of {self.recipe.name}: {len(points)} points, {killed} killed, then one image and one snapshot"
        )

    def survives(self, number: int, point: str, blocks: int) -> bool:
        """Kill, resume, look; return whether the moment was reached (a poll may not have been needed)."""
        began = self.sight.position()
        cut = self.emi("run", self.recipe, *self.words(number), EMI_CRASH_AT=point)
        assert cut.code in (-9, 0), (point, cut.err)
        again = ("resume",) if number % 2 and cut.code else ("run", self.recipe, *self.words(number))
        resumed = self.emi(*again)
        assert resumed.code == 0, (point, resumed.err)
        images = self.sight.images(self.image.format(number))
        snapshots = self.sight.snapshots(self.snapshot.format(number))
        assert [image["State"] for image in images] == ["available"], point
        assert [snapshot["State"] for snapshot in snapshots] == ["completed"], point
        assert images[0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == snapshots[0]["SnapshotId"], point
        assert blocks <= self.puts_since(began) <= blocks + self.connections, point
        return cut.code != 0

    def puts_since(self, position: int) -> int:
        return self.sight.calls_since(position)["ebs:PutSnapshotBlock"]


@pytest.fixture
def tiny(emi, sight, recipe, tiny_disk, connections) -> Subject:
    return Subject(
        emi=emi,
        sight=sight,
        recipe=recipe,
        connections=connections,
        words=lambda number: ("--var", f"disk={tiny_disk}", "--var", f"n={number}"),
        image="sweep-{}",
        snapshot="sweep {}",
    )


@pytest.mark.timeout(1800)
def test_a_few_points(tiny, tmp_path, capsys) -> None:
    said = tiny.sweep(lambda points: thinned(points)[::2], tmp_path / "points")
    with capsys.disabled():
        print(f"\n{said}")


@pytest.mark.sweep
@pytest.mark.timeout(5400)
def test_every_point(tiny, tmp_path, capsys) -> None:
    said = tiny.sweep(list, tmp_path / "points")
    with capsys.disabled():
        print(f"\n{said}")


@pytest.mark.sweep
@pytest.mark.timeout(5400)
def test_the_demos_cloud_steps(demo, eyes, tmp_path, capsys) -> None:
    subject = Subject(
        emi=demo.emi,
        sight=eyes(demo.emi),
        recipe=ROOT / "recipes" / "debian-12.yaml",
        connections=64,
        words=lambda number: ("--var", f"version=sweep-{number}"),  # the demo itself is version 12
        image="debian-sweep-{}-amd64",
        snapshot="Debian sweep-{}",
    )
    said = subject.sweep(thinned, tmp_path / "points")
    with capsys.disabled():
        print(f"\n{said}")
