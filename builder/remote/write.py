"""Write an image to a block device or file of another machine, and prove that it is there.

Every grain (512 KiB, or 4 MiB where there is no Python) is compared by its SHA-256: only those that differ are sent,
compressed, over several connections at once. Then fsync, the kernel over there forgets its copies, and every grain that
was not read from the device before is read from it now. So each grain is read there exactly once after it was written,
holes too, and the digest that is returned is one of bytes that came from the device.

Nothing is recorded here or there: a write that was killed is begun again, and what has arrived is found by its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from builder import pool
from builder.digest import BLOCK, is_zero
from builder.errors import ChecksumMismatch, DeviceMoved, RemoteFailed, RemoteTrouble, WriteLost
from builder.image.stream import ImageReader, data_blocks
from builder.progress import SILENT, Progress
from builder.remote import abilities
from builder.remote.command import Shell
from builder.remote.lanes import CONNECTIONS, Lane, Lanes, blocks_digest
from builder.remote.target import Target

_PIECE = 4 << 20  # bytes compressed and sent at once
_FRUITLESS = 4  # times in a row that a write may be cut or killed without anything new having arrived
_STARTS = 4  # of the machine, in the midst of one question


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a write came to."""

    digest: str  # `blocks:HEX`, as read back
    blocks: int  # of 512 KiB that hold data
    size: int  # bytes of the image
    sent: int  # bytes on the wire, compressed, without SSH's own
    written: int  # bytes of the image that were not there before


def write(
    reader: ImageReader,
    shell: Shell,
    path: str | Callable[[], str],
    *,
    blank: bool = False,
    expected: str | None = None,
    connections: int = CONNECTIONS,
    progress: Progress = SILENT,
) -> Written:
    """Make the first bytes of `path` over there equal to the image; what lies beyond it is left alone.

    A device's name holds for one boot: where `path` is a function it is asked for the name, and asked again when the
    machine was started anew in the midst; a name that is given is DeviceMoved then.

    `blank` vouches that the device has never been written to, which saves reading it beforehand; a file that is made
    new is blank anyway. `expected` is the image's own `blocks:` digest, where it is known. Holes of the image read as
    zeros afterwards. A crash or an error leaves some of the image there; writing it again sends only the rest.

    Raises WriteLost (what is read back is not what was sent), RemoteError (too small), DeviceDoubtful (in use),
    DeviceMoved, RemoteFailed (a disk is full, a writer is killed again and again), RemoteDenied, RemoteAway,
    HostKeyWrong, ChecksumMismatch (the image is not the `expected` one), and what reading the image raises.
    """
    able = abilities.ask(shell)
    find = path if callable(path) else None
    target = Target.prepare(shell, able, find() if find else str(path), reader.virtual_size)
    with ExitStack() as stack:
        others = [Shell(stack.enter_context(shell.remote.another())) for _ in range(connections - 1)]
        job = _Job(reader, Lanes(target, [shell, *others], progress), find, progress)
        return job.run(blank=blank or target.new, expected=expected)


class _Job:
    def __init__(self, reader: ImageReader, lanes: Lanes, find: Callable[[], str] | None, progress: Progress) -> None:
        self.reader = reader
        self.target = lanes.target
        self.lanes = lanes
        self.find = find
        self.progress = progress
        self.here: dict[int, bytes] = {}  # the image's grains that are not zero, as far as they have been read
        self.blocks: dict[int, bytes] = {}  # the same by 512 KiB, for the digest
        self.there: dict[int, bytes] = {}  # the device's
        self.proven: set[int] = set()  # grains whose entry in `there`, or lack of one, was read from the device
        self.data = set(data_blocks(reader, self.target.grain))
        self.lock = pool.Lock()
        self.sent = 0
        self.written = 0

    def run(self, *, blank: bool, expected: str | None) -> Written:
        grain = self.target.grain
        count = -(-self.reader.virtual_size // grain)
        self.progress.total(self.reader.virtual_size)
        if not blank:
            self.progress.note("comparing with what is there")
            self._learn(range(count))
        pieces = [range(first, min(first + _PIECE // grain, count)) for first in range(0, count, _PIECE // grain)]
        self._send_all(pieces)
        self.progress.note("reading back from the device")
        self._prove([index for index in range(count) if index not in self.proven])
        digest = blocks_digest(self.blocks, self.reader.virtual_size)
        if expected is not None and digest != expected:
            raise ChecksumMismatch(f"the image that was written is {digest}, not {expected}: it was changed meanwhile")
        size = self.reader.virtual_size
        return Written(digest=digest, blocks=len(self.blocks), size=size, sent=self.sent, written=self.written)

    def _learn(self, grains: Collection[int]) -> None:
        """Read these grains of the device into `there`."""
        found = self._read_there(grains)
        for index in grains:
            self.there.pop(index, None)
        self.there |= found
        self.proven |= set(grains)

    def _read_there(self, grains: Collection[int], starts: int = 0) -> dict[int, bytes]:
        try:
            self.lanes.settle()
            return self.lanes.survey(grains)
        except DeviceMoved as error:
            self._find_again(error, _STARTS - starts)
            return self._read_there(grains, starts + 1)

    def _find_again(self, error: DeviceMoved, left: int) -> None:
        """Work on the device under the name that it has now. Raises `error` where it is not to be found, and as `find`.

        What was read from it before still holds: it was synced then.
        """
        if self.find is None or not left:
            raise error
        self.progress.note(f"{error}; looking for the device again")
        shell = self.lanes.shells[0]
        self.target = Target.prepare(shell, abilities.ask(shell), self.find(), self.target.size)
        self.lanes.target = self.target

    def _send_all(self, pieces: list[range]) -> None:
        """Bring every piece there, going on after cuts and killed writers from what has arrived."""
        waiting, fruitless = pieces, 0
        while waiting:
            begun: list[range] = []
            try:
                self._send(waiting, begun)
            except (RemoteTrouble, RemoteFailed, DeviceMoved) as error:
                if isinstance(error, RemoteFailed) and not error.killed:
                    raise
                if isinstance(error, DeviceMoved):
                    self._find_again(error, _FRUITLESS - fruitless)
                self.progress.note(f"going on after: {error}")
                before = self._matching()
                self._learn([index for piece in begun for index in piece])
                fruitless = 0 if self._matching() > before else fruitless + 1
                if fruitless >= _FRUITLESS:
                    raise
                waiting = [piece for piece in waiting if not self._arrived(piece)]
            else:
                return

    def _matching(self) -> int:
        return sum(1 for index in self.proven if index in self.here and self.here[index] == self.there.get(index))

    def _arrived(self, piece: range) -> bool:
        return all(i in self.proven and i in self.here and self.here[i] == self.there.get(i) for i in piece)

    def _send(self, pieces: list[range], begun: list[range]) -> None:
        """Send what differs of these pieces, noting in `begun` what may have been sent; returns when it is fsynced."""
        free = [Lane(shell, self.target) for shell in self.lanes.shells]

        def send(piece: range) -> None:
            begun.append(piece)
            if parts := list(self._differing(piece)):
                lane = free.pop()
                try:
                    self._count(lane.put(parts), parts)
                finally:
                    free.append(lane)
            self.progress.advance(len(piece) * self.target.grain)

        with ExitStack() as stack:
            lanes = [stack.enter_context(lane) for lane in free]
            pool.drain(send, pieces, workers=len(lanes))
            pool.drain(Lane.finish, lanes, workers=len(lanes))

    def _count(self, sent: int, parts: list[tuple[int, bytes | int]]) -> None:
        with self.lock:
            self.sent += sent
            self.written += sum(what if isinstance(what, int) else len(what) for _, what in parts)

    def _differing(self, piece: range) -> Iterator[tuple[int, bytes | int]]:
        """Yield the ranges of a piece that are not there, in order, touching ones of data as one; learn its digests."""
        grain = self.target.grain
        start, data = 0, b""
        for index in piece:
            offset = index * grain
            length = min(grain, self.reader.virtual_size - offset)
            found = self._read(index, offset, length)
            different = self.here.get(index) != self.there.get(index)
            if different:
                self.proven.discard(index)
            if data and (not different or not found):
                yield start, data
                data = b""
            if different and not found:
                yield offset, length
            elif different:
                start, data = (start, data + found) if data else (offset, found)
        if data:
            yield start, data

    def _read(self, index: int, offset: int, length: int) -> bytes:
        """Return a grain of the image, b"" when it is zero, and keep its digests."""
        data = self.reader.pread(length, offset) if index in self.data else b""
        blocks = [memoryview(data)[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
        zero = [is_zero(block) for block in blocks]
        if all(zero):
            self.here.pop(index, None)
            return b""
        for number, block in enumerate(blocks):
            if not zero[number]:
                self.blocks[offset // BLOCK + number] = _sha256(block, BLOCK)
        if self.target.grain == BLOCK:
            self.here[index] = self.blocks[index]
        else:
            self.here[index] = _sha256(memoryview(data), self.target.grain)
        return data

    def _prove(self, grains: list[int]) -> None:
        """Compare these grains of the device with the image's. Raises WriteLost."""
        if not grains:
            return
        self._learn(grains)
        lost = [index for index in grains if self.here.get(index) != self.there.get(index)]
        if lost:
            zero = sum(1 for index in lost if index not in self.there)
            grain = self.target.grain
            raise WriteLost(
                f"{self.target.path} on {self.lanes.shells[0].name} does not hold what was written to it: {len(lost)}"
                f" of {len(grains)} ranges of {grain >> 10} KiB differ when they are read back, the first at byte"
                f" {lost[0] * grain}; {zero} of them read as zeros"
            )


def _sha256(data: memoryview, size: int) -> bytes:
    digest = hashlib.sha256(data)
    if len(data) < size:
        digest.update(bytes(size - len(data)))
    return digest.digest()
