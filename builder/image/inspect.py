"""What `emi inspect` shows of an image: format, sizes, partitions, filesystems, labels. Nothing is mounted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from builder.errors import FormatRefused
from builder.image.filesystems import Filesystem, probe
from builder.image.firmware import Firmware, read_firmware
from builder.image.identify import identify
from builder.image.identity import Identity, require_safe
from builder.image.partitions import PartitionTable, read_partitions
from builder.image.reader import open_image, window
from builder.image.stream import ImageReader
from builder.units import format_size

# Types whose first sector ends like a partition table without being one.
_BOOT_SECTOR = ("vfat", "ntfs")


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A filesystem and where it lies; `partition` is None when it fills the whole disk."""

    partition: int | None
    filesystem: Filesystem


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What a file is and holds. Sizes are bytes; `data_size` is what lies outside holes.

    When the file is no image, or not safe to open, `refused` says why and nothing is known of its inside.
    """

    path: str
    format: str | None
    noun: str
    file_size: int
    disk_size: int
    virtual_size: int | None = None
    data_size: int | None = None
    backing_file: str | None = None
    refused: str | None = None
    table: PartitionTable | None = None
    volumes: tuple[Volume, ...] = ()
    firmware: Firmware | None = None  # how it can boot; None where that was not looked at


def inspect(path: Path, *, scratch: Path | None = None) -> ImageFacts:
    """Return what the file at `path` is and holds, without trusting it.

    A format that only qemu reads is converted first, in `scratch` or the system's temporary directory. Raises
    InputError when there is no such file, and FormatRefused when a part of a qcow2 that is looked at is damaged.
    """
    identity = identify(path)
    try:
        require_safe(identity)
    except FormatRefused as refused:
        return _facts(identity, None, refused=refused.message)
    with (
        tempfile.TemporaryDirectory(prefix="emi-inspect-", dir=scratch) as directory,
        open_image(path, identity.format, scratch=Path(directory)) as reader,
    ):
        return _facts(identity, reader, refused=None)


def _facts(identity: Identity, reader: ImageReader | None, *, refused: str | None) -> ImageFacts:
    status = identity.path.stat()
    table, volumes = (None, ()) if reader is None else look_inside(reader)
    firmware = None if reader is None else read_firmware(reader, table)
    return ImageFacts(
        path=str(identity.path),
        format=identity.format,
        noun=identity.noun,
        file_size=status.st_size,
        disk_size=status.st_blocks * 512,
        virtual_size=reader.virtual_size if reader else identity.virtual_size,
        data_size=sum(extent.length for extent in reader.extents()) if reader else None,
        backing_file=identity.backing_file,
        refused=refused,
        table=table,
        volumes=volumes,
        firmware=firmware,
    )


def look_inside(reader: ImageReader) -> tuple[PartitionTable | None, tuple[Volume, ...]]:
    """Return the partition table of a disk, if it has one, and the filesystems on it."""
    whole = probe(reader)
    table = None if whole is not None and whole.type in _BOOT_SECTOR else read_partitions(reader)
    if table is None:
        return None, (Volume(partition=None, filesystem=whole),) if whole else ()
    probed = [(part.number, probe(window(reader, part.start, part.size))) for part in table.partitions]
    return table, tuple(Volume(partition=number, filesystem=found) for number, found in probed if found)


def describe(facts: ImageFacts) -> str:
    """Return the facts as lines for a person."""
    lines = [f"{facts.path}: {facts.noun}"]
    sizes = [f"file {format_size(facts.file_size)}", f"on disk {format_size(facts.disk_size)}"]
    if facts.virtual_size is not None:
        sizes.insert(0, f"disk {format_size(facts.virtual_size)}")
    if facts.data_size is not None:
        sizes.append(f"data {format_size(facts.data_size)}")
    lines.append(f"  sizes: {', '.join(sizes)}")
    if facts.refused is not None:
        return "\n".join([*lines, f"  not opened: {facts.refused}"])
    found = {volume.partition: volume.filesystem for volume in facts.volumes}
    if facts.table is None:
        lines.append("  no partition table")
        lines += [f"  whole disk: {_volume(filesystem)}" for filesystem in found.values()]
        return "\n".join(lines)
    kind = f"{facts.table.kind.upper()}{' (hybrid)' if facts.table.hybrid else ''}"
    lines.append(f"  partition table: {kind}, sectors of {facts.table.sector_size} bytes, {facts.table.uuid}")
    for partition in facts.table.partitions:
        name = f" {partition.name!r}" if partition.name else ""
        where = f"{format_size(partition.size)} at byte {partition.start}"
        holds = f"; {_volume(found[partition.number])}" if partition.number in found else ""
        boots = ", bootable" if partition.bootable else ""
        lines.append(f"  {partition.number:3}: {where}, {partition.type_name}{name}{boots}{holds}")
    lines += [f"  boots by {_firmware(facts.firmware)}"] if facts.firmware else []
    lines += [f"  problem: {problem}" for problem in facts.table.problems]
    return "\n".join(lines)


def _firmware(found: Firmware) -> str:
    """Say what a BIOS and a UEFI find to start."""
    why = found.bios_problem or "there is no boot code"
    bios = f"BIOS ({found.boot_code})" if found.bios else f"BIOS: no, {why}"
    if found.esp is None:
        uefi = "UEFI: no, there is no ESP"
    elif found.uefi:
        uefi = f"UEFI ({', '.join(found.fallbacks)} on partition {found.esp})"
    else:
        uefi = f"UEFI: no, partition {found.esp} has no EFI/BOOT/BOOT*.EFI"
    return f"{bios}; {uefi}"


def _volume(filesystem: Filesystem) -> str:
    label = f", label {filesystem.label!r}" if filesystem.label else ""
    identity = f", UUID {filesystem.uuid}" if filesystem.uuid else ""
    return f"{filesystem.type}{label}{identity}"
