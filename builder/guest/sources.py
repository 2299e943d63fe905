"""Files of the recipe's own directory that go into a guest: found, kept inside that directory, and pinned by digest."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from builder.digest import file_sha256
from builder.errors import UsageError


def problem(source: str) -> str | None:
    """Return what is wrong with a path as it is written, before anything is looked at."""
    path = PurePosixPath(source)
    if not source or "\0" in source or path.is_absolute() or ".." in path.parts:
        return f"{source!r} is not a path inside the recipe's directory"
    return None


def pinned(directory: Path, source: str) -> Mapping[str, Any]:
    """Return what is there, as JSON values: a file's `sha256` (HEX), `size` and `mode` ("0755" when it is executable,
    else "0644"); or of a directory `files`, each of them so, by path below it, and its `directories`.

    A link is taken for what it leads to. Raises UsageError for what is missing or unreadable, leads out of the
    directory, is no file or directory, has a name that is not UTF-8, and for a link to a directory inside of one.
    """
    path = _inside(directory, Path(source))
    if path.is_dir():
        names = sorted(_below(directory, Path(source)))
        return {
            "files": {name: _file(directory, Path(source) / name) for name, kind in names if kind == "file"},
            "directories": [name for name, kind in names if kind == "directory"],
        }
    return _file(directory, Path(source))


def _below(directory: Path, source: Path) -> Iterator[tuple[str, str]]:
    for place, directories, files in os.walk(_inside(directory, source), onerror=_refuse):
        here = Path(place)
        for name in directories:
            if (here / name).is_symlink():
                raise UsageError(
                    f"{here / name} is a link to a directory, which is not copied into a guest",
                    hint="Copy that directory by an entry of its own, or make the link by `link_to`.",
                )
            yield _text(here / name, _inside(directory, source)), "directory"
        for name in files:
            yield _text(here / name, _inside(directory, source)), "file"


def _text(path: Path, top: Path) -> str:
    name = str(path.relative_to(top))
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name {name!r} in {str(top)!a} is not UTF-8") from None
    return name


def _file(directory: Path, source: Path) -> Mapping[str, Any]:
    path = _inside(directory, source)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is neither a file nor a directory, and cannot be copied into a guest")
    try:
        digest = file_sha256(path).removeprefix("sha256:")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    # Of the mode only what makes a difference to a guest, and what git keeps: not this host's umask.
    return {"sha256": digest, "size": status.st_size, "mode": "0755" if status.st_mode & 0o100 else "0644"}


def _inside(directory: Path, source: Path) -> Path:
    top, path = directory.resolve(), directory / source
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its links lead in a circle"
        raise UsageError(f"{path} cannot be read: {reason}") from error
    if not real.is_relative_to(top):
        raise UsageError(f"{path} leads out of the recipe's directory {top}, to {real}")
    return real


def _refuse(error: OSError) -> None:
    raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error
