"""The bytes of snapshots: what a crash leaves at each step of a put, and maps with holes."""

from __future__ import annotations

import hashlib
import resource

import pytest

from builder.digest import BLOCK
from builder.sandbox.disks import ABSENT, INHERITED, WRITTEN, Disk, Disks


def put(disk, index, data):
    disk.put(index, data, hashlib.sha256(data).digest())


@pytest.fixture
def disk(tmp_path):
    return Disk.create(tmp_path / "disk", 2048)


def test_a_disk_is_sparse_at_every_size(tmp_path, blocks):
    disk = Disk.create(tmp_path / "huge", 8192 * 2048)
    for index in (0, 5_000_000, 8192 * 2048 - 1):
        put(disk, index, blocks(index))
    assert list(disk.present()) == [0, 5_000_000, 8192 * 2048 - 1]
    assert list(disk.present(1)) == [5_000_000, 8192 * 2048 - 1]
    assert disk.written()[0] == 3
    used = sum(file.stat().st_blocks * 512 for file in (tmp_path / "huge").glob("*"))
    assert used < 3 * BLOCK + 100_000


def test_a_disk_beyond_the_filesystem_leaves_nothing(tmp_path):
    """ext4's largest file is 16 TiB; a limit of our own stands for it, whatever the tests run on."""
    disks = Disks(tmp_path / "disks")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            disks.create("snap-1", 4096, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "disks").iterdir()) == []


def test_the_linear_aggregate_goes_by_index(disk, blocks):
    order = [9, 2, 2047, 0]
    for index in order:
        put(disk, index, blocks(index))
    sums = b"".join(hashlib.sha256(blocks(index)).digest() for index in sorted(order))
    assert disk.written() == (4, hashlib.sha256(sums).digest())


def test_a_child_inherits_and_diverges(tmp_path, blocks):
    parent = Disk.create(tmp_path / "parent", 2048)
    for index in (0, 1, 2):
        put(parent, index, blocks(index))
    child = Disk.create(tmp_path / "child", 4096, parent)
    assert [child.look(index)[0] for index in range(4)] == [INHERITED] * 3 + [ABSENT]
    put(child, 1, blocks("new"))
    put(child, 2, blocks(2))
    assert [child.look(index)[0] for index in range(3)] == [INHERITED, WRITTEN, WRITTEN]
    assert [child.read(index) for index in range(3)] == [blocks(0), blocks("new"), blocks(2)]
    assert parent.read(1) == blocks(1)
    assert list(child.changed(parent)) == [(1, True, True)]
    assert list(child.changed(parent, 2)) == []


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ({}, "old"),  # before the put
        ({"0.new": 1000}, "old"),  # killed while writing aside
        ({"0.new": BLOCK}, "old"),  # killed before the rename
        ({"0": BLOCK}, "new"),  # killed after the rename: the commit
    ],
)
@pytest.mark.parametrize("torn", [False, True])
def test_a_put_over_a_block_is_old_or_new_after_a_crash(tmp_path, blocks, left, expected, torn):
    disk = Disk.create(tmp_path / "disk", 2048)
    put(disk, 0, blocks("old"))
    for name, size in left.items():
        (tmp_path / "disk" / "redo" / name).write_bytes(blocks("new")[:size])
    if torn and "0" in left:  # killed in the middle of the write into place
        with open(tmp_path / "disk" / "data", "r+b") as data:
            data.write(blocks("new")[: BLOCK // 2])
    again = Disk(tmp_path / "disk", 2048)
    again.recover()
    assert again.read(0) == blocks(expected)
    assert again.look(0) == (WRITTEN, hashlib.sha256(blocks(expected)).digest())
    assert list((tmp_path / "disk" / "redo").iterdir()) == []


@pytest.mark.parametrize("files", [["data"], ["data", "sums"]])
def test_a_first_put_without_its_map_byte_never_was(disk, blocks, files):
    with open(disk.directory / "data", "r+b") as data:
        data.write(blocks(0))
    if "sums" in files:
        with open(disk.directory / "sums", "r+b") as sums:
            sums.write(hashlib.sha256(blocks(0)).digest())
    assert list(disk.present()) == []
    put(disk, 0, blocks(1))
    assert (disk.read(0), disk.written()[0]) == (blocks(1), 1)


def test_a_taken_disk_lists_what_is_not_zero(tmp_path, blocks):
    """Also when it is listed again over what a crash left, and the volume has changed meanwhile."""
    source = tmp_path / "volume"
    with open(source, "wb") as file:
        file.truncate(1 << 30)
        for index, data in ((0, blocks("a")), (3, bytes(BLOCK)), (4, b"x"), (2047, blocks("b"))):
            file.seek(index * BLOCK)
            file.write(data)
    disks = Disks(tmp_path / "disks")
    disks.take("snap-1", 2048, source)
    source.write_bytes(blocks("later"))
    disk = disks.open("snap-1", 2048)
    assert list(disk.present()) == []
    put(disk, 0, blocks("a"))  # what an earlier attempt had listed already
    seen = []
    disk.index(lambda done, total: seen.append((done, total)))
    assert list(disk.present()) == [0, 4, 2047]
    assert [disk.read(index) for index in (0, 4)] == [blocks("a"), b"x".ljust(BLOCK, b"\0")]
    assert disk.look(2047) == (WRITTEN, hashlib.sha256(blocks("b")).digest())
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


def test_a_disk_that_cannot_be_taken_leaves_nothing(tmp_path):
    disks = Disks(tmp_path / "disks")
    with pytest.raises(FileNotFoundError):
        disks.take("snap-1", 2048, tmp_path / "none")
    assert list((tmp_path / "disks").iterdir()) == []


def test_linked_disks_share_their_bytes_and_outlive_each_other(tmp_path, blocks):
    disks = Disks(tmp_path / "disks")
    put(disks.create("snap-1", 2048, None), 7, blocks(7))
    disks.link(disks.open("snap-1", 2048), "snap-2")
    assert disks.allocated_together(["snap-1", "snap-2"]) == disks.allocated("snap-1") == BLOCK
    disks.remove("snap-1")
    assert disks.open("snap-2", 2048).read(7) == blocks(7)
    child = disks.create("snap-3", 2048, disks.open("snap-2", 2048))
    put(child, 7, blocks("new"))
    assert disks.open("snap-2", 2048).read(7) == blocks(7)


def test_orphans_are_swept(tmp_path):
    disks = Disks(tmp_path / "disks")
    disks.create("snap-kept", 2048, None)
    disks.create("snap-orphan", 2048, None)
    disks.sweep({"snap-kept", "snap-unknown"})
    assert [entry.name for entry in (tmp_path / "disks").iterdir()] == ["snap-kept"]
    assert (disks.touched("snap-none"), disks.allocated("snap-none")) == (0, 0)


def test_a_removed_disk_is_read_on_by_who_has_it(tmp_path, blocks):
    disks = Disks(tmp_path / "disks")
    disk = disks.create("snap-1", 2048, None)
    put(disk, 3, blocks(3))
    disks.remove("snap-1")
    assert disk.read(3) == blocks(3)
    with pytest.raises(FileNotFoundError):
        disks.open("snap-1", 2048)
