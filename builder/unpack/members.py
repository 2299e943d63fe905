"""Which member of an archive is meant, and which are refused whatever was meant."""

from __future__ import annotations

import difflib
import fnmatch
import posixpath
import re
from typing import Literal

from builder.errors import ArchiveRefused
from builder.units import format_size

Kind = Literal["file", "directory", "symbolic link", "hard link", "device", "named pipe", "special file"]
_SHOWN = 5  # names listed in a message
_KEPT = 1000  # names remembered for it


class Choice:
    """The member called or matching `wanted` (None: the only regular file) of the archive `name`."""

    def __init__(self, wanted: str | None, *, max_size: int, name: str) -> None:
        self._wanted = None if wanted is None else posixpath.normpath(wanted)
        self._pattern = wanted is not None and any(sign in wanted for sign in "*?[")
        self._max_size = max_size
        self._name = name
        self._taken: str | None = None
        self._seen: list[str] = []
        self._seen_kinds: list[str] = []

    def takes(self, member: str, kind: Kind, size: int, target: str = "") -> bool:
        """Say whether this member is the one. Raises ArchiveRefused if it must not be, or if it is the second one."""
        shown = repr(member)
        if not member:
            raise ArchiveRefused(f"{self._name} holds a member without a name: refused")
        # Nothing is ever written under a member's name; but an archive with such a name was made to harm.
        if member.startswith("/") or ".." in member.split("/") or re.match(r"[A-Za-z]:[\\/]|\\", member):
            raise ArchiveRefused(f"{self._name} holds {shown}, a name that leads out of the archive: refused")
        if len(self._seen) < _KEPT:
            self._seen.append(member)
        if not self._matches(member):
            return False
        if kind != "file":
            leads = f" to {target!r}" if target else ""
            if self._wanted is not None and not (self._pattern and kind == "directory"):
                raise ArchiveRefused(f"{self._name}: member {shown} is a {kind}{leads}, not a regular file: refused")
            self._seen_kinds.append(f"{shown} is a {kind}{leads}")
            return False
        if self._taken is not None:
            raise ArchiveRefused(
                f"{self._name} holds {self._taken!r} and {shown}, and `member` {self._meant()}",
                hint="Name the one you want with `member:`.",
            )
        if size > self._max_size:
            raise too_large(f"{self._name}: member {shown}", size, self._max_size)
        self._taken = member
        return True

    def result(self) -> str:
        """Return the name of the member taken. Raises ArchiveRefused, listing what there is, if none was."""
        if self._taken is not None:
            return self._taken
        if self._wanted is None:
            listed = f": {'; '.join(self._seen_kinds[:_SHOWN])}" if self._seen_kinds else ""
            raise ArchiveRefused(f"{self._name} holds no regular file{listed}", hint="Check what the publisher packs.")
        near = difflib.get_close_matches(self._wanted, self._seen, n=_SHOWN, cutoff=0.5) or self._seen[:_SHOWN]
        rest = len(self._seen) - len(near)
        listed = ", ".join(map(repr, near)) + (f" and {rest} more" if rest else "") if near else "nothing"
        raise ArchiveRefused(
            f"{self._name} holds no member {self._wanted!r}; it holds {listed}", hint="Correct `member:` in the recipe."
        )

    def _matches(self, member: str) -> bool:
        if self._wanted is None:
            return True
        path = posixpath.normpath(member)
        return fnmatch.fnmatchcase(path, self._wanted) if self._pattern else path == self._wanted

    def _meant(self) -> str:
        if self._wanted is None:
            return "does not say which"
        return f"{self._wanted!r} means both"


def too_large(what: str, size: int | None, limit: int) -> ArchiveRefused:
    """Return the error for what expands beyond `limit` bytes; `size` if it says how far."""
    to = f" to {format_size(size)}" if size is not None else ""
    return ArchiveRefused(
        f"{what} expands{to} beyond max_size, {format_size(limit)} ({limit} bytes)",
        hint="If it really is that large, raise it: `max_size: 200 GiB` in the `decompress` step.",
    )
