"""bz2 on several cores, with the checks that the library leaves out.

rapidgzip checks each block's CRC; in parallel it does not check that all blocks are there, and it prints to stderr
about bytes behind the end. So the end is looked at first, and the stream's CRC, which is made of the blocks', after.
The format: a stream is `BZh` and a level, blocks (48-bit magic, 32-bit CRC, data) at any bit, and an end (48-bit magic,
32-bit CRC) padded to a byte.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import rapidgzip

from builder.errors import ArchiveRefused

_BLOCK, _END = 0x314159265359, 0x177245385090
_TAIL = 48 // 8 + 32 // 8 + 1  # bytes that the end of a stream may touch


def ends_with_its_stream(path: Path) -> bool:
    """Say whether the file's last bits are the end of a bz2 stream: not cut off, nothing behind it."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _TAIL, 0))
        tail = file.read()
    word = int.from_bytes(tail, "big")
    # The magic stands 80 bits before the end, plus up to 7 bits of padding.
    return any((word >> 32 + padding) & 0xFFFFFFFFFFFF == _END for padding in range(8))


class ParallelBzip2:
    """A Decoder for a file whose end was looked at."""

    def __init__(self, path: Path, name: str, *, workers: int) -> None:
        self._path = path
        self._name = name
        self._reader = rapidgzip.IndexedBzip2File(str(path), parallelization=workers)
        self._raw = self._reader.raw if hasattr(self._reader, "raw") else self._reader
        self._checked = False
        self.consumed = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, b'' at the end. Raises ArchiveRefused."""
        try:
            data: bytes = self._reader.read(size)
            self.consumed = self._reader.tell_compressed() // 8
        except (RuntimeError, ValueError) as error:
            raise ArchiveRefused(f"{self._name}: damaged bz2 data ({error})", hint=_HINT) from error
        if not data and not self._checked:
            self._check_streams()
            self._checked = True
        return data

    def close(self) -> None:
        """Release the file and end the library's threads."""
        self._reader.close()

    def _check_streams(self) -> None:
        """Require the file to be streams to its last bit, each with the CRC that its blocks' CRCs make."""
        offsets = sorted(self._reader.block_offsets())  # in bits, the ends of streams and of the file among them
        combined = end = 0
        with open(self._path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for offset in offsets:
                magic, crc = _bits(data, offset, 48), _bits(data, offset + 48, 32)
                if magic == _BLOCK:
                    combined = ((combined << 1 | combined >> 31) & 0xFFFFFFFF) ^ crc  # rotate left, exclusive or
                elif magic == _END:
                    if crc != combined:
                        raise ArchiveRefused(f"{self._name}: damaged bz2 data (the stream's CRC differs)", hint=_HINT)
                    combined, end = 0, -(-(offset + 80) // 8)
            # Where a block's magic is damaged, rapidgzip takes what is before it for the whole file.
            if end != len(data):
                raise ArchiveRefused(f"{self._name}: damaged bz2 data (no block at byte {end})", hint=_HINT)


_HINT = "Download it again; if the publisher's own file is damaged, tell them."


def _bits(data: mmap.mmap, offset: int, count: int) -> int:
    begin, end = offset // 8, (offset + count + 7) // 8
    return (int.from_bytes(data[begin:end], "big") >> (end * 8 - offset - count)) & ((1 << count) - 1)
