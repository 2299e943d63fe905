"""`emi sandbox` for a person: start, status, reset, export, import."""

from __future__ import annotations

import json
import os
import pty
import subprocess  # noqa: TID251 - emi at a terminal
import sys
from pathlib import Path

import boto3  # noqa: TID251 - the client that users bring
import pytest

EMI = Path(sys.executable).parent / "emi"


def client(directory: Path, service: str = "ec2"):
    end = json.loads((directory / "endpoint.json").read_text())
    keys = {"aws_access_key_id": end["access_key"], "aws_secret_access_key": end["secret_key"]}
    return boto3.client(service, endpoint_url=end["plain_url"], region_name=end["region"], **keys)


def volumes(directory: Path) -> set[str]:
    return {one["VolumeId"] for one in client(directory).describe_volumes()["Volumes"]}


def at_terminal(emi, answer: str, *words: str) -> str:
    """Run emi where a person types `answer`; return all that was shown."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "EMI_HOME": str(emi.home), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([EMI, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the other side is closed
        pass
    process.wait(60)
    os.close(ours)
    return shown.decode()


def test_start_says_how_other_tools_reach_it(emi):
    out = emi("sandbox", "start", "--tls").out
    end = json.loads((emi.home / "sandbox" / "endpoint.json").read_text())
    assert f"{end['plain_url']} and {end['tls_url']}" in out
    assert f"AWS_ENDPOINT_URL={end['tls_url']} " in out
    assert f"AWS_CA_BUNDLE={end['ca_file']}" in out
    assert "running already, as it is" in emi("sandbox", "start", "--port", "1").err
    assert json.loads(emi("sandbox", "start", "--json").out)["tls_url"] == end["tls_url"]


def test_another_directory_is_another_sandbox(emi, tmp_path):
    place = tmp_path / "other"
    try:
        assert emi("sandbox", "start", "--directory", place, "--port", "0").code == 0
        emi("sandbox", "start")
        made = client(place).create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
        assert (volumes(place), volumes(emi.home / "sandbox")) == ({made}, set())
        assert made in emi("sandbox", "status", "--directory", place).out
        assert made not in emi("sandbox", "status").out
    finally:
        assert emi("sandbox", "stop", "--directory", place).out == "The sandbox is stopped.\n"


def test_a_sandbox_may_be_like_eucalyptus(emi, tmp_path):
    place = ("--directory", tmp_path / "cloud")
    try:
        out = emi("sandbox", "start", *place, "--personality", "eucalyptus", "--release", "4.4.2").out
        end = json.loads((tmp_path / "cloud" / "endpoint.json").read_text())
        assert "region eucalyptus, personality eucalyptus 4.4.2" in out
        assert f"EC2_URL={end['url']}/services/compute S3_URL={end['url']}/services/objectstorage" in out
        assert "personality eucalyptus 4.4.2: 0 images" in emi("sandbox", "status", *place).out
        assert json.loads(emi("sandbox", "status", "--json", *place).out)["personality"] == "eucalyptus"
        refused = emi("sandbox", "start", *place, "--personality", "aws")
        assert (refused.code, "has the personality eucalyptus for good, not aws" in refused.err) == (2, True)
    finally:
        emi("sandbox", "stop", *place)


def test_status_is_for_people_or_programs(emi):
    emi("sandbox", "start")
    made = client(emi.home / "sandbox").create_volume(
        AvailabilityZone="us-east-1a",
        Size=2,
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "[bold]"}]}],
    )["VolumeId"]
    lines = emi("sandbox", "status").out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("volumes: 1"))
    row = dict(zip(lines[at + 1].split("\t"), lines[at + 2].split("\t"), strict=True))
    assert (row["volume"], row["size"], row["tags"]) == (made, "2 GiB", "Name=[bold]")
    assert "None: images, snapshots, instances" in lines[-1]
    told = json.loads(emi("sandbox", "status", "--json").out)
    (only,) = told["tables"]["volumes"]["rows"]
    assert (told["images"], told["tables"]["volumes"]["total"], only["size"]) == (0, 1, 2 << 30)
    assert not [name for name in told if "key" in name]
    assert "Name=[bold]" in at_terminal(emi, "", "sandbox", "status")
    emi("sandbox", "stop")
    assert json.loads(emi("sandbox", "status", "--json").out) is None


def test_another_account_has_keys_of_its_own(emi):
    made = json.loads(emi("sandbox", "account", "a partner", "--json").out)
    keys = {"aws_access_key_id": made["access_key"], "aws_secret_access_key": made["secret_key"]}
    end = json.loads((emi.home / "sandbox" / "endpoint.json").read_text())
    sts = boto3.client("sts", endpoint_url=end["plain_url"], region_name=end["region"], **keys)
    assert sts.get_caller_identity()["Account"] == made["account"]
    assert f"{made['account']}\ta partner" in emi("sandbox", "status").out
    assert "AWS_SECRET_ACCESS_KEY=" in emi("sandbox", "account", "another").out
    long = emi("sandbox", "account", "x" * 51)
    assert (long.code, "400 Bad Request" in long.err) == (5, True)


@pytest.mark.behaviour("Operation", "emi sandbox reset", "asks first; all is gone, keys and port stay")
def test_reset_asks_and_empties(emi):
    emi("sandbox", "start")
    place = emi.home / "sandbox"
    made = client(place).create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    before = json.loads((place / "endpoint.json").read_text())
    refused = emi("sandbox", "reset")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert "Nothing was changed." in at_terminal(emi, "n\n", "sandbox", "reset")
    assert volumes(place) == {made}
    assert "is empty" in at_terminal(emi, "y\n", "sandbox", "reset")
    assert volumes(place) == set()
    after = json.loads((place / "endpoint.json").read_text())
    assert after == before | {"pid": after["pid"]}
    assert list((place / "volumes").iterdir()) == []
    emi("sandbox", "stop")
    assert emi("sandbox", "reset", "--yes").code == 0
    assert "is not running" in emi("sandbox", "status").out  # who stopped it finds it stopped


@pytest.mark.behaviour("Operation", "emi sandbox reset", "is refused while a run of emi uses the sandbox")
def test_reset_and_import_are_refused_while_a_run_uses_it(emi, tiny_disk, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    server = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen(["python3", "-c", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stall:
        port = int(stall.stdout.readline())
        emi("sandbox", "start")
        recipe.write_text(
            f"name: slow\nsteps:\n  - download: {{url: 'http://127.0.0.1:{port}/x', checksum: 'sha256:{'0' * 64}'}}\n"
            "  - snapshot: {}\n  - register: {name: slow}\n"
        )
        run = emi.start("run", recipe)
        try:
            while not any("running" in line for line in emi("status").out.splitlines()):
                assert run.poll() is None, run.communicate()
            for words in (["reset", "--yes"], ["import", recipe, "--yes"]):
                done = emi("sandbox", *words)
                assert (done.code, "uses the sandbox" in done.err) == (8, True)
        finally:
            run.kill()
            run.communicate()
        stall.stdin.close()
    assert emi("sandbox", "reset", "--yes").code == 0


def test_export_and_import_are_two_commands(emi, tmp_path):
    emi("sandbox", "start")
    file, place = tmp_path / "bug.tar.zst", tmp_path / "other"
    made = client(emi.home / "sandbox").create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    assert "bug.tar.zst" in emi("sandbox", "export", file).out
    again = emi("sandbox", "export", file)
    assert (again.code, "--yes" in again.err) == (2, True)
    assert emi("sandbox", "export", file, "--yes").code == 0
    assert emi("sandbox", "import", file, "--directory", place).code == 0  # nothing to lose there: nobody asks
    asked = emi("sandbox", "import", file, "--directory", place)
    assert (asked.code, "--yes" in asked.err) == (2, True)
    try:
        emi("sandbox", "start", "--directory", place)
        assert volumes(place) == {made}
    finally:
        emi("sandbox", "stop", "--directory", place)
    assert emi("sandbox", "import", tmp_path / "none", "--yes").code == 3
    assert volumes(emi.home / "sandbox") == {made}


def test_a_run_after_a_reset_makes_everything_anew(emi, tiny_disk, tmp_path):
    """What the journal knows of the old state must not pass for the new one's."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: tiny\nsteps:\n  - download: {{url: 'file://{tiny_disk}'}}\n"
        "  - snapshot: {}\n  - register: {name: tiny}\n"
    )
    emi.run(recipe)
    assert emi("sandbox", "reset", "--yes").code == 0
    emi.run(recipe)
    images = client(emi.home / "sandbox").describe_images(Owners=["self"])["Images"]
    snapshots = client(emi.home / "sandbox").describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert [one["Name"] for one in images] == ["tiny"]
    assert [one["SnapshotId"] for one in snapshots] == [images[0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]]
