"""The digests by which emi names bytes, and nothing else.

`sha256:HEX` is the SHA-256 of a file as it lies there: downloads, qcow2 files, anything without holes.

`sha1:HEX` is the SHA-1 of a part of an instance-store bundle, by which its manifest names it; of nothing else.

`blocks:HEX` names the *content* of a disk image, whatever its format, without touching a hole: SHA-256 over, for each
512 KiB block that is not all zero, in ascending order, its index (8 bytes, big-endian) and the SHA-256 of its bytes
(32 bytes; a last block shorter than 512 KiB is padded with zeros), and at the end the virtual size in bytes (8 bytes,
big-endian). A raw file, a qcow2 of it and a snapshot of it have the same `blocks:` digest. 512 KiB is the block of the
EBS direct APIs, so the digests of its blocks are the checksums that the upload needs anyway.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

BLOCK = 512 * 1024  # bytes; EBS direct APIs: "BlockSize 524288"
_ZERO = bytes(BLOCK)
_CHUNK = 1 << 20


def file_sha256(path: Path) -> str:
    """Return `sha256:HEX` of the bytes of `path`."""
    return f"sha256:{_hashed(path, hashlib.sha256())}"


def file_sha1(path: Path) -> str:
    """Return `sha1:HEX` of the bytes of `path`."""
    return f"sha1:{_hashed(path, hashlib.sha1(usedforsecurity=False))}"


def _hashed(path: Path, digest: hashlib._Hash) -> str:
    with open(path, "rb", buffering=0) as source:
        os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_zero(data: bytes | bytearray | memoryview) -> bool:
    """Say whether every byte of `data` (at most 512 KiB) is zero."""
    return data == (_ZERO if len(data) == BLOCK else memoryview(_ZERO)[: len(data)])


class BlockDigest:
    """Collects a `blocks:` digest; blocks are added in ascending order of their index, zero blocks left out."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last = -1

    def add(self, index: int, sha256: bytes) -> None:
        """Add the SHA-256 (32 bytes) of the block at `index`."""
        if index <= self._last:
            raise ValueError(f"block {index} after block {self._last}")
        self._last = index
        self._hash.update(index.to_bytes(8, "big") + sha256)

    def finish(self, virtual_size: int) -> str:
        """Return `blocks:HEX` for an image of `virtual_size` bytes."""
        self._hash.update(virtual_size.to_bytes(8, "big"))
        return f"blocks:{self._hash.hexdigest()}"
