"""Disk, partition and filesystem get another size, in the appliance, in the order in which nothing is ever cut off.

Growing: disk, table, filesystem. Shrinking: filesystem, table (its second copy within the new end), disk. A crash on
the way leaves a layer that is thrown away.
"""

from __future__ import annotations

from typing import Any

from builder.errors import GuestError
from builder.guest.disk import Disk
from builder.guest.edits import Resize
from builder.guest.facts import Filesystem
from builder.guest.layout import DiskReader, read_layout
from builder.guest.session import DEVICE, Session
from builder.guest.table import resized

EXT = ("ext2", "ext3", "ext4")
LVM = "LVM2_member"
GROWS = (*EXT, "xfs", "btrfs", "swap", LVM)
SHRINKS = (*EXT, "btrfs", "swap")

_LIMIT = 3600.0  # seconds for a check or a move of a whole filesystem


def least_size(session: Session, disk: Disk, device: str) -> int:
    """Return the size in bytes that a filesystem could be shrunk to. Raises GuestError for types that cannot."""
    found = disk.filesystems[device]
    disk.unmount()
    if found.type == "btrfs":
        session.call("mount_ro", device, "/")
    try:
        return int(session.call("vfs_minimum_size", device, within=_LIMIT))
    finally:
        session.call("umount_all")


def resize(session: Session, disk: Disk, edit: Resize) -> None:
    """Make the edit. Raises GuestError when the filesystem does not fit, is damaged, or cannot be resized."""
    disk.unmount()
    reader = _reader(session)
    layout = read_layout(reader)
    if edit.disk != layout.size:
        session.require_resizable()  # before a filesystem is touched
    number = edit.partition if edit.size is not None else None
    writes = resized(reader, disk=edit.disk, number=number, size=edit.size)  # first, since it may refuse
    slot = layout.slot(edit.partition)
    found = disk.filesystems.get(f"{DEVICE}{edit.partition or ''}")
    shrinks = slot is not None and edit.size is not None and edit.size < slot.size
    if found and edit.size is not None and shrinks:
        _shrink(session, found, edit.size)
    if edit.disk > layout.size:
        session.resize(edit.disk)
    for write in writes:
        session.call("pwrite_device", DEVICE, write.data, write.offset)
    if edit.disk < layout.size or (writes and not _reread(session)):
        session.resize(edit.disk)
    if found and edit.size is not None and (not shrinks or found.type == "swap"):
        _fill(session, disk, found)
    _verify(session, edit)


def _reread(session: Session) -> bool:
    """Say whether the kernel took the new table: not while someone holds a partition, as LVM does."""
    try:
        session.call("blockdev_rereadpt", DEVICE)
    except GuestError:  # plugged in anew it is read in any case, or the session is dead, and says so again
        return False
    return True


def _reader(session: Session) -> DiskReader:
    def read(length: int, offset: int) -> bytes:
        data = b""
        while len(data) < length:
            chunk = session.call("pread_device", DEVICE, length - len(data), offset + len(data))
            if not chunk:
                break
            data += chunk
        return data.ljust(length, b"\0")

    return DiskReader(read, int(session.call("blockdev_getsize64", DEVICE)))


def _verify(session: Session, edit: Resize) -> None:
    """Hold what is on the disk now against what was asked for: our own reader judges what others wrote."""
    layout = read_layout(_reader(session))
    slot = layout.slot(edit.partition)
    if layout.size != edit.disk or layout.problem:
        raise GuestError(f"the disk has {layout.size} bytes after its resize, not {edit.disk}; {layout.problem}")
    if slot is None or edit.size is None:
        return
    if slot.number is not None and slot.size != edit.size:
        raise GuestError(f"partition {slot.number} has {slot.size} bytes after its resize, not {edit.size}")
    if slot.filled > slot.size:
        raise GuestError(f"the {slot.filesystem} has {slot.filled} bytes after its resize, in {slot.size}")


def _shrink(session: Session, found: Filesystem, size: int) -> None:
    if found.type in EXT:
        _check(session, found.device)
        session.call("resize2fs_size", found.device, size, within=_LIMIT)
        _check(session, found.device)
    elif found.type == "btrfs":
        session.call("mount", found.device, "/")
        session.call("btrfs_filesystem_resize", "/", size=size, within=_LIMIT)
        session.call("umount_all")
    elif found.type != "swap":
        raise GuestError(f"{found.device} is {found.type}, which cannot be shrunk")


def _check(session: Session, device: str) -> None:
    try:
        session.call("e2fsck", device, correct=True, within=_LIMIT)
    except GuestError as error:
        raise GuestError(
            f"the filesystem on {device} is damaged, and is not resized so: {error.message}",
            hint="Repair it with e2fsck on a copy of the image, or take an undamaged image.",
        ) from error


def _fill(session: Session, disk: Disk, found: Filesystem) -> None:
    """Have the filesystem take all of its partition."""
    if found.type in EXT:
        _check(session, found.device)
        session.call("resize2fs", found.device, within=_LIMIT)
    elif found.type in ("xfs", "btrfs"):
        session.call("mount", found.device, "/")
        if found.type == "xfs":
            session.call("xfs_growfs", "/", within=_LIMIT)
        else:
            session.call("btrfs_filesystem_resize", "/", within=_LIMIT)
        session.call("umount_all")
    elif found.type == "swap":
        tags: dict[str, Any] = {"label": found.label, "uuid": found.uuid}
        tags = {name: value for name, value in tags.items() if value}
        session.call("mkswap", found.device, **tags)
    elif found.type == LVM:
        session.call("pvresize", found.device)
        session.call("lvresize_free", disk.root.device, 100)
        _fill(session, disk, disk.filesystems[disk.root.device])
    else:
        raise GuestError(f"{found.device} is {found.type}, which cannot be made to fill its partition")
