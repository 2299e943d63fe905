"""The files of volumes, and what a crash or a full disk leaves of them."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import time
from dataclasses import replace

import pytest

from builder.digest import BLOCK
from builder.sandbox.cloud import Cloud, blocks_of
from builder.sandbox.disks import Disk, Disks
from builder.sandbox.records import GIB, Snapshot, Volume
from builder.sandbox.sparse import ignore
from builder.sandbox.state import State
from builder.sandbox.volumes import VolumeFiles

SNAPSHOT = Snapshot(snapshot_id="snap-1", account="1", region="r", volume_size=1, start_time=1, lineage="snap-1")
VOLUME = Volume(
    volume_id="vol-1", account="1", region="r", zone="ra", size=1, volume_type="gp3", create_time=1, lineage="snap-1"
)


@pytest.fixture
def source(tmp_path, blocks):
    """A disk with two blocks."""
    disk = Disk.create(tmp_path / "source", 2048)
    for index in (1, 2047):
        disk.put(index, blocks(index), hashlib.sha256(blocks(index)).digest())
    return disk


@pytest.fixture
def files(tmp_path):
    return VolumeFiles(tmp_path / "volumes")


@contextlib.contextmanager
def files_end_at(size):
    """Let no file grow or be written beyond `size` bytes: what a full disk or a quota does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_volume_is_filled_again_after_a_crash(files, source, blocks):
    files.create("vol-1", GIB, source)
    with open(files.path("vol-1"), "r+b") as data:  # killed in the middle of a block
        data.seek(BLOCK)
        data.write(blocks(1)[: BLOCK // 2])
    seen = []
    files.fill("vol-1", lambda done, total: seen.append((done, total)))
    files.filled("vol-1")
    files.filled("vol-1")
    assert seen[-1] == (2 * BLOCK, 2 * BLOCK)
    with open(files.path("vol-1"), "rb") as data:
        assert [data.read(BLOCK) for _ in range(3)] == [bytes(BLOCK), blocks(1), bytes(BLOCK)]
        data.seek(2047 * BLOCK)
        assert data.read() == blocks(2047)
    assert files.allocated("vol-1") == 2 * BLOCK
    assert [entry.name for entry in files.path("vol-1").parent.iterdir()] == ["data"]


def test_a_volume_beyond_the_filesystem_leaves_nothing(files, tmp_path):
    with files_end_at(GIB), pytest.raises(OSError, match="File too large"):
        files.create("vol-1", 2 * GIB, None)
    assert list((tmp_path / "volumes").iterdir()) == []


def test_orphans_are_swept(files, source):
    files.create("vol-kept", GIB, None)
    files.create("vol-orphan", GIB, source)
    files.sweep({"vol-kept"})
    assert files.path("vol-kept").exists()
    assert not files.path("vol-orphan").parent.exists()
    assert files.allocated("vol-none") == 0


def cloud_of(tmp_path):
    return Cloud(State(tmp_path / "state.sqlite"), Disks(tmp_path / "disks"), settle=0, address="127.0.0.1:1")


def reached(look, wanted):
    for _ in range(2000):
        if look() == wanted:
            return True
        time.sleep(0.005)
    return False


def test_a_volume_whose_bytes_find_no_room_is_in_error(tmp_path, source):
    cloud = cloud_of(tmp_path)
    cloud.volumes.create("vol-1", GIB, source)
    with cloud.state.lock:
        cloud.state.put(VOLUME)
    with files_end_at(GIB // 2):  # the second block lies beyond
        cloud.begin(VOLUME)
        assert reached(lambda: cloud.volume_state(cloud.state.all(Volume)["vol-1"]), "error")
    assert "too large" in cloud.state.all(Volume)["vol-1"].failure


def test_a_snapshot_whose_listing_finds_no_room_is_in_error(tmp_path, blocks):
    cloud = cloud_of(tmp_path)
    with open(tmp_path / "volume", "wb") as file:
        file.truncate(16 * GIB)
        file.seek(32_000 * BLOCK)
        file.write(blocks("a"))
    cloud.disks.take("snap-1", blocks_of(16), tmp_path / "volume")
    taken = replace(SNAPSHOT, taken=True, volume_size=16)
    with cloud.state.lock:
        cloud.state.put(taken)
    with files_end_at(GIB // 2048):  # its sum lies beyond
        cloud.begin(taken)
        assert reached(lambda: cloud.status(cloud.state.all(Snapshot)["snap-1"]), "error")
    assert "too large" in cloud.state.all(Snapshot)["snap-1"].failure


def test_a_new_cloud_begins_what_the_records_order(tmp_path, source, blocks):
    """Every record that orders work, as a killed server leaves it; and what nobody waits for is swept."""
    first = cloud_of(tmp_path)
    first.volumes.create("vol-1", GIB, source)
    first.volumes.create("vol-deleted", GIB, None)
    first.disks.take("snap-1", 2048, source.directory / "data")
    with first.state.lock:
        first.state.put(VOLUME, replace(VOLUME, volume_id="vol-deleted", delete_time=1.0))
        first.state.put(replace(SNAPSHOT, taken=True))
    first.state.close()
    cloud = cloud_of(tmp_path)
    assert reached(lambda: cloud.volume_state(cloud.state.all(Volume)["vol-1"]), "available")
    assert reached(lambda: cloud.status(cloud.state.all(Snapshot)["snap-1"]), "completed")
    assert list(cloud.disk(SNAPSHOT).present()) == [1, 2047]
    assert list(cloud.state.all(Volume)) == ["vol-1"]
    assert not cloud.volumes.path("vol-deleted").parent.exists()


def test_a_deleted_volume_is_filled_no_further(tmp_path, source):
    cloud = cloud_of(tmp_path)
    cloud.volumes.create("vol-1", GIB, source)
    with cloud.state.lock:
        cloud.state.put(replace(VOLUME, delete_time=1.0))
    cloud.begin(VOLUME)
    assert reached(lambda: cloud.jobs.percent("vol-1"), None)
    assert cloud.state.all(Volume)["vol-1"].ready_time is None
    cloud.volumes.fill("vol-1", ignore)  # its bytes are still there to be swept
