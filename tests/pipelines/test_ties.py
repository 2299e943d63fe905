"""What hangs on which lease, told from a recipe alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.early import followers
from pipelines.plan import arrange
from pipelines.recipe import Recipe
from pipelines.ties import Ties
from tests.pipelines.leasing.drive import read

HEAD = """
name: tied
steps:
  - download: {url: "file:///disk"}
  - machine: {}
  - disk: {on: machine}
  - fill: {into: disk, text: a}
"""


@pytest.fixture
def recipe(tmp_path: Path):
    def made(more: str, head: str = HEAD) -> Recipe:
        path = tmp_path / "tied.yaml"
        path.write_text(head + more)
        return read(path, {})

    return made


def test_a_volume_hangs_on_its_machine_and_what_is_written_lies_in_the_volume(recipe) -> None:
    ties = Ties.of(recipe("  - freeze: {}\n  - look: {on: machine}\n"))
    assert ties.leases == ["machine", "disk"]
    assert ties.upon == {"machine": frozenset(), "disk": {"machine"}}
    assert ties.within == {"machine": {"machine"}, "disk": {"disk"}, "fill": {"disk"}}
    assert ties.passing("freeze") == ["fill"]
    assert ties.passing("fill") == []


def test_a_snapshot_needs_the_volume_alone_unless_it_must_be_written_again(recipe) -> None:
    ties = Ties.of(recipe("  - freeze: {}\n"))
    assert ties.used("download", spent=lambda _: True) == frozenset()
    assert ties.used("fill", spent=lambda _: False) == {"machine", "disk"}
    assert ties.used("freeze", spent=lambda _: False) == {"disk"}
    assert ties.used("freeze", spent=lambda _: True) == {"machine", "disk"}


def test_two_leases_at_once_are_two(recipe) -> None:
    more = """\
  - disk: {on: machine}
    id: second
  - fill: {into: second, text: b}
    id: refill
    from: download
  - freeze: {}
    from: fill
"""
    ties = Ties.of(recipe(more))
    assert ties.within["refill"] == {"second"}
    assert ties.used("refill", spent=lambda _: False) == {"machine", "second"}
    assert ties.used("freeze", spent=lambda _: False) == {"disk"}


def test_a_lease_between_them_parts_neither_guest_steps_nor_an_upload_from_its_bundle(recipe) -> None:
    head = """
name: tied
steps:
  - download: {url: "file:///disk"}
  - fstab: {}
  - machine: {}
  - label: {label: cloud}
  - bundle: {name: a}
  - disk: {on: machine}
  - upload: {bucket: bucket}
"""
    made = recipe("", head)
    assert [node.title for node in arrange(made)][:3] == ["download", "fstab + label", "machine"]
    assert [node.id for node in followers(made).values()] == ["upload"]
