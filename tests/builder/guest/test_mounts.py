"""Other filesystems of a guest's fstab: mounted where a path leads, through links too, and for commands."""

import shutil
from collections.abc import Iterator

import pytest

from builder import proc
from builder.errors import GuestError
from builder.guest.edits import Command, Remove, SetAttributes, WriteFile
from builder.guest.facts import Filesystem
from builder.guest.fstab import Mount, mounts
from builder.guest.guest import Guest

FSTAB = b"""\
LABEL=root / ext4 defaults 0 1
/dev/mapper/vg--0-var--log /srv/log ext4 defaults 0 2
LABEL=boot /boot ext4 defaults 0 2
LABEL=ESP /boot/efi vfat umask=0077 0 1
LABEL=pool /home btrfs subvol=home 0 0
LABEL=pool /data/snapshots btrfs ro,subvol=old 0 0
LABEL=usr /usr ext4 defaults 0 2
LABEL=deep /linked/mnt ext4 defaults 0 2
LABEL=absent /absent ext4 nofail 0 2
LABEL=deep /etc/fstab ext4 nofail 0 2
tmpfs /tmp tmpfs defaults 0 0
"""


OUTER: dict[str, bytes | str] = {
    "etc/fstab": FSTAB,
    "etc/os-release": "../usr/lib/os-release",
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "linked": "/real",
    "srv/efi": "../boot/efi",
    "var/log": "/srv/log",
    "boot/hidden": b"below the mount",
}
# What no tool of the host makes without root: a logical volume, subvolumes, empty directories.
CALLS = (
    ("pvcreate", "/dev/sda7"),
    ("vgcreate", "vg-0", ["/dev/sda7"]),
    ("lvcreate", "var-log", "vg-0", 8),
    ("mkfs", "ext4", "/dev/vg-0/var-log"),
    ("mount", "/dev/vg-0/var-log", "/"),
    ("write", "/messages", b"logged\n"),
    ("umount_all",),
    ("mount", "/dev/sda4", "/"),
    ("btrfs_subvolume_create", "/home"),
    ("btrfs_subvolume_create", "/old"),
    ("mkdir_p", "/home/alice"),
    ("write", "/home/alice/.profile", b"mine\n"),
    ("write", "/old/then", b""),
    ("umount_all",),
    ("mount", "/dev/sda1", "/"),
    *(("mkdir_p", path) for path in ("/usr", "/home", "/srv/log", "/data/snapshots", "/real/mnt")),
    *(("mkdir_p", path) for path in ("/dev", "/proc", "/sys", "/root")),
    ("umount_all",),
    ("vg_activate_all", False),
)


@pytest.fixture(scope="module")
def disk(appliance, module_disks, part, runnable):
    """A disk with everything apart."""
    disk = module_disks.gpt(
        "apart.raw",
        [
            part(type="ext4", size=16, label="root", files=OUTER),
            part(type="ext2", size=8, label="boot", files={"vmlinuz": b"kernel", "efi/hidden": b""}),
            part(type="vfat", size=34, label="ESP", files={"EFI/BOOT/BOOTX64.EFI": b"loader"}),
            part(type="btrfs", size=128, label="pool"),
            part(type="ext2", size=24, label="usr"),
            part(type="ext2", size=4, label="deep", files={"bottom": b"deep"}),
            part(type="swap", size=16, label="pv"),
        ],
    )
    put_usr(module_disks, disk, runnable)
    layer = module_disks.overlay(disk)
    appliance.attach(layer)
    for name, *arguments in CALLS:
        appliance.call(name, *arguments)
    appliance.detach()
    return layer


def put_usr(disks, disk, runnable) -> None:
    """Put the programs on the fifth partition."""
    tree, usr = disks.directory / "usr", disks.directory / "usr.raw"
    shutil.copytree(runnable / "usr", tree, symlinks=True)
    (tree / "lib/os-release").write_bytes(b"ID=debian\n")
    with open(usr, "xb") as file:
        file.truncate(24 << 20)
    proc.run(["mkfs.ext2", "-q", "-F", "-L", "usr", "-d", tree, usr])
    table = proc.run(["sfdisk", "-d", disk]).stdout.decode().splitlines()
    (line,) = [line for line in table if line.startswith(f"{disk}5 ")]
    disks.copy(usr, disk, int(line.partition("start=")[2].partition(",")[0]))


@pytest.fixture(scope="module")
def guest(appliance, disk) -> Iterator[Guest]:
    appliance.attach(disk)
    yield Guest(appliance)
    appliance.detach()


def test_what_a_path_leads_to_is_there(guest):
    assert guest.root == "/dev/sda1"
    assert guest.read("/etc/fstab") == FSTAB
    assert set(guest.disk.mount_points) <= {"/", "/usr"}  # nothing more than was asked for
    assert guest.read("/etc/os-release") == b"ID=debian\n"
    assert guest.read("/boot/vmlinuz") == b"kernel"
    assert "/boot/efi" not in guest.disk.mount_points
    assert guest.read("/boot/hidden") is None
    assert guest.read("/srv/efi/EFI/BOOT/BOOTX64.EFI") == b"loader"
    assert guest.read("/var/log/messages") == b"logged\n"
    assert guest.names("/home/*/.profile") == ("/home/alice/.profile",)
    assert guest.read("/linked/mnt/bottom") == b"deep"
    assert guest.read("/real/mnt/bottom") == b"deep"
    assert "/data/snapshots" not in guest.disk.mount_points
    assert guest.names("/data/*/then") == ("/data/snapshots/then",)
    assert guest.stat("/absent") is None
    assert not {"/absent", "/tmp", "/etc/fstab", "/linked/mnt"} & set(guest.disk.mount_points)


def test_a_mount_point_is_asked_for_as_what_is_mounted_there(guest):
    found = guest.stat("/boot/efi")
    assert found is not None
    assert found.is_directory
    assert guest.names("/boot/efi/*") == ("/boot/efi/EFI",)
    assert guest.names("/bo*/efi/EFI/*") == ("/boot/efi/EFI/BOOT",)


SCRIPT = b"""
cat /boot/efi/EFI/new/grub.cfg /var/log/messages /linked/mnt/bottom
stat -c ' %u' /home/bob/.profile
echo by command >/srv/efi/log
"""


@pytest.mark.sweep
def test_edits_reach_what_is_mounted_and_commands_have_it_all(guest, appliance):
    guest.apply(WriteFile(path="/boot/efi/EFI/BOOT/BOOTX64.EFI", data=b"another loader"))
    guest.apply(WriteFile(path="/boot/efi/EFI/new/grub.cfg", data=b"configfile\n"))
    guest.apply(WriteFile(path="/home/bob/.profile", data=b"his\n", mode=0o600, owner=(5, 5)))
    guest.apply(SetAttributes(path="/home", owner=(7, 7), recursive=True))
    said = guest.apply(Command(script=SCRIPT, why="look"))
    assert said == "configfile\nlogged\ndeep 7"
    guest.disk.unmount()
    appliance.call("mount", "/dev/sda3", "/")
    assert appliance.call("pread", "/EFI/BOOT/BOOTX64.EFI", 100, 0) == b"another loader"
    assert appliance.call("pread", "/log", 100, 0) == b"by command\n"
    appliance.call("umount_all")


def test_what_is_or_holds_a_mount_is_not_removed_but_a_link_to_it_is(guest):
    for path in ("/boot", "/boot/efi", "/boot/efi/", "/srv/../boot", "/real", "/linked/mnt", "/data"):
        with pytest.raises(GuestError, match="is, or holds, where a filesystem is mounted"):
            guest.apply(Remove(paths=(path,)))
    assert guest.read("/boot/vmlinuz") == b"kernel"
    guest.apply(Remove(paths=("/srv/efi",)))
    assert not guest.exists("/srv/efi")
    assert guest.exists("/boot/efi/EFI")


ROOT = Filesystem(device="/dev/sda1", type="ext4", label="root", uuid="1111")
BOOT = Filesystem(device="/dev/sda2", type="ext4", label="boot", uuid="AB-12")
SWAP = Filesystem(device="/dev/sda3", type="swap", label="swap")
MEMBER = Filesystem(device="/dev/sda4", type="LVM2_member", uuid="pv")
POOL = Filesystem(device="/dev/sda5", type="btrfs", label="my pool", partuuid="77", partlabel="data")
VOLUME = Filesystem(device="/dev/vg-0/var-log", type="ext4")


@pytest.mark.parametrize(
    ("fstab", "expected"),
    [
        (b"", []),
        (b"LABEL=root / ext4\n", []),
        (b"LABEL=boot /boot ext4\n", [("/dev/sda2", "/boot", ())]),
        (b'LABEL="boot" /boot ext4\n', [("/dev/sda2", "/boot", ())]),
        (b"UUID=ab-12 /boot/ ext4\n", [("/dev/sda2", "/boot", ())]),
        (b"/dev/vda2 //boot/./x/.. ext4\n", [("/dev/sda2", "/boot", ())]),
        (b"PARTUUID=77 /d btrfs noatime,subvol=/@d\n", [("/dev/sda5", "/d", ("subvol=/@d",))]),
        (b"LABEL=my\\040pool /my\\040data btrfs subvolid=5\n", [("/dev/sda5", "/my data", ("subvolid=5",))]),
        (b"/dev/disk/by-label/my\\x20pool /d btrfs\n", [("/dev/sda5", "/d", ())]),
        (b"/dev/mapper/vg--0-var--log /var/log ext4\n", [("/dev/vg-0/var-log", "/var/log", ())]),
        (b"/dev/vg-0/var-log /var/log ext4\n", [("/dev/vg-0/var-log", "/var/log", ())]),
        (b"LABEL=boot /a/b/c ext4\nLABEL=my\\040pool /a btrfs\n",
         [("/dev/sda5", "/a", ()), ("/dev/sda2", "/a/b/c", ())]),
        (b"LABEL=boot /boot ext4\nLABEL=my\\040pool /boot btrfs\n", [("/dev/sda2", "/boot", ())]),
        (b"LABEL=swap none swap\nLABEL=swap /x swap\n", []),
        (b"/dev/sda4 /x ext4\n", []),
        (b"/dev/sdb2 /x ext4\nserver:/x /x nfs\ntmpfs /tmp tmpfs\n/boot /x none bind\n", []),
        (b"LABEL=boot relative ext4\nLABEL=boot / ext4\nLABEL=boot none ext4\n", []),
        (b"LABEL=boot /../../etc/.. ext4\n", []),
        (b"LABEL=boot /../boot ext4\n", [("/dev/sda2", "/boot", ())]),
        (b"LABEL=boot /caf\xe9 ext4\n", [("/dev/sda2", "/caf\udce9", ())]),
        (b"\xff\xfe\x00\n/dev\n# LABEL=boot /boot ext4\n", []),
    ],
    ids=ascii,
)  # fmt: skip
def test_where_a_fstab_mounts_what_is_on_the_disk(fstab, expected):
    found = mounts(fstab, (ROOT, BOOT, SWAP, MEMBER, POOL, VOLUME), root="/dev/sda1")
    assert found == [Mount(device=device, mount_point=point, options=options) for device, point, options in expected]
