"""Write an image as a sparse raw file, and name its content by a digest; neither touches a hole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from builder import pool
from builder.digest import BLOCK, BlockDigest
from builder.durable import translate_disk_full
from builder.image.raw import RawReader, Window
from builder.image.spans import pieces
from builder.image.stream import Extent, ImageReader, data_blocks
from builder.progress import SILENT, Progress

_PIECE = 1 << 20  # bytes read at once: the best of 64 KiB to 4 MiB for raw and for compressed sources
_GRAIN = 64 * 1024  # bytes; zeros of this length and alignment become a hole, as with `qemu-img convert -S 64k`
_ZERO = bytes(BLOCK)
_ZERO_GRAIN = bytes(_GRAIN)
_FICLONERANGE = 0x4020940D  # linux/fs.h: _IOW(0x94, 13, struct file_clone_range)


def write_sparse(reader: ImageReader, target: Path, *, workers: int = 2, progress: Progress = SILENT) -> None:
    """Write the image's bytes to the raw file `target`, which is made new; holes and runs of zeros become holes.

    A raw image on a filesystem that shares extents (XFS, btrfs) is not copied at all. The file is not yet fsynced. A
    crash or an error leaves an unfinished `target`. Raises DiskFull, and what reading the image raises.
    """
    with translate_disk_full(target):
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(descriptor, reader.virtual_size)
            write_into(reader, descriptor, workers=workers, progress=progress)
        finally:
            os.close(descriptor)


def write_into(
    reader: ImageReader, descriptor: int, *, offset: int = 0, workers: int = 2, progress: Progress = SILENT
) -> None:
    """Write the image's bytes into an open file, from byte `offset`, where it must read as zeros and be long enough.

    Otherwise as `write_sparse`. Raises OSError when the disk is full, and what reading the image raises.
    """
    if _share_extents(reader, descriptor, offset):
        progress.note("shared with the source by the filesystem, nothing was copied")
    else:
        _copy(reader, descriptor, offset, workers, progress)


def _copy(reader: ImageReader, descriptor: int, offset: int, workers: int, progress: Progress) -> None:
    def copy(piece: Extent) -> int:
        # Whoever reads (and inflates) a piece also writes it: no bytes cross threads.
        data = reader.pread(piece.length, piece.offset)
        for start, end in _nonzero(data):
            _pwrite(descriptor, data[start:end] if end - start < len(data) else data, offset + piece.offset + start)
        return piece.length

    for length in pool.each(copy, pieces(reader.extents(), _PIECE), workers=workers):
        progress.advance(length)


def _nonzero(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the ranges of `data` that remain when aligned runs of zeros are left out."""
    start = None
    for at in range(0, len(data), _GRAIN):
        if data.startswith(_ZERO_GRAIN if len(data) - at >= _GRAIN else bytes(len(data) - at), at):
            if start is not None:
                yield start, at
            start = None
        elif start is None:
            start = at
    if start is not None:
        yield start, len(data)


def _pwrite(descriptor: int, data: bytes, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)


def _share_extents(reader: ImageReader, descriptor: int, target_offset: int) -> bool:
    """Let the filesystem share a raw source's blocks with the target; say whether it did.

    copy_file_range is no second choice: where blocks are not shared it copies zeros as data.
    """
    source: ImageReader = reader
    offset = 0
    while isinstance(source, Window):
        offset += source.offset
        source = source.reader
    if not isinstance(source, RawReader) or not reader.virtual_size:
        return False
    request = struct.pack("qQQQ", source.descriptor, offset, reader.virtual_size, target_offset)
    try:
        fcntl.ioctl(descriptor, _FICLONERANGE, request)
    except OSError:  # EOPNOTSUPP, EXDEV, EINVAL (a range that is not aligned): the ordinary way remains
        return False
    return True


def content_digest(reader: ImageReader, workers: int = 2, *, progress: Progress = SILENT) -> str:
    """Return the `blocks:HEX` digest (builder/digest.py) of the image's content; holes are never read."""

    def hashed(index: int) -> tuple[int, bytes | None]:
        data = reader.pread(BLOCK, index * BLOCK)
        return index, None if data == _ZERO else hashlib.sha256(data).digest()

    digest = BlockDigest()
    for index, sha256 in pool.in_order(hashed, data_blocks(reader), workers=workers):
        if sha256 is not None:
            digest.add(index, sha256)
        progress.advance(BLOCK)
    return digest.finish(reader.virtual_size)
