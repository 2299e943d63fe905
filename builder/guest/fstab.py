"""/etc/fstab: parsed without losing a byte, and rewritten so that entries name filesystems by label (or UUID).

Source of the format: fstab(5) and libmount: fields separated by blanks and tabs, octal escapes (\\040) in fields, `#`
at a line's start for comments. Lines that are not entries pass through, whatever they hold.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from builder.guest.facts import Filesystem

Naming = Literal["label", "uuid"]

# A line's fields, of which the first three must be there. `[^ \t]`, since \S would split at Unicode's blanks too.
_ENTRY = re.compile(
    r"(?P<lead>[ \t]*)(?P<spec>[^ \t#][^ \t]*)(?P<gap>[ \t]+)(?P<rest>[^ \t]+[ \t]+[^ \t]+.*)", re.DOTALL
)
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_TAG = re.compile(r"(LABEL|UUID|PARTUUID|PARTLABEL)=(.*)", re.DOTALL)
_BY = re.compile(r"/dev/disk/by-(label|uuid|partuuid|partlabel|id|path)/(.+)", re.DOTALL)
# Names that udev makes of what is written on the disks, not of hardware: they hold wherever the image is.
_BY_CONTENT = re.compile(r"/dev/disk/by-id/(md|dm|lvm)-.+", re.DOTALL)
_HARDWARE = re.compile(r"ID=.+", re.DOTALL)
# Logical volumes and what else device-mapper makes; the excluded directories hold other devices.
_MAPPED = re.compile(r"/dev/(?!(?:disk|md|zvol|cciss|ida|rd|fd|shm|pts|block|drbd|i2o|loop)/)[^/]+/[^/]+", re.DOTALL)
# Kernel names: disk, then partition. A machine's first disk is the image; the others are not here.
_LETTERED = re.compile(r"/dev/(?:sd|vd|xvd|hd)([a-z]+)(\d*)")
_NUMBERED = re.compile(r"/dev/(?:nvme(\d+n\d+)|mmcblk(\d+))(?:p(\d+))?")
_FIRST = frozenset({"a", "0n1", "0"})
# Types that name one filesystem, as entries and blkid spell them.
_ALIKE = (
    frozenset({"ext2", "ext3", "ext4"}),
    frozenset({"vfat", "msdos", "fat"}),
    frozenset({"ntfs", "ntfs3", "ntfs-3g", "fuseblk"}),
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The fields of an entry as the guest's mount reads them, unescaped."""

    spec: str
    mount_point: str
    type: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line as it stands, with its end; `entry` is None for comments, blank lines and what is no entry."""

    text: str
    entry: Entry | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """An entry that names its filesystem anew."""

    mount_point: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.mount_point}: {self.old} -> {self.new}"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An entry that stays as it is although it names a device, and why."""

    mount_point: str
    spec: str
    why: str

    def __str__(self) -> str:
        return f"{self.mount_point}: {self.spec} stays: {self.why}"


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """The new file and what happened to it, entry by entry."""

    data: bytes
    changes: Sequence[Change] = ()
    kept: Sequence[Kept] = ()


def parse(data: bytes) -> list[Line]:
    """Return the lines of a fstab; their texts joined and encoded are `data` again, whatever bytes it holds."""
    text = data.decode("utf-8", "surrogateescape")
    return [_line(part) for part in re.findall(r"[^\n]*\n|[^\n]+", text)]


def render(lines: Sequence[Line]) -> bytes:
    """Return the bytes of a fstab."""
    return "".join(line.text for line in lines).encode("utf-8", "surrogateescape")


def rewrite(data: bytes, filesystems: Sequence[Filesystem], *, root: str, by: Naming = "label") -> Rewritten:
    """Return `data` with every entry for a filesystem of this disk naming it by its label (or UUID).

    `root` is the device whose filesystem is the guest's root: the entry for `/` names it whatever device it named
    before, also a logical volume that it was copied from. Entries that name no disk (network, tmpfs, bind mounts, swap
    files, zram …) and volumes of this disk, whose names hold, pass through.
    """
    disk = _Disk(filesystems, root=root, by=by)
    lines: list[Line] = []
    changes: list[Change] = []
    kept: list[Kept] = []
    for line in parse(data):
        match disk.rename(line.entry) if line.entry else None:
            case Change() as change:
                changes.append(change)
                lines.append(_respecified(line, change.new))
            case Kept() as stays:
                kept.append(stays)
                lines.append(line)
            case None:
                lines.append(line)
    return Rewritten(data=render(lines), changes=changes, kept=kept)


def alone(data: bytes, filesystems: Sequence[Filesystem], *, root: str) -> Rewritten:
    """Return `data` for a root that goes without its disk: entries that could not be mounted then are commented out.

    Those are what names another filesystem or volume of this disk, or one by label or UUID that is not on it; a boot
    would wait for them and end in an emergency shell. Entries with `nofail` or `noauto` stay, which do no harm.
    """
    disk = _Disk(filesystems, root=root, by="label")
    lines: list[Line] = []
    changes: list[Change] = []
    for line in parse(data):
        entry = line.entry
        if entry is None or not disk.leaves_behind(entry):
            lines.append(line)
            continue
        changes.append(Change(mount_point=entry.mount_point, old=entry.spec, new="commented out"))
        lines.append(Line(text=f"# {line.text}"))
    return Rewritten(data=render(lines), changes=changes)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A filesystem of this disk, where it is mounted, and the options that decide what of it: a btrfs' subvolume."""

    device: str
    mount_point: str
    options: tuple[str, ...] = ()


def mounts(data: bytes, filesystems: Sequence[Filesystem], *, root: str) -> list[Mount]:
    """Return where the guest mounts the filesystems of its own disk, but for the root: outermost first, each once.

    Entries that name nothing on this disk are left out: they are not here to be mounted.
    """
    disk = _Disk(filesystems, root=root, by="label")
    found: dict[str, Mount] = {}
    for line in parse(data):
        # Two slashes at the beginning are one to Linux, and not to normpath.
        point = posixpath.normpath(re.sub("^/+", "/", line.entry.mount_point)) if line.entry else "/"
        if line.entry is None or not re.fullmatch(r"/[^/].*", point, re.DOTALL):
            continue
        match _volume(line.entry, filesystems) or disk.find(line.entry):
            case Filesystem(type=kind, device=device) if kind not in ("swap", "LVM2_member"):
                chosen = tuple(option for option in line.entry.options if option.startswith(("subvol=", "subvolid=")))
                found.setdefault(point, Mount(device=device, mount_point=point, options=chosen))
            case _:
                continue
    return sorted(found.values(), key=lambda mount: mount.mount_point.count("/"))


def escape(field: str) -> str:
    """Return a field as fstab holds it."""
    return re.sub(r"[ \t\n\\]", lambda found: f"\\{ord(found[0]):03o}", field)


def unescape(field: str) -> str:
    """Return what a field of a fstab means."""
    plain = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field.encode("utf-8", "surrogateescape"))
    return plain.decode("utf-8", "surrogateescape")


class _Disk:
    """What the image's filesystems are called, and how entries are to call them."""

    def __init__(self, filesystems: Sequence[Filesystem], *, root: str, by: Naming) -> None:
        self._filesystems = filesystems
        self._by = by
        # The members of a btrfs on several partitions have one UUID and one label, which name all of it.
        whole = {(found.type, found.uuid) if found.type == "btrfs" else found: found for found in filesystems}
        self._single = tuple(whole.values())
        self._names = Counter(self._value(found) for found in self._single)
        self._root = next((found for found in filesystems if found.device == root), None)

    def rename(self, entry: Entry) -> Change | Kept | None:
        """Return how the entry changes, why it stays, or None when it names no disk or is right already."""
        match self.find(entry):
            case None:
                return None
            case str(why):
                return Kept(mount_point=entry.mount_point, spec=entry.spec, why=why)
            case Filesystem() as found:
                return self._named(entry, found)

    def find(self, entry: Entry) -> Filesystem | str | None:
        """Return the filesystem that the entry means, or why there is none.

        None when it names no disk, or a volume of this disk by a name that holds.
        """
        volume = None if _is_bind(entry) else _volume(entry, self._filesystems)
        if posixpath.normpath(entry.mount_point) == "/" and _names_device(entry):
            return None if self._holds(entry, volume) else self._root
        return None if volume else self._resolve(entry)

    def leaves_behind(self, entry: Entry) -> bool:
        """Say whether a root without its disk would have the entry and not the filesystem, and would wait for it."""
        if posixpath.normpath(entry.mount_point) == "/" or not {"nofail", "noauto"}.isdisjoint(entry.options):
            return False
        match (_volume(entry, self._filesystems) if not _is_bind(entry) else None) or self.find(entry):
            case Filesystem() as found:
                return found != self._root
            case str():
                return _tag(entry.spec) is not None
            case None:
                return False

    def _holds(self, entry: Entry, volume: Filesystem | None) -> bool:
        """Say whether the entry for / names the volume that is the root, by a name that LVM made for good."""
        by_lvm = entry.spec.startswith(("/dev/disk/by-id/dm-", "/dev/disk/by-id/lvm-"))
        return self._root is not None and _is_volume(self._root) and (by_lvm or volume == self._root)

    def _named(self, entry: Entry, found: Filesystem) -> Change | Kept | None:
        value = self._value(found)
        new = f"{self._by.upper()}={value}"
        stays = Kept(mount_point=entry.mount_point, spec=entry.spec, why="")
        if not value:
            return replace(stays, why=f"its {found.type} filesystem has no {self._by}")
        if entry.spec == new:
            return None
        if self._names[value] > 1:
            return replace(stays, why=f"{self._names[value]} filesystems have the {self._by} {value}")
        return Change(mount_point=entry.mount_point, old=entry.spec, new=new)

    def _value(self, filesystem: Filesystem) -> str:
        return filesystem.label if self._by == "label" else filesystem.uuid

    def _resolve(self, entry: Entry) -> Filesystem | str | None:
        """Return the filesystem that the entry names, or why there is none; None when it names no disk."""
        if _is_bind(entry) or _BY_CONTENT.fullmatch(entry.spec):
            return None
        if tag := _tag(entry.spec):
            return self._tagged(*tag)
        if _BY.fullmatch(entry.spec) or _HARDWARE.fullmatch(entry.spec):
            return "it names a disk by its hardware, which an image does not have"
        place = _LETTERED.fullmatch(entry.spec) or _NUMBERED.fullmatch(entry.spec)
        if place is None:
            return self._mapped(entry.spec)
        *disk, part = place.groups()
        if _FIRST.isdisjoint(disk):
            return "it is on another disk"
        return self._numbered(entry, part or "")

    def _mapped(self, spec: str) -> str | None:
        """Return why a mapped device that is none of this disk's volumes stays; None for what is no such name."""
        opened = spec.startswith("/dev/mapper/") and any(found.type == "crypto_LUKS" for found in self._filesystems)
        return None if opened or not _MAPPED.fullmatch(spec) else "no logical volume of that name is on this disk"

    def _numbered(self, entry: Entry, part: str) -> Filesystem | str:
        number = int(part[:9]) if part else None
        place = f"partition {part} of this disk" if part else "the disk itself"
        for found in self._filesystems:
            if found.partition == number and not _is_volume(found):
                # /dev/hda is a CD drive where the disk is /dev/vda, and /dev/sda2 another disk's in old EC2 images.
                other = f"{place} holds {found.type}, not {entry.type}"
                return found if _may_be(entry.type, found.type) else other
        return f"there is no filesystem on {place}"

    def _tagged(self, tag: str, value: str) -> Filesystem | str:
        matching = []
        for found in self._single:
            match tag:
                case "LABEL":
                    same = found.label == value
                case "UUID":
                    same = found.uuid.casefold() == value.casefold()
                case "PARTUUID":
                    same = found.partuuid.casefold() == value.casefold()
                case _:
                    same = found.partlabel == value
            if same and value:
                matching.append(found)
        if len(matching) > 1:
            return f"{len(matching)} filesystems have that {tag}"
        return matching[0] if matching else f"no filesystem on this disk has that {tag}"


def _names_device(entry: Entry) -> bool:
    """Say whether the entry names a block device, in whatever way; /dev/root is whichever the kernel was told."""
    device = entry.spec.startswith("/dev/") and entry.spec != "/dev/root"
    return not _is_bind(entry) and (device or bool(_TAG.fullmatch(entry.spec) or _HARDWARE.fullmatch(entry.spec)))


def _is_bind(entry: Entry) -> bool:
    return "bind" in entry.options or "rbind" in entry.options


def _may_be(said: str, found: str) -> bool:
    """Say whether an entry of that type can mean a filesystem of the type that blkid found."""
    types = set(said.split(","))
    alike = next((group for group in _ALIKE if found in group), frozenset({found}))
    return bool(types & {"auto", *alike})


def _tag(spec: str) -> tuple[str, str] | None:
    if found := _TAG.fullmatch(spec):
        return found[1], found[2].strip("\"'")
    found = _BY.fullmatch(spec)
    if found and found[1] not in ("id", "path"):
        # udev writes what is not plain in these names as \x20.
        name = re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), found[2])
        return found[1].upper(), name
    return None


def _volume(entry: Entry, filesystems: Sequence[Filesystem]) -> Filesystem | None:
    """Return the logical volume that the entry names as /dev/GROUP/VOLUME or by device-mapper's name for it."""
    for found in filesystems:
        group, _, volume = found.device.removeprefix("/dev/").partition("/")
        mapper = f"/dev/mapper/{group.replace('-', '--')}-{volume.replace('-', '--')}"
        if _is_volume(found) and entry.spec in (found.device, mapper):
            return found
    return None


def _is_volume(filesystem: Filesystem) -> bool:
    return filesystem.device.count("/") > 2  # /dev/GROUP/VOLUME of LVM


def _line(text: str) -> Line:
    found = _ENTRY.fullmatch(text.rstrip("\r\n"))
    if found is None:
        return Line(text=text)
    fields = re.split(r"[ \t]+", found["rest"])
    return Line(
        text=text,
        entry=Entry(
            spec=unescape(found["spec"]),
            mount_point=unescape(fields[0]),
            type=fields[1],
            options=tuple(fields[2].split(",")) if len(fields) > 2 else (),
        ),
    )


def _respecified(line: Line, spec: str) -> Line:
    """Return the line with another first field; where columns were aligned with blanks, they stay aligned."""
    body = line.text.rstrip("\r\n")
    found = _ENTRY.fullmatch(body)
    assert found is not None  # it was parsed as an entry
    gap, field = found["gap"], escape(spec)
    if len(gap) > 1 and not gap.strip(" "):
        gap = " " * max(1, len(found["spec"]) + len(gap) - len(field))
    return replace(line, text="".join((found["lead"], field, gap, found["rest"], line.text[len(body) :])))
