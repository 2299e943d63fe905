"""The recipe of EBS-backed images through a helper: the twelve steps that people type, in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.cloud.api import Call
from pipelines.artifact import Volume
from pipelines.plan import arrange
from pipelines.recipe import RecipeError, load
from pipelines.ties import Ties

RECIPE = Path(__file__).parents[2] / "recipes/ebs-via-helper.yaml"


def test_the_steps_come_in_their_order_and_hang_on_two_leases() -> None:
    recipe = load(RECIPE, {"helper": "emi-12345678"})
    assert [node.id for node in arrange(recipe)] == ["helper", "volume", "write", "snapshot", "register"]
    ties = Ties.of(recipe)
    assert ties.leases == ["helper", "volume"]
    assert recipe.step("write").source == "volume"
    assert recipe.step("snapshot").source == "write"
    options: Any = recipe.step("helper").options
    assert (options.image_id, options.user) == ("emi-12345678", "debian")


def test_no_call_of_the_ebs_direct_apis_is_asked_for() -> None:
    item = load(RECIPE, {"helper": "emi-12345678"}).step("snapshot")
    step: Any = item.step
    asked = step.calls_upon(item.options, Volume)
    assert Call("ec2", "CreateSnapshot") in asked
    assert {call.service for call in asked} == {"ec2"}


def test_it_wants_to_know_what_the_helper_is_launched_from() -> None:
    with pytest.raises(RecipeError, match="helper"):
        load(RECIPE)


def test_a_helper_image_that_is_not_there_stops_the_plan(shared_emi: Any, tmp_path: Path) -> None:
    directory = tmp_path / "images/cloud/bookworm/latest"
    directory.mkdir(parents=True)
    name = "debian-12-genericcloud-amd64.qcow2"
    (directory / "SHA512SUMS").write_text(f"{'1' * 128}  {name}\n")
    mirror = f"https://cloud.debian.org/={tmp_path.as_uri()}/"
    done = shared_emi("plan", RECIPE, "--var", "helper=ami-12345678", "--mirror", mirror)
    assert done.code == 2, done.err
    assert "the image ami-12345678 of the step `helper` does not exist" in done.err
