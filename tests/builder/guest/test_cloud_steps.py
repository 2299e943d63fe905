"""The steps that make an image fit for a cloud, all of them on real small guests, through one appliance."""

import os
from collections.abc import Sequence

import pytest

from builder import proc
from builder.guest.edits import Edit, SetUuid, Unchanged, WriteFile
from builder.guest.guest import Guest
from pipelines import kinds

MIB = 1 << 20
ID = b"0123456789abcdef0123456789abcdef\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx2gVvS5nBqzE8vHc0V0yM7b9cO5v0mT7x3tq1bVd3y"
OLD, SWAP = "5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11", "0a1b2c3d-0000-4000-8000-00000000beef"
HASH = "$6$abcdefgh$" + "x" * 86
ODD = os.fsdecode(b"var/log/a[b]{c}\n\xff.log")

# A machine that was used: as Debian has it, with what each step is to find.
ROOT: dict[str, bytes | str] = {
    "etc/os-release": b"ID=debian\nVERSION_ID=12\n",
    "etc/fstab": f"UUID={OLD} / ext4 defaults 0 1\nUUID={SWAP} none swap sw 0 0\n".encode(),
    "boot/grub/grub.cfg": f"search --fs-uuid --set=root {OLD}\nlinux /vmlinuz root=UUID={OLD}\n".encode(),
    "sbin/init": "/lib/systemd/systemd",
    "lib/systemd/systemd": b"",
    "etc/machine-id": ID,
    "var/lib/dbus/machine-id": ID,
    "etc/passwd": b"root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000::/home/old:/bin/bash\n",
    "etc/shadow": b"root:$6$x$y:1:0:9:7:::\nold:!:1:0:9:7:::\n",
    "etc/group": b"root:x:0:\nsudo:x:27:old\nold:x:1000:\n",
    "etc/skel/.bashrc": b"# rc\n",
    "etc/sudoers": b"@includedir /etc/sudoers.d\n",
    "usr/bin/sudo": b"",
    "bin/bash": b"",
    "root/.bash_history": b"secret\n",
    "etc/ssh/sshd_config": b"Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\n",
    "etc/ssh/ssh_host_rsa_key": b"private",
    "etc/cloud/cloud.cfg": b"datasource_list: [NoCloud]\n",
    "usr/lib/cloud-init/ds-identify": b"",
    "var/lib/cloud/instance/x": b"",
    "etc/network/interfaces": b"source /etc/network/interfaces.d/*\n",
    "etc/udev/rules.d/70-persistent-net.rules": b"52:54:00:12:34:56\n",
    "etc/systemd/network/10-lan.link": b"[Match]\nMACAddress=52:54:00:12:34:56\n",
    "etc/selinux/config": b"SELINUX=enforcing\nSELINUXTYPE=targeted\n",
    "etc/selinux/targeted/contexts/files/file_contexts": b"",
    "usr/lib/systemd/system/selinux-autorelabel.service": b"",
    "var/log/evil": "/etc",
    "var/log/syslog.1": b"x",
    "tmp/.hidden/x": b"x",
    ODD: b"x",
}
STEPS = (
    ("cloud-init", {"datasources": ["Ec2", "None"], "ec2": {"strict_id": False}, "purge": True}),
    ("network", {}),
    ("users", {"create": [{"name": "ann", "groups": ["sudo"], "sudo": ["ALL=(ALL) ALL"], "password": HASH}],
               "lock": ["root"], "remove": ["old"]}),
    ("ssh-keys", {"user": "ann", "keys": [KEY], "password_authentication": False}),
    ("selinux", {}),
    ("sysprep", {}),
    ("uuid", {"seed": "test"}),
    ("uuid", {"partition": 2}),
)  # fmt: skip


def decide(guest: Guest, kind: str, values: dict) -> Sequence[Edit] | Unchanged:
    step = kinds.load(kind)
    options = step.options.model_validate(values, strict=False)
    assert not step.check(options)
    return step.edits(options, guest, {})


@pytest.fixture(scope="module")
def look(appliance, tmp_path_factory):
    """Plug one disk after the other in; hand out the guest on it."""
    attached: list[Guest] = []

    def plug(disks, disk) -> Guest:
        if attached:
            appliance.detach()
        appliance.attach(disks.overlay(disk))
        attached.append(Guest(appliance))
        return attached[-1]

    yield plug
    if attached:
        appliance.detach()


def test_all_of_them_on_one_guest_and_again(look, disks, part, appliance):
    parts = [
        part(type="vfat", size=34, label="UEFI", name="esp"),
        part(type="swap", size=8, uuid=SWAP),
        part(type="ext4", size=48, label="rootfs", files=ROOT, uuid=OLD),
    ]
    guest = look(disks, disks.gpt("guest.raw", parts))
    for kind, values in STEPS:
        edits = decide(guest, kind, values)
        assert not isinstance(edits, Unchanged), kind
        for edit in edits:
            guest.apply(edit)
    for kind, values in STEPS:
        assert isinstance(decide(guest, kind, values), Unchanged), kind
    guest.disk.unmount()
    _judge(Guest(appliance))
    assert not set(appliance.calls) & {
        "inspect_os",
        "read_file",
        "cat",
        "download",
        "list_filesystems",
        "command",
        "sh",
    }


def _judge(guest: Guest) -> None:
    """See what the steps left, with nothing remembered."""
    gone = ("/etc/udev/rules.d/70-persistent-net.rules", "/tmp/.hidden", "/root/.bash_history")
    assert not [path for path in gone if guest.exists(path)]
    assert guest.names("/var/log/syslog*") == guest.names("/var/lib/cloud/*") == guest.names("/home/old*") == ()
    assert guest.read(f"/{ODD}") == guest.read("/etc/machine-id") == guest.read("/.autorelabel") == b""
    assert guest.link("/var/lib/dbus/machine-id") == "/etc/machine-id"
    assert guest.link("/var/log/evil") == "/etc"
    assert guest.read("/etc/sudoers") == ROOT["etc/sudoers"]  # which a followed link would have emptied
    assert b"datasource_list: [Ec2, None]\n" in (guest.read("/etc/cloud/cloud.cfg.d/99-emi-ec2.cfg") or b"")
    assert b"ann:x:1000:1000::/home/ann:/bin/bash\n" in (guest.read("/etc/passwd") or b"")
    assert (guest.read("/etc/shadow") or b"").startswith(b"root:!$6$x$y:")
    assert guest.read("/home/ann/.ssh/authorized_keys") == f"{KEY}\n".encode()
    modes = {
        "/home/ann": (0o755, 1000),
        "/home/ann/.bashrc": (0o644, 1000),
        "/home/ann/.ssh": (0o700, 1000),
        "/home/ann/.ssh/authorized_keys": (0o600, 1000),
        "/etc/sudoers.d/90-emi-ann": (0o440, 0),
        "/etc/shadow": (0o644, 0),  # as it was: mke2fs took the tree's
    }
    found = {path: guest.stat(path) for path in modes}
    assert {path: (stat.permissions, stat.uid) for path, stat in found.items() if stat} == modes
    root, swap = guest.filesystem("/dev/sda3"), guest.filesystem("/dev/sda2")
    assert root is not None
    assert swap is not None
    assert root.uuid != OLD
    assert guest.read("/etc/fstab") == (
        f"UUID={root.uuid} / ext4 defaults 0 1\nUUID={swap.uuid} none swap sw 0 0\n".encode()
    )
    assert guest.text("/boot/grub/grub.cfg").count(root.uuid) == 2


UUIDS = {"ext2": 4, "ext3": 8, "ext4": 16, "xfs": 304, "btrfs": 128, "swap": 8, "vfat": 34}


@pytest.mark.sweep
def test_every_type_s_uuid_is_set_and_its_own_tools_find_nothing_wrong(look, disks, part, appliance, tmp_path):
    files = {"ext4": {"etc/fstab": b""}}
    parts = [part(type=kind, size=size, files=files.get(kind)) for kind, size in UUIDS.items()]
    disk = disks.gpt("uuids.raw", [*parts, part(type="vfat", size=64)])
    wide = tmp_path / "fat32"
    with open(wide, "xb") as image:
        image.truncate(64 * MIB)
    proc.run(["mkfs.vfat", "-F", "32", wide])
    seek = f"seek={1 + sum(UUIDS.values())}"
    proc.run(["dd", f"if={wide}", f"of={disk}", "bs=1M", seek, "conv=notrunc", "status=none"])
    guest = look(disks, disk)
    guest.apply(WriteFile(path="/etc/x", data=b""))  # mounted and changed, as after other steps
    wanted = {}
    for number, kind in enumerate([*UUIDS, "vfat"], 1):
        wanted[f"/dev/sda{number}"] = (
            f"7B2A-00F{number}" if kind == "vfat" else f"0a1b2c3d-0000-4000-8000-00000000000{number}"
        )
    for device, uuid in wanted.items():
        guest.apply(SetUuid(device=device, uuid=uuid))
    guest.disk.unmount()
    assert {found.device: found.uuid for found in Guest(appliance).filesystems} == wanted
    data = b"".join(appliance.call("pread_device", "/dev/sda8", MIB, offset * MIB) for offset in range(4))
    with open(wide, "r+b") as image:
        image.write(data)
    said = b"differences between boot sector and its backup"
    assert said not in proc.run(["fsck.vfat", "-n", wide]).stdout
    with open(wide, "r+b") as image:
        image.seek(0x43)
        image.write(b"\0")
    assert said in proc.run(["fsck.vfat", "-n", wide]).stdout  # it does look
