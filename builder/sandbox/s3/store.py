"""The bytes of objects and parts: files named by chance, written once, never again.

No key ever becomes a file name. A file is created under its final name, written, and brought to the disk before a
record names it (the commit point); its name goes when no record names it any more. Copying is a hard link: the bytes
never change, so two objects may share them. What a crash leaves without a record is swept at the next start.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from builder import durable, pool
from builder.sandbox.records import Layout, Part, S3Object, Stored
from builder.sandbox.state import State

_FILE = re.compile(r'"file": ?"([0-9a-f]{32})"')


class Store:
    """The directory with the bytes of all buckets."""

    def __init__(self, directory: Path, state: State) -> None:
        self.directory = directory
        self._lock = pool.Lock()
        self._readers: Counter[str] = Counter()
        self._doomed: dict[str, list[str]] = {}
        directory.mkdir(exist_ok=True)
        self._sweep(state)

    def create(self) -> tuple[str, int]:
        """Return the name of a new file, and its descriptor."""
        name = secrets.token_hex(16)
        return name, os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def commit(self, descriptor: int) -> None:
        """Return once the file's bytes and its name are on the disk: from here on a record may name it."""
        os.fsync(descriptor)
        durable.fsync_directory(self.directory)

    def share(self, extents: Iterable[Stored]) -> tuple[Stored, ...]:
        """Return extents of one's own with the same bytes, on the disk, without copying any where links are free."""
        made: dict[str, str] = {}
        shared = []
        try:
            for one in extents:
                if one.file not in made:
                    made[one.file] = self._link(one.file)
                shared.append(Stored(file=made[one.file], offset=one.offset, length=one.length))
        except BaseException:
            self._unlink(made.values())
            raise
        durable.fsync_directory(self.directory)
        return tuple(shared)

    def _link(self, file: str) -> str:
        name = secrets.token_hex(16)
        try:
            os.link(self.directory / file, self.directory / name)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP):
                raise
            with open(self.directory / file, "rb") as source, open(self.directory / name, "xb") as target:
                _copy(source.fileno(), target.fileno(), 0, os.fstat(source.fileno()).st_size)
                os.fsync(target.fileno())
        return name

    def open(self, file: str) -> int:
        """Return a descriptor for reading."""
        return os.open(self.directory / file, os.O_RDONLY)

    # Who reads what is replaced or deleted meanwhile reads on: its files go when the last reader has.

    def hold(self, data: str) -> None:
        """Keep the files of an object's `data` until `release`. Call it under the state's lock, beside the look-up."""
        with self._lock:
            self._readers[data] += 1

    def release(self, data: str) -> None:
        """Let go of what `hold` kept."""
        with self._lock:
            self._readers[data] -= 1
            doomed = [] if self._readers[data] else self._doomed.pop(data, [])
            if not self._readers[data]:
                del self._readers[data]
        self._unlink(doomed)

    def remove(self, data: str, extents: Iterable[Stored]) -> None:
        """Remove an object's files, as soon as nobody reads them. Call it after its record is gone."""
        files = [one.file for one in extents]
        with self._lock:
            if self._readers[data]:
                self._doomed.setdefault(data, []).extend(files)
                return
            del self._readers[data]
        self._unlink(files)

    def _unlink(self, files: Iterable[str]) -> None:
        for file in set(files):
            (self.directory / file).unlink(missing_ok=True)

    def _sweep(self, state: State) -> None:
        """Remove every file that no record names: what a crash left of an upload or a removal."""
        found = {entry.name for entry in os.scandir(self.directory)}
        if not found:
            return
        for kind in (S3Object, Layout, Part):
            for body in state.bodies(kind):
                found.difference_update(_FILE.findall(body))
        self._unlink(found)


class Reading:
    """A stretch of an object's bytes, on its way to a client; the object's files stay until it is closed."""

    def __init__(self, store: Store, data: str, extents: Sequence[Stored], start: int, length: int) -> None:
        self._store = store
        self._data = data
        self._extents = extents
        self._start = start
        self._length = length

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return self._length

    def stretches(self) -> Iterator[tuple[int, int, int]]:
        """Yield (descriptor, offset, count) in order."""
        for one in clip(self._extents, self._start, self._length):
            descriptor = self._store.open(one.file)
            try:
                yield descriptor, one.offset, one.length
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Let go of the files."""
        self._store.release(self._data)


def clip(extents: Iterable[Stored], start: int, length: int) -> Iterator[Stored]:
    """Yield the extents that hold `length` bytes from `start` on."""
    for one in extents:
        if length <= 0:
            return
        if start < one.length:
            size = min(one.length - start, length)
            if size:
                yield Stored(file=one.file, offset=one.offset + start, length=size)
            length -= size
            start = 0
        else:
            start -= one.length


def _copy(source: int, target: int, start: int, length: int) -> None:
    """Append `length` bytes from `start` of one file to another, inside the kernel."""
    while length > 0:
        count = os.copy_file_range(source, target, length, start)
        if count == 0:
            raise OSError(errno.EIO, "a file is shorter than its record says")
        start, length = start + count, length - count


def assemble(store: Store, extents: Iterable[Stored], target: int) -> None:
    """Append the extents' bytes to the file `target`, inside the kernel: a reflink where the filesystem has it."""
    for one in extents:
        source = store.open(one.file)
        try:
            _copy(source, target, one.offset, one.length)
        finally:
            os.close(source)
