"""Several connections to one target: digests are asked for and bytes are sent over all of them at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from types import TracebackType
from typing import Self

from builder import pool
from builder.digest import BLOCK, BlockDigest
from builder.progress import SILENT, Progress
from builder.remote import abilities
from builder.remote.command import Shell
from builder.remote.target import Target, Writer
from builder.retry import retrying

CONNECTIONS = 4  # one channel moves at most 2 MiB in a round trip: 4 of them fill 1 Gbit/s up to 60 ms away
_SURVEYED = 1 << 30  # bytes whose digests are asked for at once; a cut repeats one such question


class Lane:
    """One connection with, once something is to be written over it, a writer at its other end."""

    def __init__(self, shell: Shell, target: Target) -> None:
        self._shell = shell
        self._target = target
        self._stack = ExitStack()
        self._writer: Writer | None = None

    def put(self, parts: Iterable[tuple[int, bytes | int]]) -> int:
        """Write ranges over a writer that is started where there is none; return the bytes sent. Raises DeviceMoved."""
        with self._target.named(self._shell):
            if self._writer is None:
                self._writer = self._stack.enter_context(self._target.writer(self._shell))
            return self._writer.put(parts)

    def finish(self) -> None:
        """Return when what went this way is on the device."""
        if self._writer is not None:
            with self._target.named(self._shell):
                self._writer.finish()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class Lanes:
    """Several connections to one target, each used by one thread at a time."""

    def __init__(self, target: Target, shells: list[Shell], progress: Progress) -> None:
        self.target = target
        self.shells = shells
        self._progress = progress

    def settle(self) -> None:
        """Have all that was written on the device, and the next reads come from there."""
        retrying(lambda: self.target.settle(self.shells[0]), attempts=4, progress=self._progress)

    def survey(self, grains: Collection[int], grain: int = 0) -> dict[int, bytes]:
        """Return the digests of those grains over there that are not zero."""
        step = _SURVEYED // (grain or self.target.grain)
        free = list(self.shells)

        def ask(question: list[tuple[int, int]]) -> dict[int, bytes]:
            shell = free.pop()
            try:
                return retrying(lambda: self.target.survey(shell, question, grain), attempts=4, progress=self._progress)
            finally:
                free.append(shell)

        found: dict[int, bytes] = {}
        for part in pool.each(ask, _questions(grains, step), workers=len(self.shells), ahead=len(self.shells)):
            found |= part
        return found


def read_back(shell: Shell, path: str, size: int, *, connections: int = CONNECTIONS) -> str:
    """Return the `blocks:` digest of the first `size` bytes of `path` over there, read from the device itself."""
    able = abilities.ask(shell)
    target = Target.prepare(shell, able, path, size)
    with ExitStack() as stack:
        others = [Shell(stack.enter_context(shell.remote.another())) for _ in range(connections - 1)]
        lanes = Lanes(target, [shell, *others], SILENT)
        lanes.settle()
        return blocks_digest(lanes.survey(range(-(-size // BLOCK)), grain=BLOCK), size)


def runs_of(grains: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield ascending numbers as runs: the first, and how many."""
    first = count = 0
    for index in grains:
        if count and first + count == index:
            count += 1
            continue
        if count:
            yield first, count
        first, count = index, 1
    if count:
        yield first, count


def _questions(grains: Collection[int], most: int) -> Iterator[list[tuple[int, int]]]:
    """Yield runs of grains, at most `most` grains to a question."""
    source = iter(grains)
    while part := list(islice(source, most)):
        yield list(runs_of(part))


def blocks_digest(digests: Mapping[int, bytes], size: int) -> str:
    """Return the `blocks:` digest of blocks that are not zero, of a disk of `size` bytes."""
    made = BlockDigest()
    for index in sorted(digests):
        made.add(index, digests[index])
    return made.finish(size)
