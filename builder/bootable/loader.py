"""GRUB's images, made by this host's grub-mkimage from this host's modules: all that the loader needs is in them.

The modules of a guest are not taken: they would have to be trusted here, or its grub-mkimage run in an appliance; and a
root from the days before GRUB 2 has none. With everything linked in, the loader reads no module from any disk, so there
are no two versions that would have to match.

The prefix of the images, `(,gpt15)/boot/grub`, is a partition of whichever disk the firmware loaded them from
(grub-core/kern/main.c, grub_set_prefix_and_root): another disk with the same labels is not taken for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from builder import proc
from builder.errors import ToolMissing

Firmware = Literal["bios", "uefi"]

_MODULES = Path("/usr/lib/grub")  # where Debian's packages keep them
_PLATFORMS: Mapping[Firmware, str] = {"bios": "i386-pc", "uefi": "x86_64-efi"}
_PACKAGES: Mapping[Firmware, str] = {"bios": "grub-pc-bin", "uefi": "grub-efi-amd64-bin"}
_OWN: Mapping[Firmware, tuple[str, ...]] = {"bios": ("biosdisk",), "uefi": ("efi_gop",)}
_DISKS = ("part_gpt", "part_msdos", "fat", "ext2")
_COMMANDS = ("normal", "configfile", "linux", "echo", "serial", "terminal", "test", "gzio", "boot", "regexp")


def require(firmware: Collection[Firmware]) -> str:
    """Return a digest of what the images for that firmware are made from. Raises ToolMissing with the package."""
    digest = hashlib.sha256(proc.run(["grub-mkimage", "--version"]).stdout)
    for kind in sorted(firmware):
        directory = _directory(kind)
        for path in sorted((*directory.glob("*.mod"), *directory.glob("*.img"), *directory.glob("*.lst"))):
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"


def core_image(firmware: Firmware, partition: str, target: Path) -> Path:
    """Make the image that reads /boot/grub/grub.cfg on `partition` (`gpt15`, `msdos2`); return `target`.

    Raises ToolMissing, ToolFailed.
    """
    directory = _directory(firmware)
    words = ("grub-mkimage", "-O", _PLATFORMS[firmware], "-p", f"(,{partition})/boot/grub")
    proc.run([*words, "-d", directory, "-o", target, *_OWN[firmware], *_DISKS, *_COMMANDS])
    return target


def boot_image() -> bytes:
    """Return what goes into a disk's first sector. Raises ToolMissing."""
    return (_directory("bios") / "boot.img").read_bytes()


def _directory(firmware: Firmware) -> Path:
    directory = _MODULES / _PLATFORMS[firmware]
    if not (directory / "moddep.lst").is_file():
        package = _PACKAGES[firmware]
        raise ToolMissing(
            f"GRUB for {firmware.upper()} is not installed: there is no {directory}",
            hint=f"sudo apt-get install {package}",
        )
    return directory
