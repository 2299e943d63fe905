"""GRUB for BIOS and UEFI without grub-install: which needs a mounted disk, where we have a file.

The images are made by the installed system's own grub-mkimage from its own modules, so that loader and modules always
have one version. Both have the prefix `(,gpt1)/boot/grub`: partition 1 of whichever disk the firmware loaded them from
(grub-core/kern/main.c, grub_set_prefix_and_root), which cannot pick another disk that carries the same label.

Where the BIOS image goes is what util/setup.c (grub-bios-setup) does for a GPT disk with a BIOS boot partition:
boot.img into the MBR around the partition table, told the first sector of core.img; core.img into the partition, its
first sector (diskboot.img) told where the rest lies. Offsets: include/grub/i386/pc/boot.h, boot/i386/pc/diskboot.S.
"""

from __future__ import annotations

import re
import struct

from builder.bootstrap.system import System, kernel_arguments
from builder.bootstrap.tree import Tree
from builder.errors import HostError

SECTOR = 512
BOOT_IMAGE = "boot/grub/i386-pc/boot.img"
CORE_IMAGE = "boot/grub/i386-pc/core.img"
EFI_IMAGE = "boot/grub/x86_64-efi/core.efi"
_KERNEL_SECTOR = 0x5C  # GRUB_BOOT_MACHINE_KERNEL_SECTOR: 8 bytes, LBA of core.img
_DRIVE_CHECK = 0x66  # GRUB_BOOT_MACHINE_DRIVE_CHECK: 2 bytes of code, NOPs when booting from a hard disk
_BPB = slice(0x03, 0x5A)  # GRUB_BOOT_MACHINE_BPB_START, _END: a FAT header, were there one
_CODE = slice(0, 0x1B8)  # up to the disk signature and the partition table
_NOP = 0x90
_BLOCKLIST = SECTOR - 12  # struct grub_pc_bios_boot_blocklist: start u64, length u16, segment u16
_SEGMENT = 0x820  # GRUB_BOOT_MACHINE_KERNEL_SEG (0x800) + one sector: where diskboot.img loads the rest

# What must be in the images to read /boot/grub; the rest is loaded from there.
_MODULES = "part_gpt ext2 normal configfile search search_label linux echo serial terminal test gzio boot"

# Runs inside the installed system. The layout under /boot/grub is grub-install's own.
INSTALL = f"""\
set -e
for platform in i386-pc x86_64-efi; do
    mkdir -p /boot/grub/$platform /boot/efi
    cp /usr/lib/grub/$platform/*.mod /usr/lib/grub/$platform/*.lst /boot/grub/$platform/
done
cp /usr/lib/grub/i386-pc/boot.img /{BOOT_IMAGE}
grub-mkimage -O i386-pc -p '(,gpt1)/boot/grub' -o /{CORE_IMAGE} biosdisk {_MODULES}
grub-mkimage -O x86_64-efi -p '(,gpt1)/boot/grub' -o /{EFI_IMAGE} efi_gop {_MODULES}
grub-editenv /boot/grub/grubenv create
"""


def config(system: System, tree: Tree) -> str:
    """Return the first grub.cfg; `update-grub` in the guest replaces it. Raises HostError if no kernel is installed."""
    kernels = [node.name for node in tree if node.parent == "boot" and node.name.startswith("vmlinuz-")]
    if not kernels:
        raise HostError("no kernel was installed", hint="Add a linux-image package to `packages`.")
    version = max(kernels, key=_natural).removeprefix("vmlinuz-")
    return f"""\
# Written with the image; update-grub replaces it.
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set default=0
set timeout=1
menuentry '{system.distribution.capitalize()} {system.suite}, Linux {version}' {{
    linux /boot/vmlinuz-{version} root=LABEL={system.label} {kernel_arguments(system)}
    initrd /boot/initrd.img-{version}
}}
"""


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


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(digits or 0), text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]
