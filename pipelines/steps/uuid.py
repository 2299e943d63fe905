"""The step kind `uuid`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from builder.errors import GuestError
from builder.guest import uuids
from builder.guest.edits import Edit, SetUuid, Unchanged, WriteFile
from builder.guest.facts import Filesystem, GuestFacts
from pipelines.step import GuestStep, Options


class UuidOptions(Options):
    """Which filesystem, and its new UUID."""

    uuid: str | None = Field(
        default=None,
        description="the new UUID, like `5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11`; `7B2A-04F1` on vfat. Not given: one "
        "made of `seed`, the partition's PARTUUID and the type",
    )
    seed: str = Field(
        default="", description="any words, so that images of one base get UUIDs of their own: the image's name is good"
    )
    partition: int | None = Field(
        default=None, ge=1, description="the number of the partition, instead of the root filesystem"
    )
    label: str | None = Field(default=None, description="the filesystem that has this label, instead of the root")


class Uuid(GuestStep[UuidOptions]):
    """Give the root filesystem, or another one of the disk, a new UUID, and have the guest's files follow.

    For ext2, ext3, ext4, xfs, btrfs, swap and vfat (its volume id). So machines made of one image can see each other's
    disks without mistaking them. Without `uuid` the new one looks random but is the same in every build, or the same
    recipe would not make the same image twice.

    Every file that names the old UUID follows: /etc/fstab, crypttab, GRUB's grub.cfg, grubenv, menu.lst and defaults,
    Boot Loader Specification entries, extlinux, the configuration of initramfs-tools and dracut. What is compiled does
    not: an initramfs made for this disk only (dracut's `hostonly`, or one that resumes from a swap), and a core image
    of GRUB that looks for /boot by UUID. An `initramfs` or `grub` step makes those anew.
    """

    options = UuidOptions

    def check(self, options: UuidOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = []
        if options.uuid is not None and uuids.normal(options.uuid) is None:
            problems.append(f"`uuid`: {options.uuid!r} is no UUID")
        if options.uuid is not None and options.seed:
            problems.append("`seed` makes a UUID where none is given: leave it or `uuid` out")
        if options.partition is not None and options.label is not None:
            problems.append("`partition` and `label` both say which filesystem: give one of them")
        return problems

    def edits(self, options: UuidOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Set the UUID and rewrite the files that name the old one, unless the filesystem has it already."""
        chosen = _chosen(options, facts)
        wanted = uuids.normal(options.uuid) if options.uuid else None
        if chosen.type in uuids.TYPES:
            wanted = wanted or uuids.derived(chosen, options.seed)
        _require(chosen, wanted or "", facts)
        assert wanted is not None
        if chosen.uuid.casefold() == wanted.casefold():
            return Unchanged(why=f"{chosen.device} has the UUID {wanted} already")
        was = f"was {chosen.uuid}" if chosen.uuid else "had none"
        change = SetUuid(device=chosen.device, uuid=wanted, why=f"{chosen.device} has the UUID {wanted} ({was})")
        return [*_following(chosen.uuid, wanted, facts), change]


def _following(old: str, new: str, facts: GuestFacts) -> list[Edit]:
    """Return the edits of files that name the old UUID: /etc/fstab last, since it says where /boot is mounted."""
    edits: list[Edit] = []
    for path, text in uuids.files(facts) if old else ():
        follows = uuids.renamed(text, old, new)
        if follows != text:
            edits.append(WriteFile(path=path, data=follows.encode("utf-8", "surrogateescape"), why=f"{path} follows"))
    return sorted(edits, key=lambda edit: isinstance(edit, WriteFile) and edit.path == "/etc/fstab")


def _chosen(options: UuidOptions, facts: GuestFacts) -> Filesystem:
    if options.partition is not None:
        found, wanted = facts.partition(options.partition), f"on partition {options.partition}"
    elif options.label is not None:
        labelled = [each for each in facts.filesystems if each.label == options.label]
        if len(labelled) > 1:
            raise GuestError(f"{len(labelled)} filesystems are labelled {options.label}", hint="Name the partition.")
        found, wanted = next(iter(labelled), None), f"labelled {options.label}"
    else:
        found, wanted = facts.filesystem(facts.root), f"on {facts.root}"
    if found is None:
        there = ", ".join(f"{each.device} ({each.type}, {each.label or 'no label'})" for each in facts.filesystems)
        raise GuestError(f"the disk has no filesystem {wanted} to give a UUID; it has {there}")
    return found


def _require(chosen: Filesystem, wanted: str, facts: GuestFacts) -> None:
    if wrong := uuids.problem(chosen.type, wanted):
        raise GuestError(f"{chosen.device}: {wrong}", hint="Choose another UUID, or leave it out to have one made.")
    other = next((each for each in facts.filesystems if each.uuid.casefold() == wanted.casefold()), chosen)
    if other.device != chosen.device:
        raise GuestError(
            f"{other.device} has the UUID {wanted} already; two of one UUID could not be told apart",
            hint="Choose another UUID, or another `seed`.",
        )
