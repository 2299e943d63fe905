"""The step kind `sparsify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder.guest.edits import Edit, GiveBack, Unchanged
from builder.guest.facts import GuestFacts
from builder.guest.sparsify import LVM, TRIMS
from pipelines.step import GuestStep, Options


class SparsifyOptions(Options):
    """Nothing to choose."""


class Sparsify(GuestStep[SparsifyOptions]):
    """Give back the blocks that nothing on the disk uses, so that they are neither stored nor sent.

    Every filesystem is trimmed (ext2, ext3, ext4, xfs, btrfs, f2fs, jfs, vfat), those that /etc/fstab does not name
    included; swap is emptied and keeps its label and UUID; LVM's free space goes too. The report says how many bytes
    were given back, and which filesystems cannot be trimmed. Whatever guest steps run, the root and what else is
    mounted are trimmed at their end: this step is for the rest. It belongs behind steps that delete.
    """

    options = SparsifyOptions

    def edits(self, options: SparsifyOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Give back, unless there is nothing that can."""
        kinds = {found.type for found in facts.filesystems}
        if not kinds & {*TRIMS, LVM, "swap"}:
            return Unchanged(why=f"none of {', '.join(sorted(kinds))} can be trimmed")
        return (GiveBack(),)
