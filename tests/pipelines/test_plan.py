"""Plans: which steps share a launch, what a key is made of, and what a miss says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.artifact import ImageFile, MachineImage, Snapshot
from pipelines.plan import arrange, bind, key_of
from pipelines.recipe import load
from pipelines.survey import explain

IMAGE = ImageFile(digest="blocks:" + "1" * 64, format="raw", virtual_size=1 << 30)


def recipe(tmp_path: Path, steps: str, outputs: str = ""):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: plan\nsteps:\n{steps}{outputs}")
    return load(path)


DOWNLOAD = '  - download: {url: "file:///x.raw"}\n'

ARRANGEMENTS = [
    pytest.param(
        "  - label: {label: a}\n  - fstab:\n", "", ["download", "label + fstab"], id="neighbours share a launch"
    ),
    pytest.param(
        "  - label: {label: a}\n  - fstab:\n",
        "outputs: {labelled: label, both: fstab}\n",
        ["download", "label", "fstab"],
        id="an output between them keeps them apart",
    ),
    pytest.param(
        "  - label: {label: a}\n  - convert: {format: raw}\n  - fstab:\n",
        "",
        ["download", "label", "convert", "fstab"],
        id="another step between them keeps them apart",
    ),
    pytest.param(
        "  - label: {label: a}\n  - fstab:\n  - label: {label: b}\n    from: label\n",
        "outputs: {one: fstab, two: label-2}\n",
        ["download", "label", "fstab", "label-2"],
        id="two steps from one result keep it",
    ),
    pytest.param(
        "  - label: {label: a}\n  - fstab:\n  - label: {label: b}\n",
        "",
        ["download", "label + fstab + label-2"],
        id="three in a row",
    ),
]


@pytest.mark.parametrize(("steps", "outputs", "expected"), ARRANGEMENTS)
def test_guest_steps_share_a_launch_when_nothing_needs_what_lies_between(
    tmp_path: Path, steps: str, outputs: str, expected: list[str]
) -> None:
    assert [node.title for node in arrange(recipe(tmp_path, DOWNLOAD + steps, outputs))] == expected


def test_inputs_are_bound_when_they_exist(tmp_path: Path) -> None:
    nodes = arrange(recipe(tmp_path, DOWNLOAD + "  - label: {label: a}\n  - fstab:\n  - snapshot:\n"))
    guest, snapshot = nodes[1], nodes[2]
    assert bind(guest, {}) is None
    bound = bind(guest, {"download": IMAGE})
    assert bound is not None
    assert bound.source == IMAGE
    assert bind(snapshot, {"download": IMAGE}) is None
    assert bind(snapshot, {"download": IMAGE, "fstab": IMAGE}) is not None


def test_a_named_reference_is_bound(tmp_path: Path) -> None:
    steps = (
        DOWNLOAD
        + "  - snapshot:\n    id: base\n  - label: {label: a}\n    from: download\n  - snapshot: {parent: base}\n"
    )
    node = arrange(recipe(tmp_path, steps))[-1]
    base = Snapshot(snapshot_id="snap-1", region="r", volume_size=1, content="blocks:0", blocks=0, verified=True)
    assert bind(node, {"label": IMAGE}) is None
    bound = bind(node, {"label": IMAGE, "base": base})
    assert bound is not None
    assert bound.named == {"parent": base}


def test_a_key_does_not_depend_on_the_order_of_options() -> None:
    assert key_of({"a": 1, "b": {"c": 2, "d": 3}}) == key_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": "1"})


def steps(**values: object) -> dict[str, object]:
    return {"steps": [values]}


def source(digest: str) -> dict[str, object]:
    return {"inputs": {"source": {"digest": digest}}}


EXPLANATIONS = [
    (steps(options={"label": "a"}), steps(options={"label": "b"}), ["option `label` changed: a -> b"]),
    (steps(revision=1), steps(revision=2), ["emi's own way of doing it changed: 1 -> 2"]),
    (source("x"), source("y"), ["the input's digest changed: x -> y"]),
    ({"target": "aws/1/a"}, {"target": "aws/1/b"}, ["target changed: aws/1/a -> aws/1/b"]),
    (steps(pins={}), steps(pins={"etag": "e"}), ["pinned etag changed: nothing -> e"]),
    ({"a": 1}, {"a": 1}, []),
]


@pytest.mark.parametrize(("before", "now", "said"), EXPLANATIONS)
def test_a_miss_says_what_changed(before: dict, now: dict, said: list[str]) -> None:
    assert explain(before, now) == said


def test_every_artifact_names_the_files_it_needs() -> None:
    overlay = ImageFile(digest="sha256:" + "2" * 64, format="qcow2", virtual_size=1 << 30, backing=IMAGE)
    assert overlay.digests() == ("sha256:" + "2" * 64, "blocks:" + "1" * 64)
    assert MachineImage(image_id="ami-1", name="n", region="r").digests() == ()
