"""What a filesystem's superblock says against it, read before anything mounts it: a mount mends the traces away.

Sources: fs/ext4/ext4.h (s_state, s_feature_incompat), fs/xfs/libxfs/xfs_format.h (sb_features_incompat),
Microsoft's FAT specification as the kernel reads it (fs/fat/inode.c, the state byte after the drive number).
"""

from __future__ import annotations

import struct

HEAD = 2048  # bytes of a filesystem that are needed
_EXT_VALID, _EXT_ERRORS = 0x1, 0x2
_EXT_RECOVER = 0x4
_XFS_NEEDS_REPAIR = 0x10
_FAT_DIRTY, _FAT_ERRORS = 0x1, 0x2


def unclean(filesystem_type: str, head: bytes) -> str:
    """Return what is wrong with the filesystem that begins so, as a clause; empty when nothing shows.

    `filesystem_type` is blkid's word; of types that are not known here nothing is told.
    """
    head = head.ljust(HEAD, b"\0")
    if filesystem_type in ("ext2", "ext3", "ext4"):
        return _ext(head[1024:])
    if filesystem_type == "xfs" and struct.unpack_from(">I", head, 216)[0] & _XFS_NEEDS_REPAIR:
        return "errors: it is marked as in need of repair"
    if filesystem_type == "vfat":
        return _fat(head[0x41 if head[82:87] == b"FAT32" else 0x25])
    return ""


def _ext(block: bytes) -> str:
    state = struct.unpack_from("<H", block, 58)[0]
    if state & _EXT_ERRORS:
        return "errors: the kernel found some and nobody has mended them"
    if struct.unpack_from("<I", block, 96)[0] & _EXT_RECOVER:
        return "its journal holds what was never written back: it was not unmounted"
    return "" if state & _EXT_VALID else "it was not unmounted"


def _fat(state: int) -> str:
    if state & _FAT_ERRORS:
        return "errors: the system that wrote to it met some"
    return "it was not unmounted" if state & _FAT_DIRTY else ""
