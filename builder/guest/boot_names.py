"""By what name a boot loader and a kernel find the root filesystem and /boot: kept while it holds, mended when not.

Sources: init/do_mounts.c of Linux and the initramfs generators for `root=`; GRUB's manual for `search`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from builder.errors import GuestError
from builder.guest import fstab
from builder.guest.facts import Filesystem, GuestFacts

Naming = Literal["label", "uuid"]

_TAG = re.compile(r"(LABEL|UUID|PARTUUID|PARTLABEL)=(.*)", re.DOTALL)
_LINK = re.compile(r"/dev/disk/by-(label|uuid|partuuid|partlabel)/(.+)", re.DOTALL)
_KERNEL_NAME = re.compile(
    r"/dev/(?:(?:sd|vd|xvd|hd)[a-z]+(?P<part>\d{0,4})|(?:nvme\d+n|mmcblk)\d+(?:p(?P<slice>\d{1,4}))?)", re.ASCII
)
_ROOT_TYPES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs"})
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/@+%-]+")


@dataclass(frozen=True, kw_only=True)
class BootNames:
    """What the disk's filesystems are called; `by` is how `root=` is to name the root, None to mend it only."""

    filesystems: Sequence[Filesystem]
    root: Filesystem
    boot: Filesystem  # where /boot lies: the root, unless it has a filesystem of its own
    by: Naming | None = None

    def rename(self, value: str) -> tuple[str, str]:
        """Return the value that a `root=` is to have, and why it stays where it was meant to change."""
        tag = _tag(value)
        if other := self.other(value):
            return value, f"it is {other.device}, not this system's root"
        if tag is None and (self.by is None or not _KERNEL_NAME.fullmatch(value)):
            return value, "it is no partition of a disk" if self.by else ""
        if self.by is None and tag is not None and self._tagged(*tag) is not None:
            return value, ""
        kind = self.by or ("label" if tag is not None and tag[0] in ("LABEL", "PARTLABEL") else "uuid")
        return self._named(kind), ""

    def other(self, value: str) -> Filesystem | None:
        """Return the filesystem of this disk that `root=` means, when it is not this system's root."""
        tag = _tag(value)
        meant = self._tagged(*tag) if tag else self._numbered(value)
        return None if meant == self.root else meant

    def rename_early(self, value: str) -> tuple[str, str]:
        """Return the same for a kernel that starts without an initramfs: it knows partitions, and no filesystems."""
        tag = _tag(value)
        if tag is not None and tag[0] != "PARTUUID":
            return self.rename(value)
        if tag is None or self._tagged(*tag) is not None or not self.root.partuuid:
            return value, "no initramfs is loaded there to look for anything else" if self.by else ""
        return f"PARTUUID={self.root.partuuid}", ""

    def search(self, kind: Naming, value: str) -> tuple[Naming, str]:
        """Return by what GRUB is to search for the filesystem that has /boot: the same while such a one is there."""
        if self._tagged(kind.upper(), value) is not None:
            return kind, value
        if kind == "label" and self.boot.label and _PLAIN.fullmatch(self.boot.label):
            return "label", self.boot.label
        return ("uuid", self.boot.uuid) if self.boot.uuid else (kind, value)

    def _named(self, kind: Naming) -> str:
        label, uuid = self.root.label, self.root.uuid
        if kind == "label" and label and _PLAIN.fullmatch(label):
            twins = [each.device for each in self.filesystems if each.label == label]
            if len(twins) > 1:
                raise GuestError(f"root= cannot say LABEL={label}: {' and '.join(twins)} are both labelled so")
            return f"LABEL={label}"
        if kind == "label" and self.by:
            why = f"its label {label!r} cannot stand on a command line" if label else "it has no label"
            raise GuestError(
                f"root= cannot name the root filesystem on {self.root.device} by label: {why}",
                hint="Put a `label` step before this one, or say `root: uuid`.",
            )
        if not uuid:
            raise GuestError(f"root= cannot name the root filesystem on {self.root.device}: it has no UUID")
        return f"UUID={uuid}"

    def _tagged(self, tag: str, value: str) -> Filesystem | None:
        for found in (self.root, *self.filesystems):
            held = {"LABEL": found.label, "UUID": found.uuid, "PARTUUID": found.partuuid, "PARTLABEL": found.partlabel}
            same = held[tag] == value if tag.endswith("LABEL") else held[tag].casefold() == value.casefold()
            if value and same:
                return found
        return None

    def _numbered(self, device: str) -> Filesystem | None:
        """Return the filesystem that a kernel's name for a partition means, if it could be a root."""
        name = _KERNEL_NAME.fullmatch(device)
        part = name and (name["part"] or name["slice"])
        for found in self.filesystems:
            if part and found.partition == int(part[:9]) and found.type in _ROOT_TYPES:
                return found
        return None


def boot_names(facts: GuestFacts, by: Naming | None) -> BootNames:
    """Return the names of the guest's disk as they are now. Raises GuestError when its root has none at all."""
    root = facts.filesystem(facts.root)
    if root is None:
        raise GuestError(f"there is no filesystem on {facts.root}")
    mounts = fstab.mounts(facts.read("/etc/fstab") or b"", facts.filesystems, root=facts.root)
    device = next((mount.device for mount in mounts if mount.mount_point == "/boot"), facts.root)
    return BootNames(filesystems=tuple(facts.filesystems), root=root, boot=facts.filesystem(device) or root, by=by)


def _tag(value: str) -> tuple[str, str] | None:
    if found := _TAG.fullmatch(value):
        return found[1], found[2]
    if found := _LINK.fullmatch(value):
        return found[1].upper(), re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), found[2])
    return None
