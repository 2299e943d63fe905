"""A tree of files, asked as steps ask a guest: so that what cleans a guest's image cleans this one too."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from builder.bootstrap.tree import Node, Tree
from builder.errors import GuestError
from builder.guest.edits import MakeLink, Remove, Truncate, WriteFile
from builder.guest.facts import Filesystem, GuestFacts, Stat
from builder.guest.paths import follow, is_glob, matches
from builder.guest.sysprep import Removal

DEVICE = "/dev/sda"  # how the filesystem is called in here; it is the whole of its disk
_TYPES: Mapping[str, int] = {
    "directory": stat.S_IFDIR,
    "file": stat.S_IFREG,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "block": stat.S_IFBLK,
    "character": stat.S_IFCHR,
}


class TreeFacts(GuestFacts):
    """The facts of a tree, and edits made to it; `now` (seconds) is the time of what is written."""

    def __init__(self, tree: Tree, filesystem: Filesystem, size: int, *, now: int) -> None:
        self._tree = tree
        self._filesystem = replace(filesystem, device=DEVICE)
        self._size = size
        self._now = now
        self._below: dict[str, set[str]] = {}
        for node in tree:
            self._below.setdefault(node.parent, set()).add(node.name)

    @property
    def root(self) -> str:
        """The device of the filesystem."""
        return DEVICE

    @property
    def filesystems(self) -> Sequence[Filesystem]:
        """The one filesystem."""
        return (self._filesystem,)

    @property
    def disk_size(self) -> int:
        """The size of the filesystem."""
        return self._size

    def sectors(self, length: int, offset: int) -> bytes:  # noqa: ARG002 - nothing is written yet
        """Return zeros: there is no disk yet."""
        return bytes(length)

    def least_size(self, device: str) -> int:  # noqa: ARG002 - there is one
        """Return what the files need."""
        return sum(node.size for node in self._tree)

    def read(self, path: str, *, limit: int = 16 << 20) -> bytes | None:
        """Return the bytes of a file, links followed."""
        node = self._tree.get(follow(path, self._target).lstrip("/"))
        if node is None or node.source is None:
            return None
        if node.size > limit:
            raise GuestError(f"{path} has {node.size} bytes, more than {limit}")
        return node.source.read_bytes()

    def names(self, pattern: str) -> tuple[str, ...]:
        """Return the paths that match a glob."""
        found = [""]
        for part in pattern.split("/")[1:]:
            found = [f"{place}/{name}" for place in found for name in self._matching(place, part)]
        return tuple(sorted(found))

    def stat(self, path: str) -> Stat | None:
        """Return what is at `path`."""
        node = self._node(path)
        if node is None:
            return None
        return Stat(mode=_TYPES[node.kind] | node.mode, uid=node.uid, gid=node.gid, size=node.size)

    def link(self, path: str) -> str | None:
        """Return the link's target."""
        node = self._node(path)
        return (node.target or None) if node else None

    def attribute(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute."""
        node = self._node(path)
        return node.xattrs.get(name) if node else None

    def apply(self, edit: Removal) -> None:
        """Make the edit."""
        match edit:
            case Remove(paths=paths):
                for path in paths:
                    self._remove(self._place(path))
            case Truncate(paths=paths):
                for path in paths:
                    self._write(self._place(path), b"")
            case WriteFile(path=path, data=data):
                self._write(follow(path, self._target).lstrip("/"), data)
            case MakeLink(path=path, target=target):
                self._tree.symlink(self._place(path), target, mtime=self._now)
                self._seen(self._place(path))

    def _write(self, path: str, data: bytes) -> None:
        before = self._tree.get(path)
        self._tree.write(path, data, mtime=self._now)
        made = self._tree.get(path)
        assert made is not None
        if before is not None:
            kept = replace(made, mode=before.mode, uid=before.uid, gid=before.gid, xattrs=before.xattrs)
            self._tree.add(kept)
        self._seen(path)

    def _seen(self, path: str) -> None:
        while path:
            path, _, name = path.rpartition("/")
            self._below.setdefault(path, set()).add(name)

    def _remove(self, path: str) -> None:
        gone = {path, *self._under(path)}
        self._tree.remove(lambda node: node.path in gone)
        parent, _, name = path.rpartition("/")
        self._below.get(parent, set()).discard(name)

    def _under(self, path: str) -> Iterator[str]:
        for name in self._below.pop(path, ()):
            inner = posixpath.join(path, name)
            yield inner
            yield from self._under(inner)

    def _node(self, path: str) -> Node | None:
        return self._tree.get(self._place(path))

    def _place(self, path: str) -> str:
        """Return the path as the tree has it, with the links of its directory followed."""
        directory, _, name = path.rstrip("/").rpartition("/")
        return posixpath.join(follow(directory, self._target), name).lstrip("/")

    def _target(self, path: str) -> str:
        node = self._tree.get(path.lstrip("/"))
        return node.target if node else ""

    def _matching(self, place: str, part: str) -> list[str]:
        if not is_glob(part):
            return [part] if self.exists(f"{place}/{part}") else []
        inner = follow(place, self._target).lstrip("/")
        return [name for name in self._below.get(inner, ()) if name and matches(name, part)]
