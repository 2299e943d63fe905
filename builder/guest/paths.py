"""Paths in a guest, as its own kernel and its own glob(7) understand them; pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from fnmatch import fnmatchcase

_LINKS = 40  # that Linux follows in one path


def follow(path: str, link: Callable[[str], str]) -> str:
    """Return where the path leads, symbolic links followed; it need not be there.

    `link` says where the link of a name points, and is empty for what is none; it is asked for each name on the way,
    all links before it followed. After as many links as the kernel follows, the rest is taken as it stands.
    """
    here, left, links = "/", path.split("/")[::-1], _LINKS
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            here = posixpath.dirname(here)
            continue
        there = posixpath.join(here, name)
        target = link(there)
        if not target or not links:
            here = there
            continue
        links -= 1
        left += target.split("/")[::-1]
        here = "/" if target.startswith("/") else here
    return here


def literal(pattern: str) -> str:
    """Return the part of a glob that is a plain path: where whatever it matches must lie."""
    parts = pattern.split("/")
    magic = next((at for at, part in enumerate(parts) if is_glob(part)), len(parts))
    return "/".join(parts[:magic]) or "/"


def is_glob(name: str) -> bool:
    """Say whether one level of a pattern may match more than itself."""
    return bool(re.search(r"[*?[\\]", name))


def matches(name: str, pattern: str) -> bool:
    """Say whether a name matches one level of a glob; a leading dot only matches itself."""
    if name.startswith(".") and not pattern.startswith("."):
        return False
    return fnmatchcase(name, pattern.replace("[^", "[!"))


def quoted(path: str) -> str:
    """Return a path as a pattern that matches itself alone."""
    return re.sub(r"[*?[\\]", lambda found: r"[\\]" if found[0] == "\\" else f"[{found[0]}]", path)
