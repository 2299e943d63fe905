"""Files that are either whole or absent, whatever crashes: write aside, fsync, rename, fsync the directory."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from builder.errors import DiskFull, HostError, UsageError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_file(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace `path` with `data`; after a crash the file holds the old bytes or the new ones, never a mixture.

    `private` is for its owner only, mode 0600, from its first byte on. A crash may leave `.NAME.new` beside it, which
    the next write replaces. Raises DiskFull.
    """
    aside = path.with_name(f".{path.name}.new")
    if private:
        aside.unlink(missing_ok=True)  # one that a crash left may be open to others
    mode = 0o600 if private else 0o666
    with translate_disk_full(aside), open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    commit(aside, path)


def commit(aside: Path, path: Path) -> None:
    """Give the finished file `aside` its final name, durably. The caller has fsynced its contents."""
    aside.replace(path)
    fsync_directory(path.parent)


def take_aside(path: Path) -> int:
    """Open for reading and writing, made if need be, a file that only one process may fill; return the descriptor.

    Whoever has it holds its lock, which ends with the descriptor. What an earlier holder left in it is still there, and
    a file that the earlier holder gave its final name meanwhile is not taken. Raises BlockingIOError while another has
    it, and OSError; a symbolic link is not followed.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def scratch_in(directory: Path, prefix: str) -> Iterator[Path]:
    """A new directory of this process's own inside `directory`, its name `prefix` and something random; removed after.

    A crash leaves it; the next call with that prefix removes those that nobody holds. Raises UsageError where none can
    be made, DiskFull.
    """
    for left in directory.glob(f"{glob.escape(prefix)}*"):
        _remove_unless_held(left)
    try:
        with translate_disk_full(directory):
            place, lock = _held_directory(directory, prefix)
    except OSError as error:
        raise UsageError(f"{directory} cannot be written: {error.strerror}", hint="Name another place.") from error
    try:
        yield place
    finally:
        shutil.rmtree(place)
        os.close(lock)


def _held_directory(directory: Path, prefix: str) -> tuple[Path, int]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
        try:
            lock = os.open(place, _DIRECTORY)
        except FileNotFoundError:  # another removed it between the two calls, since nobody held it
            continue
        with suppress(OSError):  # a filesystem without locks: there nobody can lock what is left, nor removes it
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_at(place, lock):
            return place, lock
        os.close(lock)


def _remove_unless_held(left: Path) -> None:
    with suppress(OSError):
        lock = os.open(left, _DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)


def fsync_file(path: Path) -> None:
    """Return once the bytes of `path` are on the disk. Raises DiskFull."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with translate_disk_full(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Return once the names in directory `path` are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translate_disk_full(path: Path) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT inside the block into DiskFull naming `path`; the one place that does."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(f"no space left for {path}: {error.strerror}") from error


@contextmanager
def translate_failures(path: Path) -> Iterator[None]:
    """Turn every OSError of writing `path` inside the block into DiskFull or HostError naming it."""
    try:
        with translate_disk_full(path):
            yield
    except OSError as error:
        raise HostError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="Look at the directory's rights and at the filesystem, then run again.",
        ) from error
