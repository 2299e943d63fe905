"""An image becomes a bundle's parts, as one stream: tar, gzip, AES-128-CBC, cut; nothing is written in between.

    who            what                                             what of it is in memory
    ------------   ----------------------------------------------   -----------------------------------------
    all cores      read a chunk of the image and deflate it         a few chunks, in the image's order
    a thread       SHA-1 of the tar, which must be one after the    at most 48 MiB that it has to catch up on
                   other: what the whole can never be faster than
    the caller's   encrypt, SHA-1 of each part, write               a chunk

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
from builder.bundle.deflate import Deflater, Packed
from builder.bundle.parts import PartWriter
from builder.bundle.records import ContentKey, Shape, Stream, WrittenPart
from builder.errors import InputError, UsageError
from builder.image.stream import ImageReader, data_blocks
from builder.progress import SILENT, Progress

_CHUNK = 1 << 20
_ZERO = bytes(_CHUNK)
_AT_ONCE = 128  # zero chunks handed on together
_MOST_WORKERS = 16  # more only cost memory: SHA-1 is slower than 16 cores, at either compression
_BACKLOG = 48 << 20  # bytes of data that the SHA-1 of the tar may have to catch up
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
    give the same parts, on any machine with the same versions of isal and zlib-ng.

    A crash leaves in `place` the parts that were whole, under their names, and at most one `.NAME.part.NN.new`; no
    manifest, so nothing that passes for a bundle. Running again replaces them all, by the same bytes if the key is the
    same. (After a power cut, files that were never fsynced may hold anything.) An error removes what this call made,
    parts handed to `done` included. Raises InputError for an image of 0 bytes, UsageError for an unfit shape, DiskFull,
    HostError, and what reading the image raises.
    """
    _check(reader, shape)
    deflater = Deflater(shape.compression)
    digest = hashlib.sha1(usedforsecurity=False)
    with PartWriter(place, shape, key, done) as parts, pool.Follower(_hasher(digest), room=_BACKLOG) as hasher:
        tape = _Tar(parts, hasher, zero=deflater.pack(_ZERO))
        parts.write(deflate.HEAD)
        _write_tar(reader, shape.name, deflater, tape, progress)
        parts.write(tape.sum.tail())
        parts.finish()
    return Stream(parts=tuple(parts.written), tar_sha1=digest.hexdigest(), size=reader.virtual_size)


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


def _write_tar(reader: ImageReader, name: str, deflater: Deflater, tape: _Tar, progress: Progress) -> None:
    def pack(piece: _Piece) -> tuple[_Piece, bytes, Packed | None]:
        data = bytes(piece.length) if piece.hole else reader.pread(piece.length, piece.offset)
        return piece, data, deflater.pack(data) if data != _ZERO else None

    size = reader.virtual_size
    progress.total(size)
    head = tar.header(name, size)
    tape.add(head, deflater.pack(head))
    workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    with closing(pool.in_order(pack, _pieces(reader), workers=workers, ahead=workers + 4)) as packed:
        for piece, data, deflated in packed:
            for count in _shares(piece.zeros, _AT_ONCE):
                tape.add_zeros(count)
                progress.advance(count * _CHUNK)
            if deflated is None:
                tape.add_zeros(1)
            elif data:  # else the image ends with a hole of whole chunks
                tape.add(data, deflated)
            progress.advance(piece.length)
    end = tar.trailer(len(head) + size)
    tape.add(end, deflater.pack(end, last=True))


def _shares(count: int, most: int) -> Iterator[int]:
    while count > 0:
        yield min(count, most)
        count -= most


class _Tar:
    """The tar's bytes, in order: plain to the hasher, deflated to the parts, both into the gzip member's sum."""

    def __init__(self, parts: PartWriter, hasher: pool.Follower[tuple[bytes, int]], zero: Packed) -> None:
        self._parts, self._hasher, self._zero = parts, hasher, zero
        self.sum = deflate.Sum()

    def add(self, data: bytes, packed: Packed) -> None:
        """Add bytes, and the same deflated."""
        self._hasher.put((data, 1), len(data))
        self._parts.write(packed.data)
        self.sum.add(packed)

    def add_zeros(self, count: int) -> None:
        """Add zero chunks."""
        self._hasher.put((_ZERO, count), _CHUNK)  # the weight of one: so many may wait that memory does not grow
        self._parts.write(self._zero.data * count)
        for _ in range(count):
            self.sum.add(self._zero)


def _hasher(digest: hashlib._Hash) -> Callable[[tuple[bytes, int]], None]:
    def update(given: tuple[bytes, int]) -> None:
        data, times = given
        for _ in range(times):
            digest.update(data)

    return update
