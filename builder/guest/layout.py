"""How a disk is laid out: its partitions, the room behind each, and what their filesystems take. Read without trust.

Layouts: see builder/image/partitions.py; here is what a change of the table needs beyond that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from builder.image.filesystems import Filesystem
from builder.image.inspect import look_inside
from builder.image.partitions import PartitionTable
from builder.image.stream import Extent

MIB = 1 << 20

_EXTENDED = (0x05, 0x0F, 0x85)
_EXTENDED_WORDS = tuple(f"{kind:#04x}" for kind in _EXTENDED)
PROTECTIVE = 0xEE
SECTOR = 512  # of a MBR, always
_LOGICAL_LIMIT = 128
_AT_ONCE = 128 << 10  # bytes: a table, or every superblock of a partition, where that begins at a whole MiB


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
    sector: int = SECTOR
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
class Record:
    """An entry of a boot record: where it lies, what it is, and the sectors it names, from the disk's begin."""

    at: int
    type: int
    first: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Logical:
    """A logical partition: its boot record's sector, its entry there, and the entry of the record before that links."""

    number: int
    record: int
    entry: Record
    link: Record | None


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
    primaries = primary_records(reader)
    spans = [(entry.first * SECTOR, f"partition {number}") for number, entry in primaries]
    slots = [_bounded(_mbr_slot(number, entry), spans) for number, entry in primaries]
    container = container_of(primaries)
    if container is None:
        return slots
    around = next(slot for slot in slots if slot.start == container.first * SECTOR)
    chain = logical_records(reader, container)
    inner = [(link.record * SECTOR, f"partition {link.number}") for link in chain]
    logical = [
        _bounded(_mbr_slot(link.number, link.entry), inner, last=(around.limit, around.neighbour)) for link in chain
    ]
    return [*slots, *logical]


def _mbr_slot(number: int, entry: Record) -> Slot:
    return Slot(number=number, start=entry.first * SECTOR, size=entry.count * SECTOR, type=f"{entry.type:#04x}")


def records(reader: DiskReader, sector: int, *, base: int = 0) -> list[Record]:
    """Return the four entries of the boot record at a sector; none when it is no boot record."""
    data = reader.pread(SECTOR, sector * SECTOR)
    if data[510:512] != b"\x55\xaa":
        return []
    found = []
    for at in range(446, 510, 16):
        kind, first, count = struct.unpack_from("<4xB3xII", data, at)
        found.append(Record(at=sector * SECTOR + at, type=kind, first=base + first, count=count))
    return found


def primary_records(reader: DiskReader) -> list[tuple[int, Record]]:
    """Return the entries of the disk's own boot record that are in use, with their numbers."""
    return [(number, entry) for number, entry in enumerate(records(reader, 0), 1) if entry.type and entry.count]


def container_of(primaries: Sequence[tuple[int, Record]]) -> Record | None:
    """Return the extended partition, if there is one."""
    return next((entry for _, entry in primaries if entry.type in _EXTENDED), None)


def logical_records(reader: DiskReader, container: Record) -> list[Logical]:
    """Return the logical partitions, numbered from 5 as Linux does."""
    found: list[Logical] = []
    at, link, seen = container.first, None, set[int]()
    while at not in seen and len(seen) < _LOGICAL_LIMIT and at * SECTOR < reader.virtual_size:
        seen.add(at)
        following: Record | None = None
        for entry in records(reader, at, base=at):
            if not entry.type or not entry.count:
                continue
            if entry.type not in _EXTENDED:
                found.append(Logical(number=5 + len(found), record=at, entry=entry, link=link))
            elif following is None:
                following = replace(entry, first=container.first + entry.first - at)
        if following is None:
            break
        at, link = following.first, following
    return found
