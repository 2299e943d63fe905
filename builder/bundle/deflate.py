"""One gzip member of pieces that are deflated apart from each other: on all cores, and equal pieces only once.

Each piece is raw deflate that ends on a byte (an empty stored block, zlib's Z_SYNC_FLUSH), as pigz makes them; the last
one ends the member, and the pieces' CRCs are combined. Source: RFC 1951, RFC 1952.

The same pieces give the same bytes with the same version of the library, on every x86-64 processor with SSE 4.2 (since
2008): run on AVX-512 and, by qemu-user, on Nehalem, Denverton and Haswell. Without SSE 4.2 isal's level 2 gives others;
its level 3 does on each generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from isal import isal_zlib
from zlib_ng import zlib_ng

Compression = Literal["fast", "small"]

# The demo's root (bench/bundle.py): 11 % larger than gzip -6 at 16 times its speed, and 2.5 % larger at 3 times.
# zlib-ng's level 6 saves 0.2 % more and takes a quarter longer; level 4 is 4 % larger.
_LIBRARIES: dict[Compression, tuple[Any, int]] = {"fast": (isal_zlib, 2), "small": (zlib_ng, 5)}
_RAW = -15  # zlib's windowBits: the largest window, no header of its own
# Deflate; no name, no time; "Unix", as gzip and pigz write it.
HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\x03"


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A piece: its deflated bytes, the CRC-32 and the number of the bytes they came from."""

    data: bytes
    crc: int
    length: int


class Deflater:
    """Deflates pieces; safe to use from several threads at once."""

    def __init__(self, compression: Compression) -> None:
        self._library, self._level = _LIBRARIES[compression]

    def pack(self, data: bytes, *, last: bool = False) -> Packed:
        """Return `data` deflated; the `last` piece ends the member's deflate stream."""
        library = self._library
        compressor = library.compressobj(self._level, library.DEFLATED, _RAW)
        packed = compressor.compress(data) + compressor.flush(library.Z_FINISH if last else library.Z_SYNC_FLUSH)
        return Packed(data=packed, crc=crc32(data), length=len(data))


def crc32(data: bytes) -> int:
    """Return the CRC-32 of `data`, at 28 GB/s: seven times as fast as zlib."""
    return isal_zlib.crc32(data)


class Sum:
    """The CRC-32 and the length of all pieces so far, which end a gzip member."""

    def __init__(self) -> None:
        self._crc = 0
        self._length = 0

    def add(self, crc: int, length: int) -> None:
        """Add those of the piece that comes next."""
        self._crc = isal_zlib.crc32_combine(self._crc, crc, length)
        self._length += length

    def tail(self) -> bytes:
        """Return the last 8 bytes of the member."""
        return self._crc.to_bytes(4, "little") + (self._length & 0xFFFFFFFF).to_bytes(4, "little")
