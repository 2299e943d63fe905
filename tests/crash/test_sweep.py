"""Kill -9 at every journal write, every cloud call and inside the block upload, then resume: exactly one of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

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


@pytest.mark.timeout(1800)
def test_a_few_points(emi, sight, recipe, tiny_disk, connections, tmp_path, capsys) -> None:
    sweep(emi, sight, recipe, tiny_disk, connections, tmp_path, capsys, choose=thinned)


@pytest.mark.sweep
@pytest.mark.timeout(5400)
def test_every_point(emi, sight, recipe, tiny_disk, connections, tmp_path, capsys) -> None:
    sweep(emi, sight, recipe, tiny_disk, connections, tmp_path, capsys, choose=list)


def sweep(emi, sight, recipe, disk, connections, tmp_path, capsys, *, choose) -> None:
    log = tmp_path / "points"
    emi.run(recipe, "--var", f"disk={disk}")  # the download is done once, so that every run reaches the same points
    whole = emi.run(recipe, "--var", f"disk={disk}", "--var", "n=1000", EMI_CRASH_LOG=str(log))
    blocks = whole["outputs"]["blocks"]
    points = choose(points_of(log))
    assert len(points) >= 25
    assert sum("PutSnapshotBlock" in point for point in points) >= 4
    missed = []
    for number, point in enumerate(points, start=1):
        words = ("--var", f"disk={disk}", "--var", f"n={number}")
        began = sight.position()
        cut = emi("run", recipe, *words, EMI_CRASH_AT=point)
        if cut.code == 0:
            missed.append(point)  # a poll that this run did not need
        else:
            assert cut.code == -9, (point, cut.err)
        resumed = emi("resume") if number % 2 and cut.code else emi("run", recipe, *words)
        assert resumed.code == 0, (point, resumed.err)
        check(sight, number, point, began=began, blocks=blocks, connections=connections)
    assert len(missed) <= len(points) // 10, missed
    with capsys.disabled():
        killed = len(points) - len(missed)
        print(f"\ncrash sweep: {len(points)} points tried, {killed} killed, then one image and one snapshot each")


def check(sight, number: int, point: str, *, began: int, blocks: int, connections: int) -> None:
    images, snapshots = sight.images(f"sweep-{number}"), sight.snapshots(f"sweep {number}")
    assert [image["State"] for image in images] == ["available"], point
    assert [snapshot["State"] for snapshot in snapshots] == ["completed"], point
    used = images[0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert used == snapshots[0]["SnapshotId"], point
    puts = sight.calls_since(began)["ebs:PutSnapshotBlock"]
    assert blocks <= puts <= blocks + connections, (point, puts)
