"""Parts that are sent while a bundle is made: for which recipes, and that nothing of it fails a run."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from builder.sandbox.faults import client
from pipelines import kinds
from pipelines.early import followers
from pipelines.recipe import load
from pipelines.steps.upload import UploadOptions

HEAD = """
name: early
steps:
  - download: {url: "file:///disk"}
  - bundle: {name: x}
"""
RUN = """
name: early
vars:
  disk: {type: string}
steps:
  - download: {url: "file://{disk}"}
  - bundle: {name: x, part_size: 512 KiB}
  - upload: {bucket: early, prefix: images}
"""


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("  - upload: {bucket: abc}\n", {"bundle": "upload"}),
        ("  - upload: {bucket: abc}\noutputs: {parts: bundle.parts, there: upload}\n", {"bundle": "upload"}),
        ("  - upload: {bucket: abc}\n  - upload: {bucket: def}\n    id: two\n    from: bundle\n", {}),
        ("  - bundle: {name: y}\n    id: other\n    from: download\n  - upload: {bucket: abc}\n", {"other": "upload"}),
        ("  - bundle: {name: y}\n    id: other\n    from: download\n  - upload: {bucket: abc}\n    from: bundle\n", {}),
        ("  - unbundle:\n", {}),
    ],
)
def test_only_an_upload_that_directly_follows_and_alone_takes_the_bundle_is_begun_early(tmp_path: Path, rest, found):
    path = tmp_path / "early.yaml"
    path.write_text(HEAD + rest)
    assert {maker: node.id for maker, node in followers(load(path)).items()} == found


@pytest.mark.timeout(120)
def test_what_is_refused_early_is_told_and_left_to_the_upload(emi, shelf, small_root, tmp_path):
    recipe = tmp_path / "early.yaml"
    recipe.write_text(RUN)
    seen = shelf("aws")
    client.put(seen.endpoint, [{"service": "s3", "call": "PutObject", "effect": "denied", "after": 2, "first": 1}])
    done = emi("run", recipe, "--var", f"disk={small_root}")
    assert done.code == 0, done.err
    assert "bundle: parts are sent after the bundling: s3:PutObject: " in done.err
    keys = seen.objects("early")
    assert len(keys) == 7
    assert seen.calls_since(0)["s3:PutObject"] == 7
    assert len({marks["emi-claim"] for marks in keys.values()}) == 2  # of what came early, and of the upload
    (report,) = emi.home.glob("runs/*/report.json")
    announced = {str(call) for call in kinds.load("upload").calls(UploadOptions(bucket="early"))}
    assert set(json.loads(report.read_text())["calls"]) <= announced
    with sqlite3.connect(emi.home / "journal.sqlite") as journal:
        words = [word for (word,) in journal.execute("SELECT word FROM words ORDER BY id")]
    assert sorted(words) == sorted(["intent", "result"] * 4 + ["effect"] * 2)
    assert words[-1] == "result"  # what was begun early has been taken over


@pytest.mark.timeout(120)
def test_what_an_earlier_run_here_left_without_a_manifest_gives_way_to_another_bundle(emi, shelf, small_root, tmp_path):
    recipe = tmp_path / "early.yaml"
    recipe.write_text(RUN)
    seen = shelf("aws")
    client.put(seen.endpoint, [{"service": "s3", "call": "PutObject", "effect": "denied", "after": 2}])
    assert emi("run", recipe, "--var", f"disk={small_root}").code != 0
    client.clear(seen.endpoint)
    left = seen.objects("early")
    assert len(left) == 2
    recipe.write_text(RUN.replace("512 KiB", "256 KiB"))  # so other bytes under the same names
    done = emi("run", recipe, "--var", f"disk={small_root}")
    assert done.code == 0, done.err
    there = seen.objects("early")
    assert all(there[key]["emi-digest"] != marks["emi-digest"] for key, marks in left.items())
    assert len({marks["emi-run"] for marks in there.values()}) == 1
