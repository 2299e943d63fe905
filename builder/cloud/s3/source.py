"""Where the bytes of a request come from: bytes, or a slice of a file that is read as it is sent."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeAlias

from builder.errors import InputError

_PIECE = 1 << 20


class FileSlice:
    """`size` bytes of the file `path` from `offset` on, as a body that can be sent again; at most 1 MiB in memory.

    The descriptor stays the caller's and may serve any number of slices at once. Raises InputError when the file turns
    out to be shorter: a request that promises more than it sends would hang.
    """

    def __init__(self, descriptor: int, *, path: Path, offset: int, size: int) -> None:
        self._descriptor, self._path = descriptor, path
        self._offset, self._size, self._at = offset, size, 0

    def __len__(self) -> int:
        return self._size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the slice and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Return the place in the slice."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes (negative: all that are left) and go on behind them."""
        left = max(0, self._size - self._at)
        wanted = left if size < 0 else min(size, left)
        if not wanted:
            return b""
        data = os.pread(self._descriptor, wanted, self._offset + self._at)
        if not data:
            raise InputError(f"{self._path} ends at byte {self._offset + self._at}: it was cut while it was being sent")
        self._at += len(data)
        return data


Body: TypeAlias = bytes | FileSlice


def md5_of(body: Body) -> bytes:
    """Return the MD5 of all of a body (16 bytes): S3's Content-MD5, and its ETag."""
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(body, bytes):
        digest.update(body)
    else:
        body.seek(0)
        while piece := body.read(_PIECE):
            digest.update(piece)
        body.seek(0)
    return digest.digest()
