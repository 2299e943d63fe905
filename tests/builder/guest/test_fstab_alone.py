"""What a root that goes without its disk can no longer mount."""

from __future__ import annotations

import pytest

from builder.guest.facts import Filesystem
from builder.guest.fstab import alone

ROOT = Filesystem(device="/dev/sda2", type="ext4", uuid="11111111-1111-4111-8111-111111111111", label="rootfs")
BOOT = Filesystem(device="/dev/sda1", type="ext3", uuid="22222222-2222-4222-8222-222222222222")
SWAP = Filesystem(device="/dev/sda3", type="swap", uuid="33333333-3333-4333-8333-333333333333")
HOME = Filesystem(device="/dev/vg/home", type="xfs", uuid="44444444-4444-4444-8444-444444444444")
DISK = (BOOT, ROOT, SWAP, HOME)


@pytest.mark.parametrize(
    "line",
    [
        f"UUID={BOOT.uuid} /boot ext3 defaults 0 2",
        f"UUID={SWAP.uuid}\tnone\tswap\tsw\t0\t0",
        "/dev/vda1 /boot ext3 defaults 0 2",
        "/dev/mapper/vg-home /home xfs defaults 0 0",
        "/dev/vg/home /home xfs defaults 0 0",
        "LABEL=gone /srv ext4 defaults 0 2",
        "UUID=55555555-5555-4555-8555-555555555555 /srv ext4 defaults 0 2",
        "/dev/disk/by-uuid/55555555-5555-4555-8555-555555555555 /srv ext4 defaults 0 2",
    ],
)
@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
def test_it_is_commented_out(line, end):
    data = f"# kept\nLABEL=rootfs / ext4 defaults 0 1\n{line}{end}".encode()
    found = alone(data, DISK, root=ROOT.device)
    assert found.data == data.replace(line.encode(), b"# " + line.encode())
    assert [change.new for change in found.changes] == ["commented out"]
    assert alone(found.data, DISK, root=ROOT.device).changes == []


@pytest.mark.parametrize(
    "line",
    [
        f"UUID={ROOT.uuid} / ext4 defaults 0 1",
        "UUID=55555555-5555-4555-8555-555555555555 / ext4 defaults 0 1",  # `rewrite` says what is to be done about it
        f"UUID={BOOT.uuid} /boot ext3 defaults,nofail 0 2",
        "LABEL=UEFI /boot/efi vfat umask=0077,noauto 0 1",
        "/dev/sdb /mnt auto defaults 0 2",
        "/swapfile none swap sw 0 0",
        "/boot /srv/boot none bind 0 0",
        "proc /proc proc defaults 0 0",
        "server:/x /x nfs defaults 0 0",
        f"UUID={ROOT.uuid} /snapshots ext4 defaults 0 0",
        "not an entry",
        "# UUID=x /y",
    ],
)
def test_it_stays(line):
    data = f"{line}\n".encode()
    assert alone(data, DISK, root=ROOT.device).data == data


def test_the_same_holds_once_the_root_is_alone():
    only = Filesystem(device="/dev/sda", type="ext4", uuid=ROOT.uuid, label="rootfs")
    data = f"LABEL=rootfs / ext4 defaults 0 1\nUUID={BOOT.uuid} /boot ext3 defaults 0 2\n".encode()
    assert b"\n# UUID=2222" in alone(data, (only,), root=only.device).data
