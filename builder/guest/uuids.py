"""UUIDs of filesystems: what one may be by type, one that can be made again, and the files of a guest that name it.

Sources: tune2fs(8), xfs_admin(8), btrfstune(8), swaplabel(8); for FAT, whose volume id counts as its UUID, the boot
sector in Microsoft's FAT specification (fatgen103).
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Iterator, Sequence

from builder.errors import GuestError
from builder.guest.facts import Filesystem, GuestFacts

TYPES = ("ext2", "ext3", "ext4", "xfs", "btrfs", "swap", "vfat")
LONG = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHORT = re.compile(r"[0-9A-F]{4}-[0-9A-F]{4}")

_NAMESPACE = uuid.UUID("6f4b8c1e-3f0a-5d5e-9a53-0f2c9e0b7d41")  # of emi's own; any fixed one does
# Files that may name a filesystem by its UUID, and that a person or a tool edits as text.
_FILES = (
    "/etc/fstab",
    "/etc/crypttab",
    "/etc/default/grub",
    "/etc/default/grub.d/*.cfg",
    "/etc/kernel/cmdline",
    "/etc/initramfs-tools/conf.d/*",
    "/etc/dracut.conf",
    "/etc/dracut.conf.d/*.conf",
    "/etc/lilo.conf",
    "/etc/zipl.conf",
    "/etc/default/u-boot",
    "/boot/grub/grub.cfg",
    "/boot/grub/grub.conf",
    "/boot/grub/menu.lst",
    "/boot/grub/grubenv",
    "/boot/grub/custom.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub2/grubenv",
    "/boot/grub2/custom.cfg",
    "/boot/efi/EFI/*/grub.cfg",
    "/boot/efi/EFI/*/bootuuid.cfg",
    "/boot/grub2/bootuuid.cfg",
    "/boot/loader/entries/*.conf",
    "/boot/efi/loader/entries/*.conf",
    "/efi/loader/entries/*.conf",
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
)
_LIMIT = 1 << 20  # bytes of such a file
_NAMED = r"(?:UUID=\"?|by-uuid/|--fs-uuid\b[^\n]*?\s|search\.fs_uuid\s+|^uuid\s+|fs_uuid\s+)"
_SECTOR = 512


def problem(filesystem_type: str, wanted: str) -> str | None:
    """Return why a filesystem of that type cannot have that UUID, or None when it can."""
    if filesystem_type not in TYPES:
        return f"the UUID of {filesystem_type or 'an unknown type'} cannot be set; these can: {', '.join(TYPES)}"
    if filesystem_type == "vfat":
        return None if SHORT.fullmatch(wanted) else f"{wanted} is no UUID of vfat: that is 8 digits, like 7B2A-04F1"
    return None if LONG.fullmatch(wanted) else f"{wanted} is no UUID of {filesystem_type}: that has 32 digits"


def normal(text: str) -> str | None:
    """Return a UUID as blkid writes it, or None when it is none, or the one that means none."""
    if SHORT.fullmatch(text.upper()):
        return text.upper()
    return text.lower() if LONG.fullmatch(text.lower()) and text.strip("0-") else None


def derived(filesystem: Filesystem, seed: str) -> str:
    """Return a UUID that looks random and is the same for the same partition and seed, build after build."""
    where = filesystem.partuuid.lower() or filesystem.device
    made = uuid.uuid5(_NAMESPACE, "\n".join((seed, where, filesystem.type)))
    if filesystem.type == "vfat":
        digits = made.hex[:8].upper()
        return f"{digits[:4]}-{digits[4:]}"
    return str(made)


def files(facts: GuestFacts) -> Iterator[tuple[str, str]]:
    """Yield the guest's files that may name a filesystem by its UUID, with their text; links and doubles left out."""
    for pattern in _FILES:
        for path in facts.names(pattern):
            if facts.link(path) is None and (data := facts.read(path, limit=_LIMIT)):
                yield path, data.decode("utf-8", "surrogateescape")


def renamed(text: str, old: str, new: str) -> str:
    """Return the text naming the filesystem anew. Nothing else changes, and GRUB's grubenv keeps its size.

    A UUID of 32 digits is replaced wherever it stands; one of vfat, which is short, only where it is called one.
    """
    before, after = (_NAMED, r"(?![\w-])") if SHORT.fullmatch(old) else (r"(?<![\w-])", r"(?![\w-])")
    pattern = re.compile(f"({before})({re.escape(old)}){after}", re.IGNORECASE | re.MULTILINE)
    return pattern.sub(lambda found: found[1] + (new.lower() if found[2].islower() else new), text)


def fat_writes(boot: bytes, wanted: str) -> Sequence[tuple[int, bytes]]:
    """Return what to write where (offset in bytes) so that a FAT filesystem has that volume id.

    `boot` is its first sector. FAT32 keeps a copy of that sector, which follows. Raises GuestError when it is no FAT.
    """
    high, _, low = wanted.partition("-")
    number = struct.pack("<I", int(high + low, 16))
    if len(boot) < _SECTOR or boot[510:512] != b"\x55\xaa":
        raise GuestError("the filesystem's first sector is not FAT's")
    (size,) = struct.unpack_from("<H", boot, 11)
    if boot[0x42] in (0x28, 0x29) and boot[22:24] == b"\0\0":  # FAT32: the old field of FAT's length is 0
        (copy,) = struct.unpack_from("<H", boot, 50)
        return [(at + 0x43, number) for at in (0, *((copy * size,) if 0 < copy < 0xFFFF else ()))]
    if boot[0x26] in (0x28, 0x29):
        return [(0x27, number)]
    raise GuestError("the filesystem's first sector has no volume id")
