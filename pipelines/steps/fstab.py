"""The step kind `fstab`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from builder.errors import GuestError
from builder.guest import labels
from builder.guest.edits import Edit, SetLabel, Unchanged, WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.fstab import Naming, Rewritten, alone, rewrite
from pipelines.step import GuestStep, Options

_PATH = "/etc/fstab"


class FstabOptions(Options):
    """How entries are to name their filesystems."""

    by: Naming = Field(default="label", description="what entries name filesystems by: `label` or `uuid`")
    root_label: str | None = Field(
        default=None, description="label the root filesystem so first; as a `label` step before this one would"
    )
    alone: bool = Field(
        default=False,
        description="the root will go without its disk, as `extract` takes it out: comment out entries for the disk's "
        "other filesystems (/boot, swap) and for such as are not on it, but for those with `nofail` or `noauto`. "
        "Steps that need these filesystems, as `kernel` may need /boot, belong before it",
    )


class Fstab(GuestStep[FstabOptions]):
    """Make /etc/fstab name the disk's filesystems by label, so that it holds under any device name.

    Rewritten are entries by device (`/dev/sda1`, `/dev/vda1`, `/dev/nvme0n1p1`, `/dev/disk/by-…`), UUID, PARTUUID and
    PARTLABEL whose filesystem is on this disk and has a label. The entry for `/` follows the root filesystem, whatever
    device it named before, also a logical volume that is not there any more; a root without a label is an error. Order,
    comments, alignment and every other line stay, byte for byte: other disks, network and bind mounts, this disk's
    logical volumes, swap files, zram. Entries that name a device and stay are told, with the reason.
    """

    options = FstabOptions

    def check(self, options: FstabOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        if options.root_label is None:
            return ()
        if options.by != "label":
            return ("`root_label` is for `by: label`",)
        wrong = labels.always_wrong(options.root_label)
        return (wrong,) if wrong else ()

    def edits(self, options: FstabOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Rewrite the file, and label the root filesystem if that is asked for."""
        relabel = _label_root(options, facts)
        filesystems = [
            replace(found, label=relabel.label) if relabel and found.device == relabel.device else found
            for found in facts.filesystems
        ]
        edits: list[Edit] = [relabel] if relabel else []
        data = facts.read(_PATH)
        if data is None:
            return edits or Unchanged(why="the guest has no /etc/fstab")
        left = alone(data, filesystems, root=facts.root) if options.alone else Rewritten(data=data)
        rewritten = rewrite(left.data, filesystems, root=facts.root, by=options.by)
        _require_root(rewritten, options.by)
        told = "; ".join(map(str, [*left.changes, *rewritten.changes, *rewritten.kept]))
        if left.changes or rewritten.changes:
            edits.append(WriteFile(path=_PATH, data=rewritten.data, why=told))
        return edits or Unchanged(why=told or f"no entry names a filesystem but by {options.by}")


def _label_root(options: FstabOptions, facts: GuestFacts) -> SetLabel | None:
    root = facts.filesystem(facts.root)
    if options.root_label is None or root is None:
        return None
    return labels.relabel(facts, root, options.root_label)


def _require_root(rewritten: Rewritten, by: Naming) -> None:
    root = next((kept for kept in rewritten.kept if kept.mount_point == "/"), None)
    if root is not None:
        raise GuestError(
            f"the entry for / in {_PATH} cannot name its filesystem by {by}: {root.why}",
            hint="Give `root_label:`, or put a `label` step before this one.",
        )
