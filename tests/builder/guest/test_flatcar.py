"""A disk laid out as Flatcar's: nothing on its root says so, and the system's own partition is never written."""

import hashlib

import pytest

from builder.guest import flatcar
from builder.guest.edits import SetLabel, WriteFile
from builder.guest.facts import Filesystem
from builder.guest.fstab import Mount
from builder.guest.guest import Exchange, Guest
from pipelines.steps.kernel import Kernel, KernelOptions

ESP = Filesystem(device="/dev/sda1", type="vfat", label="EFI-SYSTEM", partlabel="EFI-SYSTEM")
USR = Filesystem(device="/dev/sda3", type="btrfs", partlabel="USR-A")
OEM = Filesystem(device="/dev/sda6", type="btrfs", label="OEM", partlabel="OEM")
ROOT = Filesystem(device="/dev/sda9", type="ext4", label="ROOT", partlabel="ROOT")
MOUNTS = [
    Mount(device="/dev/sda3", mount_point="/usr", options=("ro",)),
    Mount(device="/dev/sda1", mount_point="/boot"),
]


@pytest.mark.parametrize(
    ("filesystems", "root", "mounts"),
    [
        ([ESP, USR, OEM, ROOT], "/dev/sda9", MOUNTS),
        ([USR, ROOT], "/dev/sda9", MOUNTS[:1]),
        ([ESP, ROOT], None, []),
        ([ESP, USR], None, []),
        ([], None, []),
    ],
)
def test_the_layout_is_known_by_the_names_of_partitions(filesystems, root, mounts):
    assert flatcar.root(filesystems) == root
    assert flatcar.mounts(filesystems, root_device=root or "/dev/sda9") == mounts


def test_another_root_on_such_a_disk_has_mounts_of_its_own():
    assert flatcar.mounts([ESP, USR, ROOT], root_device="/dev/sda6") == []


@pytest.mark.sweep
def test_the_kernel_comes_out_and_the_system_stays_as_it_is(disks, part, appliance, tmp_path):
    usr = {"lib/os-release": b'ID=flatcar\nVERSION_ID="4081.2.0"\n', "lib/modules/6.6.60-flatcar/modules.dep": b""}
    disk = disks.gpt(
        "flatcar.raw",
        [
            part(type="vfat", size=34, label="EFI-SYSTEM", name="EFI-SYSTEM", files={"flatcar/vmlinuz-a": b"kernel"}),
            part(type="ext4", size=16, name="USR-A", files=usr),
            part(type="ext4", size=16, label="ROOT", name="ROOT", files={"boot/x": b"", "usr/x": b"", "etc/x": b""}),
        ],
    )
    digest = sealed(disk)
    layer = disks.overlay(disk)
    appliance.attach(layer)
    guest = Guest(appliance, Exchange(exports=tmp_path))
    assert guest.root == "/dev/sda3"
    assert guest.text("/usr/lib/os-release").startswith("ID=flatcar")
    for edit in Kernel().edits(KernelOptions(), guest, {}):
        guest.apply(edit)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*el")} == {"kernel": b"kernel"}
    guest.apply(WriteFile(path="/etc/hostname", data=b"flatcar\n"))
    guest.apply(SetLabel(device="/dev/sda3", label="ROOT2"))
    assert guest.text("/boot/flatcar/vmlinuz-a") == "kernel"
    guest.trim()
    guest.disk.unmount()
    assert appliance.call("checksum_device", "sha256", "/dev/sda2") == digest
    appliance.detach()


def sealed(disk) -> str:
    """Return the SHA-256 of USR-A, the second partition."""
    with open(disk, "rb") as file:
        file.seek(35 << 20)
        return hashlib.sha256(file.read(16 << 20)).hexdigest()
