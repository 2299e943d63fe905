"""What is at the names of a mounted guest, each asked once.

By `lstatnslist` (5 ms in an appliance on a busy machine): `is_file`, `is_dir` and `is_symlink` start a process there
for each name (20 ms), and a session asks for a hundred names.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable
from typing import Any

from builder.guest.facts import Stat
from builder.guest.paths import follow

_TOP = Stat(mode=stat.S_IFDIR | 0o755)


class Lookup:
    """The names of what is mounted now. Whoever mounts, unmounts or edits has it forget what may be another now."""

    def __init__(self, call: Callable[..., Any]) -> None:
        """Ask by `call`, a Session's."""
        self._call = call
        self._seen: dict[str, Stat | None] = {}
        self._links: dict[str, str] = {}

    def forget(self, below: str = "/") -> None:
        """Ask anew for a path and all that lies below it."""
        inner = below.rstrip("/") + "/"
        for known in (self._seen, self._links):
            for path in [path for path in known if f"{path}/".startswith(inner)]:
                del known[path]

    def lstat(self, path: str) -> Stat | None:
        """Return what is at a path, a link itself, or None. No link may be in the way to it (see `follow`)."""
        if path not in self._seen:
            self._seen[path] = self._lstat(path)
        return self._seen[path]

    def _lstat(self, path: str) -> Stat | None:
        directory, name = posixpath.split(path)
        above = _TOP if directory == "/" else self.lstat(directory)
        if above is None or not above.is_directory:
            return None  # where the call would fail, as it does for any reason at all
        # It answers for absent names too: with st_ino -1.
        (found,) = self._call("lstatnslist", directory, [name or "."])
        if found["st_ino"] == -1:
            return None
        return Stat(mode=found["st_mode"], uid=found["st_uid"], gid=found["st_gid"], size=found["st_size"])

    def link(self, path: str) -> str:
        """Return where the link at a path points, as it is written; empty when there is none."""
        if path not in self._links:
            found = self.lstat(path)
            self._links[path] = self._call("readlink", path) if found and found.is_link else ""
        return self._links[path]

    def follow(self, path: str) -> str:
        """Return where the path leads, symbolic links followed; it need not be there."""
        return follow(path, self.link)

    def stat(self, path: str) -> Stat | None:
        """Return what the path leads to, or None; a link where that is a circle."""
        return self.lstat(self.follow(path))
