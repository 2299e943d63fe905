"""Layouts of disks, real ones, looked at and edited through one appliance."""

import pytest

from builder import proc
from builder.errors import GuestError
from builder.guest.edits import SetLabel, WriteFile
from builder.guest.guest import Guest

OS = {"etc/os-release": "../usr/lib/os-release", "usr/lib/os-release": b"ID=debian\n", "etc/fstab": b"# empty\n"}
SLOW = {"inspect_os", "read_file", "cat", "download", "read_lines", "list_filesystems", "command", "sh", "aug_init"}


@pytest.fixture
def look(appliance, disks):
    """Plug a disk in, hand out the guest on it, and unplug it however the test ends."""
    attached = []

    def plug(disk) -> Guest:
        appliance.attach(disks.overlay(disk))
        attached.append(disk)
        return Guest(appliance)

    yield plug
    if attached:
        appliance.detach()


def summary(guest: Guest) -> tuple[str, list[tuple[str, str, str]]]:
    return guest.root, [(found.device, found.type, found.label) for found in guest.filesystems]


def test_gpt_with_everything(look, disks, part, appliance):
    uuid = "5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11"
    disk = disks.gpt(
        "all.raw",
        [
            part(type="vfat", size=34, label="UEFI", name="EFI System"),
            part(type="swap", size=8, label="sw ap"),
            part(type="ext4", size=32, label='my "ro\\ot', files=OS, uuid=uuid),
            part(type="ext2", size=4, label="d\u00e9p\u00f4t", name="Gr\u00f6\u00dfe"),
        ],
    )
    before = dict(appliance.calls)
    guest = look(disk)
    root, filesystems = summary(guest)
    assert root == "/dev/sda3"
    assert filesystems == [
        ("/dev/sda1", "vfat", "UEFI"),
        ("/dev/sda2", "swap", "sw ap"),
        ("/dev/sda3", "ext4", 'my "ro\\ot'),
        ("/dev/sda4", "ext2", "d\u00e9p\u00f4t"),
    ]
    paths = ["/etc/fstab", "/etc/os-release", "/etc/absent", "/etc"]
    assert [guest.read(path) for path in paths] == [b"# empty\n", b"ID=debian\n", None, None]
    assert b"".join(guest.stream("/etc/os-release") or ()) == b"ID=debian\n"
    assert guest.stream("/etc") is None
    with pytest.raises(GuestError, match="larger than 0 MiB"):
        list(guest.stream("/etc/fstab", limit=3) or ())
    assert guest.filesystem("/dev/sda3").uuid == uuid
    assert (guest.partition(1).partlabel, guest.partition(4).partlabel) == ("EFI System", "")
    said = proc.run(["sgdisk", "-i", "3", disk]).stdout.decode()
    assert guest.partition(3).partuuid.upper() in said
    used = {name for name, count in appliance.calls.items() if count > before.get(name, 0)}
    assert not used & SLOW


@pytest.mark.sweep
def test_every_labelled_filesystem_is_relabelled(look, disks, part, tmp_path):
    types = {"vfat": ("NEW EFI", 34), "swap": ("new-swap", 8), "ext4": ("new root", 16), "ext3": ("e3", 8)}
    types |= {"ext2": ("e2", 4), "xfs": ("newxfs", 304), "btrfs": ("new btrfs", 128)}
    parts = [part(type=kind, size=size, files=OS if kind == "ext4" else None) for kind, (_, size) in types.items()]
    guest = look(disks.gpt("labels.raw", parts))
    wanted = []
    for number, (kind, (label, _)) in enumerate(types.items(), 1):
        guest.apply(SetLabel(device=f"/dev/sda{number}", label=label))
        wanted.append((f"/dev/sda{number}", kind, label))
    assert summary(guest) == ("/dev/sda3", wanted)
    guest.disk.unmount()
    assert summary(Guest(guest._session)) == ("/dev/sda3", wanted)


@pytest.mark.parametrize(
    ("kind", "size"), [("ext4", 16), pytest.param("xfs", 304, marks=pytest.mark.sweep), ("btrfs", 128)]
)
def test_a_root_of_each_type_without_a_partition_table(look, disks, part, kind, size, tmp_path):
    files = OS if kind != "xfs" else {"etc/os-release": b"ID=alma\n", "etc/fstab": b"# empty\n"}
    guest = look(disks.filesystem(tmp_path / f"{kind}.raw", part(type=kind, size=size, label="bare", files=files)))
    assert summary(guest) == ("/dev/sda", [("/dev/sda", kind, "bare")])
    guest.apply(WriteFile(path="/etc/fstab", data=b"LABEL=bare / auto\n"))
    guest.apply(SetLabel(device="/dev/sda", label="again"))
    guest.trim()
    assert guest.read("/etc/fstab") == b"LABEL=bare / auto\n"
    assert guest.filesystem("/dev/sda").label == "again"


def test_mbr_with_the_root_on_a_logical_partition(look, disks, part, tmp_path):
    disk = tmp_path / "mbr.raw"
    with open(disk, "xb") as image:
        image.truncate(64 << 20)
    table = b"label: dos\nlabel-id: 0x4ec3b4c0\n2048,16384,83,*\n18432,,5\n20480,32768,83\n"
    proc.run(["sfdisk", "-q", disk], stdin=table)
    boot = disks.filesystem(tmp_path / "boot", part(type="ext2", size=8, label="boot"))
    root = disks.filesystem(tmp_path / "root", part(type="ext4", size=16, label="root", files=OS))
    disks.copy(boot, disk, 2048)
    disks.copy(root, disk, 20480)
    guest = look(disk)
    assert summary(guest) == ("/dev/sda5", [("/dev/sda1", "ext2", "boot"), ("/dev/sda5", "ext4", "root")])
    assert guest.partition(5).partuuid == "4ec3b4c0-05"


def test_btrfs_with_the_root_in_a_subvolume(look, disks, prepare, part, tmp_path):
    disk = disks.filesystem(tmp_path / "btrfs.raw", part(type="btrfs", size=128, label="fedora"))
    prepare(
        disk,
        ("mount", "/dev/sda", "/"),
        ("btrfs_subvolume_create", "/@"),
        ("btrfs_subvolume_create", "/@home"),
        ("mkdir", "/@/etc"),
        ("write", "/@/etc/fstab", b"LABEL=fedora / btrfs subvol=@\n"),
    )
    guest = look(disk)
    assert summary(guest) == ("/dev/sda", [("/dev/sda", "btrfs", "fedora")])
    assert guest.read("/etc/fstab") == b"LABEL=fedora / btrfs subvol=@\n"
    guest.apply(SetLabel(device="/dev/sda", label="new"))
    guest.apply(WriteFile(path="/etc/fstab", data=b"LABEL=new / btrfs subvol=@\n"))
    assert guest.read("/etc/fstab") == b"LABEL=new / btrfs subvol=@\n"


@pytest.mark.sweep
def test_a_root_on_a_logical_volume(look, disks, prepare, part):
    disk = disks.gpt("lvm.raw", [part(type="ext2", size=8, label="boot"), part(type="swap", size=64)])
    prepare(
        disk,
        ("pvcreate", "/dev/sda2"),
        ("vgcreate", "vg0", ["/dev/sda2"]),
        ("lvcreate", "root", "vg0", 32),
        ("mkfs", "ext4", "/dev/vg0/root"),
        ("mount", "/dev/vg0/root", "/"),
        ("mkdir", "/etc"),
        ("write", "/etc/fstab", b"/dev/mapper/vg0-root / ext4\n"),
        ("umount_all",),
        ("vg_activate_all", False),
    )
    guest = look(disk)
    root, filesystems = summary(guest)
    assert root == "/dev/vg0/root"
    assert ("/dev/vg0/root", "ext4", "") in filesystems
    guest.apply(SetLabel(device="/dev/vg0/root", label="root"))
    assert guest.filesystem("/dev/vg0/root").label == "root"


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        pytest.param([OS, OS], "2 root filesystems.*: /dev/sda1, /dev/sda2", id="two roots"),
        pytest.param(
            [{"home/x": b""}, None], "no root filesystem among /dev/sda1 .ext2., /dev/sda2 .ext2.", id="no root"
        ),
    ],
)
def test_no_guess_at_the_root(appliance, disks, part, kinds, expected):
    disk = disks.gpt("roots.raw", [part(type="ext2", size=4, files=files) for files in kinds])
    appliance.attach(disks.overlay(disk))
    try:
        with pytest.raises(GuestError, match=expected) as caught:
            Guest(appliance)
        assert caught.value.hint
    finally:
        appliance.detach()


def test_an_empty_disk_has_no_root(appliance, disks, tmp_path):
    disk = tmp_path / "empty.raw"
    with open(disk, "xb") as image:
        image.truncate(8 << 20)
    appliance.attach(disks.overlay(disk))
    try:
        with pytest.raises(GuestError, match="no filesystems at all"):
            Guest(appliance)
    finally:
        appliance.detach()


def test_a_damaged_root_says_why_it_cannot_be_mounted(appliance, disks, part, tmp_path):
    disk = disks.filesystem(tmp_path / "torn.raw", part(type="ext4", size=16, files=OS))
    with open(disk, "r+b") as image:
        image.seek(2048)  # the group descriptors; the superblock stays, so that blkid knows it
        image.write(b"\xff" * 64)
    appliance.attach(disks.overlay(disk))
    try:
        with pytest.raises(GuestError, match=r"no root filesystem among .*; /dev/sda: mount_ro failed"):
            Guest(appliance)
    finally:
        appliance.detach()


def test_writing_keeps_owner_mode_and_context_and_follows_links_inside(look, disks, part, tmp_path):
    files = OS | {"etc/fstab": "/srv/real", "srv/real": b"old\xff\n", "etc/motd": b"hello\n"}
    guest = look(disks.filesystem(tmp_path / "links.raw", part(type="ext4", size=16, files=files)))
    guest.disk.mount("rw")
    call = guest._call
    call("chmod", 0o640, "/srv/real")
    call("chown", 12, 34, "/srv/real")
    call("lsetxattr", "security.selinux", "system_u:object_r:etc_t:s0", 26, "/srv/real")
    data = bytes(range(256)) * 9000  # more than two chunks, and no text
    guest.apply(WriteFile(path="/etc/fstab", data=data))
    guest.apply(WriteFile(path="/etc/new", data=b"\xfe"))
    assert (guest.read("/etc/fstab"), guest.read("/etc/new")) == (data, b"\xfe")
    assert call("readlink", "/etc/fstab") == "/srv/real"
    told = call("statns", "/srv/real")
    assert (told["st_mode"] & 0o7777, told["st_uid"], told["st_gid"]) == (0o640, 12, 34)
    assert [pair["attrname"] for pair in call("lgetxattrs", "/srv/real")] == ["security.selinux"]
    assert sorted(call("ls", "/srv")) == ["real"]


IMPOSSIBLE = [
    (WriteFile(path="/etc", data=b""), "/etc in the guest is not a regular file"),
    (WriteFile(path="/etc/fstab/file", data=b""), "was not a directory"),
    (WriteFile(path="/etc/a\0b", data=b""), "embedded null"),
    (SetLabel(device="/dev/sda7", label="x"), "no filesystem on /dev/sda7"),
    (SetLabel(device="/dev/sda", label="a" * 17), "at most 16"),
]


def test_what_cannot_be_done_says_so(look, disks, part, tmp_path):
    guest = look(disks.filesystem(tmp_path / "small.raw", part(type="ext4", size=8, files=OS)))
    for edit, expected in IMPOSSIBLE:
        with pytest.raises(GuestError, match=expected):
            guest.apply(edit)
