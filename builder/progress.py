"""How far a long operation is: values for whoever shows them. Nothing here prints."""

from __future__ import annotations

import time
from typing import Protocol


class Progress(Protocol):
    """Receives how far the operation is; called from any thread."""

    def total(self, count: int) -> None:
        """Say that the operation will move `count` bytes; may be called again when more is known."""

    def advance(self, count: int) -> None:
        """Say that `count` more bytes are done."""

    def note(self, text: str) -> None:
        """Say in a few words what is being done now, or why something was not needed."""


class Silent:
    """A Progress that nobody watches."""

    def total(self, count: int) -> None:
        """Ignore it."""

    def advance(self, count: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""


SILENT: Progress = Silent()


class Sparing:
    """Passes a note on at most once a second: for many threads that all say the same of one cloud."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._next = 0.0

    def total(self, count: int) -> None:
        """Pass it on."""
        self._progress.total(count)

    def advance(self, count: int) -> None:
        """Pass it on."""
        self._progress.advance(count)

    def note(self, text: str) -> None:
        """Pass it on, or not."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1
            self._progress.note(text)
