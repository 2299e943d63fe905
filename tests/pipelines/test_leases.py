"""Leases, as runs have them: only when needed, adopted after a kill, given back however the run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess  # noqa: TID251 - tests start what they kill
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3  # noqa: TID251 - tests look at the cloud past emi
import pytest

from builder.errors import CloudError, Interrupted, RemoteFailed
from builder.sandbox import lifecycle
from pipelines.events import LeaseAcquired, LeaseKept, LeaseReleased, StepFinished
from pipelines.home import Home
from pipelines.recipe import RecipeError
from tests.pipelines.leasing.drive import Driver, read

ROOT = Path(__file__).parents[2]
RECIPE = """
name: {name}
vars:
  source: {{type: string}}
  label: {{type: string, default: ""}}
  text: {{type: string, default: "first"}}
  description: {{type: string, default: "one"}}
steps:
  - download: {{url: "file://{{source}}"}}
  - machine: {{label: "{{label}}"}}
  - disk: {{on: machine}}
  - fill: {{into: disk, text: "{{text}}"}}
  - freeze: {{description: "{{description}}"}}
"""
LOOK = """
name: {name}
vars:
  source: {{type: string}}
  label: {{type: string, default: ""}}
  at: {{type: string, default: "/"}}
steps:
  - machine: {{label: "{{label}}"}}
  - look: {{on: machine, at: "{{at}}"}}
"""


@dataclass(frozen=True)
class Leasing:
    """One recipe in the home that all tests share, and what the cloud and the world hold."""

    driver: Driver
    world: Path
    source: str

    def run(self, *, keep: bool = False, **variables: str):
        return self.driver.run(keep=keep, source=self.source, **variables)

    def plan(self, **variables: str) -> dict[str, str]:
        """Return the verdicts."""
        found = self.driver.plan(source=self.source, **variables)
        return {id_: prospect.verdict for id_, prospect in found.items()}

    def kill(self, point: str, **variables: str) -> int:
        """Run in a process of its own that dies at the point; return how it ended."""
        words = [f"{name}={value}" for name, value in {"source": self.source, **variables}.items()]
        command = [sys.executable, "-m", "tests.pipelines.leasing.drive", str(self.driver.home.root)]
        return subprocess.run(
            [*command, str(self.driver.recipe), *words],
            env={**os.environ, "EMI_CRASH_AT": point},
            cwd=ROOT,
            capture_output=True,
            check=False,
        ).returncode

    def volumes(self) -> list[str]:
        """Return the volumes of this recipe in the cloud, sorted by size: machines first."""
        endpoint = lifecycle.start(self.driver.home.sandbox)
        keys = {"aws_access_key_id": endpoint.access_key, "aws_secret_access_key": endpoint.secret_key}
        client = boto3.client("ec2", endpoint_url=endpoint.url, region_name=endpoint.region, **keys)
        filters = [{"Name": "tag:emi:recipe", "Values": [self.driver.recipe.stem]}]
        found = client.describe_volumes(Filters=filters)["Volumes"]
        there = [volume for volume in found if volume["State"] != "deleting"]  # which takes a moment
        return [volume["VolumeId"] for volume in sorted(there, key=lambda volume: volume["Size"])]

    def done(self) -> list[str]:
        """Return what was done since the last time."""
        log = self.world / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return lines

    def kept(self) -> list[Path]:
        """Return the directories of what is leased; of this recipe alone, when nothing else is."""
        return sorted(self.driver.home.leases.iterdir())

    def require_nothing_left(self, point: str = "") -> None:
        """Fail when anything of a lease is still there."""
        assert self.volumes() == [], point
        assert list(self.world.glob("*.beside")) == [], point
        assert self.kept() == [], point


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("leases") / "home").make()
    yield home
    lifecycle.stop(home.sandbox)


@pytest.fixture
def leasing(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request) -> Callable[[str], Leasing]:
    """Return how to write a recipe of that text, under a name that no other test has."""
    monkeypatch.setenv("LEASING_WORLD", str(tmp_path))
    source = tmp_path / "source"
    source.write_bytes(b"x" * 512)

    def make(text: str = RECIPE) -> Leasing:
        name = f"{request.node.originalname}-{len(list(tmp_path.glob('*.yaml')))}".replace("_", "-")
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.format(name=name))
        return Leasing(Driver(home, path), tmp_path, str(source))

    return make


def told(events: list) -> list[tuple[str, str]]:
    """Return what was heard of leases and finished steps."""
    names = {LeaseAcquired: "acquired", LeaseReleased: "released", LeaseKept: "kept", StepFinished: "finished"}
    return [(names[type(event)], event.step) for event in events if type(event) in names]


def test_what_runs_is_leased_for_as_long_as_it_is_needed_and_an_unchanged_run_leases_nothing(leasing) -> None:
    it = leasing()
    assert it.plan() == {
        "download": "will run",
        "machine": "will lease",
        "disk": "will lease",
        "fill": "will run",
        "freeze": "will run",
    }
    outcome, events, _ = it.run()
    assert told(events) == [
        ("finished", "download"),
        ("acquired", "machine"),
        ("acquired", "disk"),
        ("finished", "fill"),
        ("released", "machine"),
        ("finished", "freeze"),
        ("released", "disk"),
    ]
    assert it.done() == ["machine ready", "attach", "fill first", "detach"]
    assert it.volumes() == []
    assert it.kept() == []
    report = json.loads(outcome.report.read_text())
    assert [(lease["step"], lease["how"], lease["end"]) for lease in report["leases"]] == [
        ("machine", "ran", "released"),
        ("disk", "ran", "released"),
    ]
    assert it.plan() == {
        "download": "done",
        "machine": "not needed",
        "disk": "not needed",
        "fill": "not needed",
        "freeze": "done",
    }
    again, events, calls = it.run()
    assert calls.mutations() == 0
    assert again.outputs == outcome.outputs
    assert told(events) == [("finished", "download"), ("finished", "fill"), ("finished", "freeze")]
    assert it.done() == []


def test_a_volume_that_a_snapshot_has_detached_is_attached_anew_before_it_is_written_again(leasing) -> None:
    more = """\
  - fill: {{into: disk, text: more}}
    id: more
    from: download
  - freeze: {{description: two}}
    id: second
"""
    it = leasing(RECIPE + more)
    it.run()
    assert it.done() == ["machine ready", "attach", "fill first", "detach", "attach", "fill more", "detach"]
    it.require_nothing_left()


def test_what_the_machine_is_counts_only_where_it_matters(leasing) -> None:
    it = leasing()
    first, *_ = it.run()
    second, _, calls = it.run(label="another machine")
    assert (second.outputs, calls.mutations()) == (first.outputs, 0)
    look = leasing(LOOK)
    look.run()
    assert look.plan() == {"machine": "not needed", "look": "done"}
    assert look.plan(label="another machine") == {"machine": "will lease", "look": "will run"}


def test_what_was_written_is_written_again_when_the_volume_has_passed_and_a_snapshot_is_wanted(leasing) -> None:
    it = leasing()
    first, *_ = it.run()
    it.done()
    assert it.plan(description="two")["fill"] == "will run"
    second, events, _ = it.run(description="two")
    assert second.outputs["freeze"]["snapshot_id"] != first.outputs["freeze"]["snapshot_id"]
    assert second.outputs["freeze"]["content"] == first.outputs["freeze"]["content"]
    assert it.done() == ["machine ready", "attach", "fill first", "detach"]
    assert told(events)[-4:] == [
        ("finished", "fill"),
        ("released", "machine"),
        ("finished", "freeze"),
        ("released", "disk"),
    ]
    assert it.volumes() == []


def test_a_failure_gives_the_machine_back_keeps_the_volume_and_the_next_run_goes_on_with_it(leasing) -> None:
    it = leasing()
    (it.world / "broken").touch()
    with pytest.raises(RemoteFailed) as caught:
        it.run()
    (disk,) = it.volumes()
    assert caught.value.message.startswith("the write broke\n")
    assert f"{disk} is kept: `emi resume " in caught.value.message
    assert f"`emi gc {disk}`" in caught.value.message
    assert it.done() == ["machine ready", "attach", "fill first", "detach"]
    (it.world / "broken").unlink()
    (it.world / "zone").write_text("us-east-1b")  # where the cloud would put the next machine: of no use to the disk
    assert it.plan()["disk"] == "will adopt"
    _, events, _ = it.run()
    (adopted,) = [event for event in events if isinstance(event, LeaseAcquired) and event.step == "disk"]
    assert (adopted.how, adopted.result.volume_id, adopted.result.zone) == ("adopted", disk, "us-east-1a")
    assert it.volumes() == []


def test_ctrl_c_gives_back_too_and_says_what_is_left(leasing) -> None:
    it = leasing()
    (it.world / "interrupt").touch()
    with pytest.raises(Interrupted) as caught:
        it.run()
    (disk,) = it.volumes()
    assert f"{disk} is kept" in caught.value.message
    assert "begun in the cloud" not in caught.value.message
    (it.world / "interrupt").unlink()
    it.run()
    assert it.volumes() == []


def test_what_another_run_wrote_into_a_kept_volume_is_not_taken_for_ones_own(leasing) -> None:
    it = leasing()
    it.kill("after journal:result@2")  # that of `fill`
    (it.world / "broken").touch()
    with pytest.raises(RemoteFailed):
        it.run(text="second")  # began to write into the same volume
    (it.world / "broken").unlink()
    it.done()
    outcome, *_ = it.run()
    assert it.done() == ["machine ready", "attach", "fill first", "detach"]
    assert outcome.outputs["freeze"]["content"].startswith("blocks:")


def test_a_helper_that_is_kept_stays_until_a_run_that_does_not_keep_it(leasing) -> None:
    it = leasing()
    outcome, events, _ = it.run(keep=True)
    (machine,) = it.volumes()
    (kept,) = [event for event in events if isinstance(event, LeaseKept)]
    assert (kept.resource, kept.step) == (machine, "machine")
    assert kept.text == f"ssh to {machine} with a key below {it.driver.home.root}"
    assert (it.driver.home.leases / it.kept()[0].name / "login").read_bytes() == b"a private key"
    assert it.kept()[0].stat().st_mode & 0o777 == 0o700
    assert [lease.end for lease in outcome.leases] == ["kept", "released"]
    again, *_ = it.run(keep=True, description="two")
    assert it.volumes() == [machine]
    assert [lease.how for lease in again.leases] == ["adopted", "ran"]
    _, events, _ = it.run(description="two")
    assert ("released", "machine") in told(events)
    assert it.volumes() == []
    assert it.kept() == []


def test_a_lease_that_is_gone_or_of_no_use_any_more_is_leased_anew(leasing) -> None:
    it = leasing(LOOK)
    assert it.kill("before journal:result") == -signal.SIGKILL
    (machine,) = it.volumes()
    (it.kept()[0] / "login").unlink()
    outcome, *_ = it.run()
    assert [(lease.how, lease.resource != machine) for lease in outcome.leases] == [("ran", True)]
    assert it.volumes() == []
    assert it.kill("before journal:result", at="/etc") == -signal.SIGKILL
    (machine,) = it.volumes()
    endpoint = lifecycle.start(it.driver.home.sandbox)
    keys = {"aws_access_key_id": endpoint.access_key, "aws_secret_access_key": endpoint.secret_key}
    boto3.client("ec2", endpoint_url=endpoint.url, region_name=endpoint.region, **keys).delete_volume(VolumeId=machine)
    assert it.plan(at="/etc")["machine"] == "will lease"
    it.run(at="/etc")
    it.require_nothing_left()


def test_what_was_begun_and_is_not_needed_any_more_is_cleared_away(leasing) -> None:
    it = leasing(LOOK)
    it.run()
    assert it.kill("before ec2:CreateVolume", at="/etc") == -signal.SIGKILL
    assert len(list(it.world.glob("*.beside"))) == len(it.kept()) == 1
    _, events, calls = it.run()
    assert told(events) == [("finished", "look")]
    assert calls.mutations() == 0
    it.require_nothing_left()


def test_what_cannot_be_given_back_is_told_and_hides_no_error(leasing) -> None:
    it = leasing()
    (it.world / "broken").touch()
    (it.world / "stuck").touch()  # the machine will not go
    with pytest.raises(RemoteFailed) as caught:
        it.run()
    machine, _ = it.volumes()
    first, *rest = caught.value.message.splitlines()
    assert first == "the write broke"
    assert f"{machine} could not be released: {machine} does not go" in rest
    (it.world / "broken").unlink()
    with pytest.raises(CloudError) as caught:
        it.run()
    assert caught.value.message == f"{machine} does not go\n{machine} could not be released: {machine} does not go"
    assert it.volumes() == [machine]
    (it.world / "stuck").unlink()
    outcome, *_ = it.run()
    assert [step.how for step in outcome.steps] == ["done"] * 3
    assert it.volumes() == []


def test_a_lease_is_no_output_and_no_input_of_what_takes_none(leasing) -> None:
    it = leasing()
    text = it.driver.recipe.read_text()
    it.driver.recipe.write_text(text + "outputs: {machine: machine.instance_id}\n")
    with pytest.raises(RecipeError, match="a helper instance is leased for the run, and no output"):
        read(it.driver.recipe, {"source": it.source})
    it.driver.recipe.write_text(text)
    assert read(it.driver.recipe, {"source": it.source}).step("fill").source == "download"


# Each a moment of a run that leases, whose download is done; afterwards all is there once and nothing is left.
POINTS = (
    "after journal:intent",  # the machine is intended
    "after ec2:CreateVolume",  # and there, which nobody knows
    "after journal:effect",
    "after journal:intent@2",  # the disk
    "after ec2:CreateVolume@2",
    "after journal:intent@3",  # the write
    "before journal:result",  # written, and not said
    "after journal:result",  # written; the machine is still there
    "after ec2:DeleteVolume",  # the machine is gone, which nobody knows
    "after journal:abandon",
    "after ebs:StartSnapshot",
    "after journal:result@2",  # all is done; the disk is still there
    "after ec2:DeleteVolume@2",
    "before journal:end",
)
FEW = ("after ec2:CreateVolume", "after journal:result", "after journal:abandon")


def survives(it: Leasing, point: str, number: int) -> None:
    """Kill at a moment, run again, look."""
    words = {"text": f"text {number}", "description": f"{it.driver.recipe.stem} {number}"}
    assert it.kill(point, **words) == -signal.SIGKILL, point
    outcome, _, _ = it.run(**words)
    it.require_nothing_left(point)
    endpoint = lifecycle.start(it.driver.home.sandbox)
    keys = {"aws_access_key_id": endpoint.access_key, "aws_secret_access_key": endpoint.secret_key}
    client = boto3.client("ec2", endpoint_url=endpoint.url, region_name=endpoint.region, **keys)
    filters = [{"Name": "description", "Values": [words["description"]]}]
    (snapshot,) = client.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
    assert snapshot["SnapshotId"] == outcome.outputs["freeze"]["snapshot_id"], point


def test_a_few_moments_to_be_killed_at(leasing) -> None:
    it = leasing()
    it.run()
    for number, point in enumerate(FEW):
        survives(it, point, number)


@pytest.mark.sweep
def test_every_moment_to_be_killed_at(leasing) -> None:
    it = leasing()
    it.run()
    for number, point in enumerate(POINTS):
        survives(it, point, number)
