"""The image in the appliance: its filesystems, its root, what its files say, and the edits made to it.

Only calls that cost milliseconds, or 0.2 s where a process must run in the appliance: no `inspect_os` (8.5 s), no
`read_file`, `cat` or `download` of small files (0.12 s each; `pread` 0.5 ms), no `list_filesystems` (4 s).
Everything the guest holds is untrusted: its names and symbolic links are followed inside the appliance only, its
file contents are bytes.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from builder.errors import GuestError
from builder.guest import labels
from builder.guest.facts import Edit, Filesystem, GuestFacts, SetLabel, WriteFile
from builder.guest.session import DEVICE, Session

_ROOT_TYPES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs"})
_ROOT_SIGNS = ("/etc/os-release", "/usr/lib/os-release", "/etc/fstab")
_LVM_MEMBER = "LVM2_member"
_CHUNK = 1 << 20  # bytes; a libguestfs message holds at most 4 MiB
_FILE_LIMIT = 16 << 20  # bytes of a file that a step wants to look at


@dataclass(frozen=True, kw_only=True)
class _Root:
    device: str
    options: tuple[str, ...] = ()  # for mount: the subvolume of a btrfs


class Guest:
    """An image attached to a session, looked at once; what edits change is looked at again, and nothing else."""

    def __init__(self, session: Session) -> None:
        """Find the filesystems and the root. Raises GuestError: none, or more than one."""
        self._session = session
        self._call = session.call
        self._mounted: Literal["", "ro", "rw"] = ""
        self._files: dict[str, bytes | None] = {}
        self._filesystems = {found.device: found for found in self._find_filesystems()}
        self._root = self._find_root()

    def facts(self, reads: Iterable[str]) -> GuestFacts:
        """Return what the guest is like now, with the contents of those files of `reads` that it has."""
        for path in reads:
            if path not in self._files:
                self._mount("ro")
                self._files[path] = self._read(path)
        files = {path: data for path, data in self._files.items() if data is not None}
        return GuestFacts(root=self._root.device, filesystems=tuple(self._filesystems.values()), files=files)

    def apply(self, edit: Edit) -> None:
        """Make one edit. Raises GuestError when the guest cannot take it."""
        match edit:
            case WriteFile():
                self._write(edit)
            case SetLabel():
                self._set_label(edit)

    def trim(self) -> None:
        """Give back the blocks that the root filesystem does not use, so that nobody stores or sends them."""
        self._mount("rw")
        # A filesystem that cannot trim is none the worse; a dead appliance says so again at the next call.
        with suppress(GuestError):
            self._call("fstrim", "/")

    def _find_filesystems(self) -> list[Filesystem]:
        found = [self._look(device) for device in self._call("list_partitions") or [DEVICE]]
        if any(filesystem.type == _LVM_MEMBER for filesystem in found):
            self._call("lvm_scan", True)  # noqa: FBT003 - libguestfs' own signature: activate
            found += [self._look(device) for device in self._call("lvs")]
        return [filesystem for filesystem in found if filesystem.type]

    def _look(self, device: str) -> Filesystem:
        tags = self._call("blkid", device)
        label = tags.get("LABEL", "")
        if "\\" in label:  # blkid escapes blanks, quotes and what is not printable
            label = self._call("vfs_label", device)
        return Filesystem(
            device=device,
            type=tags.get("TYPE", ""),
            label=label,
            uuid=tags.get("UUID", ""),
            partuuid=tags.get("PART_ENTRY_UUID", ""),
            partlabel=re.sub(r"\\(.)", r"\1", tags.get("PART_ENTRY_NAME", "")),
        )

    def _find_root(self) -> _Root:
        roots: list[_Root] = []
        unmountable: list[str] = []
        candidates = [found for found in self._filesystems.values() if found.type in _ROOT_TYPES]
        for filesystem in candidates:
            try:
                roots += self._roots_on(filesystem)
            except GuestError as error:
                unmountable.append(f"{filesystem.device}: {error.message}")
            if len(candidates) > 1:
                self._unmount()
        if not roots:
            seen = ", ".join(f"{found.device} ({found.type})" for found in self._filesystems.values())
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
            self._unmount()  # it was mounted whole, for the search
        return roots[0]

    def _roots_on(self, filesystem: Filesystem) -> list[_Root]:
        """Return the roots in a filesystem, which stays mounted: itself, else its subvolumes that look like one."""
        device = filesystem.device
        self._call("mount_ro", device, "/")
        self._mounted = "ro"
        if self._is_root("/"):
            return [_Root(device=device)]
        if filesystem.type != "btrfs":
            return []
        paths = [volume["btrfssubvolume_path"] for volume in self._call("btrfs_subvolume_list", "/")]
        # Snapshots of a root lie below it or in a directory; only the topmost subvolumes are roots of their own.
        tops = [path for path in paths if "/" not in path]
        return [_Root(device=device, options=(f"subvol={path}",)) for path in tops if self._is_root(f"/{path}/")]

    def _is_root(self, directory: str) -> bool:
        return any(self._call("exists", directory.rstrip("/") + sign) for sign in _ROOT_SIGNS)

    def _mount(self, mode: Literal["ro", "rw"]) -> None:
        """Have the root filesystem mounted on /, at least in that mode."""
        if self._mounted in (mode, "rw"):
            return
        if self._mounted:
            self._call("remount", "/", rw=True)
        else:
            self._call("mount_options", ",".join((mode, *self._root.options)), self._root.device, "/")
        self._mounted = mode

    def _unmount(self) -> None:
        if self._mounted:
            self._call("umount_all")
            self._mounted = ""

    def _read(self, path: str) -> bytes | None:
        """Return the bytes of a regular file, or None when there is none at `path`."""
        if not self._call("is_file", path, followsymlinks=True):
            return None
        data = bytearray()
        while chunk := self._call("pread", path, _CHUNK, len(data)):
            data += chunk
            if len(data) > _FILE_LIMIT:
                raise GuestError(f"{path} in the guest is larger than {_FILE_LIMIT >> 20} MiB, which no such file is")
        return bytes(data)

    def _write(self, edit: WriteFile) -> None:
        """Write beside the file and rename over it, so that the guest never has half of it."""
        self._mount("rw")
        path = edit.path
        present = self._call("exists", path)
        if present:
            path = self._call("realpath", path)
            if not self._call("is_file", path):
                raise GuestError(f"{edit.path} in the guest is not a regular file")
        aside = posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}.emi")
        self._call("rm_f", aside)
        if present:
            self._call("cp_a", path, aside)  # owner, mode, ACL and SELinux context; the bytes are replaced
        self._call("write", aside, edit.data[:_CHUNK])
        for offset in range(_CHUNK, len(edit.data), _CHUNK):
            self._call("pwrite", aside, edit.data[offset : offset + _CHUNK], offset)
        self._call("rename", aside, path)
        self._files.clear()  # which names led to that file is the guest's affair

    def _set_label(self, edit: SetLabel) -> None:
        filesystem = self._filesystems.get(edit.device)
        if filesystem is None:
            raise GuestError(f"there is no filesystem on {edit.device} to label {edit.label!r}")
        if problem := labels.problem(filesystem.type, edit.label):
            raise GuestError(f"{edit.device}: {problem}")
        if filesystem.type.startswith("ext") and edit.device == self._root.device:
            self._mount("rw")  # ext is labelled in use, but not while it is read-only
        elif edit.device == self._root.device:
            self._unmount()  # xfs_admin refuses a mounted filesystem
        self._call("set_label", edit.device, edit.label)
        self._filesystems[edit.device] = replace(filesystem, label=edit.label)
