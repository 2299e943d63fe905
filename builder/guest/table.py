"""Partition tables changed: the size of one partition and of the disk, and not one other bit.

Pure: the disk is read through a reader, and what to write comes out as values. Numbers, types, names, attributes and
PARTUUIDs stay, since entries are changed in place. Layouts: see builder/image/partitions.py, which reads them; CHS
addresses as fdisk writes them (255 heads, 63 sectors).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from builder.errors import GuestError
from builder.guest.layout import (
    PROTECTIVE,
    SECTOR,
    DiskReader,
    Layout,
    Record,
    container_of,
    logical_records,
    primary_records,
    read_layout,
    records,
)

_MBR_SECTORS = 0xFFFFFFFF  # what 32 bits count: 2 TiB


@dataclass(frozen=True, kw_only=True)
class Write:
    """Bytes to put at an offset of the disk."""

    offset: int
    data: bytes


def resized(reader: DiskReader, *, disk: int, number: int | None = None, size: int | None = None) -> list[Write]:
    """Return what to write, in this order, so that the disk's table is right for a disk of `disk` bytes.

    With a `number`, that partition has `size` bytes afterwards. What lies further back is written first: the second
    copy of a GPT before the first, so that one of them is always whole. Raises GuestError when a partition would not
    lie on the disk, or when the table cannot say it.
    """
    layout = read_layout(reader)
    if layout.problem:
        raise GuestError(f"the partition table is not changed: {layout.problem}")
    if layout.kind == "gpt":
        return _joined(reader, _gpt_writes(reader, layout, disk, number, size))
    return _joined(reader, _mbr_writes(reader, disk, number, size) if layout.kind == "mbr" else [])


def _joined(reader: DiskReader, writes: Sequence[Write]) -> list[Write]:
    """Return whole sectors, those in a row as one write, the last first: each write has udev look at the disk anew."""
    sectors: dict[int, bytearray] = {}
    for write in writes:
        at, data = write.offset, write.data
        while data:
            number, within = divmod(at, SECTOR)
            part, data = data[: SECTOR - within], data[SECTOR - within :]
            if number not in sectors:
                sectors[number] = bytearray(reader.pread(SECTOR, number * SECTOR))
            sectors[number][within : within + len(part)] = part
            at += len(part)
    rows: list[list[int]] = []
    for number in sorted(sectors):
        if rows and rows[-1][-1] == number - 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return [
        Write(offset=row[0] * SECTOR, data=b"".join(bytes(sectors[number]) for number in row)) for row in reversed(rows)
    ]


def _gpt_writes(reader: DiskReader, layout: Layout, disk: int, number: int | None, size: int | None) -> list[Write]:
    sector = layout.sector
    first = bytearray(reader.pread(sector, sector))
    (length,) = struct.unpack_from("<I", first, 12)
    entries_at, count, entry_size = struct.unpack_from("<QII", first, 72)
    entries = bytearray(reader.pread(count * entry_size, entries_at * sector))
    if number is not None and size is not None:
        at = (number - 1) * entry_size
        (start,) = struct.unpack_from("<Q", entries, at + 32)
        struct.pack_into("<Q", entries, at + 40, start + size // sector - 1)
    (old,) = struct.unpack_from("<Q", first, 32)
    last = disk // sector - 1
    array = -(-len(entries) // sector)
    used = max((struct.unpack_from("<Q", entries, at + 40)[0] for at in _used(entries, entry_size)), default=0)
    if used >= last - array:
        raise GuestError(f"a partition ends at byte {(used + 1) * sector}, and the disk is to have {disk} bytes")
    struct.pack_into("<QQ", first, 24, 1, last)
    struct.pack_into("<Q", first, 48, last - array - 1)
    struct.pack_into("<I", first, 88, zlib.crc32(entries))
    second = bytearray(first)
    struct.pack_into("<QQ", second, 24, last, 1)
    struct.pack_into("<Q", second, 72, last - array)
    writes = [] if old == last else _gpt_wiped(layout, old, array, reader)
    # Where the disk is to shrink, both copies lie on it now and afterwards.
    writes += [
        Write(offset=(last - array) * sector, data=bytes(entries)),
        Write(offset=last * sector, data=_sealed(second, length)),
        Write(offset=entries_at * sector, data=bytes(entries)),
        Write(offset=sector, data=_sealed(first, length)),
    ]
    return [*writes, *_protective(reader, last)]


def _used(entries: bytearray, entry_size: int) -> list[int]:
    return [at for at in range(0, len(entries), entry_size) if any(entries[at : at + 16])]


def _gpt_wiped(layout: Layout, old: int, array: int, reader: DiskReader) -> list[Write]:
    """Return what wipes the second copy that will be in the midst of the disk, unless that is not one's own."""
    start, end = (old - array) * layout.sector, (old + 1) * layout.sector
    taken = any(slot.start < end and start < slot.end for slot in layout.slots)
    if start <= layout.sector or taken or reader.pread(8, old * layout.sector) != b"EFI PART":
        return []
    return [Write(offset=start, data=bytes(end - start))]


def _sealed(header: bytearray, length: int) -> bytes:
    struct.pack_into("<I", header, 16, 0)
    struct.pack_into("<I", header, 16, zlib.crc32(header[:length]))
    return bytes(header)


def _protective(reader: DiskReader, last: int) -> list[Write]:
    return [
        Write(offset=entry.at + 12, data=struct.pack("<I", min(last, _MBR_SECTORS)))
        for entry in records(reader, 0)[:1]
        if entry.type == PROTECTIVE
    ]


def _mbr_writes(reader: DiskReader, disk: int, number: int | None, size: int | None) -> list[Write]:
    primaries = primary_records(reader)
    container = container_of(primaries)
    chain = logical_records(reader, container) if container else []
    ends = {link.number: link.entry.first + link.entry.count for link in chain}
    writes: list[Write] = []
    if number is not None and size is not None:
        chosen = next((link for link in chain if link.number == number), None)
        entry = chosen.entry if chosen else dict(primaries)[number]
        writes += _counted(entry, size // SECTOR)
        if chosen:
            ends[number] = entry.first + size // SECTOR
            if chosen.link:
                writes += _counted(chosen.link, ends[number] - chosen.record)
        else:
            primaries = [(each, replace(found, count=size // SECTOR) if each == number else found)
                         for each, found in primaries]  # fmt: skip
    inner = max(ends.values(), default=0)
    # The container follows what it holds: further out where that grew, back where the disk is to end before it.
    if container and (inner > container.first + container.count or container.first + container.count > disk // SECTOR):
        writes = [*_counted(container, max(inner - container.first, 1)), *writes]
        primaries = [(each, found) for each, found in primaries if found.at != container.at]
    end = max((inner, *(entry.first + entry.count for _, entry in primaries)))
    if end > disk // SECTOR:
        raise GuestError(f"a partition ends at byte {end * SECTOR}, and the disk is to have {disk} bytes")
    return writes


def _counted(entry: Record, count: int) -> list[Write]:
    if entry.first + count > _MBR_SECTORS:
        raise GuestError(
            "a MBR reaches no further than 2 TiB",
            hint="Larger partitions need a disk with a GPT: `assemble` makes one.",
        )
    end = _chs(entry.first + count - 1)
    return [Write(offset=entry.at + 5, data=end), Write(offset=entry.at + 12, data=struct.pack("<I", count))]


def _chs(sector: int) -> bytes:
    cylinder, rest = divmod(sector, 255 * 63)
    head, inside = divmod(rest, 63)
    if cylinder > 1023:
        cylinder, head, inside = 1023, 254, 62
    return bytes((head, (cylinder >> 2 & 0xC0) | (inside + 1), cylinder & 0xFF))
