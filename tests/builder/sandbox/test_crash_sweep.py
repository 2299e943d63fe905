"""kill -9 of the server at random moments under a load of everything: what was acknowledged is there, nothing by half.

Several clients work at once, each with things of its own, and keep a list of what they did:

- before a call they note what it may change, with every value that would be right from then on;
- once it is answered, only the new one is.

After each kill and restart all of it is read back. A call in flight may have happened or not; anything else that
differs is a loss. Runs are drawn from a seed, which the test prints.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import random
import signal
import time

import pytest
from botocore.exceptions import BotoCoreError  # noqa: TID251 - as boto3's users see a server die

from builder import pool
from builder.sandbox import lifecycle

SEED = 20261
GONE = None  # the value of what is not there
LOST = (OSError, http.client.HTTPException, BotoCoreError)


class Ledger:
    """What may be found: for each name the set of values, of which exactly one is there."""

    def __init__(self):
        self.allowed = {}
        self.acknowledged = 0

    @contextlib.contextmanager
    def change(self, name, value):
        """Note that the block makes `name` be `value`, the old one being right too until it ends without an error."""
        self.allowed[name] = self.allowed.get(name, {GONE}) | {value}
        yield
        self.allowed[name] = {value}
        self.acknowledged += 1

    def holds(self, found):
        """Say how `found`, {name: value}, differs from what may be there; then take it for what is there."""
        wrong = {}
        for name, values in self.allowed.items():
            value = found.get(name, GONE)
            if value not in values:
                wrong[name] = (value, values)
            self.allowed[name] = {value}
        return wrong | {name: (value, "never put there") for name, value in found.items() if name not in self.allowed}


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Blocks:
    """Puts blocks onto a snapshot, some over others; completes it now and then and begins another."""

    def __init__(self, running, number):
        self.ledger, self.number, self.turn = Ledger(), number, 0
        self.open, self.data = None, [random.Random(f"{number} {n}").randbytes(512 << 10) for n in range(6)]

    def step(self, running, chance):
        raw = self.raw
        if self.open is None:
            self.turn += 1
            self.name = f"blocks {self.number} {self.turn}"
            self.open = raw.start(ClientToken=self.name, Description=self.name)
            self.indexes = set()
        index, data = chance.randrange(60), chance.choice(self.data)
        self.indexes.add(index)
        with self.ledger.change((self.open, index), digest(data)):
            assert raw.put(self.open, index, data)[0] == 201
        if chance.random() < 0.05:
            self.finish(raw)

    def finish(self, raw):
        """Complete it with the count that is right: the server says it, where a put was in flight."""
        self.ledger.allowed[(self.open, "sealed")] = {GONE, "yes"}
        status, _, _, answer = raw.complete(self.open, len(self.indexes))
        if status == 202:
            self.ledger.allowed[(self.open, "sealed")] = {"yes"}
            self.open = None
        else:
            count = int(str(answer["Message"]).split(" blocks were")[0].rpartition(" ")[2])
            assert count <= len(self.indexes)
            assert raw.complete(self.open, count)[0] == 202
            self.ledger.allowed[(self.open, "sealed")] = {"yes"}
            self.open = None

    def connect(self, running):
        self.raw = running.raw()

    def found(self, running):
        """Read every block of every snapshot of ours; a pending one is completed for it."""
        raw = running.raw()
        found = {}
        states = {one["SnapshotId"]: one for one in running.client("ec2").describe_snapshots()["Snapshots"]}
        mine = {name for name, _ in self.ledger.allowed} | ({self.open} if self.open else set())
        for name in mine:
            assert name in states, f"{name} was started"
            if states[name]["State"] == "pending" and name == self.open:
                self.indexes = self.indexes or set()
                sealed = self.ledger.allowed.get((name, "sealed"), {GONE})
                assert GONE in sealed, f"{name} was completed"
                self.finish(raw)
            raw.wait(name)
            found |= {(name, index): digest(data) for index, data in raw.read(name).items()}
            found[(name, "sealed")] = "yes"
        self.open = None
        return found


class Records:
    """Makes images, tags them, deregisters them; makes volumes, deletes them; takes snapshots of them."""

    def __init__(self, running, number):
        self.ledger, self.number, self.turn = Ledger(), number, 0
        raw = running.raw()
        self.base = raw.snapshot({1: random.Random(number).randbytes(512 << 10)}, Description=f"base {number}")

    def connect(self, running):
        self.ec2 = running.client("ec2")

    def step(self, running, chance):
        self.turn += 1
        key = f"{self.number} {self.turn}"
        tags = [{"Key": "key", "Value": key}]
        if chance.random() < 0.5:
            device = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": self.base}}
            named = {"Name": f"image {key}", "RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [device]}
            spec = [{"ResourceType": "image", "Tags": tags}]
            with self.ledger.change(("image", key), "there"):
                made = self.ec2.register_image(**named, TagSpecifications=spec)["ImageId"]
            with self.ledger.change(("image", key), "marked"):
                self.ec2.create_tags(Resources=[made], Tags=[{"Key": "mark", "Value": "yes"}])
            if chance.random() < 0.5:
                with self.ledger.change(("image", key), GONE):
                    self.ec2.deregister_image(ImageId=made)
            return
        spec = [{"ResourceType": "volume", "Tags": tags}]
        with self.ledger.change(("volume", key), "there"):
            made = self.ec2.create_volume(
                AvailabilityZone="us-east-1a", SnapshotId=self.base, TagSpecifications=spec, ClientToken=key
            )["VolumeId"]
        if chance.random() < 0.2:
            return  # perhaps killed while its bytes are moved
        self.ec2.get_waiter("volume_available").wait(VolumeIds=[made], WaiterConfig={"Delay": 0.05})
        if chance.random() < 0.4:
            spec = [{"ResourceType": "snapshot", "Tags": tags}]
            with self.ledger.change(("snapshot", key), "there"):
                self.ec2.create_snapshot(VolumeId=made, TagSpecifications=spec)
        if chance.random() < 0.7:
            with self.ledger.change(("volume", key), GONE):
                self.ec2.delete_volume(VolumeId=made)

    def found(self, running):
        ec2, found = running.client("ec2"), {}
        raw = running.raw()
        content = {1: random.Random(self.number).randbytes(512 << 10)}
        mine = [{"Name": "tag:key", "Values": [f"{self.number} *"]}]
        for one in ec2.describe_images(Owners=["self"], Filters=mine)["Images"]:
            tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
            assert one["Name"] == f"image {tags['key']}"
            assert one["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == self.base
            found[("image", tags["key"])] = "marked" if "mark" in tags else "there"
        for one in ec2.describe_volumes(Filters=mine)["Volumes"]:
            ec2.get_waiter("volume_available").wait(VolumeIds=[one["VolumeId"]], WaiterConfig={"Delay": 0.05})
            held = (running.directory / "volumes" / one["VolumeId"] / "data").open("rb")
            with held:
                held.seek(512 << 10)
                assert held.read(512 << 10) == content[1]
            found[("volume", one["Tags"][0]["Value"])] = "there"
        for one in ec2.describe_snapshots(Filters=mine)["Snapshots"]:
            raw.wait(one["SnapshotId"])
            assert raw.read(one["SnapshotId"]) == content
            found[("snapshot", one["Tags"][0]["Value"])] = "there"
        assert raw.read(self.base) == content
        return found


class Objects:
    """Puts, replaces, deletes objects; uploads some in parts; keeps a bucket of its own."""

    def __init__(self, running, number):
        self.ledger, self.bucket, self.turn = Ledger(), f"bucket-{number}", 0
        running.client("s3").create_bucket(Bucket=self.bucket)

    def connect(self, running):
        self.s3 = running.client("s3")

    def step(self, running, chance):
        key = f"key {chance.randrange(20)}"
        what = chance.random()
        if what < 0.2:
            with self.ledger.change(key, GONE):
                self.s3.delete_object(Bucket=self.bucket, Key=key)
        elif what < 0.8:
            data = chance.randbytes(chance.choice([0, 10, 100_000, 3 << 20]))
            with self.ledger.change(key, digest(data)):
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        else:
            self.upload(key, chance)

    def upload(self, key, chance):
        where = {"Bucket": self.bucket, "Key": key}
        upload = {**where, "UploadId": self.s3.create_multipart_upload(**where)["UploadId"]}
        with self.ledger.change(("upload", upload["UploadId"]), "there"):
            pass
        parts, whole = [], b""
        for number, size in ((1, 5 << 20), (2, 1000)):
            data = chance.randbytes(size)
            made = self.s3.upload_part(**upload, PartNumber=number, Body=data)
            parts.append({"PartNumber": number, "ETag": made["ETag"]})
            whole += data
            with self.ledger.change(("part", upload["UploadId"], number), made["ETag"]):
                pass
        ended = [("upload", upload["UploadId"]), *(("part", upload["UploadId"], number) for number in (1, 2))]
        if chance.random() < 0.6:
            with contextlib.ExitStack() as changes:
                for name in ended:
                    changes.enter_context(self.ledger.change(name, GONE))
                with self.ledger.change(key, digest(whole)):
                    self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        elif chance.random() < 0.5:
            with contextlib.ExitStack() as changes:
                for name in ended:
                    changes.enter_context(self.ledger.change(name, GONE))
                self.s3.abort_multipart_upload(**upload)

    def found(self, running):
        s3, found = running.client("s3"), {}
        for one in s3.list_objects_v2(Bucket=self.bucket).get("Contents", []):
            body = s3.get_object(Bucket=self.bucket, Key=one["Key"])["Body"].read()
            assert len(body) == one["Size"]
            found[one["Key"]] = digest(body)
        for one in s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []):
            where = {"Bucket": self.bucket, "Key": one["Key"], "UploadId": one["UploadId"]}
            parts = s3.list_parts(**where).get("Parts", [])
            known = ("upload", one["UploadId"]) in self.ledger.allowed
            if not known:  # made, but its id was lost with the answer
                assert parts == []
                s3.abort_multipart_upload(**where)
                continue
            found[("upload", one["UploadId"])] = "there"
            for part in parts:
                name = ("part", one["UploadId"], part["PartNumber"])
                self.ledger.allowed.setdefault(name, {GONE, part["ETag"]})  # stored, its answer lost
                found[name] = part["ETag"]
        return found


class Names:
    """Makes users with policies and parameters, changes and removes them."""

    def __init__(self, running, number):
        self.ledger, self.number, self.turn = Ledger(), number, 0

    def connect(self, running):
        self.iam, self.ssm = running.client("iam"), running.client("ssm")

    def step(self, running, chance):
        self.turn += 1
        name = f"u{self.number}-{chance.randrange(6)}"
        if chance.random() < 0.5:
            self.parameter(f"/crash/{self.number}/{chance.randrange(8)}", chance)
        elif self.ledger.allowed.get(("user", name), {GONE}) == {GONE}:
            with self.ledger.change(("user", name), "there"):
                self.iam.create_user(UserName=name)
        else:
            with self.ledger.change(("user", name), GONE):
                self.iam.delete_user(UserName=name)

    def parameter(self, name, chance):
        if chance.random() < 0.3 and self.ledger.allowed.get(("parameter", name), {GONE}) != {GONE}:
            with self.ledger.change(("parameter", name), GONE):
                self.ssm.delete_parameter(Name=name)
            return
        with self.ledger.change(("parameter", name), value := f"value {self.turn}"):
            self.ssm.put_parameter(Name=name, Value=value, Type="String", Overwrite=True)

    def found(self, running):
        iam, ssm = running.client("iam"), running.client("ssm")
        users = [one["UserName"] for one in iam.list_users()["Users"]]
        found = {("user", name): "there" for name in users if name.startswith(f"u{self.number}-")}
        pages = ssm.get_paginator("get_parameters_by_path").paginate(Path=f"/crash/{self.number}/")
        for one in (one for page in pages for one in page["Parameters"]):
            found[("parameter", one["Name"])] = one["Value"]
        return found


KINDS = (Blocks, Blocks, Records, Objects, Names)


def work(client, running, chance):
    """Do step after step until the server is gone."""
    client.connect(running)
    try:
        while True:
            client.step(running, chance)
    except LOST:
        return


def begin(client, running, seed):
    return pool.Background(lambda: work(client, running, random.Random(seed)))


def orphans(running):
    """Return what lies in the directory of snapshots and volumes and belongs to none."""
    ec2 = running.client("ec2")
    disks = {entry.name for entry in (running.directory / "disks").iterdir()}
    volumes = {entry.name for entry in (running.directory / "volumes").iterdir()}
    disks -= {one["SnapshotId"] for one in ec2.describe_snapshots()["Snapshots"]}
    return disks | volumes - {one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]}


def sweep(running, kills, seed):
    """Kill and restart so many times; return how many calls were acknowledged, each of them found afterwards."""
    print(f"seed {seed}")
    clients = [kind(running, number) for number, kind in enumerate(KINDS)]
    chance = random.Random(seed)
    for kill in range(kills):
        working = [begin(client, running, f"{seed} {kill} {number}") for number, client in enumerate(clients)]
        before = sum(client.ledger.acknowledged for client in clients)
        deadline = time.monotonic() + 60
        while sum(client.ledger.acknowledged for client in clients) < before + 10 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.4)
        os.kill(running.endpoint.pid, signal.SIGKILL)
        for one in working:
            one.result(60)
        running.restart()
        for client in clients:
            assert client.ledger.holds(client.found(running)) == {}, f"kill {kill} of seed {seed}"
        assert orphans(running) == set()
    acknowledged = sum(client.ledger.acknowledged for client in clients)
    print(f"{kills} kills, {acknowledged} acknowledged changes, all there")
    return acknowledged


@pytest.mark.behaviour("Operation", "kill -9 under load", "10 kills, in `make test`: everything acknowledged is there")
def test_ten_kills(make_sandbox):
    acknowledged = sweep(make_sandbox(), 10, SEED)
    assert acknowledged > 100


@pytest.mark.sweep
@pytest.mark.timeout(3600)
@pytest.mark.behaviour(
    "Operation",
    "kill -9 at 200 random points under load",
    "blocks, snapshots, volumes, images, tags, objects, uploads and parts, users, parameters: everything acknowledged "
    "is there with the right bytes, nothing by half, no orphan",
)
def test_two_hundred_kills(make_sandbox):
    for number in range(4):
        running = make_sandbox(str(number))
        assert sweep(running, 50, SEED + 1 + number) > 500
        lifecycle.stop(running.directory)
