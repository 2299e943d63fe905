"""GRUB's images for BIOS as they must lie on a disk, without grub-install: it needs a mounted disk, we have a file.

Where they go is what util/setup.c (grub-bios-setup) does: boot.img into the MBR around the partition table, told the
first sector of core.img; core.img into a BIOS boot partition, or into the gap before the first partition of an MBR
disk; its first sector (diskboot.img) told where the rest lies. Offsets: include/grub/i386/pc/boot.h,
boot/i386/pc/diskboot.S.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from builder.durable import translate_disk_full
from builder.errors import HostError
from builder.units import format_size

SECTOR = 512
_KERNEL_SECTOR = 0x5C  # GRUB_BOOT_MACHINE_KERNEL_SECTOR: 8 bytes, LBA of core.img
_DRIVE_CHECK = 0x66  # GRUB_BOOT_MACHINE_DRIVE_CHECK: 2 bytes of code, NOPs when booting from a hard disk
_BPB = slice(0x03, 0x5A)  # GRUB_BOOT_MACHINE_BPB_START, _END: a FAT header, were there one
_CODE = slice(0, 0x1B8)  # up to the disk signature and the partition table
_NOP = 0x90
_BLOCKLIST = SECTOR - 12  # struct grub_pc_bios_boot_blocklist: start u64, length u16, segment u16
_SEGMENT = 0x820  # GRUB_BOOT_MACHINE_KERNEL_SEG (0x800) + one sector: where diskboot.img loads the rest


def write(disk: Path, boot_image: bytes, core_image: bytes, *, room: range) -> None:
    """Write boot code into the disk whose partition table is written: core.img into the bytes `room`.

    Flushed to the disk. Raises HostError when core.img is larger than its room, and DiskFull.
    """
    sector = room.start // SECTOR
    core = embedded_core(core_image, sector)
    if len(core) > len(room):
        raise HostError(f"GRUB's core image of {format_size(len(core))} is larger than its {format_size(len(room))}")
    with translate_disk_full(disk), open(disk, "r+b") as out:
        mbr = out.read(SECTOR)
        out.seek(0)
        out.write(boot_sector(mbr, boot_image, sector))
        out.seek(room.start)
        out.write(core)
        out.flush()
        os.fsync(out.fileno())


def boot_sector(mbr: bytes, boot_image: bytes, core_sector: int) -> bytes:
    """Return the disk's first sector: boot.img's code, which loads sector `core_sector`, and the table of `mbr`."""
    code = bytearray(boot_image[:SECTOR])
    code[_BPB] = mbr[_BPB]
    struct.pack_into("<Q", code, _KERNEL_SECTOR, core_sector)
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = bytes([_NOP, _NOP])
    return bytes(code[_CODE]) + mbr[_CODE.stop : SECTOR]


def embedded_core(core_image: bytes, core_sector: int) -> bytes:
    """Return core.img as it must lie at `core_sector`: padded to sectors, its first one naming where the rest is."""
    sectors = -(-len(core_image) // SECTOR)
    core = bytearray(core_image.ljust(sectors * SECTOR, b"\0"))
    struct.pack_into("<QHH", core, _BLOCKLIST, core_sector + 1, sectors - 1, _SEGMENT)
    return bytes(core)
