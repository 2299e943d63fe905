"""An image into a snapshot, block by block, through the EBS direct APIs: no raw copy, no zero sent, nothing sent twice.

Whoever reads (and inflates) a block also sends it: a separate reader starves behind the senders. Each of `connections`
threads holds one block of 512 KiB, so memory does not grow with the image.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from builder import pool
from builder.cloud.api import BlockRef, Cloud
from builder.cloud.ledger import Entry, Fate, Ledger
from builder.digest import BLOCK, BlockDigest, is_zero
from builder.errors import InputError
from builder.image.stream import ImageReader, data_blocks
from builder.progress import SILENT, Progress

CONNECTIONS = 64  # at the service's 0.1 s a put this reaches two thirds of its quota, at 0.05 s all of it
GIB = 1 << 30
_ZEROS = bytes(BLOCK)
_ZEROS_SHA256 = hashlib.sha256(_ZEROS).digest()


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What a snapshot was given: `blocks` hold data, `changed` were sent, `checksum` (LINEAR) is over those sent."""

    blocks: int
    changed: int
    content: str
    checksum: bytes


def upload(
    reader: ImageReader,
    cloud: Cloud,
    snapshot_id: str,
    *,
    ledger: Ledger,
    connections: int = CONNECTIONS,
    progress: Progress = SILENT,
    parent: Ledger | None = None,
) -> Uploaded:
    """Send every block of the image that is not zero, or with `parent` every block that differs from it.

    Blocks that the ledger knows are neither read nor sent again: after a kill at most `connections` blocks are. With
    `parent`, blocks that had data there and are zero now are sent as zeros. Raises what the cloud raises; the snapshot
    is left pending.
    """
    task = _Upload(reader=reader, cloud=cloud, snapshot_id=snapshot_id, ledger=ledger, progress=progress, parent=parent)
    progress.total(BLOCK * sum(1 for _ in task.indexes()))
    pool.drain(task.settle, task.indexes(), workers=connections)
    return tally(ledger, reader.virtual_size)


@dataclass(frozen=True, kw_only=True)
class _Upload:
    reader: ImageReader
    cloud: Cloud
    snapshot_id: str
    ledger: Ledger
    progress: Progress
    parent: Ledger | None

    def indexes(self) -> Iterator[int]:
        """Yield, ascending and once each, every block that may have to be sent."""
        if self.parent is None:
            return data_blocks(self.reader)
        theirs = (entry.index for entry in self.parent.entries() if entry.has_data)
        return _unique(heapq.merge(data_blocks(self.reader), theirs))

    def settle(self, index: int) -> None:
        """Make the snapshot's block equal the image's, and remember that it does."""
        if self.ledger.get(index) is None:
            # Recorded by the thread that sent it, before it takes another: what is in doubt after a kill is only what
            # was in flight.
            self.ledger.put(self._send(index))
        self.progress.advance(BLOCK)

    def _send(self, index: int) -> Entry:
        theirs = self.parent.get(index) if self.parent else None
        data = self.reader.pread(BLOCK, index * BLOCK)
        if is_zero(data):
            if theirs is None or not theirs.has_data:
                return Entry(index, Fate.ZERO, _ZEROS_SHA256)
            self.cloud.put_block(self.snapshot_id, index, _ZEROS, _ZEROS_SHA256)
            return Entry(index, Fate.CLEARED, _ZEROS_SHA256)
        sha256 = hashlib.sha256(data).digest()
        if theirs and theirs.has_data and theirs.sha256 == sha256:
            return Entry(index, Fate.KEPT, sha256)
        self.cloud.put_block(self.snapshot_id, index, data, sha256)
        return Entry(index, Fate.SENT, sha256)


def tally(ledger: Ledger, virtual_size: int) -> Uploaded:
    """Return what a finished ledger adds up to."""
    content, checksum = BlockDigest(), hashlib.sha256()
    blocks = changed = 0
    for entry in ledger.entries():
        if entry.has_data:
            content.add(entry.index, entry.sha256)
            blocks += 1
        if entry.was_sent:
            checksum.update(entry.sha256)
            changed += 1
    return Uploaded(blocks=blocks, changed=changed, content=content.finish(virtual_size), checksum=checksum.digest())


def read_back(
    cloud: Cloud,
    snapshot_id: str,
    virtual_size: int,
    *,
    ledger: Ledger,
    connections: int = CONNECTIONS,
    progress: Progress = SILENT,
) -> Uploaded:
    """Read all of a completed snapshot, each block held against its checksum, and return what it adds up to.

    `content` equals the image's exactly when every byte does. The ledger (not the upload's) remembers what was read:
    after a kill reading goes on there, and it serves as `parent` for an incremental upload.
    """

    def fetch(block: BlockRef) -> None:
        if ledger.get(block.index) is None:
            data = cloud.get_block(snapshot_id, block)
            fate = Fate.ZERO if is_zero(data) else Fate.SENT
            ledger.put(Entry(block.index, fate, hashlib.sha256(data).digest()))
        progress.advance(BLOCK)

    pool.drain(fetch, cloud.list_blocks(snapshot_id), workers=connections)
    return tally(ledger, virtual_size)


def differences(reader: ImageReader, cloud: Cloud, snapshot_id: str, *, connections: int = CONNECTIONS) -> list[int]:
    """Return the indexes of the blocks whose bytes differ between the image and the snapshot, comparing every byte.

    For tests and for doubt; `read_back` proves the same through digests, reading the image only once.
    """
    stored = {block.index: block for block in cloud.list_blocks(snapshot_id)}

    def differs(index: int) -> bool:
        theirs = cloud.get_block(snapshot_id, stored[index]) if index in stored else _ZEROS
        return theirs != reader.pread(BLOCK, index * BLOCK)

    every = list(_unique(heapq.merge(data_blocks(reader), sorted(stored))))
    return [
        index for index, other in zip(every, pool.in_order(differs, every, workers=connections), strict=True) if other
    ]


def volume_size(virtual_size: int, wanted: int | None = None) -> int:
    """Return the GiB of a volume that holds an image of `virtual_size` bytes: `wanted`, or as few as do.

    Raises InputError when the image does not fit into `wanted`.
    """
    needed = max(1, -(-virtual_size // GIB))
    if wanted is not None and wanted < needed:
        raise InputError(
            f"the image needs a volume of {needed} GiB; the recipe allows {wanted} GiB",
            hint="Raise volume_size, or leave it out.",
        )
    return wanted or needed


def _unique(ascending: Iterable[int]) -> Iterator[int]:
    last = -1
    for number in ascending:
        if number != last:
            yield number
        last = number


def hash_image(reader: ImageReader, *, ledger: Ledger, connections: int = 4, progress: Progress = SILENT) -> Uploaded:
    """Return what an image adds up to without sending any of it, entered in the ledger as what a snapshot has."""

    def enter(index: int) -> None:
        data = reader.pread(BLOCK, index * BLOCK)
        fate = Fate.ZERO if is_zero(data) else Fate.KEPT
        ledger.put(Entry(index, fate, hashlib.sha256(data).digest()))
        progress.advance(BLOCK)

    pool.drain(enter, data_blocks(reader), workers=connections)
    return tally(ledger, reader.virtual_size)
