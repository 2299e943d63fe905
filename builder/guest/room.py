"""Where an appliance has its sockets and small files, and how what a killed one left is removed by the next.

libguestfs makes directories of its own, with names drawn at random, and removes them when it ends. Here they lie in a
directory that is locked while its owner lives, so that the next start knows which are nobody's. One of them cannot be
led there: run by root, libguestfs 1.48 has its socket in /tmp whatever it is told (lib/tmpdirs.c). That one is known by
its socket, which no process has any more.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from builder import durable

_PREFIX = "emi-vm-"
_TMP = Path("/tmp")  # noqa: S108 - what is made in it has a random name and is ours alone
_SOCKET_PATH = 107  # bytes; sockaddr_un has room for one more, a zero
_LONGEST = len("/emi-vm-XXXXXXXX/libguestfsXXXXXX/guestfsd.sock")
_SOCKETS = frozenset({"guestfsd.sock", "console.sock"})  # all that libguestfs makes beside each other
# Where another container shares the directory, its sockets are not in our list; by now qemu has connected to them.
_OLD = 3600.0  # seconds


@contextmanager
def room(environment: Mapping[str, str]) -> Iterator[Path]:
    """A directory for one appliance, gone at the end; what killed ones left beside it is removed first.

    It lies where LIBGUESTFS_TMPDIR or TMPDIR says, and in /tmp where a socket's path would become too long there. A
    crash leaves it, for the next appliance to remove. Raises UsageError where it cannot be made.
    """
    chosen = Path(environment.get("LIBGUESTFS_TMPDIR") or environment.get("TMPDIR") or _TMP).absolute()
    fits = len(os.fsencode(chosen)) + _LONGEST <= _SOCKET_PATH
    with durable.scratch_in(chosen if fits else _TMP, _PREFIX) as place:
        yield place


def told(environment: Mapping[str, str], place: Path) -> list[str]:
    """Return the environment for libguestfs as NAME=VALUE, in which its files go to `place`."""
    return [f"{name}={value}" for name, value in {**environment, "XDG_RUNTIME_DIR": str(place)}.items()]


def sweep(directory: Path) -> None:
    """Remove libguestfs' socket directories in `directory` that this user's killed processes left.

    Such a one holds nothing but sockets, none of which any process has, and is an hour old. What cannot be removed
    stays.
    """
    bound = _bound_sockets()
    for left in directory.glob("libguestfs??????"):
        with suppress(OSError):
            _remove_unless_bound(left, bound)


def _remove_unless_bound(left: Path, bound: frozenset[bytes]) -> None:
    about = left.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mtime > time.time() - _OLD:
        return
    inside = list(left.iterdir())
    if not inside or any(
        one.name not in _SOCKETS or not one.is_socket() or os.fsencode(one) in bound for one in inside
    ):
        return
    for one in inside:
        one.unlink()
    left.rmdir()


def _bound_sockets() -> frozenset[bytes]:
    """Return the paths of all Unix sockets that a process has; proc(5) has the columns."""
    lines = Path("/proc/net/unix").read_bytes().splitlines()[1:]
    return frozenset(columns[7] for line in lines if len(columns := line.split(None, 7)) == 8)
