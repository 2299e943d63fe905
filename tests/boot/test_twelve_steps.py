"""The twelve steps, on machines: from a helper in the instance store to an EBS image that boots and lets us in."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # noqa: TID251 - tests look at the cloud past emi
import pytest

from builder import proc
from builder.image.write import write_sparse
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair
from builder.sandbox import lifecycle
from builder.sandbox.machines.machine import HOST
from pipelines.artifact import ImageFile
from pipelines.store import FileStore
from tests.serving import serve

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(7200)]

MIB = 1 << 20
RECIPES = Path(__file__).parents[2] / "recipes"
LIKE_EUCALYPTUS = ("--cloud", "sandbox:eucalyptus")
PATIENCE = 1800  # seconds, for what a guest under emulation does on a machine that has other work
FROM_HERE = """
name: ebs-from-here
vars: {helper: {type: string}, disk: {type: string}, image: {type: string}}
steps:
  - download: {url: "file://{disk}"}
  - helper: {image_id: "{helper}", user: debian}
  - volume: {helper: helper, image: download}
  - write: {image: download}
  - snapshot: {description: "{image}"}
  - register: {name: "{image}"}
outputs:
  image: register.image_id
  snapshot: snapshot.snapshot_id
"""


@dataclass(frozen=True)
class Lab:
    """A sandbox like Eucalyptus with real guests, a helper's image in it, and a publisher's image behind a mirror."""

    emi: Any
    endpoint: lifecycle.Endpoint
    helper: str
    upstream: Path  # the qcow2
    disk: Path  # the same as a raw file
    port: int

    @property
    def ec2(self) -> Any:
        keys = {"aws_access_key_id": self.endpoint.access_key, "aws_secret_access_key": self.endpoint.secret_key}
        url = self.endpoint.service("ec2")
        return boto3.client("ec2", endpoint_url=url, region_name=self.endpoint.region, **keys)

    def run(self, recipe: Path, **told: str | int) -> dict[str, Any]:
        """Run a recipe that must succeed; return its outputs."""
        words = [word for name, value in told.items() for word in ("--var", f"{name}={value}")]
        done = self.emi("run", recipe, "--json", *LIKE_EUCALYPTUS, *words, timeout=3 * PATIENCE)
        assert done.code == 0, done.err
        outputs: dict[str, Any] = done.last()["outputs"]
        return outputs

    def written(self) -> int:
        """Return how many bytes are there of the volumes' files."""
        files = (self.endpoint.directory / "volumes").glob("*/data")
        return max((file.stat().st_blocks * 512 for file in files), default=0)

    def guest(self) -> int:
        """Return the process of the one guest that runs."""
        commands = {entry.parent: entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline")}
        ours = os.fsencode(self.endpoint.directory / "machines")
        (found,) = [path for path, words in commands.items() if words.startswith(b"qemu-system") and ours in words]
        return int(found.name)

    def has_the_bytes(self, snapshot: str) -> None:
        size = self.disk.stat().st_size
        with open(self.endpoint.directory / "disks" / snapshot / "data", "rb") as data, open(self.disk, "rb") as disk:
            while expected := disk.read(1 << 20):
                assert data.read(len(expected)) == expected, data.tell()
            assert disk.tell() == size

    def nothing_is_left(self) -> None:
        launched = [one for each in self.ec2.describe_instances()["Reservations"] for one in each["Instances"]]
        assert {one["State"]["Name"] for one in launched} <= {"terminated"}
        assert self.ec2.describe_volumes()["Volumes"] == []
        assert self.ec2.describe_key_pairs()["KeyPairs"] == []
        assert [one["GroupName"] for one in self.ec2.describe_security_groups()["SecurityGroups"]] == ["default"]

    def boots_and_lets_us_in(self, image: str) -> None:
        """Launch the image with a key of ours; its host key is the one that its console shows."""
        key = KeyPair.generate()
        self.ec2.import_key_pair(KeyName=image, PublicKeyMaterial=key.public.encode())
        wish = {"ImageId": image, "KeyName": image, "MinCount": 1, "MaxCount": 1}
        instance = self.ec2.run_instances(**wish)["Instances"][0]["InstanceId"]
        login = Login(host=self.address(instance), user="debian", key=key, pinned=(self.host_key(instance),))
        remote = Remote(login, patience=PATIENCE)
        try:
            said = Shell(remote).script("findmnt --noheadings --output FSTYPE /; sudo -n id -u", timeout=PATIENCE)
            assert said.stdout.decode().split() == ["ext4", "0"]
        finally:
            remote.close()
            self.ec2.terminate_instances(InstanceIds=[instance])
            self.ec2.delete_key_pair(KeyName=image)
        until(lambda: self.described(instance)["State"]["Name"] == "terminated", "the instance to be gone")

    def described(self, instance: str) -> dict[str, Any]:
        (reservation,) = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        found: dict[str, Any] = reservation["Instances"][0]
        return found

    def address(self, instance: str) -> str:
        until(lambda: self.described(instance)["State"]["Name"] == "running", "the instance to run")
        return str(self.described(instance)["PublicIpAddress"])

    def host_key(self, instance: str) -> str:
        def shown() -> str | None:
            console = self.ec2.get_console_output(InstanceId=instance).get("Output", "")
            begin, end = (f"-----{word} SSH HOST KEY KEYS-----" for word in ("BEGIN", "END"))
            between = console.partition(begin)[2].partition(end)
            lines = [line[line.index("ssh-") :] for line in between[0].splitlines() if "ssh-ed25519" in line]
            return " ".join(lines[0].split()[:2]) if between[1] and lines else None

        return str(until(shown, "the host keys on the console"))


def until(condition: Any, what: str) -> Any:
    """Return what the condition gives, once it gives something."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def lab(shared_emi: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    place = tmp_path_factory.mktemp("lab")
    directory = shared_emi.home / "sandbox-eucalyptus"
    endpoint = lifecycle.start(directory, personality="eucalyptus", machines="qemu", timeout=120)
    outputs = {}
    for name, cloud in (("helper", ()), ("helper-instance-store", LIKE_EUCALYPTUS)):
        done = shared_emi("run", RECIPES / f"{name}.yaml", "--json", *cloud, timeout=2 * PATIENCE)
        assert done.code == 0, done.err
        outputs[name] = done.last()["outputs"]
    disk, upstream = place / "disk.raw", place / "mirror" / "disk.qcow2"
    with FileStore(shared_emi.home / "store" / "objects").open_image(ImageFile(**outputs["helper"]["disk"])) as reader:
        write_sparse(reader, disk)
    upstream.parent.mkdir()
    proc.run(["qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", disk, upstream])
    with open(upstream, "rb") as file:
        (upstream.parent / "SHA512SUMS").write_text(f"{hashlib.file_digest(file, 'sha512').hexdigest()}  disk.qcow2\n")
    helper = outputs["helper-instance-store"]["image"]
    try:
        with serve(upstream.parent) as port:
            lifecycle.forward(directory, port)
            yield Lab(shared_emi, endpoint, helper, upstream, disk, port)
    finally:
        lifecycle.stop(directory)


def test_the_helper_downloads_converts_and_writes_the_publisher_s_image(lab: Lab) -> None:
    made = lab.run(
        RECIPES / "ebs-via-helper.yaml",
        helper=lab.helper,
        user="debian",
        url=f"http://{HOST}:{lab.port}/disk.qcow2",  # where the helper finds the mirror
        checksum=f"http://127.0.0.1:{lab.port}/SHA512SUMS",  # and where we do
        size=4,
        image="twelve",
    )
    lab.nothing_is_left()
    lab.has_the_bytes(made["snapshot"])
    lab.boots_and_lets_us_in(made["image"])


def test_an_image_from_here_is_written_through_the_helper(lab: Lab, tmp_path: Path) -> None:
    recipe = tmp_path / "ebs-from-here.yaml"
    recipe.write_text(FROM_HERE)
    made = lab.run(recipe, helper=lab.helper, disk=str(lab.upstream), image="from-here")
    lab.nothing_is_left()
    lab.has_the_bytes(made["snapshot"])
    lab.boots_and_lets_us_in(made["image"])


def test_a_guest_that_is_killed_in_mid_write(lab: Lab, tmp_path: Path) -> None:
    """The run says why it ends; the next takes another guest and the same volume, and sends what is missing."""
    recipe = tmp_path / "killed.yaml"
    recipe.write_text(FROM_HERE.replace("ebs-from-here", "killed"))
    told = {"helper": lab.helper, "disk": lab.upstream, "image": "killed"}
    words = [*LIKE_EUCALYPTUS, *(word for name, value in told.items() for word in ("--var", f"{name}={value}"))]
    process = lab.emi.start("run", recipe, "--json", *words)
    until(lambda: lab.written() > 128 * MIB or process.poll() is not None, "a part of the image to be written")
    (volume,) = [one["VolumeId"] for one in lab.ec2.describe_volumes()["Volumes"]]
    os.kill(lab.guest(), signal.SIGKILL)
    written = lab.written()
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode > 1, error
    assert "the helper answers no more" in error
    done = lab.emi("run", recipe, "--json", *words, timeout=PATIENCE)
    assert done.code == 0, done.err
    data = lab.disk.stat().st_blocks * 512
    assert done.sent() <= data - written * 9 // 10, (done.sent(), data, written)
    made = done.last()["outputs"]
    (snapshot,) = lab.ec2.describe_snapshots(SnapshotIds=[made["snapshot"]])["Snapshots"]
    assert snapshot["VolumeId"] == volume
    lab.nothing_is_left()
    lab.has_the_bytes(made["snapshot"])
