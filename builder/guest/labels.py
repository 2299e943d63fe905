"""What a filesystem's label may be, by type; so that a wrong one is refused by name and not by a tool's exit status."""

from __future__ import annotations

from collections.abc import Mapping

from builder.errors import GuestError
from builder.guest.edits import SetLabel
from builder.guest.facts import Filesystem, GuestFacts

# Bytes a label may have. Sources: e2label(8), mkfs.xfs(8), mkfs.btrfs(8) (255 and a final zero), mkfs.fat(8),
# swaplabel(8).
LIMITS: Mapping[str, int] = {
    "ext2": 16,
    "ext3": 16,
    "ext4": 16,
    "xfs": 12,
    "btrfs": 255,
    "vfat": 11,
    "swap": 15,
}
_FAT_FORBIDDEN = frozenset('"*+,./:;<=>?[\\]|')


def relabel(facts: GuestFacts, filesystem: Filesystem, label: str) -> SetLabel | None:
    """Return the edit that labels `filesystem` so, or None when it is labelled so already.

    Raises GuestError when its type does not take that label, or another filesystem of the disk has it.
    """
    if wrong := problem(filesystem.type, label):
        raise GuestError(f"{filesystem.device}: {wrong}", hint="Choose another label in the recipe.")
    other = next((found for found in facts.filesystems if found.label == label and found != filesystem), None)
    if other is not None:
        raise GuestError(
            f"{other.device} is labelled {label} already; two of one label could not be told apart",
            hint="Label that one otherwise first (`label` with `current:`), or choose another label.",
        )
    if filesystem.label == label:
        return None
    was = f"was {filesystem.label}" if filesystem.label else "had none"
    return SetLabel(device=filesystem.device, label=label, why=f"{filesystem.device} labelled {label} ({was})")


def problem(filesystem_type: str, label: str) -> str | None:
    """Return why `label` cannot be the label of a filesystem of that type (blkid's name), or None when it can."""
    limit = LIMITS.get(filesystem_type)
    if limit is None:
        return f"labels of {filesystem_type or 'an unknown type'} cannot be set; these can: {', '.join(LIMITS)}"
    return always_wrong(label) or _wrong_here(filesystem_type, label, limit)


def always_wrong(label: str) -> str | None:
    """Return why `label` is no label on any filesystem, or None."""
    if not label:
        return "a label cannot be empty"
    if not label.isprintable() or label.startswith("-") or label != label.strip():
        return f"the label {label!r} would be misread: no control characters, no leading '-', no blanks around it"
    if '"' in label or "/" in label:
        return f"the label {label!r} cannot be named in /etc/fstab or /dev/disk/by-label: no '\"' and no '/'"
    return None


def _wrong_here(filesystem_type: str, label: str, limit: int) -> str | None:
    size = len(label.encode())
    if size > limit:
        return f"the label {label!r} has {size} bytes, and {filesystem_type} takes at most {limit}"
    if filesystem_type == "vfat" and (
        not label.isascii() or label != label.upper() or not _FAT_FORBIDDEN.isdisjoint(label)
    ):
        return f"the label {label!r} is not for vfat: capital ASCII letters, digits, blanks, '-' and '_' only"
    return None
