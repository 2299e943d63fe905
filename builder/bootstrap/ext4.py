"""An ext4 filesystem from a tree of values, the same bytes on every host.

`mke2fs -d DIRECTORY` cannot promise that: it takes entries in the host's readdir order, which on ext4 follows a secret
of the host's filesystem, and up to e2fsprogs 1.47.0 it copies the host's ctime. So the empty filesystem comes from
mke2fs and the files are written by debugfs (the same library, the same package) from a script in our order, with
owner, mode and time as we say. Nothing is mounted and nobody needs root.

One clock, E2FSPROGS_FAKE_TIME, stands for all times that are not a file's mtime. Sources: mke2fs(8), debugfs(8).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder import proc
from builder.bootstrap.tree import Node, Tree
from builder.errors import ArchiveRefused, ToolFailed, UsageError
from builder.units import format_size

BLOCK = 4096
# Debian 12's own defaults, spelled out: the host's mke2fs.conf must not decide. GRUB 2.06 reads all of these.
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
_SMALL = 1 << 20  # bytes, below which nobody asks a file for its holes
_INODE_RATIO = 16384  # bytes of filesystem per inode: mke2fs.conf's default
_TYPE_BITS = {  # i_mode, stat(2)
    "directory": 0o040000, "file": 0o100000, "symlink": 0o120000,
    "fifo": 0o010000, "block": 0o060000, "character": 0o020000,
}  # fmt: skip
_HOST_MODES = (0o644, 0o755)  # modes that `write` takes over from the content file


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a filesystem lies in a disk image: `offset` and `size` in bytes, both multiples of 4096."""

    disk: Path
    offset: int
    size: int


def make(
    tree: Tree, place: Place, *, label: str, uuid: str, epoch: int, scratch: Path, checksummed: bool = True
) -> None:
    """Make an ext4 filesystem of `tree` at `place`; the same tree and arguments give the same bytes.

    With `checksummed` its metadata have checksums, which kernels before Linux 3.18 do not know. Unused blocks stay
    holes. Raises UsageError if the tree does not fit, ToolMissing and ToolFailed; a crash leaves a half-made
    filesystem, which the next call replaces.
    """
    _check_fit(tree, place)
    clock = {"E2FSPROGS_FAKE_TIME": str(epoch), "SOURCE_DATE_EPOCH": str(epoch), "MKE2FS_CONFIG": "/dev/null"}
    features = _FEATURES if checksummed else _FEATURES.removesuffix(",metadata_csum")
    options = f"offset={place.offset},hash_seed={uuid},lazy_itable_init=0,lazy_journal_init=1,nodiscard"
    proc.run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-O", features, "-b", str(BLOCK), "-I", "256"),
            *("-i", str(_INODE_RATIO), "-L", label, "-U", uuid, "-E", options),
            *(place.disk, f"{place.size // 1024}k"),
        ],
        environment=clock,
    )
    script = scratch / "ext4.debugfs"
    with open(script, "w", encoding="utf-8", errors="surrogateescape") as out:
        out.writelines(f"{line}\n" for line in _script(tree, scratch))
    where = f"{place.disk}?offset={place.offset}"
    said = proc.run(["debugfs", "-w", "-f", script, where], environment=clock)
    # debugfs ends with status 0 whatever its commands met; only its banner may be on standard error.
    complaints = said.stderr.decode(errors="replace").splitlines()[1:]
    if complaints:
        raise ToolFailed(f"debugfs -w -f {script} {where}: {'; '.join(complaints[:5])}")
    proc.run(["e2fsck", "-fn", where], environment=clock)


def _check_fit(tree: Tree, place: Place) -> None:
    needed = sum(-(-_allocated(node) // BLOCK) * BLOCK or BLOCK for node in tree)
    if needed > place.size * 9 // 10 or len(tree) > place.size // _INODE_RATIO:
        raise UsageError(
            f"the system needs {format_size(needed)} and {len(tree)} inodes; "
            f"its partition has {format_size(place.size)} and {place.size // _INODE_RATIO} inodes",
            hint="Raise `size`, or leave out packages.",
        )


def _allocated(node: Node) -> int:
    """Return the bytes of a file that are not in holes; of a small one all."""
    if node.source is None or node.size < _SMALL:
        return node.size
    return min(node.size, node.source.stat().st_blocks * 512)


def _script(tree: Tree, scratch: Path) -> Iterator[str]:
    directory = ""
    first_names: dict[int, str] = {}
    links: dict[int, int] = {}
    yield "cd /"
    for node in tree:
        if node.path and node.parent != directory:
            directory = node.parent
            yield f"cd {_quote('/' + directory)}"
        if node.kind == "directory" or node.inode not in first_names:
            first_names[node.inode] = node.path
            yield from _create(node, scratch)
        else:
            links[node.inode] = links.get(node.inode, 1) + 1
            yield f"ln {_quote('/' + first_names[node.inode])} {_quote(node.name)}"
    for inode, count in links.items():  # `ln` leaves the count to us
        yield f"sif {_quote('/' + first_names[inode])} links_count {count}"


def _create(node: Node, scratch: Path) -> Iterator[str]:
    spec = _quote(f"./{node.name}")  # never taken for debugfs's <inode> notation
    mode = node.mode
    match node.kind:
        case "directory":
            if node.path:
                yield f"mkdir {_quote(node.name)}"
            yield f"sif {spec} mode {_TYPE_BITS['directory'] | mode:#o}".replace("0o", "0")
        case "file":
            assert node.source is not None
            node.source.chmod(mode if mode in _HOST_MODES else 0o644)
            yield f"write {_quote(str(node.source))} {_quote(node.name)}"
            if mode not in _HOST_MODES:
                yield f"sif {spec} mode {_TYPE_BITS['file'] | mode:#o}".replace("0o", "0")
        case "symlink":
            yield f"symlink {_quote(node.name)} {_quote(node.target)}"
        case "fifo" | "block" | "character":
            numbers = {"fifo": "p", "block": "b {} {}", "character": "c {} {}"}[node.kind].format(*node.device)
            yield f"mknod {_quote(node.name)} {numbers}"
            yield f"sif {spec} mode {_TYPE_BITS[node.kind] | mode:#o}".replace("0o", "0")
    yield f"sif {spec} mtime @{node.mtime}"
    if node.uid:
        yield f"sif {spec} uid {node.uid}"
    if node.gid:
        yield f"sif {spec} gid {node.gid}"
    for name, value in node.xattrs.items():
        file = scratch / f"xattr-{node.inode}-{name}"
        file.write_bytes(value)
        yield f"ea_set -f {_quote(str(file))} {spec} {name}"


def _quote(word: str) -> str:
    """Quote for debugfs, whose command lines end at a newline and double a quote inside quotes (libss, parse.c)."""
    if "\n" in word or "\r" in word:
        raise ArchiveRefused(f"the name {word!r} holds a line break")
    return '"' + word.replace('"', '""') + '"'
