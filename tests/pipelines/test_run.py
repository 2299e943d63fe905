"""Runs, as a user has them: the verbs, unchanged runs, two at once, Ctrl-C, a changed world, errors in words."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess  # noqa: TID251 - tests start emi as a user does
import sys
import time
from pathlib import Path

import boto3  # noqa: TID251 - tests look at the cloud past emi
import pytest

from builder.sandbox import audit, lifecycle

RECIPE = """
name: small
vars:
  disk: {type: string}
  version: {type: string, default: "1"}
steps:
  - download: {url: "file://{disk}"}
  - snapshot: {description: "small {version}"}
  - register: {name: "small-{version}"}
outputs:
  image: register.image_id
  snapshot: snapshot.snapshot_id
"""
READS = ("Describe", "List", "Get")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def words(tiny_disk: Path) -> tuple[str, str]:
    return "--var", f"disk={tiny_disk}"


def ec2(emi):
    endpoint = lifecycle.start(emi.home / "sandbox")
    keys = {"aws_access_key_id": endpoint.access_key, "aws_secret_access_key": endpoint.secret_key}
    return boto3.client("ec2", endpoint_url=endpoint.url, region_name=endpoint.region, **keys)


def calls_made(emi, since: int = 0) -> set[str]:
    made = audit.read_calls(emi.home / "sandbox", start=since)
    return {f"{call.service}:{call.action}" for call in made}


def test_a_run_makes_the_calls_its_plan_announced_and_an_unchanged_run_changes_nothing(emi, recipe, words) -> None:
    planned = json.loads(emi("plan", recipe, "--json", *words).out)
    assert [step["verdict"] for step in planned] == ["will run"] * 3
    announced = {call for step in planned for call in step["calls"]}
    since = audit.position(emi.home / "sandbox")
    last = emi.run(recipe, *words)
    assert calls_made(emi, since) == announced
    since = audit.position(emi.home / "sandbox")
    again = emi.run(recipe, *words)
    assert again["outputs"] == last["outputs"]
    assert again["mutations"] == 0
    assert all(call.partition(":")[2].startswith(READS) for call in calls_made(emi, since))
    assert [step["verdict"] for step in json.loads(emi("plan", recipe, "--json", *words).out)] == ["done"] * 3


def test_a_plan_refuses_what_a_run_would(emi, recipe, words, shelf) -> None:
    seen = shelf("eucalyptus")
    planned, ran = (emi(verb, recipe, *words, "--cloud", "sandbox:eucalyptus") for verb in ("plan", "run"))
    assert planned.code == ran.code > 0
    assert "StartSnapshot" in planned.err
    assert planned.err in ran.err
    assert all(call.partition(":")[2].startswith(READS) for call in seen.calls_since(0))


def test_a_plan_says_what_changed(emi, recipe, words) -> None:
    emi.run(recipe, *words)
    done = emi("plan", recipe, *words, "--var", "version=2")
    assert "option `description` changed: small 1 -> small 2" in done.out
    assert "after snapshot" in done.out


def test_an_image_that_was_deregistered_is_registered_again_from_the_same_snapshot(emi, recipe, words) -> None:
    first = emi.run(recipe, *words)["outputs"]
    ec2(emi).deregister_image(ImageId=first["image"])
    second = emi.run(recipe, *words)["outputs"]
    assert second["snapshot"] == first["snapshot"]
    assert second["image"] != first["image"]
    assert len(ec2(emi).describe_images(Owners=["self"])["Images"]) == 1


def test_a_snapshot_that_was_deleted_is_uploaded_again_under_a_new_token(emi, recipe, words) -> None:
    first = emi.run(recipe, *words)["outputs"]
    ec2(emi).deregister_image(ImageId=first["image"])
    ec2(emi).delete_snapshot(SnapshotId=first["snapshot"])
    second = emi.run(recipe, *words)["outputs"]
    assert second["snapshot"] != first["snapshot"]
    assert len(ec2(emi).describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1


def test_a_lost_journal_adopts_what_is_there(emi, recipe, words) -> None:
    first = emi.run(recipe, *words)["outputs"]
    for path in emi.home.glob("journal.sqlite*"):
        path.unlink()
    since = audit.position(emi.home / "sandbox")
    second = emi.run(recipe, *words)
    assert second["outputs"] == first
    assert "ebs:PutSnapshotBlock" not in calls_made(emi, since)


def test_a_foreign_image_of_that_name_is_refused_before_anything_is_uploaded(emi, recipe, words) -> None:
    other = ec2(emi)
    endpoint = lifecycle.start(emi.home / "sandbox")
    keys = {"aws_access_key_id": endpoint.access_key, "aws_secret_access_key": endpoint.secret_key}
    ebs = boto3.client("ebs", endpoint_url=endpoint.url, region_name=endpoint.region, **keys)
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=0)
    other.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})
    mapping = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}]
    image = other.register_image(Name="small-1", RootDeviceName="/dev/xvda", BlockDeviceMappings=mapping)["ImageId"]
    since = audit.position(emi.home / "sandbox")
    done = emi("run", recipe, *words)
    assert done.code == 7
    assert image in done.err
    assert "small-1" in done.err
    assert calls_made(emi, since) <= {"ec2:DescribeImages", "ec2:DescribeSnapshots"}


def test_a_name_that_an_older_build_has_is_refused_before_the_build(emi, recipe, words, tiny_disk, tmp_path) -> None:
    first = emi.run(recipe, *words)["outputs"]
    other = tmp_path / "other.raw"
    other.write_bytes(b"\1" + tiny_disk.read_bytes()[1:])
    since = audit.position(emi.home / "sandbox")
    done = emi("run", recipe, "--var", f"disk={other}")
    assert done.code == 7
    assert f"is taken by {first['image']}" in done.err
    assert "download: starts" not in done.err
    assert "ebs:StartSnapshot" not in calls_made(emi, since)


def test_a_second_run_is_refused_by_name_of_the_holder_or_waits(emi, recipe, words) -> None:
    first = emi.start("run", recipe, *words, "--json", EMI_STOP_AT="after ebs:StartSnapshot")
    try:
        wait_until_stopped(first.pid)
        refused = emi("run", recipe, *words)
        assert refused.code == 8
        assert f"(process {first.pid} on " in refused.err
        waiting = emi.start("run", recipe, *words, "--wait", "--json")
        time.sleep(1.5)
        assert waiting.poll() is None
    finally:
        first.send_signal(signal.SIGCONT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    second, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert json.loads(second.splitlines()[-1])["outputs"] == json.loads(out.splitlines()[-1])["outputs"]
    assert json.loads(second.splitlines()[-1])["mutations"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_cleanly_says_how_to_resume_and_exits_130(emi, recipe, words, number) -> None:
    process = emi.start("run", recipe, *words, EMI_STOP_AT="after journal:effect")
    wait_until_stopped(process.pid)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted; finished and kept: download" in err
    assert "begun in the cloud: snap-" in err.split("`emi resume ")[-2]
    assert "Traceback" not in err
    resumed = emi("resume", "--json")
    assert resumed.code == 0, resumed.err
    assert len(ec2(emi).describe_images(Owners=["self"])["Images"]) == 1


def wait_until_stopped(pid: int, limit: float = 300) -> None:
    """Return when the process has stopped itself at the moment it was told to."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} did not stop")


MISTAKES = [
    (["run", "absent.yaml"], 2, "absent.yaml"),
    (["run", "RECIPE", "--cloud", "moon"], 2, "no cloud named `moon`"),
    (["run", "RECIPE", "--var", "disk"], 2, "--var disk: not NAME=VALUE"),
    (["run", "RECIPE", "--mirror", "x"], 2, "--mirror x: not PREFIX=URL"),
    (["run", "RECIPE"], 2, "disk"),
    (["run", "RECIPE", "--var", "disk=/nonexistent.raw"], 3, "/nonexistent.raw"),
    (["resume"], 2, "no unfinished run to resume"),
    (["resume", "nonesuch"], 2, "no run nonesuch"),
    (["status", "nonesuch"], 2, "no run nonesuch"),
    (["steps", "downlod"], 2, "no step kind `downlod`"),
    (["inspect", "/nonexistent.raw"], 3, "/nonexistent.raw"),
    (["frobnicate"], 2, "No such command"),
    (["run", "RECIPE", "--frobnicate"], 2, "No such option"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_gets_its_exit_code_and_its_cause_and_no_traceback(emi, recipe, arguments, code, said) -> None:
    done = emi(*[str(recipe) if word == "RECIPE" else word for word in arguments])
    assert (done.code, said in done.err, "Traceback" in done.err) == (code, True, False), done.err


def test_json_ends_with_the_runs_last_word_also_when_nothing_could_start(emi, recipe) -> None:
    done = emi("run", recipe, "--json")
    assert done.code == 2
    last = done.last()
    assert last["status"] == "failed"
    assert last["error"]["exit"] == 2


def test_an_unwritable_home_is_named(emi, recipe, words, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    done = emi("run", recipe, *words, EMI_HOME=str(tmp_path / "file" / "home"))
    assert done.code == 5
    assert "Point EMI_HOME" in done.err


def test_a_prune_beside_a_run_leaves_it_whole(emi, recipe, words) -> None:
    process = emi.start("run", recipe, *words, "--json", EMI_STOP_AT="after ebs:StartSnapshot")
    wait_until_stopped(process.pid)
    pruned = emi("store", "prune")
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert pruned.code == 0
    assert "removed 0 files" in pruned.out
    assert process.returncode == 0, err


def test_a_prune_removes_what_no_newest_run_needs(emi, recipe, words, tiny_disk, tmp_path) -> None:
    emi.run(recipe, *words)
    other = tmp_path / "other.raw"
    data = bytearray(tiny_disk.read_bytes())
    data[200 << 20] = 1
    other.write_bytes(data)
    emi.run(recipe, "--var", f"disk={other}", "--var", "version=2")
    done = emi("store", "prune")
    assert "removed 1 files" in done.out
    assert emi.run(recipe, "--var", f"disk={other}", "--var", "version=2")["mutations"] == 0


def test_a_publisher_who_corrects_a_file_is_believed_by_the_next_attempt(emi, tmp_path, tiny_disk) -> None:
    path, disk, sums = tmp_path / "corrected.yaml", tmp_path / "disk.raw", tmp_path / "SHA256SUMS"
    path.write_text(RECIPE.replace('url: "file://{disk}"', f'url: "file://{disk}", checksum: "file://{sums}"'))
    disk.symlink_to(tiny_disk)
    sums.write_text(f"{'0' * 64}  disk.raw\n")
    refused = emi("run", path, "--var", "disk=")
    assert refused.code == 3, refused.err
    sums.write_text(f"{hashlib.sha256(tiny_disk.read_bytes()).hexdigest()}  disk.raw\n")
    resumed = emi("resume")
    assert resumed.code == 0, resumed.err


def test_an_unfinished_run_is_continued_though_another_finished_since(emi, recipe, words) -> None:
    assert emi("run", recipe, *words, EMI_CRASH_AT="after ebs:StartSnapshot").code == -9
    cut = json.loads(emi("status", "--json").out)[0]["run"]
    emi.run(recipe, *words, "--var", "version=2")
    resumed = emi("resume", cut, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.last()["run"] == cut
    assert emi("resume").code == 2


def test_a_plan_is_made_with_the_pins_of_the_run_that_it_would_continue(emi, recipe, tiny_disk, tmp_path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(tiny_disk.read_bytes())
    words = ("--var", f"disk={disk}")
    assert emi("run", recipe, *words, EMI_CRASH_AT="after ebs:StartSnapshot").code == -9
    os.utime(disk, (1, 1))
    planned = json.loads(emi("plan", recipe, "--json", *words).out)
    assert [step["verdict"] for step in planned] == ["done", "will adopt", "will run"]


def test_an_interrupt_before_the_run_begins_is_the_last_word_too(emi, recipe, words) -> None:
    first = emi.start("run", recipe, *words, EMI_STOP_AT="after ebs:StartSnapshot")
    try:
        wait_until_stopped(first.pid)
        waiting = emi.start("run", recipe, *words, "--wait", "--json")
        lock = next((emi.home / "locks").glob("recipe-*"))
        while f"{waiting.pid}" not in waiters(lock):
            time.sleep(0.02)
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=60)
    finally:
        first.kill()
        first.communicate()
    assert waiting.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["error"]["kind"] == "Interrupted"


def waiters(lock: Path) -> set[str]:
    """Return the processes that wait for a lock, as the kernel lists them."""
    inode = str(lock.stat().st_ino)
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {row[5] for row in rows if row[1] == "->" and row[6].endswith(f":{inode}")}


def test_a_directory_of_ours_that_cannot_be_used_is_named_and_the_run_is_recorded(emi, recipe, words) -> None:
    emi.run(recipe, *words)
    scratch = emi.home / "scratch"
    scratch.rmdir()
    scratch.mkdir()
    key = json.loads(emi("plan", recipe, *words, "--var", "version=2", "--json").out)[1]["key"]
    (scratch / f"{key[:32]}.0").write_text("in the way")
    done = emi("run", recipe, *words, "--var", "version=2", "--json")
    assert done.code == 5, done.err
    assert f"cannot use {scratch}" in done.err
    assert done.last()["run"]
    assert json.loads(emi("status", "--json").out)[0]["status"] == "failed"


def test_the_status_tells_a_run_in_progress_from_one_that_was_killed(emi, recipe, words) -> None:
    process = emi.start("run", recipe, *words, EMI_STOP_AT="after ebs:StartSnapshot")
    wait_until_stopped(process.pid)
    alive = json.loads(emi("status", "--json").out)[0]
    process.kill()
    process.communicate()
    dead = emi("status", alive["run"]).out
    assert alive["status"] == "running"
    assert "interrupted" in dead
    assert f"was killed; `emi resume {alive['run']}` carries on" in dead
    assert emi("run", recipe, *words, "--var", "version=2").code == 0
    assert [run["status"] for run in json.loads(emi("status", "--json").out)] == ["ok", "interrupted"]


def test_a_prune_is_not_held_up_for_ever_by_a_run_that_was_killed(emi, recipe, words, tiny_disk, tmp_path) -> None:
    assert emi("run", recipe, *words, EMI_CRASH_AT="after ebs:StartSnapshot").code == -9
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text().replace("small", "other"))
    disk = tmp_path / "other.raw"
    disk.write_bytes(b"\1" + tiny_disk.read_bytes()[1:])
    emi.run(other, "--var", f"disk={disk}")
    emi.run(other, *words, "--var", "version=2")
    assert "removed 1 files" in emi("store", "prune").out


def test_output_that_cannot_be_written_is_no_success_and_no_defect(emi, recipe, words) -> None:
    for arguments in (["schema"], ["run", recipe, *words, "--json"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [Path(sys.executable).parent / "emi", *arguments],
                env={**os.environ, "EMI_HOME": str(emi.home)},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert (done.returncode, "cannot write the output: No space" in done.stderr) == (5, True), done.stderr


def test_a_terminal_without_unicode_is_served(emi) -> None:
    done = emi("steps", "snapshot", PYTHONIOENCODING="ascii")
    assert done.code == 0, done.err
    assert "snap-?" in done.out


def test_a_prune_takes_begun_work_that_nothing_continues(emi, recipe, words) -> None:
    assert emi("run", recipe, *words, EMI_CRASH_AT="after ebs:StartSnapshot").code == -9
    begun = list((emi.home / "scratch").iterdir())
    assert begun
    emi("store", "prune")
    assert list((emi.home / "scratch").iterdir()) == begun
    emi.run(recipe, *words, "--var", "version=2")
    emi("store", "prune")
    assert list((emi.home / "scratch").iterdir()) == []


def test_a_reader_who_leaves_interrupts_the_run(emi, recipe, words) -> None:
    process = emi.start("run", recipe, *words, "--json", EMI_STOP_AT="after ebs:StartSnapshot")
    wait_until_stopped(process.pid)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert json.loads(emi("status", "--json").out)[0]["status"] == "interrupted"
    assert emi("resume").code == 0
