"""kill -9 under load and restart: everything acknowledged is there and readable, nothing is half there."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import re
import signal
import time
from urllib.parse import quote

import pytest

from builder import pool

LOST = (OSError, http.client.HTTPException)


def kill(running):
    os.kill(running.endpoint.pid, signal.SIGKILL)


def kill_after(running, done, count):
    """Kill the server at a random moment after `done` has grown to `count`."""
    while len(done) < count:
        time.sleep(0.005)
    time.sleep(0.1 * random.random())
    kill(running)


def until_killed(running, work):
    """Run `work(connection, number)` for 0, 1, … until the server is gone."""
    connection = running.raw()
    with contextlib.suppress(*LOST):
        for number in itertools.count():
            work(connection, number)


@pytest.mark.behaviour("EBS direct", "PutSnapshotBlock, kill -9", "what was acknowledged is there; a block put over "
                       "another is the old or the new one, never a mixture")  # fmt: skip
def test_blocks_acknowledged_before_the_kill_are_there_after_it(make_sandbox, blocks):
    """Four connections put blocks and put others over them; three kills; then every block is what it may be."""
    running = make_sandbox()
    data = [blocks(seed) for seed in range(8)]
    snapshot_id = running.raw().start()
    allowed: dict[int, set[bytes | None]] = {}
    for attempt in range(3):
        acknowledged = []

        def put(worker, attempt=attempt, acknowledged=acknowledged):
            def one(connection, number):
                index, content = worker * 500 + number % 40, data[(number // 40 + number + attempt) % 8]
                allowed[index] = allowed.get(index, {None}) | {content}  # the old one or the new one, from here …
                assert connection.put(snapshot_id, index, content)[0] == 201
                allowed[index] = {content}  # … to here
                acknowledged.append(index)

            until_killed(running, one)

        workers = [pool.Background(lambda worker=worker, put=put: put(worker)) for worker in range(4)]
        kill_after(running, acknowledged, 200)
        for worker in workers:
            worker.result(60)
        running.restart()
    raw = running.raw()
    count = int(re.search(r"but (\d+) blocks", str(raw.complete(snapshot_id, 4096)[3]))[1])
    assert raw.complete(snapshot_id, count)[0] == 202
    raw.wait(snapshot_id)
    found = raw.read(snapshot_id)  # each held against its checksum: none is half old, half new
    assert len(found) == count
    assert sum(len(contents) > 1 for contents in allowed.values()) <= 3 * 4  # those in flight at the kills
    assert [index for index, contents in allowed.items() if found.get(index) not in contents] == []
    assert set(found) <= set(allowed)


def test_records_acknowledged_before_the_kill_are_there_after_it(make_sandbox):
    running = make_sandbox()
    raw = running.raw()
    snapshot_id = raw.snapshot({})
    devices = {"BlockDeviceMapping.1.DeviceName": "/dev/xvda", "BlockDeviceMapping.1.Ebs.SnapshotId": snapshot_id}
    made, started, tagged, gone = [], {}, [], []

    def work(connection, number):
        named = {"Name": f"image {time.time_ns()}", "RootDeviceName": "/dev/xvda"}
        status, _, text = connection.ec2(Action="RegisterImage", **named, **devices)
        assert status == 200, text
        image_id = re.search("<imageId>(.*?)</imageId>", text)[1]
        made.append(image_id)
        token = f"token {time.time_ns()}"
        started[token] = connection.start(ClientToken=token, Description=token)
        tag = {"ResourceId.1": image_id, "Tag.1.Key": "k", "Tag.1.Value": str(number)}
        assert connection.ec2(Action="CreateTags", **tag)[0] == 200
        tagged.append((image_id, str(number)))
        if number % 2 == 0:
            going.add(image_id)
            assert connection.ec2(Action="DeregisterImage", ImageId=image_id)[0] == 200
            gone.append(image_id)

    going: set[str] = set()
    for attempt in range(3):
        workers = [pool.Background(lambda: until_killed(running, work)) for _ in range(3)]
        kill_after(running, gone, 3 * (attempt + 1))
        for worker in workers:
            worker.result(60)
        running.restart()
    ec2, raw = running.client("ec2"), running.raw()
    images = {image["ImageId"]: image for image in ec2.describe_images(Owners=["self"])["Images"]}
    assert set(made) - going <= set(images)
    assert not set(gone) & set(images)
    assert len(set(images) - set(made)) <= 3 * 3  # registered, but killed before the answer
    for image_id, value in tagged:
        if image_id in images:
            assert {"Key": "k", "Value": value} in images[image_id]["Tags"]
    snapshots = {one["SnapshotId"]: one["Description"] for one in ec2.describe_snapshots()["Snapshots"]}
    for token, started_id in started.items():
        assert snapshots[started_id] == token
        assert raw.start(ClientToken=token, Description=token) == started_id  # tokens are remembered
    disks = {entry.name for entry in (running.directory / "disks").iterdir()}
    assert disks == set(snapshots)  # no orphan stays


@pytest.mark.behaviour("EBS direct", "CompleteSnapshot, kill -9", "an acknowledged snapshot completes under the next "
                       "server; block tokens stay valid")  # fmt: skip
def test_a_completed_snapshot_is_completed_after_the_kill(make_sandbox, blocks):
    running = make_sandbox()
    raw = running.raw()
    first = raw.snapshot({0: blocks("a"), 9: blocks("b")})
    sealed = raw.start(ParentSnapshotId=first)
    raw.put(sealed, 9, blocks("B"))
    assert raw.complete(sealed, 1)[0] == 202
    kill(running)  # before it is completed
    running.restart()
    raw = running.raw()
    raw.wait(sealed)
    assert raw.read(first) == {0: blocks("a"), 9: blocks("b")}
    assert raw.read(sealed) == {0: blocks("a"), 9: blocks("B")}
    tokens = raw.list(f"/snapshots/{sealed}/blocks")
    kill(running)
    running.restart()
    raw = running.raw()
    index, token = tokens[1]  # a block token outlives the server
    assert raw.call("GET", f"/snapshots/{sealed}/blocks/{index}?blockToken={quote(token, safe='')}")[2] == blocks("B")
