"""What a name for a filesystem means on this disk: in fstab, and after root= on a kernel's command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from builder.guest.facts import Filesystem

How = Literal["tag", "kernel name", "hardware", "volume", "other"]

_TAG = re.compile(r"(LABEL|UUID|PARTUUID|PARTLABEL)=(.+)", re.DOTALL)
_BY = re.compile(r"/dev/disk/by-(label|uuid|partuuid|partlabel)/(.+)", re.DOTALL)
_BY_HARDWARE = re.compile(r"/dev/disk/by-(?:id|path|diskseq)/.+", re.DOTALL)
_LETTERED = re.compile(r"/dev/(?:sd|vd|xvd|hd)([a-z]+)(\d*)")
_NUMBERED = re.compile(r"/dev/(?:nvme|mmcblk)(\d+)(?:n\d+)?(?:p(\d+))?")
_FIELDS = {"LABEL": "label", "UUID": "uuid", "PARTUUID": "partuuid", "PARTLABEL": "partlabel"}


@dataclass(frozen=True, kw_only=True)
class Device:
    """A name and what it names: `filesystem` is None where this disk has none of it. `first` says: on this disk."""

    how: How
    filesystem: Filesystem | None = None
    first: bool = True


def device(spec: str, filesystems: Sequence[Filesystem]) -> Device:
    """Return what `spec` names among these filesystems; how `other` is what names no disk: tmpfs, an NFS server."""
    if tag := _tag(spec):
        return Device(how="tag", filesystem=_tagged(*tag, filesystems))
    if _BY_HARDWARE.fullmatch(spec):
        return Device(how="hardware")
    if match := _LETTERED.fullmatch(spec) or _NUMBERED.fullmatch(spec):
        if match[1] not in ("a", "0"):
            return Device(how="kernel name", first=False)
        number = int(match[2][:9]) if match[2] else None
        found = (one for one in filesystems if one.partition == number and one.device.count("/") == 2)
        return Device(how="kernel name", filesystem=next(found, None))
    if spec.startswith("/dev/"):
        return Device(how="volume", filesystem=_volume(spec, filesystems))
    return Device(how="other")


def _tag(spec: str) -> tuple[str, str] | None:
    if match := _TAG.fullmatch(spec):
        return match[1], match[2].strip('"')
    if match := _BY.fullmatch(spec):
        # udev writes what is not plain in these names as \x20.
        return match[1].upper(), re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), match[2])
    return None


def _tagged(tag: str, value: str, filesystems: Sequence[Filesystem]) -> Filesystem | None:
    exact = tag in ("LABEL", "PARTLABEL")
    for found in filesystems:
        has = str(getattr(found, _FIELDS[tag]))
        if has == value if exact else has.casefold() == value.casefold():
            return found
    return None


def _volume(spec: str, filesystems: Sequence[Filesystem]) -> Filesystem | None:
    """Return the logical volume of that name: /dev/GROUP/VOLUME, or device-mapper's form of it."""
    for found in filesystems:
        group, _, volume = found.device.removeprefix("/dev/").partition("/")
        mapped = f"/dev/mapper/{group.replace('-', '--')}-{volume.replace('-', '--')}"
        if volume and spec in (found.device, mapped):
            return found
    return None
