"""A system's files as values: read from a tar, changed in memory, and only then written to a filesystem.

Owners, modes and times live in the values; on the host there are only anonymous files with the contents. That is why
no step from here to the disk image needs root, a mount or a user namespace, and why no path of the tar is ever
followed on the host.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal

from builder.durable import translate_disk_full
from builder.errors import ArchiveRefused

_CHUNK = 1 << 20
_PER_DIRECTORY = 1000  # content files per host directory
_XATTR = "SCHILY.xattr."  # how GNU tar's pax headers name extended attributes (tar manual, "Extended attributes")
_Kind = Literal["directory", "file", "symlink", "fifo", "block", "character"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One name in the tree. `path` is relative to the root (`etc/fstab`; the root itself is empty).

    Names with the same `inode` are hard links to one file. `mtime` is in whole seconds.
    """

    path: str
    kind: _Kind
    inode: int
    mode: int  # permission bits, set-id and sticky included
    uid: int = 0
    gid: int = 0
    mtime: int
    size: int = 0  # of a file, in bytes
    source: Path | None = None  # the host file that has a file's content
    target: str = ""  # of a symlink
    device: tuple[int, int] = (0, 0)  # of a device node: major and minor
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def parent(self) -> str:
        """The path of the directory that holds it."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


class Tree:
    """The files of one system. Contents are kept as files in `contents`, a directory of ours."""

    def __init__(self, contents: Path, *, live: bool = False) -> None:
        self._contents = contents
        self._live = live  # of a machine that runs: pipes and device nodes may be in it, and sparse files stay sparse
        self._nodes: dict[str, Node] = {}
        self._count = 0

    def __iter__(self) -> Iterator[Node]:
        """Yield every node, a directory always before what is in it, in one order whatever the host."""
        yield from sorted(self._nodes.values(), key=lambda node: node.path.split("/"))

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, path: str) -> Node | None:
        """Return the node at `path`, if there is one; symlinks are not followed."""
        return self._nodes.get(path)

    def read(self, path: str) -> bytes | None:
        """Return the content of the file at `path`; None if there is no file."""
        node = self._nodes.get(path)
        return node.source.read_bytes() if node and node.source else None

    def write(self, path: str, data: bytes, *, mode: int = 0o644, mtime: int) -> None:
        """Put a file of root's at `path`, replacing what was there; missing directories are made."""
        source = self._next_source()
        with translate_disk_full(source):
            source.write_bytes(data)
        self.add(Node(path=path, kind="file", inode=self._count, mode=mode, mtime=mtime, size=len(data), source=source))

    def symlink(self, path: str, target: str, *, mtime: int) -> None:
        """Put a symlink at `path`, replacing what was there."""
        self._count += 1
        self.add(Node(path=path, kind="symlink", inode=self._count, mode=0o777, mtime=mtime, target=target))

    def add(self, node: Node) -> None:
        """Put `node` in its place, making the directories above it."""
        if node.path and node.parent not in self._nodes:
            self._count += 1
            above = Node(path=node.parent, kind="directory", inode=self._count, mode=0o755, mtime=node.mtime)
            self.add(above)
        self._nodes[node.path] = node

    def remove(self, unwanted: Callable[[Node], bool]) -> int:
        """Remove every node for which `unwanted` is true, and return how many; the caller removes whole subtrees."""
        paths = [node.path for node in self._nodes.values() if unwanted(node)]
        for path in paths:
            del self._nodes[path]
        return len(paths)

    def clamp(self, epoch: int) -> None:
        """Let no file be younger than `epoch`, in seconds."""
        for path, node in self._nodes.items():
            if node.mtime > epoch:
                self._nodes[path] = replace(node, mtime=epoch)

    def unpack(self, archive: BinaryIO) -> None:
        """Add every member of a tar (GNU or pax, as mmdebstrap writes it), read once from front to end.

        /dev stays empty: the kernel fills it before init runs, and only root could make its nodes. Raises
        ArchiveRefused for a tar that is cut off or damaged or holds a member that is neither file, directory nor link
        (nor, with `live`, a pipe or a device node), and DiskFull.
        """
        with translate_disk_full(self._contents), _translate_damage(), tarfile.open(fileobj=archive, mode="r|") as tar:
            for member in tar:
                path = member.name.removeprefix(".").strip("/")
                if not path.startswith("dev/"):
                    self.add(self._from_member(tar, member, path))

    def _from_member(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> Node:
        if member.islnk():
            return replace(self._nodes[member.linkname.removeprefix(".").strip("/")], path=path)
        kinds: tuple[tuple[bool, _Kind], ...] = (
            (member.isdir(), "directory"),
            (member.isreg(), "file"),
            (member.issym(), "symlink"),
            (self._live and member.isfifo(), "fifo"),
            (self._live and member.isblk(), "block"),
            (self._live and member.ischr(), "character"),
        )
        kind = next((kind for fits, kind in kinds if fits), None)
        if kind is None:
            raise ArchiveRefused(f"/{path} in the system's tar is a device, a pipe or a socket")
        source = self._copy_out(tar, member) if kind == "file" else None
        self._count += 1
        return Node(
            path=path,
            kind=kind,
            inode=self._count,
            mode=member.mode & 0o7777,
            uid=member.uid,
            gid=member.gid,
            mtime=int(member.mtime),
            size=member.size if source else 0,
            source=source,
            target=member.linkname if kind == "symlink" else "",
            device=(member.devmajor, member.devminor) if kind in ("block", "character") else (0, 0),
            xattrs={
                key.removeprefix(_XATTR): value.encode(errors="surrogateescape")
                for key, value in sorted(member.pax_headers.items())
                if key.startswith(_XATTR)
            },
        )

    def _copy_out(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Path:
        source = self._next_source()
        content = tar.extractfile(member)
        assert content is not None
        with open(source, "wb", buffering=0) as out:
            while chunk := content.read(_CHUNK):
                if self._live and chunk.count(0) == len(chunk):
                    out.seek(len(chunk), os.SEEK_CUR)
                else:
                    out.write(chunk)
            out.truncate()
        return source

    def _next_source(self) -> Path:
        self._count += 1
        directory = self._contents / str(self._count // _PER_DIRECTORY)
        directory.mkdir(parents=True, exist_ok=True)
        return directory / str(self._count)


@contextmanager
def _translate_damage() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise ArchiveRefused(f"the system's tar is cut off or damaged: {error}") from error
