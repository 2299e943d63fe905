"""How a disk boots, as far as its own bytes tell: by BIOS (code in its first sector) and by UEFI (a loader in its ESP).

Sources: grub-core/boot/i386/pc/boot.S and include/grub/i386/pc/boot.h for GRUB 2's first sector; stage1/stage1.h for
GRUB legacy's; UEFI Specification 2.10, 3.5.1.1: a disk that no firmware was told of boots by EFI/BOOT/BOOT*.EFI.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from builder.image.fat import fat_files
from builder.image.partitions import Partition, PartitionTable
from builder.image.raw import window
from builder.image.stream import ImageReader

ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef")
BIOS_BOOT_TYPE = "21686148-6449-6e6f-744e-656564454649"
_CODE = 440  # bytes of the first sector that are code; after them the disk's signature and the MBR's table
_KERNEL_SECTOR = 0x5C  # GRUB_BOOT_MACHINE_KERNEL_SECTOR, 8 bytes; GRUB legacy's stage1 has code there
_LEGACY_VERSION = b"\x03\x02"  # COMPAT_VERSION_MAJOR and _MINOR of stage1, at 0x3e
_FALLBACKS = ("BOOTX64.EFI", "BOOTIA32.EFI", "BOOTAA64.EFI", "BOOTARM.EFI", "BOOTRISCV64.EFI")


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """How a disk can boot; a field that is empty or None means that what it names is not there."""

    boot_code: str = ""  # what the first sector's code is: `GRUB`, `GRUB legacy`, `SYSLINUX`, `unknown code`
    bios_problem: str = ""  # why that code cannot work, where that shows
    esp: int | None = None  # the number of the EFI system partition
    loaders: tuple[str, ...] = ()  # the .EFI files in it: EFI/BOOT/BOOTX64.EFI, EFI/DEBIAN/GRUBX64.EFI

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The loaders that a firmware starts which was never told of this disk."""
        return tuple(path for path in self.loaders if path.startswith("EFI/BOOT/") and path[9:] in _FALLBACKS)

    @property
    def bios(self) -> bool:
        """Whether the disk has what a BIOS starts."""
        return bool(self.boot_code) and not self.bios_problem

    @property
    def uefi(self) -> bool:
        """Whether the disk has what a UEFI starts."""
        return bool(self.fallbacks)


def read_firmware(reader: ImageReader, table: PartitionTable | None) -> Firmware:
    """Return how the disk with that partition table can boot; one without a table boots by its filesystem's code.

    Reads the first sector, one more, and the directories of the ESP.
    """
    if table is None:
        return Firmware()
    code = reader.pread(512, 0)
    kind = _boot_code(code)
    esp = next((part for part in table.partitions if part.type in ESP_TYPES), None)
    return Firmware(
        boot_code=kind,
        bios_problem=_bios_problem(kind, code, reader, table),
        esp=esp.number if esp else None,
        loaders=_loaders(reader, esp) if esp else (),
    )


def _boot_code(sector: bytes) -> str:
    code = sector[:_CODE]
    if not any(code) or sector[510:512] != b"\x55\xaa":
        return ""
    if b"GRUB \0Geom\0" in code:
        return "GRUB legacy" if code[0x3E:0x40] == _LEGACY_VERSION else "GRUB"
    return "SYSLINUX" if b"isolinux" in code or b"Missing operating system" in code else "unknown code"


def _bios_problem(kind: str, sector: bytes, reader: ImageReader, table: PartitionTable) -> str:
    if kind == "GRUB":
        (at,) = struct.unpack_from("<Q", sector, _KERNEL_SECTOR)
        if not 0 < at < reader.virtual_size // 512:
            return f"GRUB's first sector looks for the rest of it in sector {at}, which is not on the disk"
        if not any(reader.pread(512, at * 512)):
            return f"GRUB's first sector looks for the rest of it in sector {at}, which is empty"
    if kind == "SYSLINUX" and not any(part.bootable for part in table.partitions):
        return "its boot code starts the partition that is marked bootable, and none is"
    return ""


def _loaders(reader: ImageReader, esp: Partition) -> tuple[str, ...]:
    files = fat_files(window(reader, esp.start, esp.size), below="EFI", depth=2)
    return tuple(sorted(file.path for file in files if file.path.endswith(".EFI") and file.size))
