"""kill -9 under load and restart: every acknowledged object is whole, none is a mixture, nothing is left over."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import signal
import time

import pytest
from botocore.exceptions import BotoCoreError  # noqa: TID251 - the client that users bring

from builder import pool

AREA = "S3 objects"
MIB = 1 << 20


def kill(running):
    os.kill(running.endpoint.pid, signal.SIGKILL)


def until_killed(running, work):
    """Run `work(client, number)` for 0, 1, … until the server is gone."""
    client = running.client("s3")
    with contextlib.suppress(BotoCoreError):
        for number in itertools.count():
            work(client, number)


class Load:
    """What was asked and acknowledged: for each key the contents that it may have; None is no object."""

    def __init__(self):
        self.allowed = {}
        self.acknowledged = 0

    def change(self, key, content, call):
        self.allowed[key] = self.allowed.get(key, {None}) | {content}  # the old one or the new one, from here …
        call()
        self.allowed[key] = {content}  # … to here
        self.acknowledged += 1

    def work(self, worker, seed):
        """Return what one connection does, on keys that no other one touches."""
        dice = random.Random(seed)

        def one(client, number):
            key = f"w{worker}/{number % 7}"
            where = {"Bucket": "bucket", "Key": key}
            content = dice.randbytes(dice.choice((0, 10, 5000, 700_000)))
            match number % 5:
                case 3:
                    self.change(key, None, lambda: client.delete_object(**where))
                case 4:
                    self.change(key, PART + content, lambda: self.upload(client, where, content))
                case _:
                    self.change(key, content, lambda: client.put_object(**where, Body=content))

        return one

    @staticmethod
    def upload(client, where, content):
        named = {**where, "UploadId": client.create_multipart_upload(**where)["UploadId"]}
        parts = [
            {"PartNumber": number, "ETag": client.upload_part(**named, PartNumber=number, Body=body)["ETag"]}
            for number, body in enumerate((PART, content), 1)
        ]
        client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})


PART = random.Random(0).randbytes(5 * MIB)


def contents(client):
    """Return every object's bytes by its key, each held against its ETag and its length in the listing."""
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for entry in page.get("Contents", []):
            got = client.get_object(Bucket="bucket", Key=entry["Key"])
            data = got["Body"].read()  # held against its checksum by boto3
            assert (len(data), got["ETag"]) == (entry["Size"], entry["ETag"])
            if "-" not in entry["ETag"]:
                assert entry["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
            found[entry["Key"]] = data
    return found


def sweep(make_sandbox, kills):
    running = make_sandbox()
    running.client("s3").create_bucket(Bucket="bucket")
    load = Load()
    for attempt in range(kills):
        before = load.acknowledged
        workers = [
            pool.Background(
                lambda worker=worker, seed=10 * attempt + worker: until_killed(running, load.work(worker, seed))
            )
            for worker in range(3)
        ]
        while load.acknowledged < before + 10:
            time.sleep(0.005)
        time.sleep(0.1 * random.random())
        kill(running)
        for worker in workers:
            worker.result(60)
        running.restart()
        found = contents(running.client("s3"))
        assert [key for key, may in load.allowed.items() if found.get(key) not in may] == []
        for key in load.allowed:
            load.allowed[key] = {found.get(key)}
    client = running.client("s3")
    for upload in client.list_multipart_uploads(Bucket="bucket").get("Uploads", []):
        client.abort_multipart_upload(Bucket="bucket", Key=upload["Key"], UploadId=upload["UploadId"])
    for key in contents(client):
        client.delete_object(Bucket="bucket", Key=key)
    assert list((running.directory / "s3" / "data").iterdir()) == []  # no orphan was left by any kill
    client.delete_bucket(Bucket="bucket")


@pytest.mark.behaviour(AREA, "every write", "kill -9 and restart: acknowledged objects are whole, nothing is left over")
def test_kills_under_load(make_sandbox):
    sweep(make_sandbox, 4)


@pytest.mark.sweep
def test_many_kills(make_sandbox):
    sweep(make_sandbox, 40)


@pytest.mark.behaviour(
    "S3 multipart", "every call", "an upload goes on after kill -9 and restart, with the parts it had"
)
def test_an_upload_goes_on(make_sandbox, noise):
    running = make_sandbox()
    client, where = running.client("s3"), {"Bucket": "bucket", "Key": "k"}
    client.create_bucket(Bucket="bucket")
    named = {**where, "UploadId": client.create_multipart_upload(**where)["UploadId"]}
    data = [noise(5 * MIB, 1), noise(1000, 2)]
    client.upload_part(**named, PartNumber=1, Body=data[0])
    kill(running)
    running.restart()
    client = running.client("s3")
    client.upload_part(**named, PartNumber=2, Body=data[1])
    listed = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in client.list_parts(**named)["Parts"]]
    done = client.complete_multipart_upload(**named, MultipartUpload={"Parts": listed})
    kill(running)
    running.restart()
    client = running.client("s3")
    assert client.get_object(**where)["Body"].read() == b"".join(data)
    again = client.complete_multipart_upload(**named, MultipartUpload={"Parts": listed})  # the answer was lost
    assert again["ETag"] == done["ETag"]


@pytest.mark.behaviour(AREA, "PutObject", "a client that goes away, or a server killed in mid-body, leaves nothing")
def test_half_a_body(make_sandbox):
    running = make_sandbox()
    client = running.client("s3")
    client.create_bucket(Bucket="bucket")
    data = running.directory / "s3" / "data"
    client.put_object(Bucket="bucket", Key="k", Body=b"old")
    for end in ("gone", "killed"):
        raw = running.raw()
        headers = raw.signed("PUT", "/bucket/k", bytes(1 << 20), service="s3")
        raw.connection.putrequest("PUT", "/bucket/k", skip_host=True)
        for name, value in {**headers, "Content-Length": str(1 << 20)}.items():
            raw.connection.putheader(name, value)
        raw.connection.endheaders()
        raw.connection.send(bytes(600_000))
        deadline = time.monotonic() + 30
        while len(list(data.iterdir())) < 2:  # until the server writes
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if end == "gone":
            raw.connection.close()
            while len(list(data.iterdir())) > 1:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        else:
            kill(running)
            running.restart()
            client = running.client("s3")
        assert len(list(data.iterdir())) == 1
        assert client.get_object(Bucket="bucket", Key="k")["Body"].read() == b"old"
