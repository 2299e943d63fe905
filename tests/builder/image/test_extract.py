"""Which part of a disk is meant, told from its table alone: real tables of every kind, and what is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import InputError
from builder.image.extract import Layout, Wanted, find, listed
from builder.image.raw import RawReader

Tool = Callable[..., str]
MIB = 1 << 20


def blank(directory: Path) -> Path:
    path = directory / "disk.raw"
    with open(path, "wb") as disk:
        disk.truncate(64 * MIB)
    return path


def put(tool: Tool, disk: Path, at: int, kind: str, label: str, size: int = 4 * MIB) -> None:
    """Make a filesystem at that byte of the disk."""
    part = disk.with_suffix(".part")
    with open(part, "wb") as out:
        out.truncate(size)
    label_of = {"swap": "-L", "vfat": "-n"}
    program = {"swap": "mkswap", "vfat": "mkfs.vfat"}.get(kind, f"mkfs.{kind}")
    part.chmod(0o600)
    tool(program, *(["-q"] if kind == "ext4" else []), label_of.get(kind, "-L"), label, part)
    with open(disk, "r+b") as out:
        out.seek(at)
        out.write(part.read_bytes())


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    """BIOS boot 14, ESP 15, root 1 and swap 2, the root neither first nor named as its filesystem is labelled."""
    disk = blank(tmp_path_factory.mktemp("gpt"))
    new = ["-n14:2048:+1M", "-t14:ef02", "-n15:0:+4M", "-t15:ef00", "-c15:esp", "-n1:0:+8M", "-t1:8304", "-c1:system"]
    tool("sgdisk", *new, "-n2:0:+4M", "-t2:8200", "-n3:0:+4M", "-t3:8200", disk)
    put(tool, disk, 2 * MIB, "vfat", "UEFI")
    put(tool, disk, 6 * MIB, "ext4", "cloudimg-rootfs")
    put(tool, disk, 14 * MIB, "swap", "swapper")
    return disk


@pytest.fixture(scope="module")
def mbr(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    """The seed's layout and more: boot, swap, and the root in an extended partition, behind another."""
    disk = blank(tmp_path_factory.mktemp("mbr"))
    table = "label: dos\n2048,8192,83,*\n10240,8192,82\n18432,,5\n20480,8192,83\n30720,16384,8e\n"
    tool("sfdisk", "-q", disk, stdin=table.encode())
    put(tool, disk, MIB, "ext4", "boot")
    put(tool, disk, 10 * MIB, "ext4", "data")
    return disk


def copied(disk: Path, directory: Path) -> Path:
    """Return a copy to be changed."""
    copy = directory / "copy.raw"
    copy.write_bytes(disk.read_bytes())
    return copy


def look(disk: Path) -> Layout:
    with RawReader(disk) as reader:
        return Layout.of(reader)


GPT = [
    (Wanted(partition=1), (6 * MIB, 8 * MIB)),
    (Wanted(partition=14), (MIB, MIB)),
    (Wanted(label="cloudimg-rootfs"), (6 * MIB, 8 * MIB)),
    (Wanted(label="system"), (6 * MIB, 8 * MIB)),
    (Wanted(label="UEFI"), (2 * MIB, 4 * MIB)),
    (Wanted(type="EFI system"), (2 * MIB, 4 * MIB)),
    (Wanted(type="efi SYSTEM"), (2 * MIB, 4 * MIB)),
    (Wanted(type="21686148-6449-6E6F-744E-656564454649"), (MIB, MIB)),
    (Wanted(type="Linux root (x86-64)"), (6 * MIB, 8 * MIB)),
]


@pytest.mark.parametrize(("wanted", "place"), GPT)
def test_gpt(wanted: Wanted, place: tuple[int, int], gpt: Path) -> None:
    found = find(look(gpt), wanted)
    assert found is not None
    assert (found.offset, found.size) == place


def test_a_hybrid_table_is_read_as_gpt(gpt: Path, tool: Tool, tmp_path: Path) -> None:
    disk = copied(gpt, tmp_path)
    tool("sgdisk", "-h", "15:1", disk)
    layout = look(disk)
    assert layout.table is not None
    assert layout.table.hybrid
    for wanted, place in GPT:
        found = find(layout, wanted)
        assert found is not None
        assert (found.offset, found.size) == place


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        (Wanted(partition=1), (MIB, 4 * MIB)),
        (Wanted(partition=5), (10 * MIB, 4 * MIB)),
        (Wanted(partition=6), (15 * MIB, 8 * MIB)),
        (Wanted(label="data"), (10 * MIB, 4 * MIB)),
        (Wanted(type="82"), (5 * MIB, 4 * MIB)),
        (Wanted(type="0x8E"), (15 * MIB, 8 * MIB)),
        (Wanted(type="linux swap"), (5 * MIB, 4 * MIB)),
    ],
)
def test_mbr_with_logical_partitions(wanted: Wanted, place: tuple[int, int], mbr: Path) -> None:
    found = find(look(mbr), wanted)
    assert found is not None
    assert (found.offset, found.size) == place


def test_sectors_of_4096_bytes(tmp_path: Path, tool: Tool) -> None:
    disk = blank(tmp_path)
    tool("fdisk", "-b", "4096", disk, stdin=b"g\nn\n\n256\n1279\nn\n\n1280\n3327\nw\n")
    found = find(look(disk), Wanted(partition=2))
    assert found is not None
    assert (found.offset, found.size) == (5 * MIB, 8 * MIB)


def test_a_filesystem_without_a_table(tmp_path: Path, tool: Tool) -> None:
    disk = tmp_path / "bare.raw"
    disk.touch()
    put(tool, disk, 0, "ext4", "bare")
    found = find(look(disk), Wanted(label="bare"))
    assert found is not None
    assert (found.number, found.offset, found.size) == (None, 0, 4 * MIB)
    assert found.title == "the whole disk (ext4 labelled bare)"


def test_only_a_look_inside_tells(mbr: Path, gpt: Path) -> None:
    assert find(look(gpt), Wanted(root=True)) is None
    assert find(look(gpt), Wanted(volume="vg/root")) is None
    assert find(look(gpt), Wanted(subvolume="@")) is None


REFUSED = [
    ("gpt", Wanted(partition=4), r"no partition 4; there is partition 1 'system' \(8 MiB, Linux root \(x86-64\), ext4"),
    ("gpt", Wanted(label="rootfs"), r"no partition or filesystem labelled rootfs; .* partition 15 'esp'"),
    ("gpt", Wanted(type="0x83"), "no partition of type 0x83"),
    ("gpt", Wanted(type="Linux swap"), "type Linux swap is 2 partitions.*partition 2 .*; partition 3"),
    ("mbr", Wanted(partition=3), "partition 3 is the extended partition, which only holds others"),
    ("mbr", Wanted(partition=7), "no partition 7; there is partition 1"),
    ("mbr", Wanted(type="0x5"), "no partition of type 0x5"),
    ("mbr", Wanted(type="Linux"), "type Linux is 2 partitions, .*partition 1 .*; partition 5"),
]


@pytest.mark.parametrize(("disk", "wanted", "expected"), REFUSED)
def test_none_and_several_are_refused_with_what_there_is(
    disk: str, wanted: Wanted, expected: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        find(look(request.getfixturevalue(disk)), wanted)
    assert caught.value.hint


def test_a_label_that_is_another_partitions_name_is_not_guessed(gpt: Path, tool: Tool, tmp_path: Path) -> None:
    disk = copied(gpt, tmp_path)
    tool("sgdisk", "-c15:cloudimg-rootfs", disk)
    with pytest.raises(InputError, match="label cloudimg-rootfs is 2 partitions"):
        find(look(disk), Wanted(label="cloudimg-rootfs"))


def test_a_partition_that_does_not_lie_on_the_disk_is_refused_by_its_reason(mbr: Path, tmp_path: Path) -> None:
    disk = copied(mbr, tmp_path)
    os.truncate(disk, 12 * MIB)
    with pytest.raises(InputError, match=r"no partition 5; .*partition 5 does not lie on the disk"):
        find(look(disk), Wanted(partition=5))


def test_an_empty_disk_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the disk has no partition 1; there is no partition table, no known filesys"):
        find(look(blank(tmp_path)), Wanted(partition=1))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), "nothing says which part"),
        (Wanted(root=True, partition=1), "`partition` and `root` each say"),
        (Wanted(root=True, subvolume="@"), "`root` finds the subvolume by itself"),
        (Wanted(volume="root"), "`volume` is GROUP/NAME, and 'root' is not"),
        (Wanted(volume="vg/root; reboot"), "`volume` is GROUP/NAME"),
        (Wanted(type="ext4"), "'ext4' is no partition type: a GUID, .*EFI system"),
        (Wanted(label=""), "`label` is empty"),
        (Wanted(subvolume=""), "`subvolume` is empty"),
    ],
)
def test_a_choice_that_is_none(wanted: Wanted, expected: str) -> None:
    assert re.search(expected, "; ".join(wanted.problems()))


@pytest.mark.parametrize(
    "wanted",
    [Wanted(root=True), Wanted(subvolume="@"), Wanted(partition=2, subvolume="@/x"), Wanted(volume="vg-0/root_1.x")],
)
def test_a_choice_that_is_one(wanted: Wanted) -> None:
    assert not wanted.problems()


def test_a_disk_of_very_many_partitions_is_not_told_in_full(tmp_path: Path, tool: Tool) -> None:
    disk = blank(tmp_path)
    tool("sgdisk", "-a", "1", *(f"-n{n}:{2048 + n}:{2048 + n}" for n in range(1, 100)), disk)
    with pytest.raises(InputError, match=r"partition 20 \(.*; and 79 more$"):
        find(look(disk), Wanted(partition=100))


def test_names_from_the_disk_cannot_steer_a_terminal() -> None:
    assert listed(["\x1b[2J", "a\nb"]) == "\N{REPLACEMENT CHARACTER}[2J, a\N{REPLACEMENT CHARACTER}b"
