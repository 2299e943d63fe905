"""Sparse files in a tar stream, so that a volume of 64 GiB with a little in it travels as that little.

Written as POSIX.1-2001 with GNU's sparse format 1.0 (https://www.gnu.org/software/tar/manual/html_section/tar_92.html,
"PAX Format, Version 1.0"): the member's data begin with the map of what it holds, padded to 512 bytes. GNU tar and
Python's tarfile read it.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from builder.errors import ArchiveRefused
from builder.sandbox import sparse

_BLOCK = 512  # tar's
_PIECE = 1 << 20
Extents = list[tuple[int, int]]  # (offset, length), ascending


def add(tar: tarfile.TarFile, path: Path, name: str) -> str:
    """Add a file and return its digest, as `extract` computes it.

    Nobody may be shortening it meanwhile; what somebody appends is left out.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        extents = [(start, min(end, size) - start) for start, end in sparse.extents(file.fileno()) if start < size]
        info = tarfile.TarInfo(name)
        info.mode = 0o600
        head = b""
        if extents != [(0, size)] and size:
            words = [len(extents), *(number for extent in extents for number in extent)]
            head = "".join(f"{word}\n" for word in words).encode()
            head += bytes(-len(head) % _BLOCK)
            sparse_words = {"major": "1", "minor": "0", "name": name, "realsize": str(size)}
            info.pax_headers = {f"GNU.sparse.{key}": value for key, value in sparse_words.items()}
        info.size = len(head) + sum(length for _, length in extents)
        body = _Body(_read(file, head, extents), size, extents)
        tar.addfile(info, body)
        return body.digest()


def extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> str:
    """Write a member to `target`, holes left out, and return its digest. Raises ArchiveRefused when it is cut off."""
    # The map of a sparse member, as tarfile parsed it; it ends with an empty extent in GNU's own archives.
    known: Extents | None = getattr(member, "sparse", None)
    extents = [(0, member.size)] if known is None else [extent for extent in known if extent[1]]
    if member.size == 0:
        extents = []
    digest = _start(member.size, extents)
    source = tar.fileobj
    assert source is not None
    source.seek(member.offset_data)
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for offset, length in extents:
            file.seek(offset)
            left = length
            while left:
                piece = source.read(min(left, _PIECE))
                if not piece:
                    raise ArchiveRefused(f"{member.name} is cut off")
                digest.update(piece)
                file.write(piece)
                left -= len(piece)
        file.truncate(member.size)
    return digest.hexdigest()


def _start(size: int, extents: Extents) -> hashlib._Hash:
    return hashlib.sha256(f"{size} {extents}\n".encode())


def _read(file: IO[bytes], head: bytes, extents: Extents) -> Iterator[bytes]:
    if head:
        yield head
    for offset, length in extents:
        file.seek(offset)
        left = length
        while left and (piece := file.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece


class _Body(io.RawIOBase):
    """What a member holds, as the file that tarfile wants to read; hashes what is not the map."""

    def __init__(self, pieces: Iterable[bytes], size: int, extents: Extents) -> None:
        self._pieces = iter(pieces)
        self._left = b""
        self._digest = _start(size, extents)
        self._map = extents != [(0, size)] and size > 0

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes, `count` of them unless it is the end."""
        while len(self._left) < count and (piece := next(self._pieces, b"")):
            if self._map:
                self._map = False
            else:
                self._digest.update(piece)
            self._left += piece
        data, self._left = self._left[:count], self._left[count:]
        return data

    def digest(self) -> str:
        """Return the digest of what was read."""
        return self._digest.hexdigest()
