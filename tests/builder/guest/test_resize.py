"""Real disks resized by the step and the appliance, judged by the host's own tools and byte by byte."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builder import proc
from builder.errors import GuestError
from builder.guest.edits import Resize, Unchanged
from builder.guest.guest import Guest
from builder.guest.overlay import Layer, open_layer
from builder.image.identify import identify
from builder.image.inspect import look_inside
from pipelines.steps.resize import ResizeOptions, ResizeStep

MIB = 1 << 20
STEP = ResizeStep()
NOISE = os.urandom(3 * MIB)
OS = {"etc/os-release": b"ID=debian\n", "etc/fstab": b"# empty\n", "noise": NOISE}


class Resized:
    """A disk under its layer in the appliance: resized as often as wanted, then flattened and looked at."""

    def __init__(self, appliance, layer: Layer) -> None:
        self.appliance, self.layer = appliance, layer
        appliance.attach(layer)
        self.guest = Guest(appliance)

    def __call__(self, **options):
        """Do the step; then once more, which must find nothing to do."""
        wanted = ResizeOptions(**options)
        (edit,) = STEP.edits(wanted, self.guest, {})
        self.guest.apply(edit)
        assert self.guest.read("/noise") == NOISE
        again = STEP.edits(wanted, self.guest, {})
        assert isinstance(again, Unchanged), again
        return str(edit)

    def flat(self) -> Path:
        """End the work as `edit_image` does and return the disk as a raw file, by qemu's reader and by ours."""
        self.guest.trim()
        self.appliance.detach()
        flat, own = self.layer.path.with_suffix(".flat"), self.layer.path.with_suffix(".own")
        proc.run(["qemu-img", "check", "-q", "-f", "qcow2", self.layer.path])
        proc.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.layer.path, flat])
        with open_layer(self.layer) as reader, open(own, "xb") as file:
            assert reader.virtual_size == identify(self.layer.path).virtual_size
            file.truncate(reader.virtual_size)
            for extent in reader.extents():
                file.seek(extent.offset)
                file.write(reader.pread(extent.length, extent.offset))
        proc.run(["cmp", flat, own])
        return flat


@pytest.fixture
def on(appliance, disks):
    """Plug a disk in; unplugged again when a test fails on the way."""

    def plug(disk: Path) -> Resized:
        return Resized(appliance, disks.overlay(disk))

    yield plug
    nodes = appliance._talk().execute("query-named-block-nodes")
    if any(node["node-name"] == "image" for node in nodes):
        appliance.detach()


def parts(disk: Path) -> dict:
    found = json.loads(proc.run(["sfdisk", "--json", disk]).stdout)["partitiontable"]["partitions"]
    return {int(part.pop("node").removeprefix(str(disk))): part for part in found}


def volume(disk: Path, number: int | None, target: Path) -> Path:
    """Cut a partition out."""
    start, size = 0, disk.stat().st_size // 512
    if number is not None:
        start, size = (parts(disk)[number][key] for key in ("start", "size"))
    words = ["dd", f"if={disk}", f"of={target}", "bs=512", f"skip={start}", f"count={size}", "status=none"]
    proc.run([*words, "conv=sparse"])
    return target


def fill(target: Path) -> int:
    """Return the size of the filesystem in bytes, by its own superblock, as blkid and dumpe2fs see it."""
    said = proc.run(["dumpe2fs", "-h", target]).stdout.decode()
    words = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    return int(words["Block count"]) * int(words["Block size"])


@pytest.fixture
def cloud_disk(disks, part):
    """As Debian's cloud images are: the root is the last by place, the first by number."""

    def make(kind: str = "ext4", size: int = 48) -> Path:
        disk = disks.directory / "cloud.raw"
        with open(disk, "xb") as file:
            file.truncate((size + 10) * MIB)
        words = [
            "-n15:2048:+4M",
            "-t15:EF00",
            "-n14:0:+1M",
            "-t14:EF02",
            f"-n1:16384:+{size}M",
            "-t1:8304",
            "-c1:the root",
        ]
        proc.run(["sgdisk", "-a1", *words, "-A1:set:2", "-A1:set:60", disk])
        root = disks.filesystem(disk.with_suffix(".root"), part(type=kind, size=size, files=OS, label="root"))
        disks.copy(root, disk, 16384)
        return disk

    return make


def test_a_gpt_disk_grows_shrinks_and_keeps_all_else(on, cloud_disk, tmp_path):
    disk = cloud_disk()
    before = parts(disk)
    resized = on(disk)
    told = resized(disk=160 * MIB)
    assert told == "partition 1 (ext4): 48 MiB -> 151 MiB; disk: 58 MiB -> 160 MiB"
    resized(disk="minimum")
    resized(size="24 MiB", disk="48 MiB")
    flat = resized.flat()
    after = parts(flat)
    assert flat.stat().st_size == 48 * MIB
    assert after[1].pop("size") == 24 * 2048
    before[1].pop("size")
    assert after == before
    assert b"No problems found" in proc.run(["sgdisk", "-v", flat]).stdout
    root = volume(flat, 1, tmp_path / "root")
    proc.run(["e2fsck", "-fn", root])
    assert fill(root) == 24 * MIB
    assert proc.run(["debugfs", "-R", "cat /noise", root]).stdout == NOISE


@pytest.mark.sweep
def test_what_is_below_a_disk_cut_and_grown_again_does_not_show(appliance, disks, part, on):
    disk = disks.gpt("noisy.raw", [part(type="ext4", size=24, files=OS)])
    with open(disk, "r+b") as file:
        file.truncate(64 * MIB)
        file.seek(40 * MIB)
        file.write(os.urandom(8 * MIB))
    resized = on(disk)
    resized(disk=30 * MIB)
    resized(disk=64 * MIB, size="keep")
    flat = resized.flat()
    assert not any(flat.read_bytes()[31 * MIB : 63 * MIB])


@pytest.mark.sweep
def test_a_logical_partition_takes_its_container_along(on, disks, part, tmp_path):
    disk = tmp_path / "mbr.raw"
    with open(disk, "xb") as file:
        file.truncate(64 * MIB)
    table = b"label: dos\nlabel-id: 0x4ec3b4c0\n2048,8192,83,*\n18432,,5\n20480,8192,82\n30720,32768,83\n"
    proc.run(["sfdisk", "-q", disk], stdin=table)
    disks.copy(disks.filesystem(tmp_path / "swap", part(type="swap", size=4, label="sw")), disk, 20480)
    disks.copy(disks.filesystem(tmp_path / "root", part(type="ext4", size=16, files=OS)), disk, 30720)
    before = parts(disk)
    resized = on(disk)
    assert resized(disk=96 * MIB) == "partition 6 (ext4): 16 MiB -> 81 MiB; disk: 64 MiB -> 96 MiB"
    assert resized(size=20 * MIB) == "partition 6 (ext4): 81 MiB -> 20 MiB"
    resized(disk="minimum", size="keep")
    assert resized(partition=5, size=2 * MIB) == "partition 5 (swap): 4 MiB -> 2 MiB"
    resized(partition=5, size="fill")
    flat = resized.flat()
    after = parts(flat)
    assert flat.stat().st_size == 35 * MIB
    assert (after[6]["size"], after[5]["size"], after[2]["size"]) == (20 * 2048, 8192, 20 * 2048 + 30720 - 18432)
    for number in before:
        assert {**after[number], "size": 0} == {**before[number], "size": 0}
    proc.run(["e2fsck", "-fn", volume(flat, 6, tmp_path / "root2")])
    said = proc.run(["blkid", "-p", "-o", "export", volume(flat, 5, tmp_path / "swap2")]).stdout
    was = proc.run(["blkid", "-p", "-o", "export", tmp_path / "swap"]).stdout
    assert [line for line in said.splitlines() if b"UUID" in line or b"LABEL" in line] == [
        line for line in was.splitlines() if b"UUID" in line or b"LABEL" in line
    ]


@pytest.mark.sweep
@pytest.mark.parametrize(("kind", "size"), [("xfs", 304), ("btrfs", 160)])
def test_what_grows_while_it_is_mounted(on, cloud_disk, kind, size):
    resized = on(cloud_disk(kind, size))
    resized(disk=(size + 200) * MIB)
    flat = resized.flat()
    with open_layer(Layer(path=flat, format="raw")) as reader:
        _, volumes = look_inside(reader)
    (found,) = [volume.filesystem for volume in volumes if volume.partition == 1]
    assert found.size == (size + 191) * MIB
    if kind == "btrfs":
        target = volume(flat, 1, flat.with_suffix(".root"))
        proc.run(["btrfs", "check", "-q", target])


@pytest.mark.sweep
def test_a_filesystem_without_a_table_is_the_disk(on, disks, part, tmp_path):
    resized = on(disks.filesystem(tmp_path / "bare.raw", part(type="ext4", size=32, files=OS)))
    assert resized(disk=64 * MIB) == "the disk's own filesystem (ext4): 32 MiB -> 64 MiB; disk: 32 MiB -> 64 MiB"
    resized(disk=48 * MIB)
    resized(size="minimum")
    resized(disk="minimum", size="keep")
    flat = resized.flat()
    assert flat.stat().st_size == fill(flat) < 24 * MIB
    proc.run(["e2fsck", "-fn", flat])
    assert proc.run(["debugfs", "-R", "cat /noise", flat]).stdout == NOISE


@pytest.mark.sweep
def test_sectors_of_4096_bytes(on, disks, part, tmp_path):
    disk = tmp_path / "4kn.raw"
    with open(disk, "xb") as file:
        file.truncate(40 * MIB)
    proc.run(["fdisk", "-b", "4096", disk], stdin=b"g\nn\n\n256\n+4M\nn\n\n2048\n+24M\nw\n")
    # Of 4 KiB blocks, as nothing smaller can be mounted there; so small a filesystem has smaller ones by itself.
    root = disks.filesystem(tmp_path / "root", part(type="ext4", size=24, files=OS))
    proc.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-d", tmp_path / "root.tree", root])
    disks.copy(root, disk, 2048 * 8)
    resized = on(disk)
    assert resized(disk=64 * MIB) == "partition 2 (ext4): 24 MiB -> 55 MiB; disk: 40 MiB -> 64 MiB"
    resized(disk=48 * MIB)
    flat = resized.flat()
    said = proc.run(["fdisk", "-b", "4096", "-l", "-o", "Start,Sectors", flat])
    assert said.stdout.split()[-4:] == [b"256", b"1024", b"2048", b"9984"]
    assert said.stderr == b""
    proc.run(["e2fsck", "-fn", f"{flat}?offset={8 * MIB}"])


@pytest.mark.sweep
def test_files_that_do_not_fit_are_refused_by_the_step_and_by_their_filesystem(on, cloud_disk):
    resized = on(cloud_disk())
    with pytest.raises(GuestError, match=r"partition 1 \(ext4\) has files for .* and cannot be made 2 MiB"):
        STEP.edits(ResizeOptions(size=2 * MIB), resized.guest, {})
    with pytest.raises(GuestError, match="resize2fs_size failed in the guest"):
        resized.guest.apply(Resize(disk=58 * MIB, partition=1, size=2 * MIB))
    assert resized.guest.read("/noise") == NOISE


@pytest.mark.sweep
def test_a_volume_of_lvm_grows_with_its_disk(on, disks, part, appliance):
    disk = disks.gpt("lvm.raw", [part(type="ext2", size=8, label="boot"), part(type="swap", size=64)])
    layer = disks.overlay(disk)
    appliance.attach(layer)
    for name, *arguments in [
        ("pvcreate", "/dev/sda2"),
        ("vgcreate", "vg0", ["/dev/sda2"]),
        ("lvcreate", "root", "vg0", 32),
        ("mkfs", "ext4", "/dev/vg0/root"),
        ("mount", "/dev/vg0/root", "/"),
        ("mkdir", "/etc"),
        ("write", "/etc/fstab", b"/dev/mapper/vg0-root / ext4\n"),
        ("write", "/noise", NOISE),
        ("umount_all",),
        ("lvm_scan", True),
    ]:
        appliance.call(name, *arguments)
    appliance.detach()
    flat = disk.with_name("flat.raw")
    proc.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", layer.path, flat])
    resized = on(flat)
    assert resized(disk=128 * MIB).startswith("partition 2 (LVM2_member): 64 MiB -> 118 MiB")
    resized.guest.disk.mount("ro")
    assert resized.guest._call("statvfs", "/")["blocks"] * 1024 > 100 * MIB
    resized.flat()
