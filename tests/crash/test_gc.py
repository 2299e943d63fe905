"""Runs killed by kill -9 litter an account beside runs that ended and beside look-alikes; gc takes the litter alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # noqa: TID251 - tests look at the cloud past emi
import pytest

from builder.cloud.claims import Claim
from builder.sandbox import lifecycle

BUNDLES = """
name: bundles
vars:
  n: {type: int}
  disk: {type: string}
steps:
  - download: {url: "file://{disk}"}
  - bundle: {name: "root-{n}", part_size: 512 KiB}
  - upload: {bucket: "bundles", prefix: images}
  - register: {name: "bundles-{n}"}
"""
TOKEN = Claim("somebody else's").token
# What a tag of ours is not: other words, other case, a value that no claim has.
TAGS = [
    {"emi:claims": TOKEN},
    {"EMI:claim": TOKEN},
    {"emi:claim ": TOKEN},
    {"emi:claim": "malformed"},
    {"emi:claim": TOKEN.upper()},
    {"emi:claim": f"{TOKEN}0"},
    {"emi:recipe": "bundles"},
]


@dataclass(frozen=True)
class Account:
    """An account in one of emi's sandboxes, seen with boto3."""

    shelf: Any
    zone: str

    def images(self) -> dict[str, str]:
        found = self.shelf.client("ec2").describe_images(Owners=["self"])["Images"]
        return {image["ImageId"]: image["Name"] for image in found}

    def everything(self) -> dict[str, str]:
        """Return what there is: ids and object keys, with what says that it is the same as before."""
        ec2, s3 = self.shelf.client("ec2"), self.shelf.client("s3")
        found = {one["SnapshotId"]: one["State"] for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
        found |= self.images()
        found |= {one["VolumeId"]: one["State"] for one in ec2.describe_volumes()["Volumes"]}
        found |= {one["KeyName"]: one["KeyFingerprint"] for one in ec2.describe_key_pairs()["KeyPairs"]}
        for bucket in s3.list_buckets()["Buckets"]:
            for one in s3.list_objects(Bucket=bucket["Name"]).get("Contents", ()):
                found[f"s3://{bucket['Name']}/{one['Key']}"] = one["ETag"]
        return found

    def snapshots(self, tags: list[dict[str, str]], ec2: Any) -> list[str]:
        """Make completed snapshots with tags, as another tool does."""
        # Eucalyptus' CreateVolume knows no ClientToken, which boto3 sends by itself.
        ec2.meta.events.register_last(
            "before-call.ec2.CreateVolume", lambda params, **_: params["body"].pop("ClientToken", None) and None
        )
        volume = ec2.create_volume(Size=1, AvailabilityZone=self.zone)["VolumeId"]
        _poll(lambda: ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")
        made = [str(ec2.create_snapshot(VolumeId=volume, Description="sweep 2")["SnapshotId"]) for _ in tags]
        for snapshot, wanted in zip(made, tags, strict=True):
            ec2.create_tags(Resources=[snapshot], Tags=[{"Key": key, "Value": value} for key, value in wanted.items()])
        _poll(lambda: {one["State"] for one in ec2.describe_snapshots(SnapshotIds=made)["Snapshots"]} == {"completed"})
        return made

    def image(self, name: str, snapshot: str, tags: dict[str, str]) -> str:
        """Register an image of a snapshot, as another tool does."""
        ec2 = self.shelf.client("ec2")
        device = "/dev/xvda" if self.shelf.endpoint.personality == "aws" else "/dev/sda"
        made = ec2.register_image(
            Name=name, RootDeviceName=device, Architecture="x86_64", VirtualizationType="hvm",
            BlockDeviceMappings=[{"DeviceName": device, "Ebs": {"SnapshotId": snapshot}}],
        )["ImageId"]  # fmt: skip
        ec2.create_tags(Resources=[made], Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
        return str(made)

    def objects(self) -> None:
        """Put objects beside ours: marked almost so, not marked, a copy of one of ours, and a manifest of others."""
        s3 = self.shelf.client("s3")
        marks = {"emi-claim": TOKEN, "emi-recipe": "bundles", "emi-manifest": "images/root-2.manifest.xml"}
        almost = [{}, {**marks, "emi-claim": "malformed"}, {**marks, "emi-claim": TOKEN.upper()},
                  {"emi-claims": TOKEN, "emi-manifest": marks["emi-manifest"]}, {"emi-claim": TOKEN},
                  {**marks, "emi-manifest": "images/root-7.manifest.xml"}]  # fmt: skip
        for number, metadata in enumerate(almost, start=90):
            key = f"images/root-2.part.{number}"
            s3.put_object(Bucket="bundles", Key=key, Body=b"theirs", Metadata=metadata)
        s3.put_object(Bucket="bundles", Key="images/root-2.manifest.xml.bak", Body=b"theirs", Metadata=marks)
        s3.put_object(Bucket="bundles", Key="images/root-9.manifest.xml", Body=b"<manifest/>", Metadata={})
        own = {"Bucket": "bundles", "Key": "images/root-2.part.00"}
        s3.copy_object(Bucket="bundles", Key="backup/root-2.part.00", CopySource=own)
        s3.create_bucket(Bucket="theirs")
        s3.copy_object(Bucket="theirs", Key="root-2.part.00.copy", CopySource=own)


def _poll(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    path = tmp_path / "bundles.yaml"
    path.write_text(BUNDLES)
    return path


@pytest.fixture(params=["aws", pytest.param("eucalyptus", marks=pytest.mark.sweep)])
def account(request, shelf: Callable[[str], Any]) -> Account:
    found = shelf(request.param)
    zone = found.client("ec2").describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    return Account(found, str(zone))


@pytest.mark.timeout(900)
def test_only_what_killed_runs_left_goes(emi, account, bundles, recipe, small_root, tiny_disk) -> None:
    cloud = account.shelf.endpoint.personality
    name = "sandbox" if cloud == "aws" else f"sandbox:{cloud}"

    def run(file: Path, disk: Path, number: int, at: str = "") -> None:
        words = ("--var", f"disk={disk}", "--var", f"n={number}", "--cloud", name)
        done = emi("run", file, *words, **({"EMI_CRASH_AT": at} if at else {}))
        assert done.code == (-9 if at else 0), done.err

    def gc(*words: str) -> dict[str, Any]:
        done = emi("gc", "--cloud", name, "--json", *words)
        assert done.code == 0, done.err
        return dict(json.loads(done.out))

    run(bundles, small_root, 1)
    if cloud == "aws":
        run(recipe, tiny_disk, 1)
    wanted = account.everything()
    run(bundles, small_root, 2, "after s3:PutObject@3")
    if cloud == "aws":
        run(recipe, tiny_disk, 2, "after ebs:StartSnapshot@1")
        run(recipe, tiny_disk, 3, "after ebs:PutSnapshotBlock@9")
    else:
        run(bundles, small_root, 3, "before journal:result@2")
        run(bundles, small_root, 4, "after ec2:RegisterImage@1")  # before it was tagged
        _only_by_id(account, wanted, gc)
    left = account.everything().keys() - wanted.keys()
    assert len([one for one in left if "root-2.part" in one]) >= 2
    assert ("s3://bundles/images/root-3.manifest.xml" in left) == (cloud != "aws")
    assert len([one for one in left if one.startswith("snap-")]) == (2 if cloud == "aws" else 0)

    others = _litter_of_others(account)
    before = account.everything()
    young = gc()["things"]
    assert {one["verdict"] for one in young} == {"in use", "too young"}
    seen = gc("--older-than", "0", "--all")["things"]
    assert {one["id"] for one in seen if one["goes"]} == left
    assert {one["id"] for one in seen if not one["goes"]} == {one for one in wanted if not one.startswith("vol-")}
    assert {(one["verdict"], one["recipe"] in ("bundles", "sweep")) for one in seen if not one["goes"]} == {
        ("in use", True)
    }
    assert all(one["run"] and one["why"] and one["created"] for one in seen)
    assert account.everything() == before

    done = gc("--older-than", "0", "--yes", "--all")
    assert {one["id"] for one in done["removed"]} == left
    assert (done["refused"], done["kept"]) == ([], [])
    assert account.everything() == {one: state for one, state in before.items() if one not in left}
    assert others <= account.everything().keys()
    if cloud != "aws":
        run(bundles, small_root, 2)
        assert "bundles-2" in account.images().values()


def _only_by_id(account: Account, before: dict[str, str], gc: Callable[..., dict[str, Any]]) -> None:
    """Remove, by its id, the image that a kill left without a tag."""
    (untagged,) = account.images().keys() - before.keys()
    done = gc(untagged, "--older-than", "0", "--yes")
    assert [one["id"] for one in done["removed"]] == [untagged]


def _litter_of_others(account: Account) -> set[str]:
    """Put look-alikes into the account; return their ids."""
    before = account.everything().keys()
    ec2 = account.shelf.client("ec2")
    snapshots = account.snapshots(TAGS, ec2)
    for number, (snapshot, tags) in enumerate(zip(snapshots, TAGS, strict=True)):
        account.image(f"bundles-2.{number}", snapshot, tags)
    ec2.create_key_pair(KeyName="emi-bundles")
    account.objects()
    shared = _shared_by_another(account)
    mine = ec2.describe_snapshots(RestorableByUserIds=["self"])["Snapshots"]
    assert shared in {one["SnapshotId"] for one in mine}
    made = set(account.everything().keys() - before)
    assert len(made) >= 2 * len(TAGS) + 10
    return made


def _shared_by_another(account: Account) -> str:
    """Share with us a snapshot of another account, which has our tag there."""
    end = account.shelf.endpoint
    keys = lifecycle.ask(end, "/_sandbox/accounts?name=other", method="PUT")
    theirs = boto3.client(
        "ec2", endpoint_url=end.service("ec2"), region_name=end.region,
        aws_access_key_id=keys["access_key"], aws_secret_access_key=keys["secret_key"],
    )  # fmt: skip
    own = account.shelf.client("sts").get_caller_identity()["Account"]
    (snapshot,) = account.snapshots([{"emi:claim": TOKEN}], theirs)
    theirs.modify_snapshot_attribute(
        SnapshotId=snapshot, Attribute="createVolumePermission", OperationType="add", UserIds=[own]
    )
    return snapshot
