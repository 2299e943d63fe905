"""What a machine says on its serial port, in a file that does not grow: a guest may print for ever."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from builder import pool
from builder.sandbox.machines.machine import CONSOLE

_READ = 64 << 10  # bytes at once: all that a pipe holds


class Console:
    """The end of what comes through a pipe: the file has `keep` bytes of it at least, four times that at most.

    A thread reads the pipe as long as somebody can write to it, so that whoever writes never waits for a reader.
    """

    def __init__(self, path: Path, keep: int = CONSOLE) -> None:
        """Begin anew: what the file held is gone. `writer` is the pipe's end to hand to the machine."""
        self.path, self._keep = path, keep
        path.write_bytes(b"")
        reader, self.writer = os.pipe()
        self._ours = True
        self._coming = self._total = 0  # bytes that are being written, and those that are in the file
        self._reading = pool.Background(lambda: self._read(reader))

    def handed_over(self) -> None:
        """Close our copy of the writing end, once somebody else has one or nobody ever will; safe to repeat."""
        if self._ours:
            self._ours = False
            os.close(self.writer)

    def tail(self) -> bytes:
        """Return the last `keep` bytes; none when the file is gone."""
        return tail(self.path, self._keep)

    def since(self, position: int, keep: int) -> tuple[int, bytes]:
        """Return how many bytes have come in all, and the last of them after `position`, at most `keep`.

        While some are just coming in, that is `position` and nothing: ask again.
        """
        total = self._total
        last = tail(self.path, keep)
        if total != self._coming:
            return position, b""
        return total, last[-(total - position) :] if total > position else b""

    def finish(self, timeout: float = 10) -> None:
        """Wait until the end of what came is in the file: to be called when the machine is gone."""
        with suppress(TimeoutError):  # a child of its may still hold the other end
            self._reading.result(timeout)

    def _read(self, reader: int) -> None:
        size = 0
        with open(reader, "rb", buffering=0) as pipe, suppress(FileNotFoundError):  # its directory is gone
            while data := pipe.read(_READ):
                self._coming += len(data)
                with open(self.path, "r+b", buffering=0) as file:
                    file.seek(0, os.SEEK_END)
                    file.write(data)
                size += len(data)
                self._total = self._coming
                if size > 4 * self._keep - _READ:
                    size = self._cut()

    def _cut(self) -> int:
        kept = self.tail()
        new = self.path.with_suffix(".new")
        new.write_bytes(kept)
        new.replace(self.path)
        return len(kept)


def tail(path: Path, keep: int = CONSOLE) -> bytes:
    """Return the last `keep` bytes of a file; none when it is not there."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - keep))
            return file.read(keep)
    except FileNotFoundError:
        return b""
