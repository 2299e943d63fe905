"""GRUB for BIOS and UEFI without grub-install: which needs a mounted disk, where we have a file.

The images are made by the installed system's own grub-mkimage from its own modules, so that loader and modules always
have one version. Both have the prefix `(,gpt1)/boot/grub`: partition 1 of whichever disk the firmware loaded them from
(grub-core/kern/main.c, grub_set_prefix_and_root), which cannot pick another disk that carries the same label.
"""

from __future__ import annotations

import re

from builder.bootstrap.system import System, kernel_arguments
from builder.bootstrap.tree import Tree
from builder.errors import HostError

BOOT_IMAGE = "boot/grub/i386-pc/boot.img"
CORE_IMAGE = "boot/grub/i386-pc/core.img"
EFI_IMAGE = "boot/grub/x86_64-efi/core.efi"

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


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(digits or 0), text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]
