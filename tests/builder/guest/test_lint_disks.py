"""Lint on real disks in a real appliance: what needs a disk to be broken. One launch."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import proc
from builder.guest import inspect as guest_inspect
from builder.guest.guest import Guest
from builder.guest.lint.lint import RULES, lint, lint_disk
from builder.image.reader import open_image
from tests.builder.guest.lint import machines

MIB = 1 << 20
BOOT = "/usr/lib/grub/i386-pc/boot.img"
GRUB = b"set timeout=1\nmenuentry x {\n linux /boot/vmlinuz-6.1 root=%s ro console=ttyS0\n}\n"
SYSTEM = {
    "etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian by code"\n',
    "boot/vmlinuz-6.1": b"MZ",
    "usr/bin/cloud-init": b"#!/bin/sh\n",
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n",
    "etc/shadow": b"root:*:::::::\nme:!:::::::\n",
    "home/me/.ssh/authorized_keys": b"ssh-ed25519 AAAA me\n",
}


# What all of these small systems lack; with a disk around them, and with one of whole GiB.
ALIKE_BARE = {
    "authorized-keys": ("error", "/home/me/.ssh/authorized_keys:1"),
    "no-sshd": ("warning", "/usr/sbin/sshd"),
    "no-time-service": ("note", "/usr/sbin/chronyd"),
}
ALIKE_WHOLE = ALIKE_BARE | {"root-does-not-grow": ("note", "/usr/bin/growpart")}
ALIKE = ALIKE_WHOLE | {"size-not-whole": ("note", "the disk")}
DISK_RULES = {
    "bios-cannot-boot", "no-esp", "esp-without-loader", "firmware-mismatch", "no-partition-table",
    "damaged-partition-table", "unclean-filesystem", "disk-larger-than-needed", "size-not-whole",
}  # fmt: skip


def system(root: bytes, fstab: bytes) -> dict[str, bytes | str]:
    return {**SYSTEM, "boot/grub/grub.cfg": GRUB % root, "etc/fstab": fstab}


def gpt(disks, part, name: str, root, *more, esp: dict[str, bytes] | None) -> Path:
    """Make a GPT disk with a BIOS boot partition, an ESP with these files, the root, and more."""
    parts = [part(type="swap", size=1), part(type="vfat", size=8, label="UEFI", files=esp or {}), root, *more]
    path = disks.gpt(name, parts)
    proc.run(["sgdisk", "-t1:ef02", "-t2:ef00" if esp is not None else "-t2:0700", path])
    return path


def bootable(path: Path, sector: int) -> Path:
    """Put GRUB's code for BIOS into the first sector, and something as the rest of it where that looks for it."""
    boot = Path(BOOT).read_bytes()[:440]
    with open(path, "r+b") as disk:
        disk.write(boot[:0x5C] + sector.to_bytes(8, "little") + boot[0x64:])
        disk.seek(sector * 512)
        disk.write(b"core")
    return path


def whole(path: Path) -> Path:
    """Make the disk 1 GiB, as a volume is."""
    with open(path, "r+b") as disk:
        disk.truncate(1 << 30)
    proc.run(["sgdisk", "-e", path])
    return path


def marred(disks, part, tmp_path, command: str) -> Path:
    """Make a bare root filesystem that debugfs has marred."""
    files = system(b"LABEL=bare", b"LABEL=bare / ext4 defaults 0 1\n")
    path = disks.filesystem(tmp_path / "bare.raw", part(type="ext4", size=16, label="bare", files=files))
    proc.run(["debugfs", "-w", "-R", command, path])
    return path


def sound(disks, part, tmp_path) -> Path:
    files = system(b"LABEL=rootfs", b"LABEL=rootfs / ext4 defaults 0 1\nLABEL=UEFI /boot/efi vfat nofail 0 1\n")
    root = part(type="ext4", size=16, label="rootfs", files=files | {"boot/efi/.keep": b""})
    path = gpt(disks, part, "sound.raw", root, esp={"EFI/BOOT/BOOTX64.EFI": b"MZ"})
    return bootable(path, 2048)


def unstable(disks, part, tmp_path) -> Path:
    files = system(b"/dev/sda3", b"/dev/sda3 / ext4 defaults 0 1\nUUID=0123-4567 /data vfat defaults 0 0\n")
    return gpt(
        disks, part, "unstable.raw", part(type="ext4", size=16, files=files), esp={"EFI/debian/grubx64.efi": b"MZ"}
    )


def twins(disks, part, tmp_path) -> Path:
    files = system(b"LABEL=twin", b"LABEL=twin / ext4 defaults 0 1\n")
    path = disks.gpt(
        "twins.raw", [part(type="ext4", size=16, label="twin", files=files), part(type="ext4", size=16, label="twin")]
    )
    with open(path, "r+b") as disk:
        disk.truncate(3 << 30)
    return path


def machine(disks, part, name: str, changed: machines.Files, *more) -> Path:
    """Make the healthy guest's disk, for BIOS and UEFI, with these files changed in it."""
    root = part(type="ext4", size=16, label="rootfs", files=machines.files(changed))
    path = gpt(disks, part, f"{name}.raw", root, *more, esp={"EFI/BOOT/BOOTX64.EFI": b"MZ"})
    return whole(bootable(path, 2048))


def hollow(disks, part, tmp_path) -> Path:
    root = part(type="ext4", size=16, label="rootfs", files=machines.files(machines.HOLLOW))
    path = disks.mbr("hollow.raw", [root, part(type="ext2", size=8)])
    with open(path, "r+b") as disk:
        disk.truncate(20 * MIB)  # as a download that ended early
    return path


def moved(disks, part, tmp_path) -> Path:
    root = part(type="ext4", size=16, label="rootfs", files=machines.files(machines.MOVED))
    esp = part(type="vfat", size=8, label="UEFI", files={"EFI/BOOT/BOOTX64.EFI": b"MZ"}, code="ef00")
    return whole(bootable(disks.gpt("moved.raw", [esp, root]), 40))


def assembled(disks, part, _, line: bytes = b"root=LABEL=rootfs ro console=ttyS0") -> Path:
    menu = b"set timeout=1\nmenuentry 'Linux' {\n    linux /boot/vmlinuz %s\n    initrd /boot/initrd.img\n}\n" % line
    boot = {"boot/vmlinuz": b"MZ", "boot/initrd.img": b"x", "boot/grub/grub.cfg": menu, "EFI/BOOT/BOOTX64.EFI": b"MZ"}
    root = part(type="ext4", size=16, label="rootfs", files=machines.files(machines.ASSEMBLED))
    return whole(bootable(gpt(disks, part, "assembled.raw", root, esp=boot), 2048))


# How to make each, and which rules speak for which target, with severity and where. Nothing else is found.
DISKS = {
    "healthy": (lambda disks, part, _: machine(disks, part, "healthy", {}), {"aws": {}, "eucalyptus-xen": {}}),
    "assembled": (assembled, {"aws": {}}),
    "lived in": (
        lambda disks, part, _: machine(disks, part, "lived", machines.LIVED_IN),
        machines.LIVED_IN_BREAKS,
    ),
    "elsewhere": (
        lambda disks, part, _: machine(
            disks, part, "elsewhere", machines.ELSEWHERE, part(type="swap", size=1, label="swap")
        ),
        machines.ELSEWHERE_BREAKS,
    ),
    "hollow": (hollow, machines.HOLLOW_BREAKS),
    "moved": (moved, machines.MOVED_BREAKS),
    "unstable": (unstable, {"aws": ALIKE | {
        "bios-cannot-boot": ("error", "sector 0"),
        "esp-without-loader": ("error", "partition 2"),
        "fstab-unstable-device": ("error", "/etc/fstab:1"),
        "fstab-absent-device": ("error", "/etc/fstab:2"),
        "root-unstable-device": ("error", "/boot/grub/grub.cfg:3"),
    }}),
    "twins": (twins, {"aws": ALIKE_WHOLE | {
        "bios-cannot-boot": ("error", "sector 0"),
        "no-esp": ("note", "the partition table"),
        "duplicate-name": ("error", "/etc/fstab"),
        "disk-larger-than-needed": ("warning", "the partition table"),
    }}),
    "not unmounted": (lambda *made: marred(*made, "feature needs_recovery"), {"aws": ALIKE_BARE | {
        "no-partition-table": ("error", "the disk"),
        "unclean-filesystem": ("warning", "/dev/sda"),
    }}),
    "errors": (lambda *made: marred(*made, "ssv state 3"), {"aws": ALIKE_BARE | {
        "no-partition-table": ("error", "the disk"),
        "unclean-filesystem": ("error", "/dev/sda"),
    }}),
}  # fmt: skip


@pytest.fixture
def plug(appliance, disks):
    """Plug a disk in, hand out the guest on it, and unplug it however the test ends."""
    attached = []

    def attach(path: Path) -> Guest:
        appliance.attach(disks.overlay(path))
        attached.append(path)
        return Guest(appliance)

    yield attach
    if attached:
        appliance.detach()


FEW = ("healthy", "lived in", "moved")  # the others are sweeps: every rule is tested on plain values, too


@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(name, marks=pytest.mark.sweep) for name in DISKS if name not in FEW)]
)
def test_what_is_wrong_with_a_disk(plug, disks, part, tmp_path, name):
    make, broken = DISKS[name]
    path = make(disks, part, tmp_path)
    guest = plug(path)
    for target, expected in broken.items():
        assert firsts(lint(guest, target)) == expected
        # Without an appliance the disk's own rules say the same, and no other speaks.
        with open_image(path, "raw") as reader:
            alone = {finding.rule for finding in lint_disk(reader, target)}
        assert alone == DISK_RULES & set(expected)


def firsts(found) -> dict[str, tuple[str, str]]:
    """Return the severity and the place of what each rule found first."""
    return {finding.rule: (finding.severity, finding.where) for finding in reversed(found)}


def test_every_rule_is_broken_by_a_real_disk():
    broken = {rule for _, targets in DISKS.values() for expected in targets.values() for rule in expected}
    assert broken | {"disk-larger-than-volume"} == set(RULES)


def test_the_menu_of_an_assembled_disk_is_judged_and_no_guest_step_edits_it(disks, part):
    path = assembled(disks, part, None, b"root=/dev/sda3 ro quiet")
    facts = machines.guests.broken(machines.ASSEMBLED, disk=path.read_bytes()[: 16 * MIB])
    menu = "partition 2: /boot/grub/grub.cfg:3"
    found = lint(facts, "aws")
    assert {finding.rule: finding.where for finding in found} == dict.fromkeys(
        ("root-unstable-device", "no-serial-console", "quiet-boot"), menu
    )
    assert all(not finding.mends and "assemble the disk anew" in finding.advice for finding in found)
    shown = guest_inspect.describe(guest_inspect.inspect(facts))
    assert "  no kernel of its own\n  boot loader: partition 2: /boot/grub/grub.cfg, 1 entry\n" in shown
    assert "    starts /boot/vmlinuz root=/dev/sda3 ro quiet\n" in shown


def test_a_disk_that_is_larger_than_its_volume(disks, part):
    path = machine(disks, part, "large", {})
    with open_image(path, "raw") as reader:
        (found,) = lint_disk(reader, "aws", volume_size=512 * MIB)
        assert lint_disk(reader, "aws", volume_size=1 << 30) == ()
    assert (found.rule, found.severity, found.where) == ("disk-larger-than-volume", "error", "the disk")
    assert [(mend.step, mend.options) for mend in found.mends] == [("resize", {"disk": "512 MiB"})]


def test_labels_of_selinux_are_read(plug, disks, part, tmp_path):
    selinux = {"etc/selinux/config": b"SELINUX=enforcing\n", "etc/selinux/targeted/policy/policy.33": b"x"}
    path = disks.filesystem(tmp_path / "el.raw", part(type="ext4", size=16, files=SYSTEM | selinux))
    proc.run(["debugfs", "-w", "-R", "ea_set /etc/passwd security.selinux system_u:object_r:passwd_file_t:s0", path])
    guest = plug(path)
    assert guest.attribute("/etc/passwd", "security.selinux") == b"system_u:object_r:passwd_file_t:s0"
    assert guest.attribute("/etc/shadow", "security.selinux") is None
    assert guest.attribute("/etc/absent", "security.selinux") is None
    (found,) = [finding for finding in lint(guest, "aws") if finding.rule == "selinux-unlabelled"]
    assert found.what == "SELinux is enforced, and /etc/shadow has no label"


def test_a_guest_is_shown(plug, disks, part, tmp_path):
    report = guest_inspect.inspect(plug(sound(disks, part, tmp_path)))
    text = guest_inspect.describe(report)
    assert text.startswith("guest on /dev/sda3: Debian by code; unknown architecture")
    for line in (
        "  filesystem /dev/sda2: vfat, label 'UEFI'",
        "  kernel 6.1: /boot/vmlinuz-6.1, no initramfs",
        "  boot loader: /boot/grub/grub.cfg, 1 entry",
        "  fstab: LABEL=rootfs / ext4 defaults 0 1",
        "  user me (1000): /home/me, /bin/sh, no password, 1 key",
    ):
        assert line in text
    assert [filesystem.unclean for filesystem in report.filesystems] == ["", "", ""]
