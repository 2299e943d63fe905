"""The bytes of volumes: for each a directory with the raw sparse file `data`, which machines will read and write.

A volume made of a snapshot has in its directory, until it is ready, the snapshot's bytes as well (`source`, `map`: hard
links, so that the snapshot may be deleted meanwhile).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder import durable
from builder.sandbox import sparse
from builder.sandbox.disks import Disk, block_ranges
from builder.sandbox.sparse import Report


class VolumeFiles:
    """The volumes of one sandbox directory, by their id."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)

    def path(self, name: str) -> Path:
        """Return where the bytes of a volume are."""
        return self._directory / name / "data"

    def create(self, name: str, size: int, source: Disk | None) -> None:
        """Make a volume of `size` bytes; with a source it is whole after `fill`.

        A crash before its record is committed leaves an orphan for `sweep`. Raises OSError with EFBIG when the
        filesystem holds no file of that size (ext4: 16 TiB).
        """
        directory = self._directory / name
        directory.mkdir()
        try:
            with open(directory / "data", "wb") as data:
                os.ftruncate(data.fileno(), size)
            if source is not None:
                os.link(source.directory / "data", directory / "source")
                os.link(source.directory / "map", directory / "map")
        except OSError:
            self.remove(name)
            raise
        durable.fsync_directory(directory)
        durable.fsync_directory(self._directory)

    def fill(self, name: str, report: Report) -> None:
        """Bring the bytes of the snapshot into its new volume; they are on the disk when this returns.

        May be done again after a crash: nobody writes to a volume before it is ready.
        """
        directory = self._directory / name
        with (
            _opened(directory / "source", os.O_RDONLY) as source,
            _opened(directory / "map", os.O_RDONLY) as blocks,
            _opened(directory / "data", os.O_RDWR) as data,
        ):
            sparse.copy(source, data, list(block_ranges(blocks)), report)
            os.fsync(data)

    def filled(self, name: str) -> None:
        """Let go of what only `fill` needed. Call it when the volume's record says that it is ready."""
        for left in ("source", "map"):
            (self._directory / name / left).unlink(missing_ok=True)

    def allocated(self, name: str) -> int:
        """Return how many bytes the volume takes on the disk; 0 when it is gone."""
        try:
            return self.path(name).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def remove(self, name: str) -> None:
        """Give a volume's space back. Call it after its record says that it is gone."""
        shutil.rmtree(self._directory / name, ignore_errors=True)

    def sweep(self, known: set[str]) -> None:
        """Remove every volume that no record names: what a crash left of a creation or a delete."""
        for entry in self._directory.iterdir():
            if entry.name not in known:
                self.remove(entry.name)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
