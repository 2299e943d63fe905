"""States that only the clock decides, and records that come back as they were."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from builder import pool
from builder.sandbox.cloud import Cloud, Writers, blocks_of, new_id
from builder.sandbox.disks import Disks
from builder.sandbox.records import BlockDevice, ClientToken, Image, Snapshot, from_json, to_json
from builder.sandbox.state import State
from builder.sandbox.wire import Caller

CALLER = Caller(account="123456789012", region="us-east-1", service="ec2", access_key="AKIA")
SNAPSHOT = Snapshot(
    snapshot_id="snap-01", account=CALLER.account, region=CALLER.region, volume_size=1, start_time=1000.5,
    lineage="snap-01", tags={"a": "ü"},
)  # fmt: skip
IMAGE = Image(
    image_id="ami-01", account=CALLER.account, region=CALLER.region, name="n", creation_time=2000.25,
    architecture="x86_64", virtualization_type="hvm", root_device_name="/dev/xvda",
    block_devices=(BlockDevice(device_name="/dev/xvda", snapshot_id="snap-01", volume_size=1),),
)  # fmt: skip
TOKEN = ClientToken(account="1", region="r", action="StartSnapshot", token="t", request="{}", answer="{}")


@pytest.fixture
def cloud(tmp_path):
    return Cloud(State(tmp_path / "state.sqlite"), Disks(tmp_path / "disks"), settle=60, address="127.0.0.1:1")


@pytest.mark.parametrize("record", [SNAPSHOT, replace(SNAPSHOT, sealed_time=3.5, parent_id="snap-00"), IMAGE, TOKEN])
def test_records_come_back_as_they_were(record):
    assert from_json(type(record).__name__, to_json(record)) == record


def test_a_record_of_a_newer_version_is_named():
    with pytest.raises(ValueError, match="newer emi"):
        from_json("Starship", "{}")


def test_the_state_is_read_again_in_order(tmp_path):
    state = State(tmp_path / "state.sqlite")
    others = [replace(SNAPSHOT, snapshot_id=f"snap-{number}") for number in (9, 3, 5)]
    state.put(SNAPSHOT, IMAGE, TOKEN, *others)
    state.put(replace(SNAPSHOT, description="changed"))
    state.remove(others[1])
    state.close()
    again = State(tmp_path / "state.sqlite")
    assert list(again.all(Snapshot)) == ["snap-01", "snap-9", "snap-5"]
    assert again.all(Snapshot)["snap-01"].description == "changed"
    assert again.all(Image) == {"ami-01": IMAGE}
    assert (again.find(ClientToken, TOKEN.key), again.find(ClientToken, "other")) == (TOKEN, None)
    again.close()


def test_a_change_is_all_or_nothing(tmp_path):
    state = State(tmp_path / "state.sqlite")
    with pytest.raises(TypeError):
        state.put(SNAPSHOT, replace(IMAGE, tags={"a": object()}))
    assert not state.all(Snapshot)
    state.put(IMAGE)
    assert list(state.all(Image)) == ["ami-01"]
    state.close()


@pytest.mark.parametrize(
    ("sealed", "started", "put", "timeout", "expected"),
    [
        (None, 0, None, 60, "pending"),
        (None, -59, None, 60, "pending"),
        (None, -61, -61, 60, "error"),
        (None, -61, -10, 60, "pending"),  # a put starts the wait again
        (None, -200, -11, 10, "error"),
        (-59 / 60, -200, -200, 60, "pending"),
        (-61 / 60, -200, -200, 60, "completed"),
    ],
)
def test_the_clock_decides(cloud, sealed, started, put, timeout, expected):
    now = time.time()
    cloud.disks.create("snap-01", blocks_of(1), None)
    data = cloud.disks.directory / "snap-01" / "data"
    moment = now + 60 * (put if put is not None else started)
    os.utime(data, (moment, moment))
    snapshot = replace(
        SNAPSHOT,
        start_time=now + 60 * started,
        timeout=timeout,
        sealed_time=None if sealed is None else now + 60 * sealed,
    )
    assert cloud.status(snapshot) == expected


def test_an_image_is_pending_then_available(cloud):
    assert cloud.image_state(replace(IMAGE, creation_time=time.time() - 59)) == "pending"
    assert cloud.image_state(replace(IMAGE, creation_time=time.time() - 61)) == "available"
    assert cloud.image_state(replace(IMAGE, deregistered=True)) == "deregistered"


def test_ids_are_ec2s_long_form():
    ids = {new_id("snap") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(one) == len("snap-") + 17 and set(one[5:]) <= set("0123456789abcdef") for one in ids)


def test_sealing_waits_for_the_puts_in_flight_and_holds_back_the_next():
    writers, order = Writers(), []
    may_end = pool.Lock()
    may_end.acquire()

    def put(index, name):
        with writers.writing(index):
            if name == "first":
                order.append("first in")
                may_end.acquire()
            order.append(name)

    def seal():
        with writers.sealing():
            order.append("sealed")
            time.sleep(0.05)
            order.append("seal over")

    first = pool.Background(lambda: put(0, "first"))
    while not order:
        time.sleep(0.001)
    same = pool.Background(lambda: put(0, "second"))  # waits for the first, being of the same block
    other = pool.Background(lambda: put(1, "other"))
    other.result(10)  # another block does not
    sealing = pool.Background(seal)
    time.sleep(0.05)
    late = pool.Background(lambda: put(2, "late"))
    time.sleep(0.05)
    assert order == ["first in", "other"]
    may_end.release()
    for work in (first, same, sealing, late):
        work.result(10)
    start = order.index("sealed")
    assert order[start : start + 2] == ["sealed", "seal over"]
    assert order.index("first") < min(start, order.index("second"))
    assert sorted(order) == ["first", "first in", "late", "other", "seal over", "sealed", "second"]


def test_more_snapshots_than_open_files(cloud):
    """The disks kept open are bounded; every one is found again."""

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()  # other tests' connections, which are not ours to count
    snapshots = [replace(SNAPSHOT, snapshot_id=f"snap-{number:03}") for number in range(200)]
    for snapshot in snapshots:
        cloud.disks.create(snapshot.snapshot_id, blocks_of(1), None)
    with cloud.state.lock:
        cloud.state.put(*snapshots)
    for snapshot in snapshots * 2:
        assert cloud.disk(snapshot).directory.name == snapshot.snapshot_id
    assert opened() - before < 64 * 3 + 20
