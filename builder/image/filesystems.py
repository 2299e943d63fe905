"""What a volume holds, from its superblock: type, label, UUID, size. Read without trust; nothing is mounted.

Offsets: the kernel's own headers (fs/ext4/ext4.h, fs/xfs/libxfs/xfs_format.h, include/uapi/linux/btrfs_tree.h,
include/linux/swap.h), Microsoft's FAT specification 1.03, LVM2's lib/format_text/layout.h, ECMA-119, squashfs_fs.h.
The words are blkid's.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from builder.image.identity import printable
from builder.image.stream import ImageReader

_EXT_JOURNAL = 0x4  # feature_compat
_EXT3_INCOMPAT = 0x2 | 0x4 | 0x10  # filetype, recover, meta_bg: what ext3 may have
_EXT3_RO_COMPAT = 0x1 | 0x2 | 0x4  # sparse_super, large_file, btree_dir
_EXT_64BIT = 0x80
_DIRECTORY_LIMIT = 64 * 1024  # bytes of a FAT root directory searched for the label


@dataclass(frozen=True, kw_only=True)
class Filesystem:
    """What a volume holds; `size` in bytes as the superblock tells it, 0 when it does not."""

    type: str
    label: str = ""
    uuid: str = ""
    size: int = 0


def probe(reader: ImageReader) -> Filesystem | None:
    """Return what the volume holds, or None when it is none of ext2-4, XFS, btrfs, FAT, NTFS, swap, LVM, LUKS,
    ISO 9660 and squashfs.
    """
    for look in _PROBES:
        if found := look(reader):
            return found
    return None


def _ext(reader: ImageReader) -> Filesystem | None:
    block = reader.pread(1024, 1024)
    if block[56:58] != b"\x53\xef":
        return None
    blocks, log_size = struct.unpack_from("<I", block, 4)[0], struct.unpack_from("<I", block, 24)[0]
    compat, incompat, ro_compat = struct.unpack_from("<III", block, 92)
    if incompat & _EXT_64BIT:
        blocks |= struct.unpack_from("<I", block, 336)[0] << 32
    if incompat & ~_EXT3_INCOMPAT or ro_compat & ~_EXT3_RO_COMPAT:
        kind = "ext4"
    else:
        kind = "ext3" if compat & _EXT_JOURNAL else "ext2"
    size = blocks << (10 + log_size) if log_size <= 6 else 0
    return Filesystem(type=kind, label=_text(block[120:136]), uuid=_uuid(block[104:120]), size=size)


def _xfs(reader: ImageReader) -> Filesystem | None:
    block = reader.pread(512, 0)
    if block[:4] != b"XFSB":
        return None
    block_size, blocks = struct.unpack_from(">IQ", block, 4)
    return Filesystem(type="xfs", label=_text(block[108:120]), uuid=_uuid(block[32:48]), size=block_size * blocks)


def _btrfs(reader: ImageReader) -> Filesystem | None:
    block = reader.pread(4096, 64 * 1024)
    if block[64:72] != b"_BHRfS_M":
        return None
    size = struct.unpack_from("<Q", block, 112)[0]
    return Filesystem(type="btrfs", label=_text(block[299:555]), uuid=_uuid(block[32:48]), size=size)


def _vfat(reader: ImageReader) -> Filesystem | None:
    boot = reader.pread(512, 0)
    is_fat32 = boot[82:87] == b"FAT32"
    if not (is_fat32 or boot[54:58] == b"FAT1") or boot[510:512] != b"\x55\xaa":
        return None
    sector, per_cluster, reserved, fats, roots, total16 = struct.unpack_from("<HBHBHH", boot, 11)
    fat_size16, total32, fat_size32 = (*struct.unpack_from("<H", boot, 22), *struct.unpack_from("<II", boot, 32))
    at = (67, 71) if is_fat32 else (39, 43)
    serial = boot[at[0] : at[0] + 4][::-1].hex().upper()
    data_start = reserved + fats * (fat_size16 or fat_size32)
    if is_fat32:
        cluster = struct.unpack_from("<I", boot, 44)[0]
        root, length = data_start + max(0, cluster - 2) * per_cluster, per_cluster * sector
    else:
        root, length = data_start, roots * 32
    in_root = _fat_root_label(reader.pread(min(length, _DIRECTORY_LIMIT), root * sector))
    in_boot = _text(boot[at[1] : at[1] + 11])
    label = in_root if in_root is not None else "" if in_boot == "NO NAME" else in_boot
    return Filesystem(type="vfat", label=label, uuid=f"{serial[:4]}-{serial[4:]}", size=(total16 or total32) * sector)


def _fat_root_label(directory: bytes) -> str | None:
    """Return the label entry of a FAT root directory: the one that counts when the boot sector says otherwise."""
    for at in range(0, len(directory) - 31, 32):
        entry = directory[at : at + 32]
        if entry[0] == 0:
            return None
        if entry[0] != 0xE5 and entry[11] & 0x3F != 0x0F and entry[11] & 0x08:
            return _text(entry[:11])
    return None


def _ntfs(reader: ImageReader) -> Filesystem | None:
    boot = reader.pread(512, 0)
    if boot[3:11] != b"NTFS    ":
        return None
    sector, sectors, serial = (*struct.unpack_from("<H", boot, 11), *struct.unpack_from("<Q", boot, 40), boot[72:80])
    return Filesystem(type="ntfs", uuid=serial[::-1].hex().upper(), size=sector * sectors)


def _swap(reader: ImageReader) -> Filesystem | None:
    page = reader.pread(4096, 0)
    if page[4086:] != b"SWAPSPACE2":
        return None
    last_page = struct.unpack_from("<I", page, 1028)[0]
    return Filesystem(
        type="swap", label=_text(page[1052:1068]), uuid=_uuid(page[1036:1052]), size=(last_page + 1) * 4096
    )


def _lvm(reader: ImageReader) -> Filesystem | None:
    head = reader.pread(2048, 0)
    for at in range(0, 2048, 512):
        if head[at : at + 8] == b"LABELONE" and head[at + 24 : at + 32] == b"LVM2 001":
            start = at + struct.unpack_from("<I", head, at + 20)[0]
            name = _text(head[start : start + 32])
            parts = [name[:6], *(name[n : n + 4] for n in range(6, 26, 4)), name[26:]]
            size = struct.unpack_from("<Q", head, start + 32)[0] if start + 40 <= len(head) else 0
            return Filesystem(type="LVM2_member", uuid="-".join(parts) if name else "", size=size)
    return None


def _luks(reader: ImageReader) -> Filesystem | None:
    head = reader.pread(512, 0)
    if head[:6] != b"LUKS\xba\xbe":
        return None
    label = _text(head[24:72]) if head[6:8] == b"\0\2" else ""
    return Filesystem(type="crypto_LUKS", label=label, uuid=_text(head[168:208]))


def _iso9660(reader: ImageReader) -> Filesystem | None:
    block = reader.pread(2048, 32768)
    if block[1:6] != b"CD001":
        return None
    return Filesystem(type="iso9660", label=_text(block[40:72]), size=struct.unpack_from("<I", block, 80)[0] * 2048)


def _squashfs(reader: ImageReader) -> Filesystem | None:
    block = reader.pread(96, 0)
    if block[:4] != b"hsqs":
        return None
    return Filesystem(type="squashfs", size=struct.unpack_from("<Q", block, 40)[0])


# ISO 9660 before the others: its first 32 KiB are free for a boot sector of any kind.
_PROBES: tuple[Callable[[ImageReader], Filesystem | None], ...] = (
    _luks,
    _lvm,
    _iso9660,
    _ext,
    _xfs,
    _btrfs,
    _squashfs,
    _swap,
    _ntfs,
    _vfat,
)


def _text(data: bytes) -> str:
    return printable(data.split(b"\0", 1)[0].decode(errors="replace").rstrip())


def _uuid(data: bytes) -> str:
    return str(uuid.UUID(bytes=data)) if any(data) else ""
