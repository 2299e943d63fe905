"""The step kind `label`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from builder.errors import GuestError
from builder.guest import labels
from builder.guest.edits import Edit, Unchanged
from builder.guest.facts import Filesystem, GuestFacts
from pipelines.step import GuestStep, Options

_BOOT_FILES = ("/etc/fstab", "/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")


class LabelOptions(Options):
    """Which filesystem, and its new label."""

    label: str = Field(
        description="the new label: at most 16 bytes on ext2, ext3 and ext4, 12 on xfs, 255 on btrfs, 15 on swap, "
        "11 in capitals on vfat"
    )
    partition: int | None = Field(
        default=None, ge=1, description="the number of the partition to label, instead of the root filesystem"
    )
    current: str | None = Field(
        default=None, description="label the filesystem that has this label now, instead of the root filesystem"
    )


class Label(GuestStep[LabelOptions]):
    """Set the label of the root filesystem, or of another one of the disk.

    For ext2, ext3, ext4, xfs, btrfs, vfat and swap. What names the old label (/etc/fstab, the boot loader) is not
    changed here but named in the report: an `fstab` step after this one makes the file follow, a `grub` step the boot
    loader.
    """

    options = LabelOptions

    def check(self, options: LabelOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = []
        if wrong := labels.always_wrong(options.label):
            problems.append(wrong)
        if options.partition is not None and options.current is not None:
            problems.append("`partition` and `current` both say which filesystem: give one of them")
        return problems

    def edits(self, options: LabelOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Label the chosen filesystem, unless it is labelled so already."""
        chosen = _chosen(options, facts)
        edit = labels.relabel(facts, chosen, options.label)
        if edit is None:
            return Unchanged(why=f"{chosen.device} is labelled {options.label} already")
        return (replace(edit, why=edit.why + _left_behind(chosen.label, facts)),)


def _chosen(options: LabelOptions, facts: GuestFacts) -> Filesystem:
    if options.partition is not None:
        found = facts.partition(options.partition)
        wanted = f"on partition {options.partition}"
    elif options.current is not None:
        # A resumed run, or the same recipe on its own result, finds the new label there already.
        names = (options.current, options.label)
        found = next((each for name in names for each in facts.filesystems if each.label == name), None)
        wanted = f"labelled {options.current}"
    else:
        found = facts.filesystem(facts.root)
        wanted = f"on {facts.root}"
    if found is None:
        there = ", ".join(_described(each) for each in facts.filesystems)
        raise GuestError(f"the disk has no filesystem {wanted} to label; it has {there}")
    return found


def _described(filesystem: Filesystem) -> str:
    return f"{filesystem.device} ({filesystem.type}, {filesystem.label or 'no label'})"


def _left_behind(old: str, facts: GuestFacts) -> str:
    """Name the files that still say the old label."""
    said = [path for path in _BOOT_FILES if old and f"LABEL={old}".encode() in (facts.read(path) or b"")]
    return f"; {' and '.join(said)} still says LABEL={old}" if said else ""
