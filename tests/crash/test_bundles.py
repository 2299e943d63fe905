"""Kill -9 in bundle, upload and register, then resume: one image, each part sent once, nothing else in the bucket."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MUTATING = re.compile(r"(before|after) (journal:|s3:(PutObject|CreateBucket)|ec2:(Register|CreateTags))|bundle")
# Where something is begun or committed: the key, a part on its way early, the manifest, the image without its tag.
CHOSEN = {
    "aws": ("after s3:PutObject@7",),
    "eucalyptus": ("after s3:PutObject@3", "after ec2:RegisterImage@1"),
}
PERSONALITIES = ("aws", "eucalyptus")


def points_of(log: Path) -> list[str]:
    """Return every moment that a whole run reached, in its order."""
    return list(dict.fromkeys(log.read_text().splitlines()))


def thinned(points: Iterable[str]) -> list[str]:
    """Keep every write of ours and of the cloud's, and a few of the reads."""
    writes, reads = [], []
    for point in points:
        (writes if MUTATING.match(point) else reads).append(point)
    return writes + reads[:: max(1, len(reads) // 8)]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A recipe that can be run under any number, each with a bucket and an image of its own."""

    emi: Any
    shelf: Any
    recipe: Path
    disk: Path
    cloud: str

    def words(self, number: int) -> tuple[str, ...]:
        return ("--var", f"disk={self.disk}", "--var", f"n={number}", "--cloud", self.cloud)

    def learn(self, log: Path) -> list[str]:
        """Run it undisturbed; return the moments it reached when what all runs share was done."""
        self.emi.run(self.recipe, *self.words(9000))
        self.emi.run(self.recipe, *self.words(9001), EMI_CRASH_LOG=str(log))
        return points_of(log)

    def survives(self, number: int, point: str) -> bool:
        """Kill, look, resume, look; return whether the moment was reached (a poll may not have been needed)."""
        bucket, manifest = f"bundles-{number}", f"images/root-{number}.manifest.xml"
        began = self.shelf.position()
        cut = self.emi("run", self.recipe, *self.words(number), EMI_CRASH_AT=point)
        assert cut.code in (-9, 0), (point, cut.err)
        left = self.shelf.objects(bucket)
        for key, marks in left.items():
            assert {marks["emi-recipe"], marks["emi-manifest"]} == {"bundles", manifest}, (point, key)
            assert marks["emi-claim"], (point, key)
            assert marks["emi-run"], (point, key)
        again = ("resume",) if number % 2 and cut.code else ("run", self.recipe, *self.words(number))
        resumed = self.emi(*again)
        assert resumed.code == 0, (point, resumed.err)
        images = self.shelf.images(f"bundles-{number}")
        assert [image["State"] for image in images] == ["available"], point  # the sandbox has opened all its parts
        assert images[0]["ImageLocation"].endswith(f"{bucket}/{manifest}"), point
        assert "emi:claim" in {tag["Key"] for tag in images[0]["Tags"]}, point
        there = set(self.shelf.objects(bucket))
        assert there == {manifest, *(f"images/{name}" for name in self.shelf.parts_named(bucket, manifest))}, point
        assert self.shelf.unfinished(bucket) == [], point
        assert self.shelf.calls_since(began)["s3:PutObject"] == len(there) >= 6, point
        self.shelf.remove(bucket)
        return cut.code != 0


@pytest.fixture(params=PERSONALITIES)
def subject(request, emi, shelf: Callable[[str], Any], small_root, bundles_recipe) -> Subject:
    cloud = "sandbox" if request.param == "aws" else f"sandbox:{request.param}"
    return Subject(emi=emi, shelf=shelf(request.param), recipe=bundles_recipe, disk=small_root, cloud=cloud)


@pytest.mark.timeout(600)
def test_a_few_points(subject) -> None:
    for number, point in enumerate(CHOSEN[subject.shelf.endpoint.personality], start=1):
        assert subject.survives(number, point), point


@pytest.mark.sweep
@pytest.mark.timeout(7200)
def test_every_write(subject, tmp_path, capsys) -> None:
    chosen = thinned(subject.learn(tmp_path / "points"))
    assert len(chosen) >= 50
    missed = [point for number, point in enumerate(chosen, start=1) if not subject.survives(number, point)]
    assert len(missed) <= len(chosen) // 10, missed
    with capsys.disabled():
        killed = len(chosen) - len(missed)
        print(
            f"\nbundles on {subject.cloud}: {len(chosen)} points, {killed} killed, one image each, no part sent twice"
        )
