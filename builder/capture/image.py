"""A machine's root becomes a raw image of one ext4 filesystem: its own label and UUID, nothing of what is only its own.

Files come as a tar (source.py), are cleaned as values with what cleans a guest's image (builder/guest/sysprep.py), and
are written to a new filesystem (builder/bootstrap/ext4.py). The same files at the same time give the same bytes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.bootable.identity import Identity
from builder.bootstrap import ext4
from builder.bootstrap.tree import Tree
from builder.capture import source
from builder.capture.facts import DEVICE, TreeFacts
from builder.capture.source import Root
from builder.durable import translate_disk_full
from builder.errors import UsageError
from builder.guest import fstab, sysprep
from builder.guest.edits import WriteFile
from builder.guest.facts import Filesystem
from builder.guest.sysprep import Operation
from builder.progress import SILENT, Progress
from builder.remote import abilities
from builder.remote.command import Shell
from builder.retry import retrying
from builder.units import format_size

CLEANED: tuple[Operation, ...] = (*sysprep.DEFAULT, "ssh-userdir")
_MIB = 1 << 20
_SHOWN = 20  # complaints of the tar there
_FSTAB, _SHADOW = "/etc/fstab", "/etc/shadow"
_LOCKED = re.compile(r"[!*]|$")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to capture and what to leave out of it."""

    path: str = "/"  # the mount point of the filesystem
    also: tuple[str, ...] = ()  # mount points of others whose files belong to it: /boot
    exclude: tuple[str, ...] = ()  # absolute patterns, matched level by level
    keep: tuple[Operation, ...] = ()  # of CLEANED, what is not cleaned
    lock_passwords: bool = False
    size: int | None = None  # bytes; None: as large as it is there


def capture(wanted: Wanted, shell: Shell, target: Path, *, now: int, scratch: Path, progress: Progress = SILENT) -> int:
    """Write the image to `target`, a new sparse file, and return its size in bytes; `now` (seconds) is its time.

    `scratch` is an empty directory with room for the files. Nothing is written on the machine. A crash leaves files in
    `scratch` and perhaps an unfinished `target`. Raises RemoteError (no such filesystem there, or a lack of tools),
    RemoteDenied (not root), RemoteFailed, RemoteTrouble, ArchiveRefused (a name with a line break), UsageError (it does
    not fit), DiskFull.
    """
    able = abilities.ask(shell)
    root = source.look(shell, able, wanted.path, scratch)
    size = wanted.size or root.size
    size -= size % _MIB
    tree = _read(wanted, shell, root, scratch / "contents", progress)
    found = Filesystem(device=DEVICE, type="ext4", label=root.label, uuid=root.uuid)
    facts = TreeFacts(tree, found, size, now=now)
    for line in [*_clean(wanted, facts), *_mend_fstab(facts, root), *_lock(wanted, facts)]:
        progress.note(line)
    tree.clamp(now)
    uuid = root.uuid if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", root.uuid) else ""
    progress.note(f"writing {len(tree)} files, {format_size(sum(node.size for node in tree))}")
    with translate_disk_full(target), open(target, "wb") as out:
        out.truncate(size)
    ext4.make(
        tree,
        ext4.Place(disk=target, offset=0, size=size),
        label=root.label[:16],
        uuid=uuid or Identity(seed=f"{root.uuid} {root.label} {size}").uuid("root"),
        epoch=now,
        scratch=scratch,
        checksummed=root.checksummed,
    )
    return size


def _read(wanted: Wanted, shell: Shell, root: Root, contents: Path, progress: Progress) -> Tree:
    """Return the files, read anew after a cut."""
    able = abilities.ask(shell)

    def read() -> Tree:
        shutil.rmtree(contents, ignore_errors=True)
        contents.mkdir()
        tree = Tree(contents, live=True)
        with source.files(shell, able, root, also=wanted.also, exclude=wanted.exclude) as archive:
            tree.unpack(archive.file)
        for line in archive.complaints[:_SHOWN]:
            progress.note(line)
        return tree

    tree = retrying(read, attempts=3, deadline=24 * 3600, progress=progress)
    if tree.get("etc") is None:
        raise UsageError(f"{root.path} on {shell.name} has no /etc: it is no system's root")
    return tree


def _clean(wanted: Wanted, facts: TreeFacts) -> list[str]:
    told = []
    for operation in CLEANED:
        if operation in wanted.keep:
            continue
        found = sysprep.find(operation, facts)
        for edit in found.edits:
            facts.apply(edit)
            told.append(f"{operation}: {edit}")
        told += [found.kept] if found.kept else []
    return told


def _mend_fstab(facts: TreeFacts, root: Root) -> list[str]:
    """Let / be what is made here, by the label or UUID that it keeps, and leave out what no image has."""
    data = facts.read(_FSTAB)
    if data is None:
        return []
    left = fstab.alone(data, facts.filesystems, root=facts.root)
    named = next((line.entry.spec for line in fstab.parse(data) if line.entry and line.entry.mount_point == "/"), "")
    by: fstab.Naming = "uuid" if root.uuid and (named.startswith("UUID=") or not root.label) else "label"
    new = fstab.rewrite(left.data, facts.filesystems, root=facts.root, by=by)
    mended = b"".join(_of_type(line, root) for line in fstab.parse(new.data))
    if mended != data:
        facts.apply(WriteFile(path=_FSTAB, data=mended))
    told = [f"fstab: {change}" for change in [*left.changes, *new.changes, *new.kept]]
    if not root.type.startswith("ext"):
        told.append(f"the image has ext4 where the machine has {root.type}: its initramfs must be able to mount that")
    return told


def _of_type(line: fstab.Line, root: Root) -> bytes:
    """Return a line with the type that / has now; options of another type of filesystem go."""
    text = line.text
    if line.entry and line.entry.mount_point == "/" and line.entry.type not in ("ext4", "auto"):
        options = r"\g<4>" if root.type.startswith("ext") else "defaults"
        text = re.sub(r"^(\s*\S+\s+\S+\s+)(\S+)(\s*)(\S*)", rf"\g<1>ext4\g<3>{options}", text, count=1)
    return text.encode("utf-8", "surrogateescape")


def _lock(wanted: Wanted, facts: TreeFacts) -> list[str]:
    """Let nobody in by a password: what `passwd -l` does, but without keeping the hash."""
    if not wanted.lock_passwords:
        return []
    users, lines = [], []
    for line in facts.text(_SHADOW).splitlines(keepends=True):
        fields = line.split(":")
        if len(fields) > 2 and not _LOCKED.match(fields[1]):
            users.append(fields[0])
            fields[1] = "!"
        lines.append(":".join(fields))
    if users:
        facts.apply(WriteFile(path=_SHADOW, data="".join(lines).encode("utf-8", "surrogateescape")))
    return [f"passwords locked: {', '.join(users)}"] if users else []


def problems(wanted: Wanted) -> Sequence[str]:
    """Return what is wrong with the wish, a sentence each."""
    paths = [wanted.path, *wanted.also, *wanted.exclude]
    wrong = [f"{path!r} is not an absolute path" for path in paths if not path.startswith("/") or "\n" in path]
    wrong += [f"{path!r} has `..` in it" for path in paths if ".." in path.split("/")]
    if wanted.size is not None and (wanted.size % _MIB or wanted.size < 16 * _MIB):
        wrong.append("size must be whole MiB, at least 16")
    return wrong
