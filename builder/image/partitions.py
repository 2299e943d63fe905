"""MBR and GPT partition tables, read without trust.

Layouts: UEFI Specification 2.10, chapter 5 (GPT, protective MBR); for extended partitions the chain of boot records
that Linux reads (block/partitions/msdos.c), whose numbering this follows.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from builder.image.identity import printable
from builder.image.stream import ImageReader

_SIGNATURE = b"EFI PART"
_EXTENDED = (0x05, 0x0F, 0x85)
_CONTAINERS = tuple(f"{kind:#04x}" for kind in _EXTENDED)
_PROTECTIVE = 0xEE
_LOGICAL_LIMIT = 128
_ENTRIES_LIMIT = 1 << 20  # bytes of GPT entries; the usual 128 entries have 16 KiB
_LEGACY_BOOTABLE = 1 << 2  # GPT attribute: "legacy BIOS bootable"

# The types that images have, in sgdisk's and sfdisk's words; others show their code alone.
TYPES = {
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system",
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux filesystem",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux extended boot",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)",
    "b921b045-1df0-41c3-af44-4c6f280d3fae": "Linux root (ARM-64)",
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "Linux home",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PowerPC PReP boot",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
    "5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6": "Flatcar /usr",
    "3884dd41-8582-4404-b9a8-e9b84f2df50e": "Flatcar root",
    "c95dc21a-df0e-4340-8d7b-26cbfa9a03e0": "Flatcar OEM",
    "0x07": "NTFS or exFAT",
    "0x0b": "FAT32",
    "0x0c": "FAT32",
    "0x82": "Linux swap",
    "0x83": "Linux",
    "0x8e": "Linux LVM",
    "0xef": "EFI system",
    "0xfd": "Linux RAID",
}


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition; `start` and `size` in bytes, `type` a GUID (GPT) or a hexadecimal byte (MBR)."""

    number: int
    start: int
    size: int
    type: str
    name: str = ""
    uuid: str = ""
    bootable: bool = False

    @property
    def type_name(self) -> str:
        """What the type means, or its code."""
        return TYPES.get(self.type, self.type)


@dataclass(frozen=True, kw_only=True)
class PartitionTable:
    """A partition table; `problems` says in a clause each what is wrong with it but did not keep it from being read."""

    kind: Literal["gpt", "mbr"]
    sector_size: int
    uuid: str
    partitions: tuple[Partition, ...]
    hybrid: bool = False
    problems: tuple[str, ...] = ()


def is_container(partition: Partition) -> bool:
    """Say whether it is an extended partition: not content, but room for logical partitions."""
    return partition.type in _CONTAINERS


def read_partitions(reader: ImageReader) -> PartitionTable | None:
    """Return the disk's partition table, or None when it has none.

    A GPT whose first copy is damaged is read from its second; one beside an MBR that does not announce it is left over
    and not used, as in Linux. Partitions that do not lie on the disk are left out and told as problems, so that every
    partition returned can be opened as a window.
    """
    boot = reader.pread(512, 0)
    mbr = _mbr(reader, boot)
    gpt = _gpt(reader, hybrid=_is_hybrid(boot))
    if mbr is not None and gpt is not None:
        mbr = replace(mbr, problems=(*mbr.problems, "the GPT beside its MBR is left over, and was not used"))
    table = mbr or gpt  # there is no MBR where a protective entry announces a GPT
    return None if table is None else _checked(table, reader.virtual_size)


def _checked(table: PartitionTable, disk_size: int) -> PartitionTable:
    good: list[Partition] = []
    problems = list(table.problems)
    for partition in sorted(table.partitions, key=lambda found: found.start):
        if partition.size <= 0 or partition.start + partition.size > disk_size:
            problems.append(f"partition {partition.number} does not lie on the disk")
            continue
        good.append(partition)
    real = [partition for partition in good if not is_container(partition)]
    for before, after in pairwise(real):
        if after.start < before.start + before.size:
            problems.append(f"partitions {before.number} and {after.number} overlap")
    good.sort(key=lambda found: found.number)
    return replace(table, partitions=tuple(good), problems=tuple(problems))


def _gpt(reader: ImageReader, *, hybrid: bool) -> PartitionTable | None:
    problems = []
    for sector in (512, 4096):
        if reader.pread(8, sector) == _SIGNATURE:
            if table := _gpt_at(reader, sector, sector):
                return replace(table, hybrid=hybrid)
            problems.append("the first copy of the GPT is damaged, the second was used")
    for sector in (512, 4096):
        last = reader.virtual_size // sector * sector - sector
        if last > 0 and (table := _gpt_at(reader, last, sector)):
            missing = ["the first copy of the GPT is missing, the second was used"]
            return replace(table, hybrid=hybrid, problems=tuple(problems or missing))
    return None


def _gpt_at(reader: ImageReader, at: int, sector: int) -> PartitionTable | None:
    """Return the table whose header is at byte `at`, or None unless its checksums are right."""
    header = reader.pread(sector, at)
    if header[:8] != _SIGNATURE:
        return None
    size, told = struct.unpack_from("<II", header, 12)
    if not 92 <= size <= sector or zlib.crc32(header[:16] + bytes(4) + header[20:size]) != told:
        return None
    own, _, _, _ = struct.unpack_from("<QQQQ", header, 24)
    entries_at, count, entry_size, entries_crc = struct.unpack_from("<QIII", header, 72)
    if own * sector != at or entry_size < 128 or count * entry_size > _ENTRIES_LIMIT:
        return None
    if entries_at * sector + count * entry_size > reader.virtual_size:
        return None
    entries = reader.pread(count * entry_size, entries_at * sector)
    if zlib.crc32(entries) != entries_crc:
        return None
    found = (_gpt_entry(entries[n * entry_size : n * entry_size + 128], n + 1, sector) for n in range(count))
    return PartitionTable(
        kind="gpt",
        sector_size=sector,
        uuid=_guid(header[56:72]),
        partitions=tuple(partition for partition in found if partition is not None),
    )


def _gpt_entry(entry: bytes, number: int, sector: int) -> Partition | None:
    if not any(entry[:16]):
        return None
    first, last, attributes = struct.unpack_from("<QQQ", entry, 32)
    return Partition(
        number=number,
        start=first * sector,
        size=(last - first + 1) * sector,
        type=_guid(entry[:16]),
        name=printable(entry[56:128].decode("utf-16-le", errors="replace").split("\0", 1)[0]),
        uuid=_guid(entry[16:32]),
        bootable=bool(attributes & _LEGACY_BOOTABLE),
    )


def _guid(data: bytes) -> str:
    return str(uuid.UUID(bytes_le=data))


@dataclass(frozen=True)
class _Slot:
    """One of the four entries of a boot record; sectors of 512 bytes."""

    bootable: bool
    type: int
    first: int
    count: int


def _slots(record: bytes) -> list[_Slot]:
    """Return the entries of a boot record, none when it is no boot record."""
    if len(record) < 512 or record[510:512] != b"\x55\xaa":
        return []
    entries = [struct.unpack_from("<B3xB3xII", record, at) for at in range(446, 510, 16)]
    if any(status not in (0, 0x80) for status, *_ in entries):
        return []
    return [_Slot(status == 0x80, kind, first, count) for status, kind, first, count in entries]


def _is_hybrid(boot: bytes) -> bool:
    kinds = [slot.type for slot in _slots(boot) if slot.type]
    return _PROTECTIVE in kinds and any(kind != _PROTECTIVE for kind in kinds)


def _mbr(reader: ImageReader, boot: bytes) -> PartitionTable | None:
    slots = [(number, slot) for number, slot in enumerate(_slots(boot), 1) if slot.type and slot.count]
    if not slots or any(slot.type == _PROTECTIVE for _, slot in slots):
        return None
    disk = boot[440:444][::-1].hex()
    found = [_mbr_partition(number, slot, 0, disk) for number, slot in slots]
    problems: list[str] = []
    for _, slot in slots:
        if slot.type in _EXTENDED:
            found += _logical(reader, slot.first, disk, problems)
            break
    return PartitionTable(kind="mbr", sector_size=512, uuid=disk, partitions=tuple(found), problems=tuple(problems))


def _mbr_partition(number: int, slot: _Slot, base: int, disk: str) -> Partition:
    return Partition(
        number=number,
        start=(base + slot.first) * 512,
        # The extended partition is a container: Linux shows its boot record only, so that nobody takes it for content.
        size=1024 if slot.type in _EXTENDED else slot.count * 512,
        type=f"{slot.type:#04x}",
        uuid=f"{disk}-{number:02x}",
        bootable=slot.bootable,
    )


def _logical(reader: ImageReader, base: int, disk: str, problems: list[str]) -> Iterator[Partition]:
    """Yield the logical partitions of the extended partition at sector `base`, numbered from 5."""
    at, seen, number = base, set[int](), 5
    while at not in seen and at * 512 < reader.virtual_size:
        if len(seen) == _LOGICAL_LIMIT:
            problems.append(f"it has more than {_LOGICAL_LIMIT} logical partitions")
            return
        seen.add(at)
        following = None
        for slot in _slots(reader.pread(512, at * 512)):
            if slot.type in _EXTENDED and slot.count and following is None:
                following = base + slot.first
            elif slot.type and slot.type not in _EXTENDED and slot.count:
                yield _mbr_partition(number, slot, at, disk)
                number += 1
        if following is None:
            return
        at = following
    problems.append("its chain of extended partitions runs in a circle or off the disk")
