"""The disk around the system: GPT, an ESP, and boot code for BIOS and UEFI, all written into one sparse file."""

from __future__ import annotations

from pathlib import Path

from builder import proc
from builder.bootable import bootcode, fat
from builder.bootable.identity import Identity
from builder.bootstrap import ext4, grub
from builder.bootstrap.system import ESP_LABEL, System
from builder.bootstrap.tree import Tree
from builder.durable import translate_disk_full
from builder.errors import HostError, UsageError
from builder.units import format_size

_MIB = 1 << 20
_BIOS = range(1 * _MIB, 4 * _MIB)  # partition 14, as Debian's and Ubuntu's cloud images number them
_ESP = range(4 * _MIB, 128 * _MIB)  # partition 15
_ROOT = 128 * _MIB  # partition 1: last, so that it can grow with the disk
_TAIL = 1 * _MIB  # the second GPT
SMALLEST = 512 * _MIB


def write(system: System, tree: Tree, disk: Path, *, scratch: Path) -> None:
    """Write the disk image of `tree`; the same arguments give the same bytes, whoever runs it and wherever.

    Holes stay holes. Raises UsageError if the system does not fit, HostError, ToolMissing, ToolFailed, DiskFull; what a
    crash leaves at `disk` is replaced by the next call.
    """
    if system.size % _MIB or system.size < SMALLEST:
        raise UsageError(f"a disk of {format_size(system.size)}: the size must be whole MiB, at least 512")
    identity = system.identity(tree)
    tree.write("boot/grub/grub.cfg", grub.config(system, tree).encode(), mode=0o600, mtime=system.epoch)
    tree.clamp(system.epoch)
    with translate_disk_full(disk), open(disk, "wb") as out:
        out.truncate(system.size)
    _partition(disk, identity)
    root = ext4.Place(disk=disk, offset=_ROOT, size=system.size - _ROOT - _TAIL)
    ext4.make(tree, root, label=system.label, uuid=identity.uuid("root"), epoch=system.epoch, scratch=scratch)
    _make_esp(system, tree, disk, identity, scratch)
    _write_boot_code(tree, disk)


def _partition(disk: Path, identity: Identity) -> None:
    def sectors(part: range) -> str:
        return f"{part.start // bootcode.SECTOR}:{part.stop // bootcode.SECTOR - 1}"

    table = (
        (14, sectors(_BIOS), "ef02", "bios"),
        (15, sectors(_ESP), "ef00", "esp"),
        (1, sectors(range(_ROOT, disk.stat().st_size - _TAIL)), "8304", "root"),  # 8304: Linux root (x86-64)
    )
    arguments: list[str] = []
    for number, place, kind, name in table:
        arguments += [f"--new={number}:{place}", f"--typecode={number}:{kind}"]
        arguments += [
            f"--partition-guid={number}:{identity.uuid(f'partition {name}')}",
            f"--change-name={number}:{name}",
        ]
    proc.run(["sgdisk", "--clear", f"--disk-guid={identity.uuid('disk')}", *arguments, disk])


def _make_esp(system: System, tree: Tree, disk: Path, identity: Identity, scratch: Path) -> None:
    loader = scratch / "BOOTX64.EFI"  # the name firmware looks for on a removable disk (UEFI 2.10, 3.5.1.1)
    loader.write_bytes(_installed(tree, grub.EFI_IMAGE))
    files = {"EFI/BOOT/BOOTX64.EFI": loader}
    fat.make(disk, _ESP, files, label=ESP_LABEL, volume_id=identity.volume_id(), epoch=system.epoch)


def _write_boot_code(tree: Tree, disk: Path) -> None:
    bootcode.write(disk, _installed(tree, grub.BOOT_IMAGE), _installed(tree, grub.CORE_IMAGE), room=_BIOS)


def _installed(tree: Tree, path: str) -> bytes:
    data = tree.read(path)
    if data is None:
        raise HostError(f"/{path} is missing from the installed system", hint="Its GRUB packages did not install.")
    return data
