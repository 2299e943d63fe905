"""The wrong disk is never written: spare disks of the same size, one with data, under other letters at each boot."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder.cloud.wait import wait_until
from builder.remote.keys import KeyPair
from builder.sandbox import lifecycle

MIB = 1 << 20
LETTERS = [f"/dev/sd{letter}" for letter in "bcdefghijklmnop"]
RECIPE = """
name: wrong-disk
vars: {disk: {type: string}, n: {type: int}, instance: {type: string}, key: {type: string}, host_key: {type: string}}
steps:
  - download: {url: "file://{disk}"}
  - helper: {instance: "{instance}", user: root, private_key: "{key}", host_key: "{host_key}"}
  - volume: {helper: helper, size: 1}
  - write: {image: download}
  - snapshot: {description: "shuffle {n}"}
"""
MINE = """
name: mine
vars: {disk: {type: string}}
steps:
  - download: {url: "file://{disk}"}
  - snapshot: {}
  - register: {name: mine}
outputs: {image: register.image_id}
"""


@dataclass(frozen=True)
class Spare:
    """A disk that is not ours, and what is on it."""

    volume_id: str
    path: Path
    data: bytes

    def untouched(self) -> bool:
        """Say whether it holds its data at its beginning, and nothing else; holes are not read."""
        with open(self.path, "rb") as file:
            rest = [(max(start, len(self.data)), end) for start, end in extents(file.fileno())]
            beginning = file.read(len(self.data))
            zeros = all(
                not os.pread(file.fileno(), end - start, start).strip(b"\0") for start, end in rest if start < end
            )
        return beginning == self.data and zeros


def extents(file: int) -> Iterator[tuple[int, int]]:
    """Yield where a file holds data, from and to."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # ENXIO: there is no more of it
            os.lseek(file, 0, os.SEEK_SET)
            return
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


@dataclass(frozen=True)
class Host:
    """A user's own instance with three spare disks."""

    emi: Any
    ec2: Any
    instance: str
    spares: tuple[Spare, ...]
    words: tuple[str, ...]
    directory: Path

    def shuffle(self, dice: random.Random) -> dict[str, str]:
        """Stop it, attach its disks in another order under other letters, start it; return volumes by letter."""
        self.ec2.stop_instances(InstanceIds=[self.instance])
        self.reaches("stopped")
        for spare in self.spares:
            if self.volume(spare)["Attachments"]:
                self.ec2.detach_volume(VolumeId=spare.volume_id)
        order = dice.sample(self.spares, len(self.spares))
        letters = dice.sample(LETTERS, len(order))
        for spare, letter in zip(order, letters, strict=True):
            wait_until(lambda spare=spare: self.volume(spare)["State"], lambda state: state == "available", what="it")
            self.ec2.attach_volume(VolumeId=spare.volume_id, InstanceId=self.instance, Device=letter)
        self.ec2.start_instances(InstanceIds=[self.instance])
        self.reaches("running")
        return {letter: spare.volume_id for spare, letter in zip(order, letters, strict=True)}

    def volume(self, spare: Spare) -> dict[str, Any]:
        found: dict[str, Any] = self.ec2.describe_volumes(VolumeIds=[spare.volume_id])["Volumes"][0]
        return found

    def described(self) -> dict[str, Any]:
        (reservation,) = self.ec2.describe_instances(InstanceIds=[self.instance])["Reservations"]
        found: dict[str, Any] = reservation["Instances"][0]
        return found

    def reaches(self, state: str) -> None:
        wait_until(lambda: self.described()["State"]["Name"], lambda now: now == state, what=f"the instance {state}")

    def attached(self) -> dict[str, str]:
        """Return the volumes that are attached to it beside its root, by letter."""
        seen = self.described()
        mappings = {one["DeviceName"]: one["Ebs"]["VolumeId"] for one in seen["BlockDeviceMappings"]}
        return {letter: volume for letter, volume in mappings.items() if letter != seen["RootDeviceName"]}


@pytest.fixture
def host(emi: Any, shelf: Callable[[str], Any], tiny_disk: Path, tmp_path: Path) -> Host:
    endpoint = lifecycle.start(emi.home / "sandbox", machines="light", timeout=60)
    (tmp_path / "mine.yaml").write_text(MINE)
    image = emi.run(tmp_path / "mine.yaml", "--var", f"disk={tiny_disk}")["outputs"]["image"]
    key, host_key, ec2 = KeyPair.generate(), KeyPair.generate(), shelf("aws").client("ec2")
    ec2.import_key_pair(KeyName="mine", PublicKeyMaterial=key.public.encode())
    lines = "".join(f"    {line}\n" for line in host_key.private.decode().splitlines())
    wish = {"KeyName": "mine", "UserData": f"#cloud-config\nssh_keys:\n  ed25519_private: |\n{lines}"}
    launched = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, **wish)["Instances"][0]
    spares, numbers = [], random.Random(3)
    for size, data in ((1, b""), (1, numbers.randbytes(3 * MIB)), (2, b"")):
        made = ec2.create_volume(Size=size, AvailabilityZone=launched["Placement"]["AvailabilityZone"])["VolumeId"]
        wait_until(
            lambda made=made: ec2.describe_volumes(VolumeIds=[made])["Volumes"][0]["State"],
            lambda state: state == "available",
            what="a spare disk",
        )
        path = endpoint.directory / "volumes" / made / "data"
        with open(path, "r+b") as file:
            file.write(data)
        spares.append(Spare(made, path, data))
    (tmp_path / "key").write_bytes(key.private)
    (tmp_path / "key").chmod(0o600)
    told = {"instance": launched["InstanceId"], "key": tmp_path / "key", "host_key": host_key.public}
    words = [word for name, value in told.items() for word in ("--var", f"{name}={value}")]
    return Host(emi, ec2, launched["InstanceId"], tuple(spares), tuple(words), endpoint.directory)


@pytest.mark.sweep
@pytest.mark.timeout(7200)
def test_only_ours_is_ever_written_in_fifty_shuffles(host: Host, tiny_disk: Path, tmp_path: Path) -> None:
    host.reaches("running")
    recipe, dice = tmp_path / "wrong-disk.yaml", random.Random(50)
    recipe.write_text(RECIPE)
    expected = hashlib.sha256(tiny_disk.read_bytes()).digest()
    for number in range(50):
        letters = host.shuffle(dice)
        done = host.emi("run", recipe, "--var", f"disk={tiny_disk}", "--var", f"n={number}", *host.words)
        assert done.code == 0, (number, letters, done.err)
        assert [spare.untouched() for spare in host.spares] == [True, True, True], (number, letters)
        assert host.attached() == letters, number
        assert host.described()["State"]["Name"] == "running"
        filters = [{"Name": "description", "Values": [f"shuffle {number}"]}]
        (snapshot,) = host.ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
        with open(host.directory / "disks" / snapshot["SnapshotId"] / "data", "rb") as file:
            assert hashlib.sha256(file.read(tiny_disk.stat().st_size)).digest() == expected, (number, letters)
