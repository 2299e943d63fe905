"""The image in the appliance as a disk: its filesystems, which of them is the root, and where the others are mounted.

Only calls that cost milliseconds, or 0.2 s where a process must run in the appliance: no `inspect_os` (8.5 s), no
`list_filesystems` (4 s). Everything the guest holds is untrusted: its names and symbolic links are followed inside the
appliance only, its file contents are bytes.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from builder.errors import GuestError
from builder.guest import flatcar, fstab
from builder.guest.facts import Filesystem, Stat
from builder.guest.lookup import Lookup
from builder.guest.paths import follow
from builder.guest.session import DEVICE, Session
from builder.guest.unclean import HEAD, unclean

_ROOT_TYPES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs"})
_ROOT_SIGNS = ("/etc/os-release", "/usr/lib/os-release", "/etc/fstab")
_LVM_MEMBER = "LVM2_member"
_FSTAB_LIMIT = 16 << 20  # bytes
_CHUNK = 1 << 20  # bytes; a libguestfs message holds at most 4 MiB

# blkid escapes blanks and quotes by a backslash, and tells other bytes than ASCII's as `M-C` or `^C`, which cannot be
# undone (util-linux, misc-utils/blkid.c: safe_print).
_UNPRINTABLE = re.compile(r"M-|\^|\\x")
_ESCAPED = re.compile(rf"\\|{_UNPRINTABLE.pattern}")

Mode = Literal["ro", "rw"]


@dataclass(frozen=True, kw_only=True)
class Root:
    """The root filesystem's device, and what mount must know of it: the subvolume of a btrfs."""

    device: str
    options: tuple[str, ...] = ()


class Disk:
    """An image attached to a session. Its root is mounted when something of it is wanted, in the mode that takes.

    So are the other filesystems of its fstab: /boot and what lies in it, and other mount points, each when a path leads
    there, through whatever links; /usr and /var with the root, which most paths lead to in the end.
    """

    def __init__(self, session: Session) -> None:
        """Find the filesystems and the root. Raises GuestError: none, or more than one."""
        self.call = session.call
        self._mounted: dict[str, fstab.Mount] = {}  # by mount point
        self._mode: Mode = "ro"
        self._planned: dict[str, fstab.Mount] | None = None  # by mount point
        self._names = Lookup(session.call)
        self.filesystems = {found.device: found for found in self._find_filesystems()}
        self.root = self._find_root()

    def look_again(self, device: str) -> None:
        """Read the tags of one filesystem anew."""
        self.filesystems[device] = self._look(device)

    def _find_filesystems(self) -> list[Filesystem]:
        found = [self._look(device) for device in self.call("list_partitions") or [DEVICE]]
        if any(filesystem.type == _LVM_MEMBER for filesystem in found):
            self.call("lvm_scan", True)  # noqa: FBT003 - libguestfs' own signature: activate
            found += [self._look(device) for device in self.call("lvs")]
        return [self._judged(filesystem) for filesystem in found if filesystem.type]

    def _judged(self, found: Filesystem) -> Filesystem:
        return replace(found, unclean=unclean(found.type, self.sectors(found.device, HEAD, 0)))

    def sectors(self, device: str, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes of a device; what lies past its end is zeros."""
        data = b""
        while len(data) < length and (chunk := self.call("pread_device", device, length - len(data), offset)):
            data += chunk
            offset += len(chunk)
        return data.ljust(length, b"\0")

    def _look(self, device: str) -> Filesystem:
        tags = self.call("blkid", device)
        label = tags.get("LABEL", "")
        if _ESCAPED.search(label):
            label = self.call("vfs_label", device)
        name = tags.get("PART_ENTRY_NAME", "")
        return Filesystem(
            device=device,
            type=tags.get("TYPE", ""),
            label=label,
            uuid=tags.get("UUID", ""),
            partuuid=tags.get("PART_ENTRY_UUID", ""),
            # No call of the appliance tells such a name as it is, and half a name must not be taken for it.
            partlabel="" if _UNPRINTABLE.search(name) else re.sub(r"\\(.)", r"\1", name),
        )

    def _find_root(self) -> Root:
        roots: list[Root] = []
        unmountable: list[str] = []
        candidates = [found for found in self.filesystems.values() if found.type in _ROOT_TYPES]
        for filesystem in candidates:
            try:
                roots += self._roots_on(filesystem)
            except GuestError as error:
                unmountable.append(f"{filesystem.device}: {error.message}")
            if len(candidates) > 1:
                self.unmount()
        if not roots and (empty := flatcar.root(candidates)):
            roots.append(Root(device=empty))
        if not roots:
            seen = ", ".join(f"{found.device} ({found.type})" for found in self.filesystems.values())
            raise GuestError(
                "; ".join([f"no root filesystem among {seen or 'no filesystems at all'}", *unmountable]),
                hint=f"A root filesystem has one of {', '.join(_ROOT_SIGNS)}; `emi inspect IMAGE` shows the disk.",
            )
        if len(roots) > 1:
            seen = ", ".join(" ".join((root.device, *root.options)) for root in roots)
            raise GuestError(
                f"{len(roots)} root filesystems, and no way to know which is meant: {seen}",
                hint="Take an image with one system, or empty the others: a guest step edits exactly one.",
            )
        if roots[0].options:
            self.unmount()  # it was mounted whole, for the search
        return roots[0]

    def _roots_on(self, filesystem: Filesystem) -> list[Root]:
        """Return the roots in a filesystem, which stays mounted: itself, else its subvolumes that look like one."""
        device = filesystem.device
        self.call("mount_ro", device, "/")
        self._mode = "ro"
        self._mounted["/"] = fstab.Mount(device=device, mount_point="/")
        if self._is_root("/"):
            return [Root(device=device)]
        if filesystem.type != "btrfs":
            return []
        paths = [volume["btrfssubvolume_path"] for volume in self.call("btrfs_subvolume_list", "/")]
        # Snapshots of a root lie below it or in a directory; only the topmost subvolumes are roots of their own.
        tops = [path for path in paths if "/" not in path]
        return [Root(device=device, options=(f"subvol={path}",)) for path in tops if self._is_root(f"/{path}/")]

    def _is_root(self, directory: str) -> bool:
        return any(self.call("exists", directory.rstrip("/") + sign) for sign in _ROOT_SIGNS)

    def mount(self, mode: Mode, *paths: str, below: bool = True) -> None:
        """Have the root mounted, at least in that mode, and what the paths lead through, or have `below` them."""
        if mode == "rw" and self._mode == "ro":
            for point in self._writable():
                self.call("remount", point, rw=True)
            self._mode = mode
        self._put(fstab.Mount(device=self.root.device, mount_point="/", options=self.root.options))
        for point in ("/usr", "/var"):
            self._put_at(point)
        for path in paths:
            if not self._others().keys() <= self._mounted.keys():
                self._mount_on_the_way(path, below=below)

    def _writable(self) -> list[str]:
        return [point for point, mount in self._mounted.items() if "ro" not in mount.options]

    def mount_all(self) -> None:
        """Have everything mounted that the guest's fstab names and this disk has, writable."""
        self.mount("rw", "/")

    @property
    def mount_points(self) -> tuple[str, ...]:
        """Where something is mounted now, outermost first."""
        return tuple(self._mounted)

    @property
    def mounted_devices(self) -> tuple[str, ...]:
        """What is mounted now."""
        return tuple(mount.device for mount in self._mounted.values())

    def _put(self, mount: fstab.Mount) -> None:
        if mount.mount_point in self._mounted:
            return
        options = ",".join((self._mode, *mount.options))
        try:
            self.call("mount_options", options, mount.device, mount.mount_point)
        except GuestError as error:
            if mount.mount_point == "/":
                raise
            raise GuestError(f"{mount.device} cannot be mounted on {mount.mount_point}: {error.message}") from error
        self._mounted[mount.mount_point] = mount
        self._names.forget(mount.mount_point)

    def _put_at(self, point: str) -> None:
        mount = self._others().get(point)
        # A mount point that is no directory (any more) is none: the guest would not mount there either.
        there = self._names.lstat(point) if mount and point not in self._mounted else None
        if mount and there and there.is_directory:
            self._put(mount)

    def _mount_on_the_way(self, path: str, *, below: bool) -> None:
        def passing(name: str) -> str:
            self._put_at(name)
            return self._names.link(name)

        inner = follow(path, passing).rstrip("/") + "/"
        for point in self._others() if below else ():
            if point.startswith(inner):
                self._put_at(point)

    def follow(self, path: str) -> str:
        """Return where the path leads, symbolic links followed; it need not be there."""
        return self._names.follow(path)

    def lstat(self, path: str) -> Stat | None:
        """Return what is at the path, a link itself, or None."""
        directory, name = posixpath.split(path)
        if name in ("", ".", ".."):
            return self._names.stat(path)
        return self._names.lstat(posixpath.join(self.follow(directory), name))

    def _others(self) -> dict[str, fstab.Mount]:
        """Return the mounts of the guest's fstab but the root's, by where they really are, outermost first."""
        if self._planned is None:
            present = self.is_file("/etc/fstab")
            data = self.pread_all("/etc/fstab", limit=_FSTAB_LIMIT) if present else b""
            filesystems = tuple(self.filesystems.values())
            found = fstab.mounts(data, filesystems, root=self.root.device)
            named = {mount.mount_point for mount in found}
            own = flatcar.mounts(filesystems, root_device=self.root.device)
            found += [mount for mount in own if mount.mount_point not in named]
            # The appliance's mount would follow a link to a mount point out of the guest, into the appliance.
            real = [replace(mount, mount_point=self.follow(mount.mount_point)) for mount in found]
            self._planned = {mount.mount_point: mount for mount in real if mount.mount_point != "/"}
        return self._planned

    def is_file(self, path: str) -> bool:
        """Say whether the path leads to a regular file, links followed."""
        found = self._names.stat(path)
        return found is not None and found.is_file

    def is_dir(self, path: str) -> bool:
        """Say whether the path leads to a directory, links followed."""
        found = self._names.stat(path)
        return found is not None and found.is_directory

    def pread_all(self, path: str, *, limit: int) -> bytes:
        """Return the bytes of a regular file. Raises GuestError when there are more than `limit`."""
        return b"".join(self.pieces(path, limit=limit))

    def pieces(self, path: str, *, limit: int) -> Iterator[bytes]:
        """Yield the bytes of a regular file. Raises GuestError when there are more than `limit`."""
        offset = 0
        while chunk := self.call("pread", path, _CHUNK, offset):
            offset += len(chunk)
            if offset > limit:
                raise GuestError(f"{path} in the guest is larger than {limit >> 20} MiB, which no such file is")
            yield chunk

    def forget_mounts(self) -> None:
        """Read the guest's fstab, and where links lead, anew when it matters next; what is mounted stays."""
        self._planned = None
        self._names.forget()

    def forget(self, path: str) -> None:
        """Ask anew what is at a path and below it."""
        self._names.forget(path)

    def unmount(self) -> None:
        """Unmount everything."""
        if self._mounted:
            self.call("umount_all")
            self._mounted.clear()
            self._names.forget()

    def trim(self) -> None:
        """Give back the blocks that mounted filesystems do not use, so that nobody stores or sends them."""
        self.mount("rw")
        for point in self._writable():
            # A filesystem that cannot trim is none the worse; a dead appliance says so again at the next call.
            with suppress(GuestError):
                self.call("fstrim", point)

    def relabelled(self, device: str, *, label: str | None = None, uuid: str | None = None) -> None:
        """Take note of a tag that was set."""
        found = self.filesystems[device]
        self.filesystems[device] = replace(
            found, label=found.label if label is None else label, uuid=found.uuid if uuid is None else uuid
        )
        self.forget_mounts()
