"""Whole disks around a small root: read back by other tools than those that wrote them."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace

import pytest

from builder import proc
from builder.bootable import loader, menu
from builder.bootable.assemble import Boot, Wanted, assemble, layout, require_root
from builder.bootable.menu import Links
from builder.digest import file_sha256
from builder.errors import InputError, UsageError
from builder.image.filesystems import probe
from builder.image.partitions import read_partitions
from builder.image.raw import RawReader, window
from builder.image.write import content_digest

MIB = 1 << 20
WANTED = Wanted(table="gpt", firmware=("bios", "uefi"), consoles=("tty0", "ttyS0,115200"))
FAT = {"gpt": 4 * MIB, "mbr": 1 * MIB}
ROOT = {"gpt": 68 * MIB, "mbr": 65 * MIB}


@pytest.fixture
def boot(kernel, ramdisk):
    return Boot(kernel=kernel, ramdisk=ramdisk)


@pytest.fixture
def make(tmp_path, boot, make_root):
    made = 0

    def make(wanted=WANTED, *, root=None, boot=boot, seed="content"):
        nonlocal made
        made += 1
        scratch, target = tmp_path / f"scratch-{made}", tmp_path / f"disk-{made}.raw"
        scratch.mkdir()
        with RawReader(root or make_root()) as reader:
            size = assemble(reader, boot, wanted, target, seed=seed, scratch=scratch)
        assert target.stat().st_size == size
        return target

    return make


def beside(disk, table, path):
    return proc.run(["mtype", "-i", f"{disk}@@{FAT[table]}", f"::/{path}"]).stdout


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_everything_is_where_it_belongs_and_nothing_else_takes_space(make, make_root, boot, table):
    root = make_root(size=24 * MIB + 4096)
    disk = make(replace(WANTED, table=table), root=root)
    with open(disk, "rb") as file:
        file.seek(ROOT[table])
        assert file.read(root.stat().st_size) == root.read_bytes()
    assert beside(disk, table, menu.KERNEL) == boot.kernel.read_bytes()
    assert beside(disk, table, menu.RAMDISK) == boot.ramdisk.read_bytes()
    assert beside(disk, table, "EFI/BOOT/BOOTX64.EFI").startswith(b"MZ")
    assert b"root=LABEL=rootfs ro console=tty0 console=ttyS0,115200\n" in beside(disk, table, menu.CONFIG)
    assert disk.stat().st_blocks * 512 < root.stat().st_blocks * 512 + 6 * MIB  # GRUB's images, kernel, FAT's tables
    proc.run(["fsck.vfat", "-n", "--", _cut(disk, FAT[table], 64 * MIB)])
    proc.run(["e2fsck", "-fn", f"{disk}?offset={ROOT[table]}"])


def _cut(disk, offset, size):
    part = disk.with_suffix(".part")
    with open(disk, "rb") as file:
        file.seek(offset)
        part.write_bytes(file.read(size))
    return part


def test_the_gpt(make):
    disk = make()
    assert b"No problems found" in proc.run(["sgdisk", "--verify", disk]).stdout
    table = proc.run(["sgdisk", "--print", disk]).stdout.decode()
    assert re.findall(r"^ +(\d+) +(\d+) +(\d+) .* (\w{4})  (\w+)$", table, re.M) == [
        ("1", "139264", "188415", "8304", "root"),
        ("14", "2048", "8191", "EF02", "bios"),
        ("15", "8192", "139263", "EF00", "esp"),
    ]


def test_the_mbr(make):
    disk = make(replace(WANTED, table="mbr"))
    table = json.loads(proc.run(["sfdisk", "--json", disk]).stdout)["partitiontable"]
    found = [(part["start"], part["size"], part["type"], part.get("bootable")) for part in table["partitions"]]
    assert found == [(133120, 49152, "83", True), (2048, 131072, "ef", None)]


@pytest.mark.parametrize(("table", "sector"), [("gpt", 2048), ("mbr", 1)])
def test_the_first_sector_leads_to_the_core(make, table, sector):
    disk = make(replace(WANTED, table=table))
    with open(disk, "rb") as file:
        first = file.read(512)
        file.seek(sector * 512)
        core = file.read(512)
    assert first[:3] == loader.boot_image()[:3]
    assert struct.unpack_from("<Q", first, 0x5C) == (sector,)
    start, length, segment = struct.unpack_from("<QHH", core, 500)
    assert (start, segment) == (sector + 1, 0x820)
    assert (start + length) * 512 <= FAT[table]  # the boot partition was written first, and must be whole


@pytest.mark.parametrize(
    ("firmware", "types"),
    [
        (("bios",), {14: "BIOS boot", 15: "Linux extended boot", 1: "Linux root (x86-64)"}),
        (("uefi",), {15: "EFI system", 1: "Linux root (x86-64)"}),
    ],
)
def test_one_kind_of_firmware(make, firmware, types):
    disk = make(replace(WANTED, firmware=firmware))
    with RawReader(disk) as reader:
        table = read_partitions(reader)
    assert {part.number: part.type_name for part in table.partitions} == types
    with open(disk, "rb") as file:
        assert any(file.read(440)) == ("bios" in firmware)
    listed = proc.run(["mdir", "-/", "-b", "-i", f"{disk}@@{FAT['gpt']}", "::/"]).stdout
    assert (b"BOOTX64.EFI" in listed) == ("uefi" in firmware)


@pytest.mark.parametrize("kind", ["ext2", "ext3", "xfs", "btrfs"])
def test_any_usual_filesystem_can_be_the_root(make, tmp_path, kind):
    root = tmp_path / "root.img"
    with open(root, "wb") as file:
        file.truncate(304 * MIB)
    proc.run([f"mkfs.{kind}", "-q", "-L", "rootfs", root])
    disk = make(root=root)
    with RawReader(disk) as reader, RawReader(root) as alone:
        within = window(reader, ROOT["gpt"], 304 * MIB)
        assert content_digest(within) == content_digest(alone)
        assert probe(within).type == kind


def test_a_larger_disk_is_the_roots(make, make_root):
    with RawReader(make(replace(WANTED, size=1 << 30))) as reader:
        parts = {part.number: part for part in read_partitions(reader).partitions}
        assert reader.virtual_size == 1 << 30
    assert parts[1].start + parts[1].size == (1 << 30) - MIB


def test_without_an_initramfs_the_kernel_is_told_the_partition(make, make_root, boot):
    alone, unlabelled = replace(boot, ramdisk=None), make_root(label="")
    for table in ("gpt", "mbr"):
        disk = make(replace(WANTED, table=table), boot=alone, root=unlabelled)
        with RawReader(disk) as reader:
            partition = next(part for part in read_partitions(reader).partitions if part.number == 1)
        assert f"root=PARTUUID={partition.uuid} ro".encode() in beside(disk, table, menu.CONFIG)


@pytest.mark.parametrize(("table", "partition"), [("gpt", b"gpt1"), ("mbr", b"msdos1")])
def test_links_are_looked_for_on_the_roots_partition(make, boot, table, partition):
    linked = replace(boot, links=Links(kernel="/vmlinuz", ramdisk="/initrd.img"))
    disk = make(replace(WANTED, table=table), boot=linked)
    assert b'[ -f "($disk,' + partition + b')/vmlinuz"' in beside(disk, table, menu.CONFIG)


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_the_same_inputs_give_the_same_bytes_and_others_other_identifiers(make, make_root, table):
    wanted, root = replace(WANTED, table=table), make_root()
    first = make(wanted, root=root)
    assert file_sha256(make(wanted, root=root)) == file_sha256(first)
    uuids = set()
    for disk in (first, make(wanted, root=root, seed="other"), make(replace(wanted, arguments="quiet"), root=root)):
        with RawReader(disk) as reader:
            uuids.add(read_partitions(reader).uuid)
    assert len(uuids) == 3


@pytest.mark.parametrize(
    ("firmware", "root", "label"),
    [
        (("bios", "uefi"), "rootfs", "UEFI"),
        (("bios",), "rootfs", "BOOT"),
        (("uefi",), "UEFI", "LOADER"),
        (("bios",), "BOOT", "LOADER"),
    ],
)
def test_the_boot_partition_is_never_taken_for_the_root(make, make_root, firmware, root, label):
    disk = make(replace(WANTED, table="mbr", firmware=firmware), root=make_root(label=root))
    with RawReader(disk) as reader:
        labels = {
            part.number: probe(window(reader, part.start, part.size)).label
            for part in read_partitions(reader).partitions
        }
    assert labels == {1: root, 2: label}


def test_a_large_initramfs_has_a_boot_partition_that_holds_it(make, boot, tmp_path):
    large = tmp_path / "large"
    with open(large, "wb") as file:
        file.truncate(100 * MIB)
    disk = make(boot=replace(boot, ramdisk=large))
    assert len(beside(disk, "gpt", menu.RAMDISK)) == 100 * MIB


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (replace(WANTED, size=92 * MIB), "too small: root and boot partition need 93 MiB"),
        (replace(WANTED, table="mbr", size=(2 << 40) + MIB), "too large for an MBR"),
    ],
)
def test_disks_that_cannot_be(wanted, message):
    with pytest.raises(UsageError, match=message):
        layout(24 * MIB, 0, wanted)


def test_what_is_no_root_is_refused(make, make_root, tmp_path, tiny_disk):
    empty, cut = tmp_path / "empty", tmp_path / "cut"
    empty.write_bytes(bytes(MIB))
    cut.write_bytes(make_root().read_bytes()[: 20 * MIB])
    for path, message in (
        (empty, "holds no filesystem that is known"),
        (cut, "cut off: its ext4 has 24 MiB, and the image 20 MiB"),
        (tiny_disk, "a disk with 1 partitions"),
    ):
        with RawReader(path) as reader, pytest.raises(InputError, match=message):
            require_root(reader)


def test_what_cannot_boot_is_refused_before_anything_is_written(make, make_root, boot, tmp_path):
    for given, message in (
        ({"root": make_root(label="")}, "no label"),
        ({"root": make_root(label="my root")}, "cannot stand on a kernel's command line"),
        ({"boot": replace(boot, kernel=boot.ramdisk)}, "no boot header"),
    ):
        with pytest.raises(InputError, match=message):
            make(**given)
    assert not list(tmp_path.glob("disk-*"))
