"""Partition tables made by sfdisk and sgdisk, changed by us, and judged by those tools."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builder import proc
from builder.errors import GuestError
from builder.guest.layout import DiskReader, read_layout
from builder.guest.table import resized
from builder.image.raw import RawReader

MIB = 1 << 20

GPT = b'label: gpt\nlast-lba: 131038\nsize=8M, type=L, name="first, \xc3\xa4", attrs="RequiredPartition,GUID:60"\n'
GPT += b"start=20480, size=3M, type=U, name=esp\nstart=32768, size=40M, type=L, name=root, attrs=LegacyBIOSBootable\n"
# The root is the third by place and the first by number, as on Debian's own images.
CLOUD = b"label: gpt\n15: start=2048, size=4M, type=U\n14: start=10240, size=1M, type=L\n1: start=12288, size=40M\n"
MBR = b"label: dos\nlabel-id: 0x4ec3b4c0\n2048,16384,83,*\n18432,4096,82\n22528,40960,83\n"
LOGICAL = b"label: dos\nlabel-id: 0x4ec3b4c0\n2048,16384,83,*\n18432,100000,5\n20480,8192,82\n30720,32768,83\n"
CLOSED = b"label: dos\n2048,16384,83\n18432,40960,5\n20480,32768,83\n61440,8192,82\n"


@pytest.fixture
def disk(tmp_path):
    """Make a disk with a table."""

    def make(table: bytes, size: int = 64 * MIB) -> Path:
        path = tmp_path / "disk"
        with open(path, "xb") as file:
            file.truncate(size)
        proc.run(["sfdisk", "-q", path], stdin=table)
        return path

    return make


def reader_of(path: Path) -> DiskReader:
    raw = RawReader(path)
    return DiskReader(raw.pread, raw.virtual_size)


def change(path: Path, **wanted: int) -> None:
    """Do what a resize does with a disk: grown before the table is written, cut after it."""
    writes = resized(reader_of(path), **wanted)
    with open(path, "r+b") as file:
        file.truncate(max(wanted["disk"], path.stat().st_size))
        for write in writes:
            file.seek(write.offset)
            file.write(write.data)
        file.truncate(wanted["disk"])


def dump(path: Path) -> dict:
    """What sfdisk says of the disk: the table, and the partitions by number, place and size in sectors."""
    table = json.loads(proc.run(["sfdisk", "--json", path]).stdout)["partitiontable"]
    parts = {int(part.pop("node").removeprefix(str(path))): part for part in table.pop("partitions")}
    table.pop("lastlba", None)
    return {"table": table, "parts": parts}


def verified(path: Path, kind: str) -> None:
    if kind == "gpt":
        assert b"No problems found" in proc.run(["sgdisk", "-v", path]).stdout
    assert proc.run(["sfdisk", "--verify", path]).stderr == b""


TABLES = {
    "gpt": (GPT, 3),
    "gpt, root first by number": (CLOUD, 1),
    "mbr": (MBR, 3),
    "logical": (LOGICAL, 6),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("disk_size", "size"),
    [(96 * MIB, 70 * MIB), (64 * MIB, 20 * MIB), (48 * MIB, 20 * MIB), (96 * MIB, None), (128 * MIB, 16 * MIB)],
)
def test_one_size_is_changed_and_nothing_else(disk, name, disk_size, size):
    table, number = TABLES[name]
    path = disk(table)
    before = dump(path)
    if size is None:
        change(path, disk=disk_size)
    else:
        change(path, disk=disk_size, number=number, size=size)
        before["parts"][number]["size"] = size // 512
    after = dump(path)
    if name == "logical" and size is not None:
        assert after["parts"].pop(2)["size"] >= before["parts"].pop(2)["size"] - 100_000
    assert after == before
    verified(path, before["table"]["label"])
    layout = read_layout(reader_of(path))
    assert (layout.size, layout.problem) == (disk_size, "")
    assert size is None or layout.slot(number).size == size


def test_the_boot_code_stays(disk):
    path = disk(MBR)
    with open(path, "r+b") as file:
        file.write(b"\xeb\x63code" * 50)
    before = path.read_bytes()
    change(path, disk=96 * MIB, number=3, size=70 * MIB)
    after = path.read_bytes()
    changed = {
        at for at in range(64 * MIB >> 9) if before[at * 512 : at * 512 + 512] != after[at * 512 : at * 512 + 512]
    }
    assert changed == {0}
    assert before[:446] == after[:446]


@pytest.mark.parametrize(
    ("table", "number", "limit", "neighbour"),
    [
        (GPT, 1, 20480, "partition 2 (EFI system)"),
        (GPT, 3, None, ""),
        (CLOUD, 15, 10240, "partition 14 (Linux filesystem)"),
        (CLOUD, 1, None, ""),
        (MBR, 1, 18432, "partition 2"),
        (LOGICAL, 1, 18432, "partition 2"),
        (LOGICAL, 5, 28672, "partition 6"),  # where the next one's boot record lies
        (LOGICAL, 6, None, ""),
        (CLOSED, 5, 61440, "partition 3"),
    ],
)
def test_the_room_of_a_partition(disk, table, number, limit, neighbour):
    layout = read_layout(reader_of(disk(table)))
    slot = layout.slot(number)
    assert (slot.limit and slot.limit // 512, slot.neighbour) == (limit, neighbour)
    if limit is None:
        assert layout.reach(slot, 80 * MIB) == 80 * MIB - (33 * 512 if layout.kind == "gpt" else 0)


def test_a_container_follows_what_it_holds(disk):
    path = disk(LOGICAL)
    change(path, disk=96 * MIB, number=6, size=80 * MIB)
    parts = dump(path)["parts"]
    assert parts[2]["start"] + parts[2]["size"] == parts[6]["start"] + parts[6]["size"]
    change(path, disk=40 * MIB, number=6, size=20 * MIB)
    parts = dump(path)["parts"]
    assert parts[2]["start"] + parts[2]["size"] == parts[6]["start"] + parts[6]["size"]
    verified(path, "dos")


def test_the_link_to_a_logical_partition_covers_it(disk):
    path = disk(LOGICAL)
    change(path, disk=96 * MIB, number=6, size=80 * MIB)
    link = path.read_bytes()[18432 * 512 + 462 :][:16]  # in the first extended boot record
    assert int.from_bytes(link[12:], "little") == 80 * 2048 + 30720 - 28672


def test_no_copy_of_a_gpt_is_left_in_the_midst(disk):
    path = disk(b"label: gpt\nstart=2048, size=16384\n")
    change(path, disk=96 * MIB, number=1, size=80 * MIB)
    data = path.read_bytes()
    found = [at for at in range(0, len(data), 512) if data[at : at + 8] == b"EFI PART"]
    assert found == [512, 96 * MIB - 512]


def test_the_least_disk(disk):
    layout = read_layout(reader_of(disk(CLOUD)))
    root = layout.slot(1)
    assert layout.least(root) == 47 * MIB
    assert layout.least(replace(root, size=2 * MIB)) == 9 * MIB
    assert layout.least(layout.slot(15)) == 47 * MIB


def test_the_least_disk_is_never_larger_than_the_disk(disk):
    layout = read_layout(reader_of(disk(b"label: gpt\nstart=2048, size=16384\n", size=9 * MIB + 33 * 512)))
    assert layout.least(layout.slot(1)) == 9 * MIB + 33 * 512


def test_4096_byte_sectors(tmp_path):
    path = tmp_path / "disk"
    with open(path, "xb") as file:
        file.truncate(64 * MIB)
    proc.run(["fdisk", "-b", "4096", path], stdin=b"g\nn\n\n256\n+4M\nn\n\n2048\n+40M\nw\n")
    change(path, disk=96 * MIB, number=2, size=64 * MIB)
    said = proc.run(["fdisk", "-b", "4096", "-l", "-o", "Start,Sectors", path]).stdout.split()
    assert said[-4:] == [b"256", b"1024", b"2048", b"16384"]
    layout = read_layout(reader_of(path))
    assert (layout.sector, layout.tail, layout.problem) == (4096, 5 * 4096, "")


def test_a_disk_without_a_table(tmp_path):
    path = tmp_path / "bare"
    with open(path, "xb") as file:
        file.truncate(16 * MIB)
    proc.run(["mkfs.ext4", "-q", path])
    layout = read_layout(reader_of(path))
    (slot,) = layout.slots
    assert (slot.number, slot.size, slot.filesystem, slot.filled) == (None, 16 * MIB, "ext4", 16 * MIB)
    assert resized(reader_of(path), disk=32 * MIB) == []


def test_what_cannot_be_is_refused(disk, tmp_path):
    path = disk(CLOUD)
    with pytest.raises(GuestError, match="a partition ends at byte 48234496, and the disk is to have 47185920 bytes"):
        resized(reader_of(path), disk=45 * MIB)
    proc.run(["sgdisk", "-h", "1:14", path])
    with pytest.raises(GuestError, match="hybrid"):
        resized(reader_of(path), disk=96 * MIB)


def test_a_mbr_ends_at_2_tib(disk):
    path = disk(MBR)
    with pytest.raises(GuestError, match="2 TiB"):
        resized(reader_of(path), disk=4 << 40, number=3, size=3 << 40)


def test_a_damaged_first_copy_is_refused(disk):
    path = disk(CLOUD)
    with open(path, "r+b") as file:
        file.seek(512 + 60)
        file.write(b"\xff")
    with pytest.raises(GuestError, match="first copy of the GPT is damaged"):
        resized(reader_of(path), disk=96 * MIB)
