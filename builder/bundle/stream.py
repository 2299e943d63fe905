"""An image becomes a bundle's parts, as one stream: tar, gzip, AES-128-CBC, cut; nothing is written in between.

    who              what
    --------------   --------------------------------------------------------------------------------------------
    all cores        read a chunk of the image and deflate it; a few chunks are in memory, in the image's order
    a thread         SHA-1 of the tar, which no second core can help with: the whole is never faster
    the caller's     encrypt, SHA-1 of each part, write

The thread of the SHA-1 reads the image for itself: it is far ahead where there is data and far behind where there are
holes, and on two cores a fifth of the time is won by letting it. Both sum up what they read, so that an image that
changes meanwhile is noticed.

A chunk is 1 MiB, at a multiple of 1 MiB of the image. One that is all zeros is deflated once in all and that piece used
again, and of a hole nothing is read at all; whether zeros were a hole or written makes no difference to the parts.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from builder import pool
from builder.bundle import deflate, tar
from builder.bundle.deflate import Deflater, Packed, Sum
from builder.bundle.parts import PartWriter
from builder.bundle.records import ContentKey, Shape, Stream, WrittenPart
from builder.errors import HostError, InputError, UsageError
from builder.image.stream import ImageReader, data_blocks
from builder.progress import SILENT, Progress

_CHUNK = 1 << 20
_ZERO = bytes(_CHUNK)
_AT_ONCE = 128  # zero chunks handed on together
_MOST_WORKERS = 16  # with `small` they are about as fast as the SHA-1; more would only cost memory
# It stands in file names, in object keys and unescaped in the manifest; a part's name adds at most 16 characters.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


def write(
    reader: ImageReader,
    place: Path,
    shape: Shape,
    key: ContentKey,
    *,
    done: Callable[[WrittenPart, Path], None] = lambda _part, _path: None,
    progress: Progress = SILENT,
) -> Stream:
    """Write the image's bytes as encrypted parts into the directory `place`, which is this bundle's own.

    `done` is called for each part, in order and in the caller's thread, as soon as its file is whole, and may begin to
    upload it while the next are made; it should return soon. The parts are not fsynced. The same bytes, shape and key
    give the same parts with the same versions of isal and zlib-ng (see deflate.py).

    A crash leaves in `place` the parts that were whole, under their names, and at most one `.NAME.part.NN.new`; no
    manifest, so nothing that passes for a bundle. Running again replaces them all, by the same bytes if the key is the
    same. (After a power cut, files that were never fsynced may hold anything.) An error removes what this call made,
    parts handed to `done` included. Raises InputError for an image of 0 bytes, UsageError for an unfit shape, DiskFull,
    HostError, and what reading the image raises.
    """
    _check(reader, shape)
    deflater = Deflater(shape.compression)
    progress.total(reader.virtual_size)
    head = tar.header(shape.name, reader.virtual_size)
    end = tar.trailer(len(head) + reader.virtual_size)
    with PartWriter(place, shape, key, done) as parts:
        with pool.Beside(lambda stopped: _digest(reader, head, end, stopped, progress)) as digest:
            tape = _Tape(parts, deflater)
            parts.write(deflate.HEAD)
            tape.add(deflater.pack(head))
            _pack_image(reader, deflater, tape, progress)
            tape.add(deflater.pack(end, last=True))
            parts.write(tape.sum.tail())
            parts.finish()
        tar_sha1, total = digest.result()
        if total != tape.sum.tail():
            raise HostError(
                "the image changed while it was bundled",
                hint="Stop what writes to it (a virtual machine?), or bundle a copy. Nothing was kept.",
            )
    return Stream(parts=tuple(parts.written), tar_sha1=tar_sha1, size=reader.virtual_size)


def _check(reader: ImageReader, shape: Shape) -> None:
    if not _NAME.fullmatch(shape.name):
        raise UsageError(
            f"{shape.name!r} cannot be the name of a bundle: its parts are named after it, in files and in buckets",
            hint="Use at most 200 of A-Z a-z 0-9 . _ - and begin with a letter, a digit or _.",
        )
    if shape.part_size < 1:
        raise UsageError(f"parts of {shape.part_size} bytes cannot be made", hint="10 MiB is what every cloud reads.")
    if reader.virtual_size < 1:
        raise InputError("the image has 0 bytes: there is nothing to bundle", hint="Check what made the image.")


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Zero chunks, and the bytes after them: `length` from `offset`, zeros too if `hole`."""

    zeros: int
    offset: int
    length: int
    hole: bool = False


def _pieces(reader: ImageReader) -> Iterator[_Piece]:
    """Yield the whole image; every piece but the last ends with a chunk that an extent touches."""
    size, at = reader.virtual_size, 0
    for index in data_blocks(reader, _CHUNK):
        offset = index * _CHUNK
        yield _Piece(zeros=(offset - at) // _CHUNK, offset=offset, length=min(_CHUNK, size - offset))
        at = min(offset + _CHUNK, size)
    if at < size:
        zeros, rest = divmod(size - at, _CHUNK)
        yield _Piece(zeros=zeros, offset=size - rest, length=rest, hole=True)


def _pack_image(reader: ImageReader, deflater: Deflater, tape: _Tape, progress: Progress) -> None:
    def pack(piece: _Piece) -> tuple[_Piece, Packed | None]:
        data = _read(reader, piece)
        return piece, deflater.pack(data) if data != _ZERO else None

    workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    with closing(pool.in_order(pack, _pieces(reader), workers=workers, ahead=workers + 4)) as made:
        for piece, packed in made:
            for count in _shares(piece.zeros):
                tape.add_zeros(count)
                progress.advance(count * _CHUNK - _half(count * _CHUNK))
            if packed is None:
                tape.add_zeros(1)
            elif piece.length:  # else the image ends with a hole of whole chunks
                tape.add(packed)
            progress.advance(piece.length - _half(piece.length))


def _digest(
    reader: ImageReader, head: bytes, end: bytes, stopped: Callable[[], bool], progress: Progress
) -> tuple[str, bytes]:
    """Return the SHA-1 of the tar, and its CRC-32 and length as gzip has them; nothing true once `stopped`."""
    sha1, total = hashlib.sha1(usedforsecurity=False), Sum()
    zero = deflate.crc32(_ZERO)

    def add(data: bytes) -> None:
        sha1.update(data)
        total.add(deflate.crc32(data), len(data))

    add(head)
    # One more thread, because reading may be inflating.
    pieces = pool.in_order(lambda piece: (piece, _read(reader, piece)), _pieces(reader), workers=1, ahead=4)
    with closing(pieces):
        for piece, data in pieces:
            for count in _shares(piece.zeros):
                if stopped():
                    return "", b""
                for _ in range(count):
                    sha1.update(_ZERO)
                    total.add(zero, _CHUNK)
                progress.advance(_half(count * _CHUNK))
            if stopped():
                return "", b""
            add(data)
            progress.advance(_half(piece.length))
    add(end)
    return sha1.hexdigest(), total.tail()


def _read(reader: ImageReader, piece: _Piece) -> bytes:
    return bytes(piece.length) if piece.hole else reader.pread(piece.length, piece.offset)


def _half(count: int) -> int:
    """Return what of `count` bytes the SHA-1 tells of as progress; whoever writes tells of the rest."""
    return count // 2


def _shares(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, _AT_ONCE)
        count -= _AT_ONCE


class _Tape:
    """The tar's deflated pieces, in order: to the parts, and into the gzip member's sum."""

    def __init__(self, parts: PartWriter, deflater: Deflater) -> None:
        self._parts = parts
        self._zero = deflater.pack(_ZERO)
        self.sum = Sum()

    def add(self, packed: Packed) -> None:
        """Add what comes next."""
        self._parts.write(packed.data)
        self.sum.add(packed.crc, packed.length)

    def add_zeros(self, count: int) -> None:
        """Add zero chunks."""
        self._parts.write(self._zero.data * count)
        for _ in range(count):
            self.sum.add(self._zero.crc, self._zero.length)
