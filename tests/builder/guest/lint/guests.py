"""A guest in good health, as plain values: the disk by bytes, the files by name. Tests break one thing of it."""

from __future__ import annotations

import io
import struct
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from builder.guest.facts import Filesystem, KnownFacts, Stat

MIB, GIB = 1 << 20, 1 << 30
VERSION = "6.1.0-13-amd64"
MODULES = f"/lib/modules/{VERSION}"
GRUB = f"""set timeout=5
menuentry 'Debian' {{
\tlinux\t/boot/vmlinuz-{VERSION} root=LABEL=rootfs ro console=tty0 console=ttyS0,115200
\tinitrd\t/boot/initrd.img-{VERSION}
}}
"""


def elf(machine: int) -> bytes:
    """Return a program's head, for a processor by its number in the ELF registry."""
    return b"\x7fELF\2\1\1".ljust(18, b"\0") + struct.pack("<H", machine) + bytes(44)


ELF = elf(62)
DRIVERS = ("nvme", "ena", "virtio_pci", "virtio_blk", "virtio_net", "xen-blkfront", "xen-netfront")
ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs", uuid="11111111-1111-4111-8111-111111111111")
ESP = Filesystem(device="/dev/sda15", type="vfat", label="UEFI", uuid="AE3F-7229")


def cpio(names: list[str]) -> bytes:
    """Return an initramfs: a newc archive of empty files."""
    out = io.BytesIO()
    for name in [*names, "TRAILER!!!"]:
        fields = [0, 0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(name) + 1, 0]
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0")
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()


def initramfs(*drivers: str) -> bytes:
    """Return an initramfs with these drivers."""
    return cpio([f"usr/lib/modules/{VERSION}/kernel/drivers/{name}.ko" for name in drivers])


def modules_dep(*drivers: str) -> bytes:
    """Return a modules.dep with these drivers."""
    return "".join(f"kernel/drivers/{name}.ko:\n" for name in drivers).encode()


FILES: Mapping[str, bytes | str] = {
    "/etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "/etc/fstab": b"# by code\nLABEL=rootfs / ext4 defaults 0 1\nLABEL=UEFI /boot/efi vfat umask=0077,nofail 0 1\n",
    "/etc/machine-id": b"",
    "/etc/hostname": b"debian\n",
    "/etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\n",
    "/etc/shadow": b"root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n",
    "/etc/group": b"root:x:0:\ndaemon:x:1:\n",
    "/usr/sbin/netplan": b"#!/usr/bin/python3\n",
    "/etc/netplan/": b"",
    # systemd's own, on every guest that has it: they are for no card of a machine.
    "/usr/lib/systemd/network/80-container-host0.network": b"[Match]\nVirtualization=container\nName=host0\n\n"
    b"[Network]\nDHCP=yes\n",
    "/usr/lib/systemd/network/80-container-ve.network": b"[Match]\nName=ve-*\nDriver=veth\n\n"
    b"[Network]\nAddress=0.0.0.0/28\n",
    "/etc/ssh/sshd_config": b"Include /etc/ssh/sshd_config.d/*.conf\nKbdInteractiveAuthentication no\nUsePAM yes\n",
    "/etc/cloud/cloud.cfg": b"ssh_pwauth: false\ndisable_root: true\n"
    b"system_info: {default_user: {name: debian, sudo: ['ALL=(ALL) NOPASSWD:ALL']}}\n",
    "/etc/sudoers": b"root ALL=(ALL:ALL) ALL\n%sudo ALL=(ALL:ALL) ALL\n",
    "/etc/apt/sources.list": b"deb https://deb.debian.org/debian bookworm main\n",
    "/usr/bin/true": ELF,
    "/usr/bin/cloud-init": b"#!/usr/bin/python3\n",
    "/usr/bin/growpart": b"#!/bin/sh\n",
    "/usr/sbin/sshd": ELF,
    "/usr/sbin/chronyd": ELF,
    "/usr/bin/apt-get": ELF,
    "/usr/lib/systemd/systemd": ELF,
    "/sbin/init": "/usr/lib/systemd/systemd",
    f"/boot/vmlinuz-{VERSION}": b"MZ kernel",
    f"/boot/initrd.img-{VERSION}": initramfs(*DRIVERS),
    f"/boot/config-{VERSION}": b"CONFIG_XEN=y\nCONFIG_XEN_PV=y\n",
    "/boot/grub/grub.cfg": GRUB.encode(),
    f"{MODULES}/modules.dep": modules_dep(*DRIVERS),
    f"{MODULES}/modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
    "/root/.bashrc": b"# ~/.bashrc\n",
    "/tmp/": b"",
}  # fmt: skip


def fat(*paths: str) -> bytes:
    """Return a FAT16 filesystem with files of one byte at these paths (short names, in capitals)."""
    clusters: list[bytes] = []

    def add(tree: dict[str, object]) -> bytes:
        entries = b""
        for name, inner in tree.items():
            base, _, extension = name.partition(".")
            content = add(inner) if isinstance(inner, dict) else b"x"
            clusters.append(content.ljust(2048, b"\0"))
            attributes = 0x10 if isinstance(inner, dict) else 0x20
            size = 0 if isinstance(inner, dict) else 1
            entries += f"{base:8}{extension:3}".encode() + bytes([attributes]) + bytes(14)
            entries += struct.pack("<HI", len(clusters) + 1, size)
        return entries

    tree: dict[str, object] = {}
    for path in paths:
        here = tree
        *directories, name = path.split("/")
        for directory in directories:
            here = here.setdefault(directory, {})  # type: ignore[assignment]
        here[name] = None
    root = add(tree).ljust(512 * 32, b"\0")
    sectors = 8 * MIB // 512
    boot = b"\xeb\x3c\x90mkfs.fat" + struct.pack("<HBHBHHBHHHII", 512, 4, 4, 2, 512, sectors, 0xF8, 32, 32, 64, 0, 0)
    boot = boot.ljust(38, b"\0") + b"\x29\x29\x72\x3f\xaeUEFI       FAT16   "
    table = b"\xf8\xff\xff\xff" + b"\xff\xff" * len(clusters)
    fats = table.ljust(32 * 512, b"\0") * 2
    return boot.ljust(510, b"\0") + b"\x55\xaa" + bytes(3 * 512) + fats + root + b"".join(clusters)


def gpt(parts: list[tuple[int, str, int, int, bytes]], *, size: int, code: bytes = b"") -> bytes:
    """Return the first bytes of a disk: a GPT of (number, type, start, size, first bytes), and boot code."""
    entries = bytearray(128 * 128)
    for number, kind, start, length, _ in parts:
        row = uuid.UUID(kind).bytes_le + uuid.UUID(int=number).bytes_le
        row += struct.pack("<QQQ", start // 512, (start + length) // 512 - 1, 0)
        entries[(number - 1) * 128 : (number - 1) * 128 + len(row)] = row
    header = b"EFI PART" + struct.pack("<IIIIQQQQ", 0x10000, 92, 0, 0, 1, size // 512 - 1, 34, size // 512 - 34)
    header += uuid.UUID(int=99).bytes_le + struct.pack("<QIII", 2, 128, 128, zlib.crc32(entries))
    header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
    protective = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(size // 512 - 1, 0xFFFFFFFF))
    boot = code.ljust(446, b"\0") + protective.ljust(64, b"\0") + b"\x55\xaa"
    disk = bytearray(max([1024 + len(entries), *(start + len(first) for _, _, start, _, first in parts if first)]))
    disk[: 1024 + len(entries)] = boot + header.ljust(512, b"\0") + bytes(entries)
    for _, _, start, _, first in parts:
        disk[start : start + len(first)] = first
    return bytes(disk)


LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"


def grub_code(core: int) -> bytes:
    """Return GRUB 2's first sector as far as it is looked at: its core in sector `core`."""
    code = bytearray(b"\xeb\x63\x90".ljust(440, b"\0"))
    code[0x5C:0x64] = struct.pack("<Q", core)
    code[0x188:0x1A0] = b"GRUB \0Geom\0Hard Disk\0Re"
    return bytes(code)


@cache  # up to 4 MiB each, and there are some hundred guests
def disk(
    *,
    size: int = GIB,
    loaders: tuple[str, ...] = ("EFI/BOOT/BOOTX64.EFI",),
    bios: bool = True,
    esp: bool = True,
    core: bytes = b"core",
    root_size: int = 1000 * MIB,
) -> bytes:
    """Return the first bytes of a cloud image's disk, of which a part may be left out."""
    parts = [(1, LINUX, 13 * MIB, root_size, b"")]
    if bios:
        parts.append((14, BIOS_BOOT, MIB, 3 * MIB, core))
    if esp:
        parts.append((15, EFI_SYSTEM, 4 * MIB, 8 * MIB, fat(*loaders) if loaders else fat("README.TXT")))
    return gpt(parts, size=size, code=grub_code(2048) if core else b"")


HEALTHY = KnownFacts(root="/dev/sda1", filesystems=(ROOT, ESP), files=FILES, disk=disk(), disk_size=GIB)


def broken(
    files: Mapping[str, bytes | str | None] | None = None, *, stats: Mapping[str, Stat] | None = None, **changes: object
) -> KnownFacts:
    """Return the healthy guest with other files (None: without them), states or disk."""
    kept = {path: data for path, data in FILES.items() if path not in (files or {})}
    new = {path: data for path, data in (files or {}).items() if data is not None}
    return replace(HEALTHY, files=kept | new, stats=stats or {}, **changes)  # type: ignore[arg-type]
