"""What is cut off in the middle of a write through a helper: emi, the helper, the sandbox, or only the connection.

Run after run ends with one image of the disk's bytes, and what was written is not sent again: less than a tenth of it.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess  # noqa: TID251 - emi as a user starts it
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox import lifecycle
from tests.conftest import Done

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(1800)]

MIB = 1 << 20
SIZE = 256 * MIB  # all of it noise: no compression makes it smaller
SOME = 96 * MIB  # written when something is cut off
PATIENCE = 300  # seconds
RECIPE = """
name: midwrite
vars: {disk: {type: string}, helper: {type: string}}
steps:
  - download: {url: "file://{disk}"}
  - helper: {image_id: "{helper}", user: root}
  - volume: {helper: helper, image: download}
  - write: {image: download}
  - snapshot: {description: midwrite}
  - register: {name: midwrite}
"""


@dataclass(frozen=True)
class Writing:
    """A recipe whose write takes some seconds, in a sandbox with light machines."""

    emi: Any
    shelf: Any
    recipe: Path
    disk: Path
    words: tuple[str, ...]

    def start(self) -> subprocess.Popen[str]:
        """Start a run; return in the middle of its write."""
        process: subprocess.Popen[str] = self.emi.start("run", self.recipe, "--json", *self.words)
        end = time.monotonic() + PATIENCE
        while self.written() < SOME:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "nothing is written"
            time.sleep(0.01)
        return process

    def written(self) -> int:
        """Return how many bytes of the volume's file are there."""
        files = (self.shelf.endpoint.directory / "volumes").glob("*/data")
        return max((file.stat().st_blocks * 512 for file in files), default=0)

    def volumes(self) -> set[str]:
        filters = [{"Name": "tag-key", "Values": ["emi:claim"]}]
        found = self.shelf.client("ec2").describe_volumes(Filters=filters)["Volumes"]
        return {volume["VolumeId"] for volume in found if volume["Attachments"] or volume["State"] == "available"}

    def again(self) -> int:
        """Run again, which must succeed; return the bytes that were sent."""
        done = self.emi("run", self.recipe, "--json", *self.words, timeout=900)
        assert done.code == 0, done.err
        return int(done.sent())

    def require_one(self) -> None:
        ec2 = self.shelf.client("ec2")
        (image,) = self.shelf.images("midwrite")
        filters = [{"Name": "description", "Values": ["midwrite"]}]
        (snapshot,) = ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
        assert image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == snapshot["SnapshotId"]
        with open(self.shelf.endpoint.directory / "disks" / snapshot["SnapshotId"] / "data", "rb") as file:
            assert hashlib.sha256(file.read(SIZE)).digest() == hashlib.sha256(self.disk.read_bytes()).digest()
        launched = [one for each in ec2.describe_instances()["Reservations"] for one in each["Instances"]]
        assert {one["State"]["Name"] for one in launched} <= {"terminated"}
        assert ec2.describe_volumes()["Volumes"] == []
        assert ec2.describe_key_pairs()["KeyPairs"] == []
        run = max(path.name for path in (self.emi.home / "runs").glob("*-midwrite-*"))
        told = self.emi("status", run).out
        assert re.search(r"volume .* vol-\w+, released", told), told


def below(pid: int) -> list[int]:
    """Return the processes under a process, children before their own."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(word) for file in children for word in file.read_text().split()]
    return [*found, *(each for child in found for each in below(child))]


def commands(pid: int) -> dict[int, str]:
    """Return the command lines of the processes under a process."""
    return {each: Path(f"/proc/{each}/cmdline").read_text().replace("\0", " ") for each in below(pid)}


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a partition table and nothing but noise."""
    path = tmp_path_factory.mktemp("noise") / "disk.raw"
    partition = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (8192).to_bytes(4, "little")
    table = partition.ljust(64, b"\0") + b"\x55\xaa"
    numbers = random.Random(7)
    path.write_bytes(bytes(446) + table + numbers.randbytes(SIZE - 512))
    return path


@pytest.fixture
def writing(emi: Any, shelf: Any, bundles_recipe: Path, small_root: Path, noise: Path, tmp_path: Path) -> Writing:
    lifecycle.start(emi.home / "sandbox", machines="light", timeout=60)
    helper = emi.run(bundles_recipe, "--var", "n=0", "--var", f"disk={small_root}")["outputs"]["image"]
    recipe = tmp_path / "midwrite.yaml"
    recipe.write_text(RECIPE)
    return Writing(emi, shelf("aws"), recipe, noise, ("--var", f"disk={noise}", "--var", f"helper={helper}"))


def server(writing: Writing) -> int:
    return int(writing.shelf.endpoint.pid)


def kill_emi(writing: Writing, process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def kill_helper(writing: Writing, process: subprocess.Popen[str]) -> None:
    (shelter,) = [pid for pid, words in commands(server(writing)).items() if "unshare" in words.partition(" ")[0]]
    os.kill(shelter, signal.SIGKILL)


def kill_sandbox(writing: Writing, process: subprocess.Popen[str]) -> None:
    os.kill(server(writing), signal.SIGKILL)
    lifecycle.start(writing.emi.home / "sandbox", timeout=60)


@pytest.mark.parametrize("cut", [kill_emi, kill_helper, kill_sandbox])
def test_what_was_written_is_not_sent_again(writing: Writing, cut: Callable[..., None]) -> None:
    process = writing.start()
    volumes = writing.volumes()
    cut(writing, process)
    written = writing.written()
    out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode, out
    assert "Traceback" not in error
    again = writing.again()
    assert again <= SIZE - written * 9 // 10, (again, written)
    assert volumes == {writing.shelf.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"][0]["VolumeId"]}
    writing.require_one()


def test_a_cut_of_the_connection_alone_ends_no_run(writing: Writing) -> None:
    process = writing.start()
    connections = [pid for pid, words in commands(server(writing)).items() if re.match(r"sshd: \w+@notty", words)]
    assert connections
    written = writing.written()
    for pid in connections:
        os.kill(pid, signal.SIGKILL)
    out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    assert "going on after" in out
    assert Done(0, out, error).sent() <= SIZE + written // 10
    writing.require_one()
