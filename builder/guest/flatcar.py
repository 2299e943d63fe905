"""Flatcar's disk: a root that is empty until the first boot, and mounts that no fstab names.

Source: flatcar/scripts, build_library/disk_layout.json. The system is on USR-A, sealed by dm-verity: it is never
written. The kernel is on EFI-SYSTEM, its initramfs inside of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.guest.facts import Filesystem
from builder.guest.fstab import Mount

_ROOT, _SYSTEM, _BOOT = "ROOT", "USR-A", "EFI-SYSTEM"  # names of partitions


def root(filesystems: Sequence[Filesystem]) -> str | None:
    """Return the device of the root filesystem, or None when this is not Flatcar's disk."""
    found = _named(filesystems, _ROOT)
    return found.device if found and _named(filesystems, _SYSTEM) else None


def mounts(filesystems: Sequence[Filesystem], *, root_device: str) -> list[Mount]:
    """Return what Flatcar mounts by itself over that root, outermost first; nothing on another system's disk."""
    system, boot = _named(filesystems, _SYSTEM), _named(filesystems, _BOOT)
    if system is None or root(filesystems) != root_device:
        return []
    return [
        Mount(device=system.device, mount_point="/usr", options=("ro",)),
        *([Mount(device=boot.device, mount_point="/boot")] if boot else []),
    ]


def _named(filesystems: Sequence[Filesystem], name: str) -> Filesystem | None:
    return next((found for found in filesystems if found.partlabel == name), None)
