"""The step kind `files`."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, SecretStr, StringConstraints

from builder.errors import GuestError, UsageError
from builder.guest import sources
from builder.guest.accounts import read_accounts
from builder.guest.edits import (
    Copied,
    CopyIn,
    CopyTree,
    Edit,
    MakeDirectory,
    MakeLink,
    Remove,
    SetAttributes,
    Unchanged,
    WriteFile,
)
from builder.guest.facts import GuestFacts, Stat
from builder.guest.paths import follow, quoted
from pipelines.step import GuestStep, Options, Outside

GuestPath = Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$")]
Number = Annotated[int, Field(ge=0, le=4294967294)]
Mode = Annotated[str, StringConstraints(pattern=r"^[0-7]{3,4}$")]
_KINDS = ("content", "copy_from", "link_to", "directory", "delete")
_NAMED = 5  # files of a tree that are named in the report

Owner = tuple[int, int]
FileEdit = WriteFile | CopyIn | CopyTree | MakeDirectory | MakeLink | Remove | SetAttributes


class Entry(Options):
    """One path of the guest, and what is to be there. Without any of the kinds, only its mode and owner are set."""

    path: GuestPath = Field(description="absolute path in the guest; directories above it are made")
    content: SecretStr | None = Field(
        default=None,
        description="a file with this text, to the letter; it is never shown. emi keeps its digest, and what came by "
        "`--var` in its journal and report, which only you can read",
    )
    copy_from: str | None = Field(
        default=None,
        description="a copy of this file, or of all in this directory, from the recipe's directory; the digest of each "
        "is pinned",
    )
    link_to: str | None = Field(default=None, description="a symbolic link to this, written as it stands")
    directory: bool = Field(default=False, description="a directory")
    delete: bool = Field(default=False, description="nothing: a directory goes with all it holds, a link alone")
    mode: Mode | None = Field(
        default=None,
        description='mode in octal, as text: "0644". A new file has 0644, a copy of an executable one 0755, a new '
        "directory 0755; what is there keeps its own",
    )
    owner: str | Number | None = Field(
        default=None,
        description="user, by the guest's own name or by number; root for what is new. As with `chown`, a program's "
        "file capabilities are gone then",
    )
    group: str | Number | None = Field(
        default=None, description="group, by the guest's own name or by number; root for what is new"
    )
    recursive: bool = Field(default=False, description="set owner and group of all below, too; links excepted")

    @property
    def kinds(self) -> list[str]:
        """Which of the kinds are given."""
        return [kind for kind in _KINDS if getattr(self, kind) not in (None, False)]


class FilesOptions(Options):
    """What is to be where."""

    entries: tuple[Entry, ...] = Field(min_length=1, description="paths of the guest, each with what is to be there")


class Files(GuestStep[FilesOptions]):
    """Write, copy in, link, make and delete files of the guest, and set their modes and owners.

    Each entry is compared with the guest first, and what is so already is left alone. A symbolic link at a path that is
    written to is followed, within the guest. Files come from the recipe's directory only; a link there that leads out
    of it is refused. Of a copied directory nothing is deleted that the guest has beside it. Users and groups are looked
    up in the guest's /etc/passwd and /etc/group, as they are when the step begins. As in all of a recipe, a brace in
    `content` is written twice; in a file that is copied in it is not.
    """

    options = FilesOptions

    def check(self, options: FilesOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = [f"{entry.path}: {problem}" for entry in options.entries for problem in _problems(entry)]
        for at, first in enumerate(options.entries):
            problems += [problem for other in options.entries[at + 1 :] if (problem := _contradiction(first, other))]
        return problems

    def pin(self, options: FilesOptions, outside: Outside) -> Mapping[str, Any]:
        """Return the digest, size and mode of every file to copy in, and the digest of every content."""
        copied = {entry.copy_from for entry in options.entries if entry.copy_from is not None}
        pinned = {source: sources.pinned(outside.recipe_directory, source) for source in sorted(copied)}
        _require_apart(options, pinned)
        return {
            "sources": pinned,
            "contents": {
                entry.path: hashlib.sha256(_content(entry)).hexdigest()
                for entry in options.entries
                if entry.content is not None
            },
        }

    def edits(self, options: FilesOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Return an edit for every entry that the guest does not have as it is to be."""
        edits: list[FileEdit] = []
        already: list[str] = []
        for entry in options.entries:
            edit = _edit(entry, facts, pins)
            if edit is None and entry.recursive and _made_below(entry.path, edits):
                edit = SetAttributes(path=entry.path, owner=_owner(entry, facts, None), recursive=True)
            if edit is None:
                already.append(f"{entry.path} is gone" if entry.delete else entry.path)
            else:
                edits.append(edit)
        if not edits:
            return Unchanged(why=f"already so: {', '.join(already)}")
        if already:
            edits[-1] = replace(edits[-1], why=f"{edits[-1]}; already so: {', '.join(already)}")
        return edits


def _problems(entry: Entry) -> Iterator[str]:
    if ".." in entry.path.split("/"):
        yield "`path` has a `..` in it"
    if posixpath.normpath(entry.path).strip("/") == "" and entry.kinds != ["copy_from"]:
        yield "the guest's root directory is only a place to copy a directory to"
    if len(entry.kinds) > 1:
        yield f"give one of {', '.join(f'`{kind}`' for kind in entry.kinds)}"
    if entry.copy_from is not None and (wrong := sources.problem(entry.copy_from)):
        yield f"`copy_from`: {wrong}"
    if entry.link_to is not None and (not entry.link_to or "\0" in entry.link_to):
        yield "`link_to` is empty, or has a zero byte in it"
    attributes = entry.mode is not None or entry.owner is not None or entry.group is not None
    if attributes and entry.kinds in (["link_to"], ["delete"]):
        yield f"what has `{entry.kinds[0]}` has no mode and owner of its own"
    if not attributes and not entry.kinds:
        yield "nothing is asked for: give `content`, `copy_from`, `mode` or another option"
    if entry.recursive and (entry.kinds not in ([], ["directory"]) or entry.mode or not attributes):
        yield "`recursive` sets `owner` and `group` of a directory; one `mode` for files and directories is of no use"


def _contradiction(first: Entry, other: Entry) -> str | None:
    """Say what no second run could find as the first left it."""
    one, two = (posixpath.normpath(entry.path) for entry in (first, other))
    if one == two:
        return f"{one} stands there twice"
    for outer, inner in ((first, other), (other, first)):
        if not f"{posixpath.normpath(inner.path)}/".startswith(f"{posixpath.normpath(outer.path).rstrip('/')}/"):
            continue
        if outer.delete:
            return f"{outer.path} is deleted, and {inner.path} lies in it"
        if outer.recursive and (inner.owner is not None or inner.group is not None):
            return f"{outer.path} is `recursive`, and {inner.path} in it has an owner of its own"
    return None


def _require_apart(options: FilesOptions, pinned: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UsageError where a path is in a directory that is copied in, and stands for itself too."""
    for outer in options.entries:
        tree = pinned.get(outer.copy_from or "") or {}
        names = (*tree.get("files", ()), *tree.get("directories", ()))
        held = {posixpath.normpath(posixpath.join(outer.path, name)) for name in names}
        for inner in options.entries:
            if inner is not outer and posixpath.normpath(inner.path) in held:
                raise UsageError(
                    f"{inner.path} is also in {outer.copy_from}, which is copied to {outer.path}",
                    hint="Take it out of one of the two, or put it into a `files` step after this one.",
                )


def _edit(entry: Entry, facts: GuestFacts, pins: Mapping[str, Any]) -> FileEdit | None:
    """Return what makes the path as the entry says, or None when it is so."""
    match entry.kinds:
        case ["content"]:
            return _written(entry, facts)
        case ["copy_from"]:
            pinned = pins["sources"][entry.copy_from]
            return _tree(entry, facts, pinned) if "files" in pinned else _copied(entry, facts, pinned)
        case ["link_to"]:
            return _linked(entry, facts)
        case ["delete"]:
            return Remove(paths=(entry.path,)) if facts.exists(entry.path) else None
        case ["directory"]:
            return _directory(entry, facts)
        case _:
            return _attributes(entry, facts)


def _written(entry: Entry, facts: GuestFacts) -> FileEdit | None:
    data = _content(entry)
    there = _file_there(entry.path, facts)
    mode, owner = _mode(entry), _owner(entry, facts, there)
    if (
        there is None
        or there.size != len(data)
        or _sha256(facts, entry.path, len(data)) != hashlib.sha256(data).hexdigest()
    ):
        return WriteFile(path=entry.path, data=data, mode=mode, owner=owner)
    return _set(entry.path, there, mode, owner)


def _content(entry: Entry) -> bytes:
    return entry.content.get_secret_value().encode() if entry.content is not None else b""


def _copied(entry: Entry, facts: GuestFacts, pinned: Mapping[str, Any]) -> FileEdit | None:
    assert entry.copy_from is not None
    there = _file_there(entry.path, facts)
    owner = _owner(entry, facts, there)
    # An executable is one in the guest too, as it would be after `cp`; what is there keeps its mode.
    mode = _mode(entry) if entry.mode or there else int(pinned["mode"], 8)
    if not _same(entry.path, there, facts, pinned):
        return CopyIn(path=entry.path, source=entry.copy_from, sha256=pinned["sha256"], mode=mode, owner=owner)
    return _set(entry.path, there, mode, owner) if there else None


def _tree(entry: Entry, facts: GuestFacts, pinned: Mapping[str, Any]) -> FileEdit | None:
    """Copy what differs; the mode of each file is what it has in the recipe's directory."""
    assert entry.copy_from is not None
    if entry.mode is not None:
        raise GuestError(f"`mode` of {entry.path} cannot be that of all in {entry.copy_from}, which is a directory")
    files, directories = [], []
    owner = _owner(entry, facts, None)
    for name, file in pinned["files"].items():
        path, mode = posixpath.join(entry.path, name), int(file["mode"], 8)
        there = _file_there(path, facts)
        if not _same(path, there, facts, file) or (there and _set(path, there, mode, owner)):
            files.append(Copied(name=name, sha256=file["sha256"], mode=mode))
    for name in ("", *pinned["directories"]):
        there = _there(posixpath.join(entry.path, name), facts)
        if there and not there.is_directory:
            raise GuestError(f"{posixpath.join(entry.path, name)} in the guest is not a directory")
        if there is None or (owner and owner != (there.uid, there.gid)):
            directories.append(name)
    if not files and not directories:
        return None
    some = ", ".join(file.name for file in files[:_NAMED]) + (", …" if len(files) > _NAMED else "")
    why = f"copied {entry.copy_from} to {entry.path}: {len(files)} of {len(pinned['files'])} files"
    return CopyTree(
        path=entry.path,
        source=entry.copy_from,
        files=tuple(files),
        directories=tuple(filter(None, directories)),
        owner=owner,
        why=f"{why} ({some})" if files else f"{why}, and directories",
    )


def _linked(entry: Entry, facts: GuestFacts) -> FileEdit | None:
    assert entry.link_to is not None
    if facts.link(entry.path) == entry.link_to:
        return None
    there = facts.stat(entry.path)
    if there and there.is_directory:
        raise GuestError(f"{entry.path} in the guest is a directory, and no link can take its place: delete it first")
    return MakeLink(path=entry.path, target=entry.link_to)


def _directory(entry: Entry, facts: GuestFacts) -> FileEdit | None:
    there = _there(entry.path, facts)
    if there is None:
        return MakeDirectory(path=entry.path, mode=_mode(entry), owner=_owner(entry, facts, there))
    if not there.is_directory:
        raise GuestError(f"{entry.path} in the guest is there and is not a directory")
    return _attributes(entry, facts)


def _attributes(entry: Entry, facts: GuestFacts) -> FileEdit | None:
    there = _there(entry.path, facts)
    if there is None:
        raise GuestError(f"{entry.path} is not in the guest, so that its mode or owner cannot be set")
    mode, owner = _mode(entry), _owner(entry, facts, there)
    if entry.recursive and _differs_below(follow(entry.path, lambda path: facts.link(path) or ""), owner, facts):
        return SetAttributes(path=entry.path, owner=owner, recursive=True)
    return _set(entry.path, there, mode, owner)


def _differs_below(path: str, owner: Owner | None, facts: GuestFacts) -> bool:
    for name in (*facts.names(f"{quoted(path)}/*"), *facts.names(f"{quoted(path)}/.*")):
        if posixpath.basename(name) in (".", ".."):
            continue
        there = facts.stat(name)
        if there is None or there.is_link:
            continue
        if (there.uid, there.gid) != owner or (there.is_directory and _differs_below(name, owner, facts)):
            return True
    return False


def _made_below(path: str, edits: Sequence[FileEdit]) -> bool:
    inner = f"{posixpath.normpath(path).rstrip('/')}/"
    return any(f"{getattr(edit, 'path', '')}/".startswith(inner) for edit in edits)


def _set(path: str, there: Stat, mode: int | None, owner: Owner | None) -> FileEdit | None:
    """Set what differs of mode and owner."""
    words = []
    if mode is not None and mode != there.permissions:
        words.append(f"mode {mode:04o} (was {there.permissions:04o})")
    if owner is not None and owner != (there.uid, there.gid):
        words.append(f"owner {owner[0]}:{owner[1]} (was {there.uid}:{there.gid})")
    if not words:
        return None
    return SetAttributes(path=path, mode=mode, owner=owner, why=f"{path}: {', '.join(words)}")


def _same(path: str, there: Stat | None, facts: GuestFacts, pinned: Mapping[str, Any]) -> bool:
    return there is not None and there.size == pinned["size"] and _sha256(facts, path, there.size) == pinned["sha256"]


def _sha256(facts: GuestFacts, path: str, size: int) -> str:
    digest = hashlib.sha256()
    for piece in facts.stream(path, limit=size) or ():
        digest.update(piece)
    return digest.hexdigest()


def _there(path: str, facts: GuestFacts) -> Stat | None:
    """Return what the path leads to, links followed."""
    return facts.stat(follow(path, lambda name: facts.link(name) or ""))


def _file_there(path: str, facts: GuestFacts) -> Stat | None:
    there = _there(path, facts)
    if there and not there.is_file:
        raise GuestError(f"{path} in the guest is there and is not a regular file")
    return there


def _mode(entry: Entry) -> int | None:
    return None if entry.mode is None else int(entry.mode, 8)


def _owner(entry: Entry, facts: GuestFacts, there: Stat | None) -> Owner | None:
    """Return user and group by number; the one that is not given is what it was, or root's."""
    if entry.owner is None and entry.group is None:
        return None
    uid = _number(entry.owner, "user", facts)
    gid = _number(entry.group, "group", facts)
    return (
        uid if uid is not None else there.uid if there else 0,
        gid if gid is not None else there.gid if there else 0,
    )


def _number(name: str | int | None, kind: str, facts: GuestFacts) -> int | None:
    if name is None or isinstance(name, int):
        return name
    if re.fullmatch(r"[0-9]{1,10}", name):
        return int(name)
    accounts = read_accounts(facts)
    if kind == "user" and (user := accounts.user(name)):
        return user.uid
    if kind == "group" and (group := accounts.group(name)):
        return group.gid
    raise GuestError(
        f"the guest has no {kind} {name}", hint="Make it by a `users` step before this one, or give its number."
    )
