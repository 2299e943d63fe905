"""The steps that give a root another disk, or its disk another size: what several rules propose."""

from __future__ import annotations

from builder.guest.layout import DiskReader, read_layout
from builder.guest.lint.devices import device
from builder.guest.lint.rule import Mend
from builder.guest.lint.subject import Subject
from builder.guest.resize import LVM, SHRINKS
from builder.units import format_size

LABEL = "rootfs"  # what a root without a label is called by the steps that are proposed
BY_HAND = "Take the root out with `extract`, and make a disk for BIOS and UEFI around it with `assemble`."
ASSEMBLED = "The menu is `assemble`'s: take the root out and assemble the disk anew, with other options."
# The kinds of which `remade` is made, for a disk, and those for a bare filesystem.
REMAKING = ("label", "kernel", "fstab", "extract", "assemble")
WRAPPING = ("label", "assemble")

_GIB, _MIB = 1 << 30, 1 << 20
_BOOTS = ("/boot", "/boot/efi", "/efi", "none", "swap")  # what a new disk has of its own, or does without


def remade(subject: Subject) -> tuple[Mend, ...]:
    """Return the steps that make a disk for BIOS and UEFI around the root; none where that would not do.

    It would not where the guest could not be looked at, is not for x86-64 (`assemble` has no other GRUB), is Flatcar
    (its system is not in its root), has other filesystems of this disk in use, or a table that cannot be relied on.
    """
    if not subject.root.type or subject.system.family == "flatcar" or subject.system.architecture not in ("x86_64", ""):
        return ()
    named = () if subject.root.label else (Mend(step="label", options={"label": LABEL}),)
    if subject.bare:
        return (*named, Mend(step="assemble"))
    if (subject.table and subject.table.problems) or not _complete(subject):
        return ()
    number = None if subject.root.type == "btrfs" else subject.root.partition  # a btrfs' root may be a subvolume
    return (
        *named,
        *((Mend(step="kernel"),) if _boot_apart(subject) else ()),
        Mend(step="fstab", options={"alone": True}),
        Mend(step="extract", options={"root": True} if number is None else {"partition": number}),
        Mend(step="assemble"),
    )


def _complete(subject: Subject) -> bool:
    """Say whether the root alone is the system: nothing else of this disk is mounted but for booting."""
    entries = [line.entry for line in subject.fstab if line.entry]
    others = (entry for entry in entries if entry.mount_point not in ("/", *_BOOTS) and entry.type != "swap")
    found = (device(entry.spec, subject.facts.filesystems).filesystem for entry in others)
    return all(one is None or one.device == subject.root.device for one in found)


def _boot_apart(subject: Subject) -> bool:
    return any(line.entry and line.entry.mount_point == "/boot" for line in subject.fstab)


def by_grub(subject: Subject, **options: object) -> tuple[Mend, ...]:
    """Return the step that edits what boots; none where that is the menu of `assemble`, which no guest step reaches."""
    return () if subject.boot_partition else (Mend(step="grub", options=options),)


def end(subject: Subject) -> int:
    """Return where the last partition ends, in bytes; the disk's own end where there is none."""
    parts = subject.table.partitions if subject.table else ()
    return max((part.start + part.size for part in parts), default=subject.reader.virtual_size)


def trimmed(subject: Subject) -> tuple[Mend, ...]:
    """Return the step that cuts off what lies behind the last partition, to whole GiB; none where it would refuse."""
    return rounded(subject) if _whole(subject) < subject.reader.virtual_size else ()


def rounded(subject: Subject) -> tuple[Mend, ...]:
    """Return the step that gives the disk as many whole GiB as its partitions need; none where it would refuse."""
    if not _changeable(subject):
        return ()
    return (Mend(step="resize", options={"disk": format_size(_whole(subject)), "size": "keep"}),)


def _whole(subject: Subject) -> int:
    return -(-(end(subject) + _MIB) // _GIB) * _GIB  # a GPT has its second copy at the end


def shrunk(subject: Subject, size: int) -> tuple[Mend, ...]:
    """Return the step that makes the disk that large, the root with it; none where nothing shrinks that root."""
    cut = end(subject) + _MIB <= size
    if not _changeable(subject) or not (cut or subject.root.type in SHRINKS):
        return ()
    return (Mend(step="resize", options={"disk": format_size(size)}),)


def _changeable(subject: Subject) -> bool:
    reader = subject.reader
    volumes = [found for found in subject.facts.filesystems if found.type == LVM]
    if subject.table and subject.root.partition is None and len(volumes) != 1:
        return False  # the step takes the root's partition, or LVM's only one
    return not read_layout(DiskReader(lambda length, at: _padded(subject, length, at), reader.virtual_size)).problem


def _padded(subject: Subject, length: int, offset: int) -> bytes:
    """Return bytes of the disk, zeros past its end."""
    there = max(0, min(length, subject.reader.virtual_size - offset))
    return (subject.reader.pread(there, offset) if there else b"").ljust(length, b"\0")
