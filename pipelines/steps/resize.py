"""The step kind `resize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from builder.errors import GuestError
from builder.guest.edits import Edit, Resize, Unchanged
from builder.guest.facts import GuestFacts
from builder.guest.layout import MIB, DiskReader, Layout, Slot, read_layout
from builder.guest.resize import GROWS, LVM, SHRINKS
from builder.units import format_size
from pipelines.step import GuestStep, Options
from pipelines.values import Size

_LARGEST = 64 << 40  # bytes; no cloud has a larger volume
_GRAIN = 4096  # bytes that a partition's size is a multiple of
# What a filesystem may leave over at its end: an ext4 takes no block group that is too small, xfs no such group either.
_LEFT_OVER = 8 * MIB
_NEAR = 32  # a filesystem within a 32nd of its minimum is at it: the smaller it is, the less it needs for itself


How = int | Literal["fill", "minimum", "keep"]


class ResizeOptions(Options):
    """The new sizes."""

    disk: Size | Literal["minimum"] | None = Field(
        default=None,
        description="size of the whole disk; `minimum` is as small as its partitions allow. Without it the disk stays",
    )
    partition: int | None = Field(
        default=None, ge=1, description="the number of the partition to resize, instead of the root filesystem's"
    )
    size: Size | Literal["fill", "minimum", "keep"] | None = Field(
        default=None,
        description="size of the partition and its filesystem: `fill` takes all the room there is (the default), "
        "`minimum` is as small as its files allow (the default with `disk: minimum`), `keep` leaves it",
    )


class ResizeStep(GuestStep[ResizeOptions]):
    """Give the disk, one partition and its filesystem another size, larger or smaller.

    A partition grows into the free room behind it, and shrinks by its end: none is moved, so that numbers, types, names
    and UUIDs stay. `disk: 8 GiB` alone lets the root fill a disk of 8 GiB, `disk: minimum` makes the image as small as
    it can be. ext2, ext3, ext4, btrfs and swap grow and shrink, xfs and LVM's volumes only grow. GPT and MBR tables,
    logical partitions, and disks that are one filesystem without a table. Refused are a hybrid or damaged table, a
    neighbour in the way, files that do not fit, and a damaged filesystem.
    """

    options = ResizeOptions

    def check(self, options: ResizeOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        wrong = []
        if options.disk is None and options.size is None:
            wrong.append("`disk` and `size` are both missing: give the new size of one of them")
        if options.disk == "minimum" and options.size == "fill":
            wrong.append("a disk of minimum size has no room to fill: give `size: keep` or `size: minimum`")
        if isinstance(options.disk, int) and (options.disk % 512 or not 0 < options.disk <= _LARGEST):
            wrong.append(f"`disk` must be a multiple of 512 bytes and at most 64 TiB, not {options.disk} bytes")
        if isinstance(options.size, int) and not MIB <= options.size <= _LARGEST:
            wrong.append(f"`size` must be from 1 MiB to 64 TiB, not {options.size} bytes")
        return wrong

    def edits(self, options: ResizeOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Resize, unless everything has its size already."""
        layout = read_layout(DiskReader(facts.sectors, facts.disk_size))
        if layout.problem:
            raise GuestError(f"the disk's partition table is not changed: {layout.problem}")
        slot = _chosen(options, layout, facts)
        how: How = options.size or ("minimum" if options.disk == "minimum" else "fill")
        if how == "minimum":
            _require_shrinkable(slot)
        disk = options.disk if isinstance(options.disk, int) else layout.size
        size = _wanted(how, disk, layout, slot, facts)
        if options.disk == "minimum":
            disk = layout.least(replace(slot, size=size))
        _require_possible(layout, slot, size, disk)
        if size < slot.size and how != "minimum":
            _require_fitting(slot, size, facts)
        if how == "fill":
            _require_last(layout, slot, disk)
        stays = size == slot.size and (how == "keep" or _is_filled(slot))
        if stays and disk == layout.size:
            return Unchanged(why=_already(slot, disk))
        why = _told(layout, slot, size, disk)
        return (Resize(disk=disk, partition=slot.number, size=None if stays else size, why=why),)


def _chosen(options: ResizeOptions, layout: Layout, facts: GuestFacts) -> Slot:
    """Return the partition that is meant: the one named, the root's, or the only one that LVM has the root in."""
    number = options.partition
    if number is None and layout.kind:
        root = facts.filesystem(facts.root)
        number = root.partition if root else None
        volumes = [found.partition for found in facts.filesystems if found.type == LVM]
        if number is None and len(volumes) == 1:
            number = volumes[0]
        if number is None:
            raise GuestError(
                f"the root is {facts.root}, which lies on {len(volumes)} partitions",
                hint="Say `partition:`; the root's volume is resized only where LVM has one partition.",
            )
    slot = layout.slot(number)
    if slot is None:
        there = ", ".join(str(slot.number) for slot in layout.slots) if layout.kind else "no partition table"
        raise GuestError(f"the disk has no partition {number} to resize; it has {there}")
    if slot.is_extended:
        raise GuestError(f"partition {number} is the extended one, which follows the logical partitions in it")
    return slot


def _wanted(how: How, disk: int, layout: Layout, slot: Slot, facts: GuestFacts) -> int:
    """Return how many bytes the partition shall have."""
    match how:
        case int():
            return -(-how // _GRAIN) * _GRAIN
        case "fill":
            return _filling(layout, slot, disk)
        case "minimum":
            least = -(-facts.least_size(_device(slot, facts)) // MIB) * MIB
            return slot.size if slot.size <= least + max(least // _NEAR, _LEFT_OVER) else least
        case "keep":
            return slot.size


def _filling(layout: Layout, slot: Slot, disk: int) -> int:
    """Return the size that takes all the room, to a whole MiB of the disk; its own if that is about what there is."""
    if slot.number is None:
        return slot.size if disk == layout.size and disk - _LEFT_OVER < slot.size <= disk else disk
    reach = layout.reach(slot, disk)
    whole = reach // MIB * MIB
    return slot.size if whole <= slot.end <= reach else max(whole - slot.start, 0)


def _is_filled(slot: Slot) -> bool:
    """Say whether the filesystem takes its partition, as far as one can know and do something about it."""
    # LVM leaves the old size in its label when it grows.
    told = slot.filesystem in GROWS and slot.filesystem != LVM and slot.filled > 0
    return not told or slot.filled > slot.size - _LEFT_OVER


def _require_shrinkable(slot: Slot) -> None:
    if slot.filesystem not in SHRINKS or slot.filesystem == "swap":
        raise GuestError(
            f"{_name(slot)} cannot be made as small as possible",
            hint="`size: keep` leaves it as it is; ext2, ext3, ext4 and btrfs can be shrunk.",
        )


def _require_possible(layout: Layout, slot: Slot, size: int, disk: int) -> None:
    name, reach = _name(slot), layout.reach(slot, disk)
    if disk % layout.sector:
        raise GuestError(
            f"a disk with sectors of {layout.sector} bytes cannot have {disk} bytes",
            hint=f"Give `disk: {-(-disk // layout.sector) * layout.sector}`.",
        )
    if size > slot.size and slot.filesystem not in GROWS:
        raise GuestError(f"{name} cannot be made larger", hint=f"What can: {', '.join(GROWS)}.")
    if size < slot.size and slot.filesystem not in SHRINKS:
        raise GuestError(
            f"{name} cannot be made smaller: nothing shrinks that", hint=f"What can be shrunk: {', '.join(SHRINKS)}."
        )
    if slot.number is None and slot.size < size != disk:
        raise GuestError(f"{name} grows with the disk only", hint=f"Give `disk: {size}` alone.")
    if slot.limit is not None and slot.start + size > max(slot.limit, slot.end):
        room = format_size(slot.limit - slot.start)
        raise GuestError(
            f"{name} has room for {room} and not for {format_size(size)}: {slot.neighbour} begins there",
            hint="Partitions are not moved. `size: fill` takes the room there is.",
        )
    needed = layout.needed(replace(slot, size=size))
    if disk < needed:
        raise GuestError(
            f"a disk of {format_size(disk)} is too small for its partitions, which need {format_size(needed)}"
            + (f" with {format_size(size)} for {name}" if reach < slot.start + size else ""),
            hint="Give a larger `disk`, a smaller `size`, or `disk: minimum`.",
        )


def _require_fitting(slot: Slot, size: int, facts: GuestFacts) -> None:
    least = 0 if slot.filesystem == "swap" else facts.least_size(_device(slot, facts))
    if size < least:
        raise GuestError(
            f"{_name(slot)} has files for {format_size(least)} and cannot be made {format_size(size)}",
            hint="`size: minimum` makes it as small as its files allow.",
        )


def _device(slot: Slot, facts: GuestFacts) -> str:
    return next(found.device for found in facts.filesystems if found.partition == slot.number)


def _require_last(layout: Layout, slot: Slot, disk: int) -> None:
    if slot.limit is not None and disk > layout.size:
        raise GuestError(
            f"{_name(slot)} cannot fill the larger disk: {slot.neighbour} lies behind it",
            hint="Partitions are not moved. `size: keep` makes only the disk larger; `partition:` names another one.",
        )


def _name(slot: Slot) -> str:
    holds = slot.filesystem or "nothing that is known"
    return f"partition {slot.number} ({holds})" if slot.number else f"the disk's own filesystem ({holds})"


def _already(slot: Slot, disk: int) -> str:
    size = f"{_name(slot)} has {format_size(slot.size)} already, on a disk of {format_size(disk)}"
    return size + (f"; {slot.neighbour} follows it" if slot.neighbour else "")


def _told(layout: Layout, slot: Slot, size: int, disk: int) -> str:
    said = []
    if size != slot.size:
        said.append(f"{_name(slot)}: {format_size(slot.size)} -> {format_size(size)}")
    elif disk == layout.size:
        said.append(f"{_name(slot)} fills its {format_size(size)}: it took {format_size(slot.filled)} of them")
    if disk != layout.size:
        said.append(f"disk: {format_size(layout.size)} -> {format_size(disk)}")
    return "; ".join(said)
