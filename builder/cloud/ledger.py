"""Which blocks a snapshot has, kept on disk while they are sent: what an upload killed at any moment goes on from.

A file of 64-byte slots. Slot 0 names the snapshot, slot 1 tells of its sealing, slot 2 + i is block i's: its index
(8 bytes), what became of it (1 byte, 3 unused), its SHA-256 (32 bytes), all big-endian, a CRC-32 of these (4 bytes)
and padding. A slot never straddles a sector, so it is whole or, by its CRC, absent. The place of a block is computed,
not searched: memory stays flat at any image size, and reading the file forwards is reading the blocks in order. Holes
in the file stand for blocks that nobody has looked at.

A slot is written after the cloud's acknowledgement and is not fsynced: kill -9 loses nothing of it, and a power cut at
worst some slots, whose blocks are sent again; a block is never believed sent when it was not.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

from builder.durable import translate_disk_full

_SLOT = 64
_FIRST = 2  # the slot of block 0
_ENTRY = struct.Struct(">QB3x32s")
_CRC = struct.Struct(">I")
_MAGIC = b"emi blocks 1\n"
_STRETCH = 1024  # slots read at once


class Fate(IntEnum):
    """What became of a block."""

    SENT = 1  # it holds data, which the cloud acknowledged
    ZERO = 2  # all zero, and not sent
    KEPT = 3  # it holds the data that the parent snapshot has there
    CLEARED = 4  # zeros were sent, over data of the parent
    SEALING = (
        8  # of the snapshot, not of a block: its completion was or will be asked for; index counts the blocks sent
    )
    SEALED = 9  # … and was acknowledged


@dataclass(frozen=True)
class Entry:
    """One block: its index, what became of it, and the SHA-256 of its bytes."""

    index: int
    fate: Fate
    sha256: bytes

    @property
    def has_data(self) -> bool:
        """Say whether the block has a byte that is not zero."""
        return self.fate in (Fate.SENT, Fate.KEPT)

    @property
    def was_sent(self) -> bool:
        """Say whether the block counts as changed."""
        return self.fate in (Fate.SENT, Fate.CLEARED)


class Ledger:
    """The blocks of one snapshot. Safe to use from several threads at once, each on its own blocks.

    A file that belongs to another snapshot is emptied on opening. Raises DiskFull.
    """

    def __init__(self, path: Path, snapshot_id: str) -> None:
        self.path = path
        header = _header(snapshot_id)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.pread(self._file, _SLOT, 0) != header:
            os.ftruncate(self._file, 0)
            self._write(header, 0)

    @staticmethod
    def belongs(path: Path, snapshot_id: str) -> bool:
        """Say whether there is a ledger at `path` and it is that snapshot's."""
        try:
            with open(path, "rb") as file:
                return file.read(_SLOT) == _header(snapshot_id)
        except FileNotFoundError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)

    def get(self, index: int) -> Entry | None:
        """Return what is known of a block."""
        found = _decode(os.pread(self._file, _SLOT, (_FIRST + index) * _SLOT))
        return found if found and found.index == index else None

    def put(self, entry: Entry) -> None:
        """Remember a block."""
        self._write(_encode(entry), (_FIRST + entry.index) * _SLOT)

    def entries(self) -> Iterator[Entry]:
        """Yield every block that is known, ascending; never reads the file's holes."""
        position = _FIRST * _SLOT
        while (position := self._next_data(position)) >= 0:
            position -= position % _SLOT
            stretch = os.pread(self._file, _STRETCH * _SLOT, position)
            for at in range(0, len(stretch), _SLOT):
                entry = _decode(stretch[at : at + _SLOT])
                if entry and (_FIRST + entry.index) * _SLOT == position + at:
                    yield entry
            position += len(stretch)

    def sealing(self) -> Fate | None:
        """Return SEALING when completion of the snapshot may have been asked for, SEALED when it was acknowledged."""
        entry = _decode(os.pread(self._file, _SLOT, _SLOT))
        return entry.fate if entry else None

    def seal(self, fate: Fate, changed: int, checksum: bytes) -> None:
        """Remember how far the completion of the snapshot is; on disk when this returns."""
        self._write(_encode(Entry(changed, fate, checksum)), _SLOT)
        with translate_disk_full(self.path):
            os.fsync(self._file)

    def _write(self, slot: bytes, position: int) -> None:
        with translate_disk_full(self.path):
            os.pwrite(self._file, slot, position)

    def _next_data(self, position: int) -> int:
        try:
            return max(position, os.lseek(self._file, position, os.SEEK_DATA))
        except OSError as error:
            if error.errno != errno.ENXIO:  # past the last data
                raise
            return -1


def _header(snapshot_id: str) -> bytes:
    return (_MAGIC + snapshot_id.encode()).ljust(_SLOT, b"\0")


def _encode(entry: Entry) -> bytes:
    body = _ENTRY.pack(entry.index, entry.fate, entry.sha256)
    return (body + _CRC.pack(zlib.crc32(body))).ljust(_SLOT, b"\0")


def _decode(slot: bytes) -> Entry | None:
    body = slot[: _ENTRY.size]
    if len(slot) < _SLOT or slot[_ENTRY.size : _ENTRY.size + _CRC.size] != _CRC.pack(zlib.crc32(body)):
        return None
    index, fate, sha256 = _ENTRY.unpack(body)
    return Entry(index, Fate(fate), sha256) if fate else None
