"""An instance-store image made back into a file, as a node of the cloud does before it launches one."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.bundle_look import Unfit, opened
from builder.sandbox.records import Image
from builder.sandbox.sparse import Report

_PIECE = 256 << 10  # bytes that are written, or left a hole when they are zeros


def unbundle(cloud: Cloud, image: Image, target: Path, report: Report) -> None:
    """Write the file that an image's bundle holds to `target`, sparse; every digest on the way is held.

    The reader is the sandbox's own and Python's tarfile, no code of `builder.bundle`. A failure or a crash leaves a
    part of the file. Raises Unfit and Unreadable when the bundle cannot be launched; OSError.
    """
    stream = _Stream(opened(cloud, image, report))
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_PIECE) as tar:  # a stream may not go back
            for member in tar:
                if member.isfile():
                    inside = tar.extractfile(member)
                    assert inside is not None
                    _write(inside, member.size, target)
                    break
            else:
                raise Unfit("its tar holds no file")
    except tarfile.TarError as error:
        raise Unfit(f"its tar cannot be read: {error}") from error
    stream.finish()


def _write(source: IO[bytes], size: int, target: Path) -> None:
    with open(target, "wb") as file:
        while piece := source.read(_PIECE):
            if piece.count(0) == len(piece):
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
        if file.tell() != size:
            raise Unfit("its tar is cut off")
        file.truncate(size)


class _Stream(io.RawIOBase):
    """Pieces as a file that tarfile reads from its beginning to its end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, count: int = -1) -> bytes:
        """Return the next `count` bytes, fewer at the end."""
        taken = [self._left]
        length = len(self._left)
        while length < count and (piece := next(self._pieces, b"")):
            taken.append(piece)
            length += len(piece)
        data = b"".join(taken)
        data, self._left = data[:count], data[count:]
        return data

    def finish(self) -> None:
        """Read what is left, so that what comes at the end is held as well."""
        for _ in self._pieces:
            pass
