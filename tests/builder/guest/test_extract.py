"""A matrix of layouts, made by code: the root is found inside and taken out, labelled, its fstab put right; or refused.

One appliance serves them all. What is looked for is told to nobody: only what the disks hold.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builder.errors import GuestError, InputError
from builder.guest import fstab
from builder.guest.edits import Unchanged
from builder.guest.extract import Extracted, extract
from builder.guest.guest import Guest
from builder.guest.overlay import Layer, create
from builder.image.extract import Wanted
from builder.image.raw import RawReader
from pipelines.steps.fstab import Fstab, FstabOptions
from pipelines.steps.label import Label, LabelOptions

MIB = 1 << 20
FSTAB = b"# made by the installer\n{spec}\t/\t{type}\tdefaults\t0 1\nproc\t/proc\tproc\tdefaults\t0 0\n"
UUID = "5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11"
BOOT, SWAP = "6a7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b12", "7b7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b13"
BESIDE = f"UUID={BOOT} /boot ext3 defaults 0 2\nUUID={SWAP} none swap sw 0 0\n"


def tree(kind: str = "ext4", spec: str = f"UUID={UUID}") -> dict:
    """Return the files of a root whose fstab names it by `spec`."""
    text = FSTAB.replace(b"{spec}", spec.encode()).replace(b"{type}", kind.encode())
    return {"etc/os-release": b"ID=debian\n", "etc/fstab": text, "etc/marker": b"this is the root\n"}


@dataclass
class Layouts:
    """Makes each disk of the matrix; returns it with where its root lies, None when it is in no one place."""

    disks: object
    part: Callable
    prepare: Callable
    made: list = field(default_factory=list)

    def root(self, kind: str = "ext4", size: int = 32, *, spec: str = f"UUID={UUID}", **more):
        uuid = {"uuid": UUID} if kind != "xfs" else {}
        return self.part(type=kind, size=size, label="old", files=tree(kind, spec), **uuid, **more)

    def mbr(self) -> tuple[Path, tuple[int, int]]:
        return self.disks.mbr("d.raw", [self.root()]), (MIB, 32 * MIB)

    def swap_first_boot_apart_root_logical(self) -> tuple[Path, tuple[int, int]]:
        swap = self.part(type="swap", size=8, code="82", uuid=SWAP)
        boot = self.part(type="ext3", size=16, uuid=BOOT, files={"vmlinuz": b"k"})
        root = self.root(spec="/dev/sda6")
        root.files["etc/fstab"] += BESIDE.encode()
        return self.disks.mbr("d.raw", [swap, boot], [self.part(type="ext2", size=4), root]), (31 * MIB, 32 * MIB)

    def gpt(self) -> tuple[Path, tuple[int, int]]:
        esp = self.part(type="vfat", size=34, code="ef00", files={"EFI/x": b""})
        return self.disks.gpt("d.raw", [esp, self.root(name="system")]), (35 * MIB, 32 * MIB)

    def gpt_boot_apart(self) -> tuple[Path, tuple[int, int]]:
        boot = self.part(type="ext3", size=16, label="boot", uuid=BOOT, files={"vmlinuz": b"k"})
        swap = self.part(type="swap", size=8, code="8200", uuid=SWAP)
        root = self.root(spec="/dev/nvme0n1p3")
        root.files["etc/fstab"] += BESIDE.encode()
        return self.disks.gpt("d.raw", [boot, swap, root]), (25 * MIB, 32 * MIB)

    def hybrid(self) -> tuple[Path, tuple[int, int]]:
        disk, place = self.gpt()
        self.disks.run("sgdisk", "-h", "2", disk)
        return disk, place

    def sectors_of_4096(self) -> tuple[Path, tuple[int, int]]:
        parts = [self.part(type="vfat", size=40), self.root(block=4096)]
        return self.disks.native("d.raw", parts), (41 * MIB, 32 * MIB)

    def xfs(self) -> tuple[Path, tuple[int, int]]:
        return self.disks.gpt("d.raw", [self.root("xfs", 304, spec="/dev/vda1")]), (MIB, 304 * MIB)

    def btrfs(self) -> tuple[Path, tuple[int, int]]:
        return self.disks.gpt("d.raw", [self.root("btrfs", 128)]), (MIB, 128 * MIB)

    def btrfs_in_a_subvolume(self) -> tuple[Path, tuple[int, int]]:
        disk = self.disks.gpt("d.raw", [self.part(type="btrfs", size=128, label="old", uuid=UUID)])
        calls = [("mount", "/dev/sda1", "/"), ("btrfs_subvolume_create", "/@"), ("btrfs_subvolume_create", "/@home")]
        calls += [("mkdir", "/@/etc"), ("write", "/@home/mine", b"kept\n")]
        calls += [("write", f"/@/{name}", data) for name, data in tree("btrfs").items()]
        self.prepare(disk, *calls)
        return disk, (MIB, 128 * MIB)

    def lvm(self) -> tuple[Path, tuple[int, int]]:
        disk = self.disks.mbr("d.raw", [self.part(type="ext2", size=8), self.part(type="swap", size=64, code="8e")])
        group = (("pvcreate", "/dev/sda2"), ("vgcreate", "vg0", ["/dev/sda2"]), ("lvcreate", "swap", "vg0", 8))
        self.prepare(disk, *group, *_volume("vg0", "root"))
        return disk, (9 * MIB + MIB + 8 * MIB, 32 * MIB)

    def lvm_in_pieces(self) -> tuple[Path, None]:
        disk = self.disks.gpt("d.raw", [self.part(type="swap", size=24), self.part(type="swap", size=32)])
        group = [("pvcreate", "/dev/sda1"), ("pvcreate", "/dev/sda2"), ("vgcreate", "vg0", ["/dev/sda1", "/dev/sda2"])]
        self.prepare(disk, *group, *_volume("vg0", "root"))
        return disk, None

    def lvm_striped(self) -> tuple[Path, None]:
        disk = self.disks.gpt("d.raw", [self.part(type="swap", size=24), self.part(type="swap", size=32)])
        group = [("pvcreate", "/dev/sda1"), ("pvcreate", "/dev/sda2"), ("vgcreate", "vg0", ["/dev/sda1", "/dev/sda2"])]
        self.prepare(disk, *group, ("debug", "sh", ["lvm lvcreate -qq -i2 -L32m -n root vg0"]), *_filled("vg0", "root"))
        return disk, None

    def no_table(self) -> tuple[Path, tuple[int, int]]:
        return self.disks.filesystem(self.disks.directory / "d.raw", self.root()), (0, 32 * MIB)

    def group_on_the_whole_disk(self) -> tuple[Path, tuple[int, int]]:
        disk = self.disks.directory / "d.raw"
        with open(disk, "xb") as image:
            image.truncate(48 * MIB)
        self.prepare(disk, ("pvcreate", "/dev/sda"), ("vgcreate", "vg0", ["/dev/sda"]), *_volume("vg0", "root"))
        return disk, (MIB, 32 * MIB)


def _volume(group: str, name: str) -> list[tuple]:
    return [("lvcreate", name, group, 32), *_filled(group, name)]


def _filled(group: str, name: str) -> list[tuple]:
    device = f"/dev/{group}/{name}"
    files = tree(spec=f"/dev/mapper/{group}-{name}")
    made = [("mkfs", "ext4", device), ("mount", device, "/"), ("mkdir", "/etc")]
    made += [("write", f"/{path}", data) for path, data in files.items()]
    return [*made, ("umount_all",), ("vg_activate_all", False)]


# Where the root is named in these, and what their fstab says after `label` and `fstab` on the whole disk.
IN_PLACE = {
    "gpt_boot_apart": ("/dev/sda3", [("LABEL=boot", "/boot"), (f"UUID={SWAP}", "none")]),
    "swap_first_boot_apart_root_logical": ("/dev/sda6", [(f"UUID={BOOT}", "/boot"), (f"UUID={SWAP}", "none")]),
    "sectors_of_4096": ("/dev/sda2", []),
    "xfs": ("/dev/sda1", []),
    "btrfs_in_a_subvolume": ("/dev/sda1", []),
    "no_table": ("/dev/sda", []),
}
LEAN = ["sectors_of_4096"]
MORE = ["mbr", "gpt", "gpt_boot_apart", "hybrid", "xfs", "btrfs", "lvm", "lvm_in_pieces", "lvm_striped", "no_table"]
MORE += ["btrfs_in_a_subvolume", "group_on_the_whole_disk", "swap_first_boot_apart_root_logical"]


@pytest.fixture
def layouts(disks, part, prepare) -> Layouts:
    return Layouts(disks, part, prepare)


@pytest.mark.parametrize("name", [*LEAN, *(pytest.param(name, marks=pytest.mark.sweep) for name in MORE)])
def test_the_root_is_taken_out_and_labelled(name, layouts, appliance, tmp_path):
    disk, place = getattr(layouts, name)()
    before = disk.read_bytes()
    found = extract(Layer(path=disk, format="raw"), Wanted(root=True), tmp_path, session=appliance)
    if place is not None:
        assert (found.offset, found.size, found.file) == (*place, None)
    assert bool(found.layer) == (name == "btrfs_in_a_subvolume")
    root = part_of(disk, found)
    label_and_name(root, appliance, tmp_path / "edited.qcow2", name)
    assert disk.read_bytes() == before


def part_of(disk: Path, found: Extracted) -> Layer:
    """Return what was extracted as the layer that the next step gets."""
    if found.file:
        return Layer(path=found.file, format="raw")
    window = (found.offset, found.size)
    base = Layer(path=disk, format="raw")
    if found.layer:
        return Layer(path=found.layer, format="qcow2", beneath=base, window=window)
    return Layer(path=disk, format="raw", window=window)


def label_and_name(root: Layer, appliance, target: Path, layout: str) -> None:
    """Hold the extracted root against what was put into it, then run `label` and `fstab` on it."""
    appliance.attach(create(root, target, backing_name="root"))
    try:
        guest = Guest(appliance)
        assert relabelled(guest, FstabOptions(alone=True)) == ("/dev/sda", [])
        if layout == "btrfs_in_a_subvolume":
            guest.disk.unmount()
            appliance.call("mount_options", "subvol=@home", "/dev/sda", "/")
            assert appliance.call("pread", "/mine", 9, 0) == b"kept\n"
    finally:
        appliance.detach()


def relabelled(guest: Guest, options: FstabOptions) -> tuple[str, list[tuple[str, str]]]:
    """Run both steps, twice; return the root's device and the entries beside those that the tree began with."""
    assert guest.read("/etc/marker") == b"this is the root\n"
    for step, given in ((Label(), LabelOptions(label="new")), (Fstab(), options)):
        edits = step.edits(given, guest, {})
        assert not isinstance(edits, Unchanged)
        for edit in edits:
            guest.apply(edit)
        assert isinstance(step.edits(given, guest, {}), Unchanged)
    data = guest.read("/etc/fstab")
    entries = [(line.entry.spec, line.entry.mount_point) for line in fstab.parse(data) if line.entry]
    assert entries[:2] == [("LABEL=new", "/"), ("proc", "/proc")]
    lines = data.splitlines()
    assert lines[1].split()[:2] == [b"LABEL=new", b"/"]
    assert (lines[0], lines[2]) == (b"# made by the installer", b"proc\t/proc\tproc\tdefaults\t0 0")
    assert guest.filesystem(guest.root).label == "new"
    return guest.root, entries[2:]


@pytest.mark.parametrize(
    "name",
    [name if name == "gpt_boot_apart" else pytest.param(name, marks=pytest.mark.sweep) for name in IN_PLACE],
)
def test_the_root_is_labelled_where_it_lies(name, layouts, appliance, tmp_path):
    disk, _ = getattr(layouts, name)()
    before = disk.read_bytes()
    appliance.attach(create(Layer(path=disk, format="raw"), tmp_path / "edited.qcow2", backing_name="disk"))
    try:
        assert relabelled(Guest(appliance), FstabOptions()) == IN_PLACE[name]
    finally:
        appliance.detach()
    assert disk.read_bytes() == before


@pytest.mark.sweep
def test_a_logical_volume_is_labelled_and_its_name_in_fstab_is_right_as_it_is(layouts, appliance, tmp_path):
    disk, _ = layouts.lvm()
    appliance.attach(create(Layer(path=disk, format="raw"), tmp_path / "edited.qcow2", backing_name="disk"))
    try:
        guest = Guest(appliance)
        for edit in Label().edits(LabelOptions(label="new"), guest, {}):
            guest.apply(edit)
        assert guest.filesystem("/dev/vg0/root").label == "new"
        assert isinstance(Fstab().edits(FstabOptions(), guest, {}), Unchanged)
        assert b"\n/dev/mapper/vg0-root\t/\t" in guest.read("/etc/fstab")
    finally:
        appliance.detach()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(
            Wanted(root=True), "2 root filesystems.*/dev/sda1, /dev/sda2", id="two roots", marks=pytest.mark.sweep
        ),
        pytest.param(
            Wanted(subvolume="@"),
            "partition 1 .* has no subvolume @; it has none",
            id="no such subvolume",
        ),
        pytest.param(
            Wanted(partition=2, subvolume="@"),
            "partition 2 .* is ext4, and only btrfs",
            id="no btrfs",
            marks=pytest.mark.sweep,
        ),
        pytest.param(
            Wanted(volume="vg0/root"),
            "no logical volume vg0/root; there is none, and partition 1",
            id="lvm",
            marks=pytest.mark.sweep,
        ),
    ],
)
def test_what_is_refused_says_what_there_is(wanted, expected, layouts, appliance, tmp_path):
    disk = layouts.disks.gpt("d.raw", [layouts.root("btrfs", 128), layouts.root()])
    with pytest.raises((GuestError, InputError), match=expected):
        extract(Layer(path=disk, format="raw"), wanted, tmp_path, session=appliance)


@pytest.mark.sweep
def test_a_logical_volume_by_name_and_by_label(layouts, appliance, tmp_path):
    disk, place = layouts.lvm()
    base = Layer(path=disk, format="raw")
    named = extract(base, Wanted(volume="vg0/root"), tmp_path, session=appliance)
    assert (named.offset, named.size, named.title) == (*place, "logical volume vg0/root")
    with RawReader(disk) as reader:
        assert reader.pread(2, named.offset + 1080) == b"\x53\xef"
    with pytest.raises(InputError, match="no logical volume vg0/home; there is vg0/root, vg0/swap, and partition 1"):
        extract(base, Wanted(volume="vg0/home"), tmp_path, session=appliance)
    with pytest.raises(InputError, match="no filesystem labelled elsewhere"):
        extract(base, Wanted(label="elsewhere"), tmp_path, session=appliance)
