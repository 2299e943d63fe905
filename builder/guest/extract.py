"""One part of a disk as an image of its own: a partition, the root wherever it is, a logical volume, a subvolume.

Nothing is copied where bytes of the disk in one piece are what is wanted: a partition is that anyway, and so is a
logical volume, mostly. A root in a btrfs subvolume becomes the default subvolume of its filesystem, the one that is
mounted when none is named: the filesystem stays whole (label, UUID, the subvolumes that its fstab mounts), and boots
without further words on the kernel's command line. That is one edit, on a layer over the disk. Only a volume in several
pieces is written to a file; what is not in plain pieces (thin, striped) is read through the appliance, which is slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from builder.errors import GuestError, InputError
from builder.guest import fstab, overlay
from builder.guest.disk import Disk
from builder.guest.overlay import Layer
from builder.guest.session import DEVICE, Session
from builder.image.extract import Layout, Place, Wanted, find, listed
from builder.image.identity import printable
from builder.image.joined import Joined
from builder.image.raw import Window
from builder.image.stream import Extent, ImageReader
from builder.image.write import write_sparse
from builder.progress import SILENT, Progress

_PARTITION = re.compile(re.escape(DEVICE) + r"(\d*)")
_VOLUME = re.compile(r"/dev/([A-Za-z0-9+_.-]+/[A-Za-z0-9+_.-]+)")  # lvm(8): what names may hold; safe in a shell
_LINEAR = re.compile(
    r"(\d+) ([1-9]\d*) linear (\d+:\d+) (\d+)"
)  # start, length, device, offset; in sectors of 512 bytes
# The image by its SCSI address, as Session plugs it in: the kernel's own names for disks may come out otherwise.
_SYS = re.compile(r".*/\d+:0:0:0/block/sd[a-z]+(?:/sd[a-z]+(\d+))?")
_TOP = 5  # the id of a btrfs' topmost subvolume
_READ = 2 << 20  # bytes; a libguestfs message holds at most 4 MiB


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """Bytes `offset` to `offset + size` of the disk, of the layer over it, or of a raw file made of it."""

    title: str
    offset: int
    size: int
    layer: Path | None = None  # a qcow2 over the disk
    file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class _Volume:
    """What was found: its bytes on the disk in order, or, where those are not known, the device that has them."""

    title: str
    device: str
    pieces: tuple[tuple[int, int], ...] = ()
    subvolume: str = ""


def extract(
    base: Layer,
    wanted: Wanted,
    scratch: Path,
    *,
    backing_name: str = "image",
    session: Session | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Extracted:
    """Find the part of the disk `base` that is wanted; files that it takes are made in `scratch`.

    `backing_name` is what a layer calls the disk (see `overlay.create`). The appliance is launched only where the
    partition table does not tell; `session` is used then, and stays the caller's. `cache` remembers what acceleration
    was proven. Raises InputError when there is no such part, or more than one; GuestError, FormatRefused, DiskFull and
    HostError. A crash leaves files in `scratch`.
    """
    with overlay.open_layer(base) as reader:
        layout = Layout.of(reader)
        place = find(layout, wanted)
        if place is not None and wanted.subvolume is None:
            return Extracted(title=place.title, offset=place.offset, size=place.size)
        target = scratch / "layer.qcow2"
        target.unlink(missing_ok=True)
        layer = overlay.create(base, target, backing_name=backing_name)
        with _launched(session, cache, progress) as appliance, _plugged(appliance, layer):
            search = _Search(appliance, layout, reader, progress)
            volume = search.volume(wanted, place)
            edited = bool(volume.subvolume) and search.make_default(volume)
            if not volume.pieces:
                return _read_out(appliance, volume, scratch, progress)
    if not edited:
        target.unlink()
    if len(volume.pieces) == 1:
        ((offset, size),) = volume.pieces
        return Extracted(title=volume.title, offset=offset, size=size, layer=target if edited else None)
    progress.note(f"{volume.title} lies in {len(volume.pieces)} pieces, which are put together")
    with overlay.open_layer(layer if edited else base) as reader:
        return _written(Joined(reader, volume.pieces), volume, scratch, progress)


@contextmanager
def _launched(session: Session | None, cache: Path | None, progress: Progress) -> Iterator[Session]:
    with nullcontext(session) if session else Session(cache=cache) as appliance:
        progress.note("waiting for the appliance")
        progress.note(f"appliance launched in {appliance.launched():.1f} s")
        yield appliance


@contextmanager
def _plugged(session: Session, layer: Layer) -> Iterator[None]:
    """Have the disk in the appliance; when the block has ended well, all that was written is in the layer."""
    session.attach(layer)
    try:
        yield
    except BaseException:
        with suppress(GuestError):
            session.detach()
        raise
    session.detach()


class _Search:
    """Looks for a part in a disk that is plugged in."""

    def __init__(self, session: Session, layout: Layout, reader: ImageReader, progress: Progress) -> None:
        self._session = session
        self._call = session.call
        self._layout = layout
        self._reader = reader
        self._progress = progress

    def volume(self, wanted: Wanted, place: Place | None) -> _Volume:
        """Return what is wanted, `place` being where the partition table says it is."""
        if wanted.root:
            return self._root()
        if place is not None:
            device = DEVICE if place.number is None else f"{DEVICE}{place.number}"
        elif wanted.volume is not None:
            device = self._named(wanted.volume)
        elif wanted.label is not None:
            device = self._labelled(wanted.label)
        else:
            assert wanted.subvolume is not None
            device = self._only_btrfs(wanted.subvolume)
        return self._at(device, wanted.subvolume or "")

    def _root(self) -> _Volume:
        disk = Disk(self._session)
        device = disk.root.device
        subvolume = "".join(disk.root.options).removeprefix("subvol=")
        left = self._left_behind(disk)
        disk.unmount()
        found = self._at(device, subvolume)
        self._progress.note(f"the root is {found.title}{f', subvolume {printable(subvolume)}' if subvolume else ''}")
        if left:
            self._progress.note(
                f"its fstab mounts {left} from elsewhere on the disk, which stays behind; `fstab` with `alone: true` "
                "comments that out"
            )
        return found

    def _left_behind(self, disk: Disk) -> str:
        """Return what the root's fstab mounts from elsewhere on the disk; nothing when it cannot be read."""
        data = b""
        with suppress(GuestError):  # it is for people only
            disk.mount("ro")
            if self._call("is_file", "/etc/fstab", followsymlinks=True):
                data = disk.pread_all("/etc/fstab", limit=1 << 20)
        found = fstab.mounts(data, tuple(disk.filesystems.values()), root=disk.root.device)
        return listed([mount.mount_point for mount in found if mount.device != disk.root.device])

    def _named(self, name: str) -> str:
        volumes = self._volumes()
        if f"/dev/{name}" not in volumes:
            there = listed([path.removeprefix("/dev/") for path in volumes]) or "none"
            raise InputError(f"the disk has no logical volume {name}; there is {there}, and {self._layout}")
        return f"/dev/{name}"

    def _volumes(self) -> list[str]:
        if not self._layout.has_lvm:
            return []
        self._call("lvm_scan", True)  # noqa: FBT003 - libguestfs' own signature: activate
        return [path for path in self._call("lvs") if _VOLUME.fullmatch(path)]

    def _labelled(self, label: str) -> str:
        labels = {device: self._call("vfs_label", device) for device in self._volumes()}
        return self._one([device for device, found in labels.items() if found == label], f"filesystem labelled {label}")

    def _only_btrfs(self, subvolume: str) -> str:
        there = [volume for volume in self._layout.volumes if volume.filesystem.type == "btrfs"]
        devices = [f"{DEVICE}{volume.partition or ''}" for volume in there]
        devices += [device for device in self._volumes() if self._call("vfs_type", device) == "btrfs"]
        return self._one(devices, f"btrfs that could have a subvolume {subvolume}")

    def _one(self, devices: list[str], what: str) -> str:
        if not devices:
            raise InputError(f"the disk has no {what}; there is {self._layout}")
        if len(devices) > 1:
            raise InputError(f"the disk has more than one {what}: {listed(devices)}", hint="Say which partition.")
        return devices[0]

    def _at(self, device: str, subvolume: str) -> _Volume:
        """Return where a device's bytes lie on the disk."""
        if found := _PARTITION.fullmatch(device):
            place = self._agreed(int(found[1]) if found[1] else None)
            pieces = ((place.offset, place.size),)
            return _Volume(title=place.title, device=device, pieces=pieces, subvolume=subvolume)
        title = f"logical volume {device.removeprefix('/dev/')}"
        return _Volume(title=title, device=device, pieces=self._pieces(device), subvolume=subvolume)

    def _agreed(self, number: int | None) -> Place:
        """Return where a partition lies, which the appliance's kernel and our own reading of the table agree on."""
        place = self._layout.place(number)
        if number is not None:
            told = self._call("blkid", f"{DEVICE}{number}").get("PART_ENTRY_OFFSET", "")
            if place is None or told != str(place.offset // 512):
                raise GuestError(
                    f"partition {number} begins at sector {told or 'unknown'} for the appliance, and the table as emi "
                    f"reads it says otherwise: {self._layout}"
                )
        assert place is not None
        return place

    def _pieces(self, device: str) -> tuple[tuple[int, int], ...]:
        """Return the pieces of a logical volume in order; none when they are not simply one after the other.

        Source: the kernel's admin-guide/device-mapper/linear.rst, dmsetup(8). All of it is the appliance's word about
        an untrusted image, so each piece must lie within its partition. Raises InputError when it cannot be opened.
        """
        assert _VOLUME.fullmatch(device)
        try:
            table = self._call("debug", "sh", [f"dmsetup table {device}"])
        except GuestError as error:
            raise InputError(
                f"logical volume {device.removeprefix('/dev/')} cannot be opened: {error.message}",
                hint="Part of its volume group may lie on another disk.",
            ) from error
        pieces: list[tuple[int, int]] = []
        for line in table.splitlines():
            found = _LINEAR.fullmatch(line.strip())
            if not found:
                return ()
            length, offset = int(found[2]) * 512, int(found[4]) * 512
            place = self._partition_of(found[3])
            if place is None:
                return ()
            with Window(self._reader, place.offset, place.size) as partition:
                Window(partition, offset, length)  # raises FormatRefused
            before, size = pieces[-1] if pieces else (0, 0)
            if pieces and before + size == place.offset + offset:
                pieces[-1] = (before, size + length)
            else:
                pieces.append((place.offset + offset, length))
        return tuple(pieces)

    def _partition_of(self, number: str) -> Place | None:
        """Return the partition that a device number (8:2) is in the appliance, if it is one."""
        link = self._call("debug", "sh", [f"readlink /sys/dev/block/{number}"])
        found = _SYS.fullmatch(link.strip())
        return self._agreed(int(found[1]) if found[1] else None) if found else None

    def make_default(self, volume: _Volume) -> bool:
        """Make the subvolume the one that is mounted when none is named; say whether it was another before.

        Source: btrfs-subvolume(8). Raises InputError when there is no such subvolume.
        """
        if (kind := self._call("vfs_type", volume.device)) != "btrfs":
            raise InputError(f"{volume.title} is {kind or 'no filesystem'}, and only btrfs has subvolumes")
        self._call("mount_options", f"subvolid={_TOP}", volume.device, "/")
        volumes = self._call("btrfs_subvolume_list", "/")
        ids = {found["btrfssubvolume_path"]: found["btrfssubvolume_id"] for found in volumes}
        if volume.subvolume not in ids:
            there = listed(sorted(ids)) or "none"
            raise InputError(f"{volume.title} has no subvolume {volume.subvolume}; it has {there}")
        wanted = ids[volume.subvolume]
        changed = bool(self._call("btrfs_subvolume_get_default", "/") != wanted)
        if changed:
            self._call("btrfs_subvolume_set_default", wanted, "/")
            self._progress.note(f"subvolume {printable(volume.subvolume)} is now what is mounted when none is named")
        self._call("umount_all")
        return changed


def _read_out(session: Session, volume: _Volume, scratch: Path, progress: Progress) -> Extracted:
    progress.note(f"{volume.title} is not in plain pieces; it is read through the appliance, which takes its time")
    return _written(_Device(session, volume.device), volume, scratch, progress)


def _written(reader: ImageReader, volume: _Volume, scratch: Path, progress: Progress) -> Extracted:
    target = scratch / "volume.raw"
    progress.total(sum(extent.length for extent in reader.extents()))
    write_sparse(reader, target, progress=progress)
    return Extracted(title=volume.title, offset=0, size=reader.virtual_size, file=target)


class _Device:
    """A block device in the appliance, as an image of which nothing but the size is known beforehand."""

    def __init__(self, session: Session, device: str) -> None:
        self._call = session.call
        self._device = device
        self.virtual_size: int = session.call("blockdev_getsize64", device)

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.virtual_size)

    def pread(self, length: int, offset: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            chunk = self._call("pread_device", self._device, min(_READ, length - len(data)), offset + len(data))
            if not chunk:
                break
            data += chunk
        return bytes(data).ljust(length, b"\0")

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
