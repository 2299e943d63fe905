"""Partition tables by sgdisk and sfdisk read back, damaged, and made hostile."""

from __future__ import annotations

import json
import struct
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.image.partitions import PartitionTable, read_partitions
from builder.image.raw import RawReader

Tool = Callable[..., str]
MIB = 1 << 20
SIZE = 64 * MIB


def blank(path: Path) -> Path:
    with open(path, "wb") as disk:
        disk.truncate(SIZE)
    return path


def read(path: Path) -> PartitionTable:
    with RawReader(path) as reader:
        table = read_partitions(reader)
    assert table is not None
    return table


@pytest.fixture
def gpt(tmp_path: Path, tool: Tool) -> Path:
    """A cloud image's table: BIOS boot, ESP, root, out of order and with a gap."""
    path = blank(tmp_path / "gpt.raw")
    new = ["-n14:2048:+1M", "-t14:ef02", "-n15:0:+8M", "-t15:ef00", "-c15:EFI Ünit", "-n1:0:0", "-t1:8300", "-A1:set:2"]
    tool("sgdisk", "-U", "12345678-1234-5678-1234-567812345678", *new, path)
    return path


def test_gpt(gpt: Path) -> None:
    table = read(gpt)
    assert (table.kind, table.sector_size, table.hybrid, table.problems) == ("gpt", 512, False, ())
    assert table.uuid == "12345678-1234-5678-1234-567812345678"
    root, bios, esp = table.partitions
    assert [part.number for part in table.partitions] == [1, 14, 15]
    assert [part.type_name for part in table.partitions] == ["Linux filesystem", "BIOS boot", "EFI system"]
    assert (bios.start, bios.size) == (MIB, MIB)
    assert (esp.start, esp.size, esp.name) == (2 * MIB, 8 * MIB, "EFI Ünit")
    assert (root.bootable, bios.bootable) == (True, False)
    assert root.start == 10 * MIB


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_what_sfdisk_says(label: str, tmp_path: Path, tool: Tool) -> None:
    path = blank(tmp_path / "disk.raw")
    extended = "size=20MiB, type=E\n,10MiB\n,4MiB\n" if label == "dos" else "size=5MiB, name=data\n"
    script = f"label: {label}\nsize=4MiB, {'bootable' if label == 'dos' else 'attrs=LegacyBIOSBootable'}\n"
    tool("sfdisk", path, stdin=f"{script}size=6MiB, type=L\n{extended}".encode())
    said = json.loads(tool("sfdisk", "--json", path))["partitiontable"]
    table = read(path)
    assert {"gpt": "gpt", "mbr": "dos"}[table.kind] == said["label"]
    assert len(said["partitions"]) == (5 if label == "dos" else 3)
    for ours, theirs in zip(table.partitions, said["partitions"], strict=True):
        assert f"{path}{ours.number}" == theirs["node"]
        assert ours.start == theirs["start"] * 512
        if ours.type != "0x05":
            assert ours.size == theirs["size"] * 512
            assert ours.bootable == (theirs.get("bootable", False) or "LegacyBIOSBootable" in theirs.get("attrs", ""))
        assert ours.type.removeprefix("0x").lstrip("0") == theirs["type"].lower().lstrip("0")
        assert ours.uuid == theirs.get("uuid", ours.uuid).lower()


def test_sectors_of_4096_bytes(tmp_path: Path, tool: Tool) -> None:
    path = blank(tmp_path / "disk.raw")
    tool("fdisk", "-b", "4096", path, stdin=b"g\nn\n\n\n+4M\nn\n\n\n+6M\nw\n")
    table = read(path)
    assert table.sector_size == 4096
    assert [(part.number, part.size) for part in table.partitions] == [(1, 4 * MIB), (2, 6 * MIB)]
    lines = tool("fdisk", "-b", "4096", "-l", "-o", "Start,Sectors", path).split("Start Sectors")[1].split()
    assert [part.start // 4096 for part in table.partitions] == [int(lines[0]), int(lines[2])]


def test_hybrid(gpt: Path, tool: Tool) -> None:
    tool("sgdisk", "-h", "15", gpt)
    table = read(gpt)
    assert table.hybrid
    assert len(table.partitions) == 3


def test_a_gpt_that_the_mbr_does_not_announce_is_left_over(gpt: Path, tool: Tool) -> None:
    tool("sfdisk", "--no-reread", "--wipe=never", gpt, stdin=b"label: dos\n4096,8192,83\n")
    table = read(gpt)
    assert (table.kind, [part.start for part in table.partitions]) == ("mbr", [4096 * 512])
    assert table.problems == ("the GPT beside its MBR is left over, and was not used",)
    assert b"EFI PART" in gpt.read_bytes()


def test_no_table(tmp_path: Path) -> None:
    with RawReader(blank(tmp_path / "disk.raw")) as reader:
        assert read_partitions(reader) is None


def zap(offset: int, data: bytes) -> Callable[[bytearray], None]:
    def apply(disk: bytearray) -> None:
        disk[offset : offset + len(data)] = data

    return apply


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (zap(512, bytes(512)), "the first copy of the GPT is missing, the second was used"),
        (zap(512 + 16, b"\1\2\3\4"), "the first copy of the GPT is damaged, the second was used"),
        (zap(1024 + 32, b"\1"), "the first copy of the GPT is damaged, the second was used"),
    ],
)
def test_the_second_copy_of_a_gpt_serves(change: Callable[[bytearray], None], problem: str, gpt: Path) -> None:
    whole = read(gpt)
    disk = bytearray(gpt.read_bytes())
    change(disk)
    gpt.write_bytes(disk)
    table = read(gpt)
    assert table.partitions == whole.partitions
    assert table.problems == (problem,)


def test_two_damaged_copies_are_no_table(gpt: Path) -> None:
    disk = bytearray(gpt.read_bytes())
    disk[520] ^= 1
    disk[-500] ^= 1
    gpt.write_bytes(disk)
    with RawReader(gpt) as reader:
        assert read_partitions(reader) is None


def craft_gpt(path: Path, entries: list[tuple[int, int]], *, count: int = 128, entry_size: int = 128) -> Path:
    """Write a GPT that is right in its checksums and hostile in its numbers."""
    table = b""
    for first, last in entries:
        table += (
            uuid.uuid4().bytes_le * 2
            + struct.pack("<QQQ", first, last, 0)
            + "a\0\x1b".encode("utf-16-le").ljust(72, b"\0")
        )
    table = table.ljust(min(count * entry_size, MIB), b"\0")
    head = b"EFI PART" + struct.pack("<IIII", 0x10000, 92, 0, 0) + struct.pack("<QQQQ", 1, SIZE // 512 - 1, 34, 9999)
    head += uuid.uuid4().bytes_le + struct.pack("<QIII", 2, count, entry_size, zlib.crc32(table))
    head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
    with open(blank(path), "r+b") as disk:
        disk.seek(512)
        disk.write(head)
        disk.seek(1024)
        disk.write(table)
    return path


def test_partitions_that_lie_about_where_they_are(tmp_path: Path) -> None:
    entries = [(100, 199), (150, 250), (300, 299), (400, 1 << 63), ((1 << 64) - 1, 0), (1000, 1000)]
    table = read(craft_gpt(tmp_path / "disk.raw", entries))
    assert [part.number for part in table.partitions] == [1, 2, 6]
    assert sorted(table.problems) == [
        "partition 3 does not lie on the disk",
        "partition 4 does not lie on the disk",
        "partition 5 does not lie on the disk",
        "partitions 1 and 2 overlap",
    ]
    assert table.partitions[0].name == "a"


@pytest.mark.parametrize(("count", "size"), [(1 << 31, 128), (128, 1 << 31), (1 << 31, 1 << 31), (128, 0), (4, 64)])
def test_absurd_entry_counts_are_no_table(count: int, size: int, tmp_path: Path) -> None:
    path = craft_gpt(tmp_path / "disk.raw", [(100, 199)], count=count, entry_size=size)
    with RawReader(path) as reader:
        assert read_partitions(reader) is None


def boot_record(*slots: tuple[int, int, int]) -> bytes:
    entries = b"".join(struct.pack("<B3xB3xII", 0, kind, first, count) for kind, first, count in slots)
    return bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"


def mbr_disk(path: Path, records: dict[int, bytes]) -> Path:
    with open(blank(path), "r+b") as disk:
        for sector, record in records.items():
            disk.seek(sector * 512)
            disk.write(record)
    return path


def test_a_circle_of_extended_partitions_ends(tmp_path: Path) -> None:
    records = {
        0: boot_record((0x83, 10, 10), (0x05, 100, 1000)),
        100: boot_record((0x83, 1, 5), (0x05, 50, 10)),
        150: boot_record((0x83, 1, 5), (0x05, 0, 10)),
    }
    table = read(mbr_disk(tmp_path / "disk.raw", records))
    assert [part.number for part in table.partitions] == [1, 2, 5, 6]
    assert table.problems == ("its chain of extended partitions runs in a circle or off the disk",)


def test_an_endless_chain_of_extended_partitions_is_bounded(tmp_path: Path) -> None:
    records = {0: boot_record((0x05, 1, 100_000))}
    records |= {n: boot_record((0x83, 1, 1), (0x05, n, 10)) for n in range(1, 1000)}
    table = read(mbr_disk(tmp_path / "disk.raw", records))
    assert len(table.partitions) <= 130
    assert "it has more than 128 logical partitions" in table.problems


def test_a_boot_sector_is_no_table(tmp_path: Path) -> None:
    code = bytes(range(1, 256)) * 2
    path = mbr_disk(tmp_path / "disk.raw", {0: code[:510] + b"\x55\xaa"})
    with RawReader(path) as reader:
        assert read_partitions(reader) is None
