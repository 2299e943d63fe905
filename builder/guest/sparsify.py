"""Unused blocks of a disk are given back, so that nobody stores or sends them; measured at the layer itself.

Discards go through qemu into the layer, where a cluster becomes a zero cluster: it reads as zeros and no longer falls
through to the image below (qemu, block/qcow2-cluster.c, discard_in_l2_slice).
"""

from __future__ import annotations

from contextlib import suppress

from builder.errors import GuestError
from builder.guest.disk import Disk
from builder.guest.facts import Filesystem
from builder.guest.overlay import open_layer
from builder.guest.session import Session
from builder.units import format_size

TRIMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "vfat")
LVM = "LVM2_member"
NOTHING = "nothing to gain"  # how its report begins then

_LIMIT = 3600.0  # seconds for one filesystem
# A swap's header lies in its first page, whose size is the machine's that made it: at most 64 KiB.
_SWAP_HEADER = 64 << 10
_PAGES = (4096, 8192, 16384, 32768, 65536)
_SIGNATURES = (b"SWAPSPACE2", b"SWAP-SPACE")  # at the page's end (include/linux/swap.h)
_FREE = "emi-free-space"


def give_back(session: Session, disk: Disk) -> str:
    """Trim every filesystem, empty every swap, discard LVM's free space; return what came of it, for a person.

    What cannot be trimmed is told and left as it is. Raises GuestError when a filesystem cannot be mounted.
    """
    disk.unmount()
    before = _data(session)
    told = [_one(session, found) for found in disk.filesystems.values()]
    if any(found.type == LVM for found in disk.filesystems.values()):
        told += [_free_space(session, group) for group in session.call("vgs")]
    after = _data(session)
    gained = f"gave back {format_size(before - after)} of {format_size(before)}" if before > after else NOTHING
    return "; ".join([gained, *filter(None, told)])


def _data(session: Session) -> int:
    """Return how many bytes of the disk are stored: in the layer, or below it where that shows."""
    session.flush()
    assert session.layer is not None
    with open_layer(session.layer) as reader:
        return sum(extent.length for extent in reader.extents())


def _one(session: Session, found: Filesystem) -> str:
    if found.type == LVM:
        return ""
    if found.type == "swap":
        return _swap(session, found.device)
    if found.type not in TRIMS:
        return f"{found.device} is {found.type}, whose unused blocks stay"
    session.call("mount", found.device, "/")
    try:
        session.call("fstrim", "/", within=_LIMIT)
    except GuestError as error:
        return f"{found.device} ({found.type}) cannot be trimmed: {error.message}"
    finally:
        session.call("umount_all")
    return ""


def _swap(session: Session, device: str) -> str:
    header = session.call("pread_device", device, _SWAP_HEADER, 0)
    try:
        session.call("blkdiscard", device, within=_LIMIT)
    except GuestError as error:
        return f"{device} (swap) cannot be emptied: {error.message}"
    # What follows its page is swapped out memory again.
    page = next((size for size in _PAGES if header[size - 10 : size] in _SIGNATURES), _SWAP_HEADER)
    session.call("pwrite_device", device, header[:page], 0)
    return ""


def _free_space(session: Session, group: str) -> str:
    try:
        session.call("lvcreate_free", _FREE, group, 100)
    except GuestError:  # no free space
        return ""
    volume = f"/dev/{group}/{_FREE}"
    try:
        session.call("blkdiscard", volume, within=_LIMIT)
    except GuestError as error:
        return f"the free space of {group} cannot be discarded: {error.message}"
    finally:
        with suppress(GuestError):
            session.call("lvremove", volume)
    return ""
