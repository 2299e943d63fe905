"""A guest in the appliance: what steps ask of it, answered once and kept until an edit; and the edits made to it.

No `read_file`, `cat` or `download` of small files (0.12 s each; `pread` 0.5 ms).
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import singledispatchmethod
from pathlib import Path

from builder.errors import GuestError, InputError
from builder.guest import commands, drivers, labels, resize, sparsify, uuids
from builder.guest.disk import Disk
from builder.guest.edits import (
    Command,
    CopyIn,
    CopyOut,
    CopyTree,
    Edit,
    GiveBack,
    MakeDirectory,
    MakeLink,
    Remove,
    RequireDrivers,
    Resize,
    SetAttributes,
    SetLabel,
    SetUuid,
    Truncate,
    WriteFile,
)
from builder.guest.facts import Filesystem, GuestFacts, Stat
from builder.guest.paths import literal
from builder.guest.session import DEVICE, Session

_CHUNK = 1 << 20  # bytes; a libguestfs message holds at most 4 MiB
_COPY_LIMIT = 1 << 30  # bytes of a kernel or initramfs


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """The host's directories that files are copied in from, and out to."""

    sources: Path | None = None
    exports: Path | None = None


NO_EXCHANGE = Exchange()


class Guest(GuestFacts):
    """The guest of the image attached to a session. Answers are kept; an edit forgets what it may have changed."""

    def __init__(self, session: Session, exchange: Exchange = NO_EXCHANGE) -> None:
        """Find the filesystems and the root. Raises GuestError: none, or more than one."""
        self._call = session.call
        self._session = session
        self._exchange = exchange
        self._files: dict[str, bytes | None] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._stats: dict[str, Stat | None] = {}
        self.disk = Disk(session)

    @property
    def root(self) -> str:
        """The device of the root filesystem."""
        return self.disk.root.device

    @property
    def filesystems(self) -> Sequence[Filesystem]:
        """Every filesystem of the disk."""
        return tuple(self.disk.filesystems.values())

    @property
    def disk_size(self) -> int:
        """The size of the disk itself, in bytes."""
        return int(self._call("blockdev_getsize64", DEVICE))

    def least_size(self, device: str) -> int:
        """Return the size in bytes that the filesystem on that device could be shrunk to."""
        return resize.least_size(self._session, self.disk, device)

    def sectors(self, length: int, offset: int) -> bytes:
        """Return bytes of the disk itself; zeros past its end."""
        return self.disk.sectors(DEVICE, length, offset)

    def read(self, path: str, *, limit: int = 16 << 20) -> bytes | None:
        """Return the bytes of a regular file, or None. Raises GuestError when it is larger than `limit`."""
        if path not in self._files:
            self.disk.mount("ro", path, below=False)
            present = self.disk.is_file(path)
            self._files[path] = self.disk.pread_all(path, limit=limit) if present else None
        return self._files[path]

    def stream(self, path: str, *, limit: int = 1 << 30) -> Iterator[bytes] | None:
        """Return the bytes of a regular file in pieces of 1 MiB, or None. Raises GuestError beyond `limit`."""
        self.disk.mount("ro", path, below=False)
        return self.disk.pieces(path, limit=limit) if self.disk.is_file(path) else None

    def names(self, pattern: str) -> tuple[str, ...]:
        """Return the paths that match a glob, sorted."""
        if pattern not in self._names:
            directory = literal(pattern)
            # The names of one directory are there without what is mounted on them.
            self.disk.mount("ro", directory, below=pattern.count("/") > directory.rstrip("/").count("/") + 1)
            # libguestfs would also take braces, which are no part of glob(7).
            found = self._call("glob_expand", pattern.replace("{", r"\{"), directoryslash=False)
            self._names[pattern] = tuple(sorted(found))
        return self._names[pattern]

    def stat(self, path: str) -> Stat | None:
        """Return what is at `path`, a link itself, or None."""
        if path not in self._stats:
            self.disk.mount("ro", path, below=False)
            self._stats[path] = self.disk.lstat(path)
        return self._stats[path]

    def link(self, path: str) -> str | None:
        """Return where the symbolic link at `path` points, or None when it is none."""
        found = self.stat(path)
        return str(self._call("readlink", path)) if found and found.is_link else None

    def attribute(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute of what is at `path`, a link itself."""
        if self.stat(path) is None:
            return None
        found = {each["attrname"]: each["attrval"] for each in self._call("lgetxattrs", path)}
        return found.get(name)

    def apply(self, edit: Edit) -> str:
        """Make one edit; return what it has to say beyond its own words: a command's output. Raises GuestError."""
        output = self._do(edit)
        if not isinstance(edit, CopyOut):
            self._forget()
        return output

    def _forget(self) -> None:
        # Which names lead to what was changed, through links and mounts, is the guest's affair.
        self._files.clear()
        self._names.clear()
        self._stats.clear()
        self.disk.forget_mounts()

    @singledispatchmethod
    def _do(self, edit: Edit) -> str:
        raise TypeError(f"{edit!r} is no edit")

    def trim(self) -> None:
        """Give back the blocks that the mounted filesystems do not use, so that nobody stores or sends them."""
        self.disk.trim()

    @_do.register
    def _write(self, edit: WriteFile) -> str:
        path, aside = self._begin(edit.path)
        self._call("write", aside, edit.data[:_CHUNK])
        for offset in range(_CHUNK, len(edit.data), _CHUNK):
            self._call("pwrite", aside, edit.data[offset : offset + _CHUNK], offset)
        self._attributes(aside, edit.mode, edit.owner)
        self._call("rename", aside, path)
        return ""

    @_do.register
    def _copy_in(self, edit: CopyIn) -> str:
        path, aside = self._begin(edit.path)
        self._call("write", aside, b"")
        offset = 0
        try:
            for chunk in self._pinned(edit.source, edit.sha256):
                self._call("pwrite", aside, chunk, offset)
                offset += len(chunk)
        except InputError:
            self._call("rm_f", aside)
            raise
        self._attributes(aside, edit.mode, edit.owner)
        self._call("rename", aside, path)
        return ""

    def _pinned(self, source: str, sha256: str) -> Iterator[bytes]:
        """Yield a file of the recipe's directory in pieces. Raises InputError, at its end, when it is another now."""
        assert self._exchange.sources is not None
        digest = hashlib.sha256()
        try:
            with open(self._exchange.sources / source, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    yield chunk
        except OSError as error:
            raise InputError(f"{source} cannot be copied into the guest: {error.strerror}") from error
        if digest.hexdigest() != sha256:
            raise InputError(f"{source} was changed while the recipe ran", hint="Run it again.")

    @_do.register
    def _copy_tree(self, edit: CopyTree) -> str:
        for name in ("", *edit.directories):
            self._make_directory(
                MakeDirectory(path=posixpath.join(edit.path, name).rstrip("/") or "/", owner=edit.owner)
            )
        for file in edit.files:
            path, source = posixpath.join(edit.path, file.name), posixpath.join(edit.source, file.name)
            self.disk.forget_mounts()
            self._copy_in(CopyIn(path=path, source=source, sha256=file.sha256, mode=file.mode, owner=edit.owner))
        return ""

    def _begin(self, wanted: str) -> tuple[str, str]:
        """Return the file's real path, and the name beside it to write to and rename from: it has the same attributes.

        So the guest never has half of the file.
        """
        self.disk.mount("rw", wanted)
        found, present = self.disk.lstat(wanted), self.disk.is_file(wanted)
        if found and not present and not (found.is_link and self.disk.lstat(self.disk.follow(wanted)) is None):
            raise GuestError(f"{wanted} in the guest is not a regular file")
        path = self._call("realpath", wanted) if present else wanted
        if found is None and not self.disk.is_dir(posixpath.dirname(path)):
            self._call("mkdir_p", posixpath.dirname(path))
        aside = posixpath.join(posixpath.dirname(path), ".emi-new")
        self._call("rm_f", aside)
        if present:
            self._call("cp_a", path, aside)  # owner, mode, ACL and SELinux context; the bytes are replaced
        return path, aside

    @_do.register
    def _copy_out(self, edit: CopyOut) -> str:
        assert self._exchange.exports is not None
        self.disk.mount("ro", edit.path)
        if not self.disk.is_file(edit.path):  # a fifo would hang, a device is not the guest's
            raise GuestError(f"{edit.path} in the guest is not a regular file, and is not copied out")
        offset = 0
        with open(self._exchange.exports / edit.name, "wb") as file:
            while chunk := self._call("pread", edit.path, _CHUNK, offset):
                file.write(chunk)
                offset += len(chunk)
                if offset > _COPY_LIMIT:
                    raise GuestError(f"{edit.path} in the guest is larger than {_COPY_LIMIT >> 20} MiB")
        return ""

    @_do.register
    def _make_directory(self, edit: MakeDirectory) -> str:
        self.disk.mount("rw", edit.path)
        self._call("mkdir_p", edit.path)
        self._attributes(edit.path, edit.mode, edit.owner)
        return ""

    @_do.register
    def _make_link(self, edit: MakeLink) -> str:
        self.disk.mount("rw", edit.path)
        if not self.disk.is_dir(posixpath.dirname(edit.path)):
            self._call("mkdir_p", posixpath.dirname(edit.path))
        path = self._real(edit.path)
        self._call("rm_f", path)  # ln would make the link inside of a directory that a link leads to
        self._call("ln_s", edit.target, path)
        return ""

    @_do.register
    def _remove(self, edit: Remove) -> str:
        self.disk.mount("rw", *edit.paths)
        for path in edit.paths:
            if not self.disk.is_dir(posixpath.dirname(path.rstrip("/")) or "/"):
                continue
            real = self._real(path)
            inner = real.rstrip("/") + "/"
            if mounted := [point for point in self.disk.mount_points if f"{point}/".startswith(inner)]:
                raise GuestError(f"{path} in the guest is, or holds, where a filesystem is mounted ({mounted[0]})")
            self._call("rm_rf", real)
            self.disk.forget(real)
        return ""

    def _real(self, path: str) -> str:
        """Return the path with the links of its directory followed, as some of libguestfs' calls need it.

        Those run a program in the appliance on a path below the guest's root, where an absolute link (/var/run ->
        /run) would lead into the appliance.
        """
        name = posixpath.basename(path.rstrip("/"))
        if name in ("", ".", ".."):
            raise GuestError(f"{path} is no name of something in a directory of the guest")
        return posixpath.join(self._call("realpath", posixpath.dirname(path.rstrip("/"))), name)

    @_do.register
    def _truncate(self, edit: Truncate) -> str:
        self.disk.mount("rw", *edit.paths)
        for path in edit.paths:
            if self.disk.is_file(path):
                self._call("truncate", path)
        return ""

    @_do.register
    def _set_attributes(self, edit: SetAttributes) -> str:
        self.disk.mount("rw", edit.path)
        self._attributes(edit.path, edit.mode, edit.owner)
        top = self._call("realpath", edit.path) if edit.recursive else ""
        for name in self._call("find", top) if edit.recursive else ():
            path = f"{top.rstrip('/')}/{name.lstrip('/')}"
            found = self.disk.lstat(path)
            if found is None or found.is_link:
                continue
            owner = None if edit.owner == (found.uid, found.gid) else edit.owner
            if owner or edit.mode != found.permissions:
                self._attributes(path, edit.mode, owner)
        return ""

    def _attributes(self, path: str, mode: int | None, owner: tuple[int, int] | None) -> None:
        if owner is not None:
            mode = self._special(path) if mode is None else mode
            self._call("chown", *owner, path)
        if mode is not None:  # after the owner
            self._call("chmod", mode, path)

    def _special(self, path: str) -> int | None:
        """Return the mode of a program with setuid or setgid, which chown takes away."""
        self.disk.forget(path)
        found = self.disk.lstat(self.disk.follow(path))
        return found.permissions if found and found.is_file and found.permissions & 0o6000 else None

    @_do.register
    def _set_label(self, edit: SetLabel) -> str:
        filesystem = self._filesystem_of(edit.device, f"to label {edit.label!r}")
        if problem := labels.problem(filesystem.type, edit.label):
            raise GuestError(f"{edit.device}: {problem}")
        if filesystem.type.startswith("ext") and edit.device == self.root:
            self.disk.mount("rw")  # ext is labelled in use, but not while it is read-only
        elif edit.device in self.disk.mounted_devices:
            self.disk.unmount()  # xfs_admin refuses a mounted filesystem
        self._call("set_label", edit.device, edit.label)
        self.disk.relabelled(edit.device, label=edit.label)
        return ""

    @_do.register
    def _set_uuid(self, edit: SetUuid) -> str:
        filesystem = self._filesystem_of(edit.device, "to give another UUID")
        if problem := uuids.problem(filesystem.type, edit.uuid):
            raise GuestError(f"{edit.device}: {problem}")
        self.disk.unmount()
        if filesystem.type == "vfat":
            for offset, data in uuids.fat_writes(self._call("pread_device", edit.device, 512, 0), edit.uuid):
                self._call("pwrite_device", edit.device, data, offset)
        else:
            if filesystem.type.startswith("ext"):
                # tune2fs writes every checksum anew, and only where the filesystem was checked after its last mount.
                self._call("e2fsck", edit.device, correct=True)
            self._call("set_uuid", edit.device, edit.uuid)
        self.disk.relabelled(edit.device, uuid=edit.uuid)
        return ""

    @_do.register
    def _resize(self, edit: Resize) -> str:
        resize.resize(self._session, self.disk, edit)
        return ""

    @_do.register
    def _give_back(self, _: GiveBack) -> str:
        return sparsify.give_back(self._session, self.disk)

    @_do.register
    def _require_drivers(self, edit: RequireDrivers) -> str:
        drivers.require(self, edit.version, edit.modules)
        return ""

    @_do.register
    def _command(self, edit: Command) -> str:
        self.disk.mount_all()
        if edit.source:
            edit = replace(edit, script=b"".join(self._pinned(edit.source, edit.sha256)))
        return commands.run(self._session, edit)

    def _filesystem_of(self, device: str, wanted: str) -> Filesystem:
        found = self.disk.filesystems.get(device)
        if found is None:
            raise GuestError(f"there is no filesystem on {device} {wanted}")
        return found
