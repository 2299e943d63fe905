"""Partition tables changed: the size of one partition and of the disk, and not one other bit.

Pure: the disk is read through a reader, and what to write comes out as values. Numbers, types, names, attributes and
PARTUUIDs stay, since entries are changed in place. Layouts: see builder/image/partitions.py, which reads them; CHS
addresses as fdisk writes them (255 heads, 63 sectors).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from builder.errors import GuestError
from builder.image.filesystems import Filesystem
from builder.image.inspect import look_inside
from builder.image.partitions import PartitionTable
from builder.image.stream import Extent

MIB = 1 << 20

_EXTENDED = (0x05, 0x0F, 0x85)
_EXTENDED_WORDS = tuple(f"{kind:#04x}" for kind in _EXTENDED)
_PROTECTIVE = 0xEE
_SECTOR = 512  # of a MBR, always
_MBR_SECTORS = 0xFFFFFFFF  # what 32 bits count: 2 TiB
_LOGICAL_LIMIT = 128
_AT_ONCE = 128 << 10  # bytes: a table, or every superblock of a partition, where that begins at a whole MiB


@dataclass(frozen=True, kw_only=True)
class Write:
    """Bytes to put at an offset of the disk."""

    offset: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A partition and its room, in bytes; `number` is None for a disk that is one filesystem, without a table.

    `limit` is where the next thing begins, `neighbour`; None when that is the end of the disk.
    """

    number: int | None
    start: int
    size: int
    type: str = ""  # what the table says: a GUID, or 0x83
    limit: int | None = None
    neighbour: str = ""
    filesystem: str = ""  # its type, as blkid says it
    filled: int = 0  # bytes that its filesystem takes, by its superblock; 0 when that is not known

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size

    @property
    def is_extended(self) -> bool:
        """Say whether it is what holds the logical partitions of a MBR."""
        return self.type in _EXTENDED_WORDS


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A disk: its size, its table (`gpt`, `mbr` or none), the bytes at its end that the table needs, its partitions.

    `problem` says why its table is not to be changed; empty when it may be.
    """

    size: int
    kind: str = ""
    sector: int = _SECTOR
    tail: int = 0
    slots: tuple[Slot, ...] = ()
    problem: str = ""

    def slot(self, number: int | None) -> Slot | None:
        """Return the partition of that number."""
        return next((slot for slot in self.slots if slot.number == number), None)

    def reach(self, slot: Slot, disk: int) -> int:
        """Return how far that partition could reach on a disk of that size: the first byte it cannot have."""
        return slot.limit if slot.limit is not None else (disk - self.tail) // self.sector * self.sector

    def needed(self, changed: Slot) -> int:
        """Return the bytes that a disk needs for its partitions, that one as it is given, and for its table."""
        others = (slot for slot in self.slots if slot.number != changed.number and not slot.is_extended)
        return max((changed.end, *(slot.end for slot in others))) + self.tail

    def least(self, changed: Slot) -> int:
        """Return the smallest disk for its partitions: to a whole MiB, but never larger than it is."""
        needed = self.needed(changed)
        return min(-(-needed // MIB) * MIB, max(self.size, needed))


class DiskReader:
    """The disk, as the readers of tables and superblocks want it: an ImageReader that is all data.

    It remembers what it has read, since each question costs the appliance more than what it brings.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        """Read by `read(length, offset)`, which gives zeros past the end."""
        self._read = read
        self._known: dict[int, bytes] = {}
        self.virtual_size = size

    def pread(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes from `offset`, zeros past the end."""
        first, last = offset // _AT_ONCE, -(-(offset + length) // _AT_ONCE)
        data = b"".join(self._piece(number) for number in range(first, last))
        return data[offset - first * _AT_ONCE :][:length]

    def _piece(self, number: int) -> bytes:
        if number not in self._known:
            self._known[number] = self._read(_AT_ONCE, number * _AT_ONCE)
        return self._known[number]

    def extents(self) -> Iterator[Extent]:
        """Yield the whole disk."""
        yield Extent(0, self.virtual_size)

    def close(self) -> None:
        """Do nothing: the disk is another's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class _Record:
    """An entry of a boot record: where it lies, what it is, and the sectors it names, from the disk's begin."""

    at: int
    type: int
    first: int
    count: int


@dataclass(frozen=True, kw_only=True)
class _Logical:
    """A logical partition: its boot record's sector, its entry there, and the entry of the record before that links."""

    number: int
    record: int
    entry: _Record
    link: _Record | None


def read_layout(reader: DiskReader) -> Layout:
    """Return how the disk is laid out, read without trust."""
    table, volumes = look_inside(reader)
    held = {volume.partition: volume.filesystem for volume in volumes}
    if table is None:
        whole = held.get(None) or Filesystem(type="")
        # What the disk has beyond its filesystem is room: a partition could be as much larger.
        size = whole.size if 0 < whole.size < reader.virtual_size else reader.virtual_size
        slot = Slot(number=None, start=0, size=size, filesystem=whole.type, filled=whole.size)
        return Layout(size=reader.virtual_size, slots=(slot,))
    tail = _gpt_tail(reader, table.sector_size) if table.kind == "gpt" else 0
    slots = _mbr_slots(reader) if table.kind == "mbr" else _gpt_slots(table)
    found = (
        replace(slot, filesystem=held[slot.number].type, filled=held[slot.number].size) if slot.number in held else slot
        for slot in slots
    )
    return Layout(
        size=reader.virtual_size,
        kind=table.kind,
        sector=table.sector_size,
        tail=tail,
        slots=tuple(found),
        problem=_problem(table),
    )


def _problem(table: PartitionTable) -> str:
    if table.hybrid:
        return "it is a hybrid of GPT and MBR, which name the same partitions twice"
    return "; ".join(table.problems)


def _gpt_tail(reader: DiskReader, sector: int) -> int:
    count, size = struct.unpack_from("<II", reader.pread(sector, sector), 80)
    return sector + -(-int(count * size) // sector) * sector


def _gpt_slots(table: PartitionTable) -> list[Slot]:
    spans = [(part.start, f"partition {part.number} ({part.type_name})") for part in table.partitions]
    return [
        _bounded(Slot(number=part.number, start=part.start, size=part.size, type=part.type), spans)
        for part in table.partitions
    ]


def _bounded(slot: Slot, spans: Sequence[tuple[int, str]], *, last: tuple[int | None, str] = (None, "")) -> Slot:
    limit, neighbour = min((span for span in spans if span[0] > slot.start), default=last)
    return replace(slot, limit=limit, neighbour=neighbour)


def _mbr_slots(reader: DiskReader) -> list[Slot]:
    primaries = _primaries(reader)
    spans = [(entry.first * _SECTOR, f"partition {number}") for number, entry in primaries]
    slots = [_bounded(_mbr_slot(number, entry), spans) for number, entry in primaries]
    container = _container(primaries)
    if container is None:
        return slots
    around = next(slot for slot in slots if slot.start == container.first * _SECTOR)
    chain = _chain(reader, container)
    inner = [(link.record * _SECTOR, f"partition {link.number}") for link in chain]
    logical = [
        _bounded(_mbr_slot(link.number, link.entry), inner, last=(around.limit, around.neighbour)) for link in chain
    ]
    return [*slots, *logical]


def _mbr_slot(number: int, entry: _Record) -> Slot:
    return Slot(number=number, start=entry.first * _SECTOR, size=entry.count * _SECTOR, type=f"{entry.type:#04x}")


def _records(reader: DiskReader, sector: int, *, base: int = 0) -> list[_Record]:
    """Return the four entries of the boot record at a sector; none when it is no boot record."""
    data = reader.pread(_SECTOR, sector * _SECTOR)
    if data[510:512] != b"\x55\xaa":
        return []
    found = []
    for at in range(446, 510, 16):
        kind, first, count = struct.unpack_from("<4xB3xII", data, at)
        found.append(_Record(at=sector * _SECTOR + at, type=kind, first=base + first, count=count))
    return found


def _primaries(reader: DiskReader) -> list[tuple[int, _Record]]:
    return [(number, entry) for number, entry in enumerate(_records(reader, 0), 1) if entry.type and entry.count]


def _container(primaries: Sequence[tuple[int, _Record]]) -> _Record | None:
    return next((entry for _, entry in primaries if entry.type in _EXTENDED), None)


def _chain(reader: DiskReader, container: _Record) -> list[_Logical]:
    """Return the logical partitions, numbered from 5 as Linux does."""
    found: list[_Logical] = []
    at, link, seen = container.first, None, set[int]()
    while at not in seen and len(seen) < _LOGICAL_LIMIT and at * _SECTOR < reader.virtual_size:
        seen.add(at)
        following: _Record | None = None
        for entry in _records(reader, at, base=at):
            if not entry.type or not entry.count:
                continue
            if entry.type not in _EXTENDED:
                found.append(_Logical(number=5 + len(found), record=at, entry=entry, link=link))
            elif following is None:
                following = replace(entry, first=container.first + entry.first - at)
        if following is None:
            break
        at, link = following.first, following
    return found


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
            number, within = divmod(at, _SECTOR)
            part, data = data[: _SECTOR - within], data[_SECTOR - within :]
            if number not in sectors:
                sectors[number] = bytearray(reader.pread(_SECTOR, number * _SECTOR))
            sectors[number][within : within + len(part)] = part
            at += len(part)
    rows: list[list[int]] = []
    for number in sorted(sectors):
        if rows and rows[-1][-1] == number - 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return [
        Write(offset=row[0] * _SECTOR, data=b"".join(bytes(sectors[number]) for number in row))
        for row in reversed(rows)
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
        for entry in _records(reader, 0)[:1]
        if entry.type == _PROTECTIVE
    ]


def _mbr_writes(reader: DiskReader, disk: int, number: int | None, size: int | None) -> list[Write]:
    primaries = _primaries(reader)
    container = _container(primaries)
    chain = _chain(reader, container) if container else []
    ends = {link.number: link.entry.first + link.entry.count for link in chain}
    writes: list[Write] = []
    if number is not None and size is not None:
        chosen = next((link for link in chain if link.number == number), None)
        entry = chosen.entry if chosen else dict(primaries)[number]
        writes += _counted(entry, size // _SECTOR)
        if chosen:
            ends[number] = entry.first + size // _SECTOR
            if chosen.link:
                writes += _counted(chosen.link, ends[number] - chosen.record)
        else:
            primaries = [(each, replace(found, count=size // _SECTOR) if each == number else found)
                         for each, found in primaries]  # fmt: skip
    inner = max(ends.values(), default=0)
    # The container follows what it holds: further out where that grew, back where the disk is to end before it.
    if container and (inner > container.first + container.count or container.first + container.count > disk // _SECTOR):
        writes = [*_counted(container, max(inner - container.first, 1)), *writes]
        primaries = [(each, found) for each, found in primaries if found.at != container.at]
    end = max((inner, *(entry.first + entry.count for _, entry in primaries)))
    if end > disk // _SECTOR:
        raise GuestError(f"a partition ends at byte {end * _SECTOR}, and the disk is to have {disk} bytes")
    return writes


def _counted(entry: _Record, count: int) -> list[Write]:
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
