"""A bootable disk around the image of one filesystem.

    GPT   1 MiB table | 3 MiB BIOS boot (14) | boot partition (15) | root (1) | 1 MiB second table
    MBR   1 MiB with GRUB's core from sector 1 | boot partition (2) | root (1)

The boot partition is FAT32 and holds all that the firmware and GRUB need: the EFI loader, the menu, the kernel and its
initramfs. The root comes last, so that it can grow with the disk, and is number 1, as the disks are that paravirtual
guests know. It is copied byte for byte: nothing in it is changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from builder.bootable import bootcode, fat, loader, menu, tables
from builder.bootable.identity import Identity
from builder.bootable.loader import Firmware
from builder.bootable.menu import Links, Menu
from builder.bootable.tables import Part
from builder.durable import translate_disk_full
from builder.errors import InputError, UsageError
from builder.image.filesystems import Filesystem, probe
from builder.image.partitions import read_partitions
from builder.image.stream import ImageReader
from builder.image.write import write_into
from builder.progress import SILENT, Progress
from builder.units import format_size

Table = Literal["gpt", "mbr"]

_MIB = 1 << 20
_GPT_CORE = range(1 * _MIB, 4 * _MIB)
_MBR_CORE = range(bootcode.SECTOR, 1 * _MIB)
_TAIL = 1 * _MIB  # the second GPT
_BOOT_LEAST = 64 * _MIB  # FAT32 begins at 33 MiB
_BOOT_SPARE = 8 * _MIB  # for FAT's own tables and for loaders that the guest adds
_MBR_LIMIT = 2 << 40  # bytes: 2^32 sectors
_ROOTS = ("ext2", "ext3", "ext4", "xfs", "btrfs")
_BOOT_NUMBER: Mapping[Table, str] = {"gpt": "gpt15", "mbr": "msdos2"}  # as GRUB says it
_TYPES = {"gpt": {"root": "8304", "esp": "ef00", "boot": "ea00"}, "mbr": {"root": "83", "esp": "ef", "boot": "0c"}}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The disk that is asked for; `size` in bytes, the least that fits when it is None."""

    table: Table
    firmware: Collection[Firmware]
    consoles: tuple[str, ...]
    arguments: str = ""
    size: int | None = None

    def identity(self, seed: str) -> Identity:
        """Return the identifiers of such a disk with the content that `seed` names."""
        given = asdict(self) | {"firmware": sorted(self.firmware)}
        return Identity(seed=json.dumps([seed, given], sort_keys=True))


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What is booted: the kernel and its initramfs as host files, and the guest's own links to them, if it has such."""

    kernel: Path
    ramdisk: Path | None
    links: Links | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where everything lies on the disk, in bytes."""

    size: int
    boot: range
    root: range


def require_root(reader: ImageReader) -> Filesystem:
    """Return what the image holds, if that is a filesystem which can be a disk's root. Raises InputError."""
    found = probe(reader)
    if found is None or found.type not in _ROOTS:
        table = read_partitions(reader)
        if table is not None and table.partitions:
            raise InputError(
                f"the image is a disk with {len(table.partitions)} partitions, and one filesystem is wanted",
                hint="Put `extract: {root: true}` before this step.",
            )
        holds = f"holds {found.type}" if found else "holds no filesystem that is known"
        raise InputError(f"the image {holds}; a root is one of {', '.join(_ROOTS)}")
    if found.size > reader.virtual_size:
        raise InputError(
            f"the image is cut off: its {found.type} has {format_size(found.size)}, "
            f"and the image {format_size(reader.virtual_size)}"
        )
    return found


def root_argument(found: Filesystem, boot: Boot, identity: Identity, table: Table) -> str:
    """Return how the kernel is told its root: by label, which an initramfs looks up, else by what kernels know.

    Raises InputError when the label is missing or cannot be said.
    """
    if boot.ramdisk is None:  # kernels themselves know no labels (init/do_mounts.c)
        return f"PARTUUID={identity.uuid('partition root') if table == 'gpt' else f'{identity.volume_id()}-01'}"
    require_label(found)
    return f"LABEL={found.label}"


def require_label(found: Filesystem) -> None:
    """Return if the root can be found by its label. Raises InputError."""
    if problem := menu.label_problem(found.label):
        raise InputError(problem, hint="Put a `label` step before this one, and an `fstab` step after that.")


def layout(root_size: int, carried: int, wanted: Wanted) -> Layout:
    """Return the disk for a root and files on the boot partition of so many bytes. Raises UsageError: no such disk."""
    start = _GPT_CORE.stop if wanted.table == "gpt" else _MBR_CORE.stop
    # (FAT32 with clusters of a sector spends 8 bytes of tables on each 512.)
    boot = range(start, start + max(_BOOT_LEAST, _up(carried + carried // 64 + _BOOT_SPARE)))
    tail = _TAIL if wanted.table == "gpt" else 0
    least = boot.stop + _up(root_size) + tail
    size = least if wanted.size is None else wanted.size
    if size < least:
        raise UsageError(
            f"a disk of {format_size(size)} is too small: root and boot partition need {format_size(least)}",
            hint="Raise `size`, or leave it out; a `resize` step before this one shrinks the root.",
        )
    if wanted.table == "mbr" and size > _MBR_LIMIT:
        raise UsageError(
            f"a disk of {format_size(size)} is too large for an MBR, whose partitions end at 2 TiB",
            hint="Use `table: gpt`.",
        )
    return Layout(size=size, boot=boot, root=range(boot.stop, size - tail))


def assemble(
    reader: ImageReader,
    boot: Boot,
    wanted: Wanted,
    target: Path,
    *,
    seed: str,
    scratch: Path,
    progress: Progress = SILENT,
) -> int:
    """Write the disk around the filesystem in `reader` to `target`, a sparse raw file; return its size in bytes.

    The same arguments give the same bytes; `seed` names the content, and identifiers are derived from it. What cannot
    boot is refused before anything is written: InputError, UsageError, ToolMissing. Later ToolFailed and DiskFull; what
    a crash leaves at `target` is replaced by the next call. The caller flushes it to the disk.
    """
    found = require_root(reader)
    with open(boot.kernel, "rb") as file:
        menu.require_kernel(file.read(menu.HEADER), "the kernel")
    identity = wanted.identity(seed)
    files = _boot_files(boot, wanted, root_argument(found, boot, identity, wanted.table), scratch)
    planned = layout(reader.virtual_size, sum(path.stat().st_size for path in files.values()), wanted)
    with translate_disk_full(target), open(target, "wb") as out:
        out.truncate(planned.size)
    _partition(target, planned, wanted, identity)
    # UEFI is what bootstrap and Ubuntu call their ESP, so a root of theirs mounts it; never the root's own label.
    labels = ("UEFI" if "uefi" in wanted.firmware else "BOOT", "LOADER")
    label = next(one for one in labels if one != found.label)
    fat.make(target, planned.boot, files, label=label, volume_id=identity.volume_id())
    if "bios" in wanted.firmware:
        core = loader.core_image("bios", _BOOT_NUMBER[wanted.table], scratch / "core.img").read_bytes()
        room = _GPT_CORE if wanted.table == "gpt" else _MBR_CORE
        bootcode.write(target, loader.boot_image(), core, room=room)
    progress.total(sum(extent.length for extent in reader.extents()))
    with translate_disk_full(target):
        descriptor = os.open(target, os.O_RDWR | os.O_CLOEXEC)
        try:
            write_into(reader, descriptor, offset=planned.root.start, progress=progress)
        finally:
            os.close(descriptor)
    return planned.size


def _boot_files(boot: Boot, wanted: Wanted, root: str, scratch: Path) -> Mapping[str, Path]:
    """Return what goes onto the boot partition, by path; what is made for it is made in `scratch`."""
    files = {menu.KERNEL: boot.kernel, menu.CONFIG: scratch / "grub.cfg"}
    if boot.ramdisk:
        files[menu.RAMDISK] = boot.ramdisk
    if "uefi" in wanted.firmware:
        # the name firmware looks for on a removable disk (UEFI 2.10, 3.5.1.1)
        loaded = loader.core_image("uefi", _BOOT_NUMBER[wanted.table], scratch / "BOOTX64.EFI")
        files["EFI/BOOT/BOOTX64.EFI"] = loaded
    booted = Menu(
        root=root,
        arguments=f"ro {wanted.arguments}".strip(),
        consoles=wanted.consoles,
        ramdisk=boot.ramdisk is not None,
        partition="gpt1" if wanted.table == "gpt" else "msdos1",
        links=boot.links,
    )
    files[menu.CONFIG].write_text(menu.config(booted))
    return files


def _partition(disk: Path, planned: Layout, wanted: Wanted, identity: Identity) -> None:
    types = _TYPES[wanted.table]
    boot = "esp" if "uefi" in wanted.firmware else "boot"
    if wanted.table == "mbr":
        # Some firmware for BIOS boots only from a disk with a partition marked so.
        parts = [
            Part(number=1, place=planned.root, type=types["root"], bootable=True),
            Part(number=2, place=planned.boot, type=types[boot]),
        ]
        tables.write_mbr(disk, parts, disk_id=identity.volume_id())
        return
    places = [(14, _GPT_CORE, "ef02", "bios")] if "bios" in wanted.firmware else []
    places += [(15, planned.boot, types[boot], boot), (1, planned.root, types["root"], "root")]
    parts = [
        Part(number=number, place=place, type=kind, name=name, uuid=identity.uuid(f"partition {name}"))
        for number, place, kind, name in places
    ]
    tables.write_gpt(disk, parts, guid=identity.uuid("disk"))


def _up(size: int) -> int:
    return -(-size // _MIB) * _MIB
