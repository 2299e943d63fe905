"""What a guest looks like, to be asked for piece by piece: a step decides on it and touches nothing."""

from __future__ import annotations

import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from builder.errors import GuestError
from builder.guest.paths import follow, is_glob, matches

_PARTITION = re.compile(r"/dev/sd[a-z]+(\d+)")


@dataclass(frozen=True, kw_only=True)
class Filesystem:
    """A filesystem of the disk: `device` as the appliance names it (/dev/sda1), `type` as blkid does."""

    device: str
    type: str
    label: str = ""
    uuid: str = ""
    partuuid: str = ""
    partlabel: str = ""
    unclean: str = ""  # what its superblock said against it before it was mounted: a clause for people

    @property
    def partition(self) -> int | None:
        """The number of its partition; None for a whole disk (/dev/sda) and a logical volume (/dev/GROUP/VOLUME)."""
        found = _PARTITION.fullmatch(self.device)
        return int(found[1]) if found else None


@dataclass(frozen=True, kw_only=True)
class Stat:
    """One name in the guest, itself and not what a symbolic link leads to; `mode` as in stat(2), `size` in bytes."""

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0

    @property
    def is_file(self) -> bool:
        """Say whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Say whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Say whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def permissions(self) -> int:
        """The mode without the type: 0o644."""
        return stat.S_IMODE(self.mode)


class GuestFacts(ABC):
    """A guest as it is now. Paths are the guest's own, absolute, /boot and other filesystems of its fstab included.

    Each answer is what the edits before left, and costs milliseconds once: only what a step asks for is read. All of it
    is untrusted; a name that is not UTF-8 comes with surrogate escapes, as os.fsdecode gives it.
    """

    @property
    @abstractmethod
    def root(self) -> str:
        """The device of the root filesystem, as the appliance names it."""

    @property
    @abstractmethod
    def filesystems(self) -> Sequence[Filesystem]:
        """Every filesystem of the disk, swap included."""

    @property
    @abstractmethod
    def disk_size(self) -> int:
        """The size of the disk itself, in bytes."""

    @abstractmethod
    def sectors(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes of the disk itself: partition tables, boot code. Past its end are zeros."""

    @abstractmethod
    def least_size(self, device: str) -> int:
        """Return the size in bytes that the filesystem on that device could be shrunk to, roughly and never less."""

    @abstractmethod
    def read(self, path: str, *, limit: int = 16 << 20) -> bytes | None:
        """Return the bytes of a regular file, links followed within the guest, or None when there is none.

        Raises GuestError when it has more than `limit` bytes.
        """

    def stream(self, path: str, *, limit: int = 1 << 30) -> Iterator[bytes] | None:
        """Return the bytes of a regular file in pieces, nothing kept, or None when there is none; for large files.

        Take it to its end, or leave it, before the next edit. It raises GuestError beyond `limit` bytes.
        """
        data = self.read(path, limit=limit)
        return None if data is None else iter((data,))

    @abstractmethod
    def names(self, pattern: str) -> tuple[str, ...]:
        """Return the paths that match a glob (`*`, `?` and `[…]` within one level, as glob(7)), sorted."""

    @abstractmethod
    def stat(self, path: str) -> Stat | None:
        """Return what is at `path`, a link itself, or None."""

    @abstractmethod
    def link(self, path: str) -> str | None:
        """Return where the symbolic link at `path` points, as it is written, or None when it is none."""

    @abstractmethod
    def attribute(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute (`security.selinux`) of what is at `path`, a link itself; None without one."""

    def exists(self, path: str) -> bool:
        """Say whether the name is there, be it a dangling link."""
        return self.stat(path) is not None

    def text(self, path: str) -> str:
        """Return a file as text, bytes that are not UTF-8 as surrogate escapes; empty when there is none."""
        return (self.read(path) or b"").decode("utf-8", "surrogateescape")

    def filesystem(self, device: str) -> Filesystem | None:
        """Return the filesystem on `device`."""
        return next((found for found in self.filesystems if found.device == device), None)

    def partition(self, number: int) -> Filesystem | None:
        """Return the filesystem on that partition of the disk."""
        return next((found for found in self.filesystems if found.partition == number), None)


@dataclass(frozen=True, kw_only=True)
class KnownFacts(GuestFacts):
    """Facts as plain values, without an appliance: bytes are a file, text is the target of a symbolic link.

    A directory is there when something lies in it, or when it is named with a final slash.
    """

    root: str = "/dev/sda1"
    filesystems: Sequence[Filesystem] = (Filesystem(device="/dev/sda1", type="ext4"),)
    files: Mapping[str, bytes | str] = field(default_factory=dict)
    stats: Mapping[str, Stat] = field(default_factory=dict)  # where mode or owner matter
    disk: bytes = b""  # the disk's first bytes; what follows is zeros
    disk_size: int = 1 << 30
    least_sizes: Mapping[str, int] = field(default_factory=dict)  # by device
    attributes: Mapping[tuple[str, str], bytes] = field(default_factory=dict)  # by path and name

    def attribute(self, path: str, name: str) -> bytes | None:
        """Return what `attributes` says."""
        return self.attributes.get((path, name))

    def least_size(self, device: str) -> int:
        """Return what `least_sizes` says."""
        return self.least_sizes[device]

    def sectors(self, length: int, offset: int) -> bytes:
        """Return bytes of the disk."""
        return self.disk[offset : offset + length].ljust(length, b"\0")

    def read(self, path: str, *, limit: int = 16 << 20) -> bytes | None:
        """Return the bytes of a file, links followed. Raises GuestError when it is larger than `limit`."""
        found = self.files.get(follow(path, self._target))
        if not isinstance(found, bytes):
            return None
        if len(found) > limit:
            raise GuestError(f"{path} in the guest is larger than {limit} bytes")
        return found

    def names(self, pattern: str) -> tuple[str, ...]:
        """Return the paths that match a glob."""
        found = [""]
        for part in pattern.split("/")[1:]:
            found = [f"{place}/{name}" for place in found for name in self._matching(place, part)]
        return tuple(sorted(found))

    def stat(self, path: str) -> Stat | None:
        """Return what is at `path`; mode 0644 for files, 0755 for directories, unless `stats` says otherwise."""
        path = self._place(path)
        if path in self.stats:
            return self.stats[path]
        match self.files.get(path):
            case str():
                return Stat(mode=stat.S_IFLNK | 0o777)
            case bytes(data):
                return Stat(mode=stat.S_IFREG | 0o644, size=len(data))
            case None:
                return Stat(mode=stat.S_IFDIR | 0o755) if path in self._all() else None

    def link(self, path: str) -> str | None:
        """Return the link's target."""
        return self._target(self._place(path)) or None

    def _target(self, path: str) -> str:
        found = self.files.get(path)
        return found if isinstance(found, str) else ""

    def _place(self, path: str) -> str:
        """Return the path with the links of its directory followed."""
        directory, _, name = path.rstrip("/").rpartition("/")
        return f"{follow(directory, self._target).rstrip('/')}/{name}"

    def _matching(self, place: str, part: str) -> list[str]:
        if not is_glob(part):
            return [part] if self.exists(f"{place}/{part}") else []
        inner = follow(place, self._target).rstrip("/") + "/"
        below = {path[len(inner) :] for path in self._all() if path.startswith(inner)}
        return [name for name in below if name and "/" not in name and matches(name, part)]

    def _all(self) -> set[str]:
        paths = {path.rstrip("/") for path in (*self.files, *self.stats)}
        parents = {
            "/".join(parts[:end]) for path in paths for parts in [path.split("/")] for end in range(2, len(parts))
        }
        return paths | parents | {"/"}
