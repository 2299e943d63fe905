"""Which part of a disk is meant: a partition by its number, label or type.

What only a look inside can tell (a root, a logical volume, a subvolume) is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from builder.errors import InputError
from builder.image.identity import printable
from builder.image.inspect import Volume, look_inside
from builder.image.partitions import TYPES, Partition, PartitionTable, is_container
from builder.image.stream import ImageReader
from builder.units import format_size

_LISTED = 20  # partitions or volumes named in a message; a GPT may have thousands
LVM_MEMBER = "LVM2_member"
_BYTE = re.compile(r"(?:0x)?([0-9a-f]{1,2})")
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VOLUME = re.compile(r"[A-Za-z0-9+_.-]+/[A-Za-z0-9+_.-]+")  # lvm(8): what names may hold


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to take: one of the first five says it; `subvolume` stands alone, or beside one that is not `root`."""

    partition: int | None = None
    root: bool = False
    label: str | None = None  # of a filesystem, or the name of a GPT partition
    type: str | None = None  # a GUID, a byte, or what either is called
    volume: str | None = None  # GROUP/NAME
    subvolume: str | None = None  # as `btrfs subvolume list` shows it

    def problems(self) -> Sequence[str]:
        """Return what is wrong with the choice itself, a sentence each."""
        chosen = [f"`{name}`" for name in _CHOICES if getattr(self, name) not in (None, False)]
        if not chosen and self.subvolume is None:
            every = ", ".join(f"`{name}`" for name in _CHOICES)
            return (f"nothing says which part of the disk: give one of {every}, `subvolume`",)
        wrong = []
        if len(chosen) > 1:
            wrong.append(f"{' and '.join(chosen)} each say which part of the disk: give one of them")
        if self.subvolume is not None and self.root:
            wrong.append("`root` finds the subvolume by itself: leave `root` or `subvolume` out")
        if self.volume is not None and not _VOLUME.fullmatch(self.volume):
            wrong.append(f"`volume` is GROUP/NAME, and {self.volume!r} is not")
        if self.type is not None and _type_code(self.type) is None:
            known = ", ".join(sorted(set(TYPES.values())))
            wrong.append(f"{self.type!r} is no partition type: a GUID, a byte such as 0x83, or one of {known}")
        wrong += [
            f"`{name}` is empty" for name in ("label", "type", "volume", "subvolume") if getattr(self, name) == ""
        ]
        return tuple(wrong)

    @property
    def inside(self) -> bool:
        """Say whether only the appliance can tell."""
        return self.root or self.volume is not None or self.subvolume is not None

    def __str__(self) -> str:
        said = "the root" if self.root else ""
        for name in ("partition", "label", "type", "volume", "subvolume"):
            if (value := getattr(self, name)) is not None:
                said += f"{' ' if said else ''}{name} {value}"
        return said


_CHOICES = ("partition", "root", "label", "type", "volume")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Bytes `offset` to `offset + size` of a disk, and what they are, for people; `number` None is the whole disk."""

    number: int | None
    offset: int
    size: int
    title: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A disk's partition table and filesystems, as they can be seen without mounting anything."""

    size: int
    table: PartitionTable | None
    volumes: tuple[Volume, ...]

    @classmethod
    def of(cls, reader: ImageReader) -> Layout:
        """Look at a disk; some kilobytes are read."""
        table, volumes = look_inside(reader)
        return cls(size=reader.virtual_size, table=table, volumes=volumes)

    @property
    def has_lvm(self) -> bool:
        """Say whether physical volumes are on it, so that there may be filesystems that cannot be seen from here."""
        return any(volume.filesystem.type == LVM_MEMBER for volume in self.volumes)

    def place(self, number: int | None) -> Place | None:
        """Return where partition `number` lies, None being the whole disk."""
        if number is None:
            return Place(number=None, offset=0, size=self.size, title=f"the whole disk ({self._filesystem(None)})")
        for part in self.table.partitions if self.table else ():
            if part.number == number:
                return Place(number=number, offset=part.start, size=part.size, title=self.title(part))
        return None

    def title(self, part: Partition) -> str:
        """Return what a person should know of a partition."""
        name = f" {part.name!r}" if part.name else ""
        return (
            f"partition {part.number}{name} ({format_size(part.size)}, {part.type_name},"
            f" {self._filesystem(part.number)})"
        )

    def _filesystem(self, number: int | None) -> str:
        for volume in self.volumes:
            if volume.partition == number:
                label = f" labelled {volume.filesystem.label}" if volume.filesystem.label else ""
                return f"{volume.filesystem.type}{label}"
        return "no known filesystem"

    def __str__(self) -> str:
        if self.table is None:
            return f"no partition table, {self._filesystem(None)}"
        titles = [self.title(part) for part in self.table.partitions]
        return listed([*(titles or ["no partitions"]), *self.table.problems], "; ")


def find(layout: Layout, wanted: Wanted) -> Place | None:
    """Return the part that is meant, or None when only a look inside the disk can tell.

    Raises InputError when there is none, or more than one; it says what there is.
    """
    if wanted.partition is not None:
        return _by_number(layout, wanted.partition)
    if wanted.label is not None:
        return _by_label(layout, wanted.label)
    if wanted.type is not None:
        return _by_type(layout, wanted.type)
    return None


def listed(names: Sequence[str], between: str = ", ") -> str:
    """Return what an untrusted image has, fit for a message: not endless, and nothing that steers a terminal."""
    first = [printable(name) for name in names[:_LISTED]]
    return between.join([*first, *([f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else [])])


def _by_number(layout: Layout, number: int) -> Place:
    parts = layout.table.partitions if layout.table else ()
    chosen = [part for part in parts if part.number == number]
    if not chosen:
        raise _none(layout, f"partition {number}")
    if is_container(chosen[0]):
        raise InputError(
            f"partition {number} is the extended partition, which only holds others; there is {layout}",
            hint="Logical partitions begin at number 5.",
        )
    return _only(layout, chosen, f"partition {number}")


def _by_label(layout: Layout, label: str) -> Place | None:
    labelled = {volume.partition for volume in layout.volumes if volume.filesystem.label == label}
    if layout.table is None:
        if labelled:
            return layout.place(None)
    else:
        chosen = [part for part in layout.table.partitions if part.number in labelled or part.name == label]
        if chosen:
            return _only(layout, chosen, f"label {label}")
    if layout.has_lvm:
        return None
    raise _none(layout, f"partition or filesystem labelled {label}")


def _by_type(layout: Layout, wanted: str) -> Place:
    codes = _type_code(wanted) or ()
    parts = layout.table.partitions if layout.table else ()
    chosen = [part for part in parts if part.type in codes and not is_container(part)]
    if not chosen:
        raise _none(layout, f"partition of type {wanted}")
    return _only(layout, chosen, f"type {wanted}")


def _only(layout: Layout, chosen: Sequence[Partition], said: str) -> Place:
    if len(chosen) > 1:
        which = listed([layout.title(part) for part in chosen], "; ")
        raise InputError(
            f"{said} is {len(chosen)} partitions, and no way to know which is meant: {which}",
            hint="Say which by `partition:`, its number.",
        )
    place = layout.place(chosen[0].number)
    assert place is not None
    return place


def _none(layout: Layout, said: str) -> InputError:
    return InputError(f"the disk has no {said}; there is {layout}", hint="`emi inspect IMAGE` shows the disk.")


def _type_code(said: str) -> Sequence[str] | None:
    """Return the codes, as tables are read here, that a type's code or name stands for; None when it is neither."""
    word = said.strip().lower()
    if _GUID.fullmatch(word):
        return (word,)
    if found := _BYTE.fullmatch(word):
        return (f"{int(found[1], 16):#04x}",)
    return tuple(code for code, name in TYPES.items() if name.lower() == word) or None
