"""What a guest looks like, and the changes to it: plain values, no appliance."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_PARTITION = re.compile(r"/dev/sd[a-z]+(\d+)")


@dataclass(frozen=True, kw_only=True)
class Filesystem:
    """A filesystem of the disk: `device` as the appliance names it (/dev/sda1), `type` as blkid does."""

    device: str
    type: str
    label: str = ""
    uuid: str = ""
    partuuid: str = ""
    partlabel: str = ""

    @property
    def partition(self) -> int | None:
        """The number of its partition; None for a whole disk (/dev/sda) and a logical volume (/dev/GROUP/VOLUME)."""
        found = _PARTITION.fullmatch(self.device)
        return int(found[1]) if found else None


@dataclass(frozen=True, kw_only=True)
class GuestFacts:
    """What the edits of guest steps are decided on; read again before each step of a session."""

    root: str  # device of the root filesystem
    filesystems: Sequence[Filesystem]
    files: Mapping[str, bytes] = field(default_factory=dict)  # of the few files steps ask for; absent ones are left out

    def filesystem(self, device: str) -> Filesystem | None:
        """Return the filesystem on `device`."""
        return next((found for found in self.filesystems if found.device == device), None)

    def partition(self, number: int) -> Filesystem | None:
        """Return the filesystem on that partition of the disk."""
        return next((found for found in self.filesystems if found.partition == number), None)


@dataclass(frozen=True, kw_only=True)
class WriteFile:
    """Replace the file at `path` (in the root filesystem) by `data`, keeping its owner and mode."""

    path: str
    data: bytes
    why: str = ""  # what a person is told about it


@dataclass(frozen=True, kw_only=True)
class SetLabel:
    """Set the label of the filesystem on `device`."""

    device: str
    label: str
    why: str = ""  # what a person is told about it


Edit = WriteFile | SetLabel


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """Nothing to do, and why."""

    why: str
