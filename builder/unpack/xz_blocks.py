"""xz on several cores, for files that `xz -T` or pixz wrote as blocks.

Each block is decoded as a stream of its own, made of the file's stream header, the block, and an index of that one
block, so that liblzma checks all it checks in the whole file: block headers, sizes and the check of the content. What
is left, the file's index and footer, is checked here. Layout and constants: the .xz file format 1.2.1, sections 2 to 4.
"""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder import pool
from builder.errors import ArchiveRefused

_MAGIC, _END = b"\xfd7zXZ\0", b"YZ"
_HEADER = _FOOTER = 12
# Decoded blocks held at once. `xz -T` at its default level makes blocks of 24 MiB, at -9 of 192 MiB.
_BUDGET = 192 << 20
_LONGEST_INDEX = 16 << 20  # bytes; two million blocks
_HINT = "Download it again; if the publisher's own file is damaged, tell them."


@dataclass(frozen=True)
class Block:
    """One block: where it lies, its size without padding, and its content's; bytes."""

    offset: int
    unpadded: int
    uncompressed: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A file of one stream with several blocks, small enough to hold some of them decoded."""

    header: bytes
    blocks: tuple[Block, ...]
    workers: int


def layout(path: Path, *, workers: int) -> Layout | None:
    """Return the blocks of the file, or None where decoding it in order is safer or no slower.

    That is: one block, several streams, padding, blocks too large to hold two, or anything that is not as the format
    has it; the decoder of the whole file then finds the right words for what is wrong.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(_HEADER)
        if size % 4 or size < 3 * _HEADER or not header.startswith(_MAGIC):
            return None
        file.seek(size - _FOOTER)
        footer = file.read(_FOOTER)
        index_size = (int.from_bytes(footer[4:8], "little") + 1) * 4
        if not _is_footer(footer, header) or index_size > min(size - _HEADER - _FOOTER, _LONGEST_INDEX):
            return None
        file.seek(size - _FOOTER - index_size)
        blocks = _blocks(file.read(index_size))
    if len(blocks) < 2:
        return None
    last = blocks[-1]
    if last.offset + _padded(last.unpadded) != size - _FOOTER - index_size:
        return None
    held = _BUDGET // (max(block.uncompressed for block in blocks) or 1)
    workers = min(workers, held - 1, len(blocks))
    return Layout(header=header, blocks=blocks, workers=workers) if workers > 1 else None


class ParallelXz:
    """A Decoder for a file whose layout is known."""

    def __init__(self, path: Path, name: str, layout: Layout) -> None:
        self._name = name
        self._layout = layout
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._decoded: Iterator[bytes] = pool.in_order(
            self._decode, layout.blocks, workers=layout.workers, ahead=layout.workers + 1
        )
        self._current = b""
        self._position = 0
        self._taken = 0

    @property
    def consumed(self) -> int:
        """How many bytes of the file the blocks read so far take."""
        return self._layout.blocks[self._taken - 1].offset if self._taken else 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, b'' at the end. Raises ArchiveRefused."""
        while self._position == len(self._current):
            following = next(self._decoded, None)
            if following is None:
                return b""
            self._current, self._position = following, 0
            self._taken += 1
        data = self._current[self._position : self._position + size]
        self._position += len(data)
        return data

    def close(self) -> None:
        """Stop the threads and release the file."""
        close = getattr(self._decoded, "close", None)
        if close:
            close()
        os.close(self._file)

    def _decode(self, block: Block) -> bytes:
        body = os.pread(self._file, _padded(block.unpadded), block.offset)
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_BUDGET)
        try:
            decoder.decompress(self._layout.header)
            # One byte more than the index says, so that a block that holds more cannot fill the memory.
            data = decoder.decompress(body, block.uncompressed + 1)
            if len(data) == block.uncompressed:
                data += decoder.decompress(_ending(block, self._layout.header[6:8]))
        except (lzma.LZMAError, EOFError) as error:
            raise ArchiveRefused(f"{self._name}: damaged xz data ({error})", hint=_HINT) from error
        if len(data) != block.uncompressed or not decoder.eof:
            raise ArchiveRefused(
                f"{self._name}: damaged xz data (a block is not as long as the index says)", hint=_HINT
            )
        return data


def _is_footer(footer: bytes, header: bytes) -> bool:
    return (
        footer[10:] == _END
        and footer[8:10] == header[6:8]
        and int.from_bytes(footer[:4], "little") == zlib.crc32(footer[4:10])
    )


def _blocks(index: bytes) -> tuple[Block, ...]:
    """Read an index; () if it is none."""
    if index[:1] != b"\0" or int.from_bytes(index[-4:], "little") != zlib.crc32(index[:-4]):
        return ()
    try:
        count, position = _number(index, 1)
        blocks, offset = [], _HEADER
        for _ in range(count):
            unpadded, position = _number(index, position)
            uncompressed, position = _number(index, position)
            blocks.append(Block(offset, unpadded, uncompressed))
            offset += _padded(unpadded)
    except IndexError:
        return ()
    return tuple(blocks) if index[position:-4].strip(b"\0") == b"" else ()


def _ending(block: Block, flags: bytes) -> bytes:
    """Return the index and footer of a stream that has this one block."""
    index = b"\0" + _encoded(1) + _encoded(block.unpadded) + _encoded(block.uncompressed)
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    fields = (len(index) // 4 - 1).to_bytes(4, "little") + flags
    return index + zlib.crc32(fields).to_bytes(4, "little") + fields + _END


def _number(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _padded(size: int) -> int:
    return -(-size // 4) * 4
