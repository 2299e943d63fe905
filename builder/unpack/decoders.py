"""Decompressed bytes as a stream: gz, xz, bz2 and zst, whole or refused, in memory that does not grow with the file.

Each format's fastest safe library (bench/decompress.py). Not rapidgzip for gz: it takes a file that is cut off for a
whole one, and needed 2.5 GB of memory for 4 GiB of zeros; isal is as fast on two cores.
"""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, cast

import zstandard
from isal import igzip_lib

from builder.errors import ArchiveRefused
from builder.unpack import bzip2, xz_blocks, zstd_frames

Compression = Literal["gz", "bz2", "xz", "zst"]

DAMAGED = "Download it again; if the publisher's own file is damaged, tell them."
_INPUT = 256 * 1024  # bytes per read of the compressed file
_MAGICS: dict[Compression, bytes] = {"gz": b"\x1f\x8b", "xz": b"\xfd7zXZ\0"}
# xz -9 needs 65 MiB, zstd --ultra -22 128 MiB; a header may ask for gigabytes.
_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW = 128 << 20
_BEGINNING = 6  # bytes that tell a member: xz's magic; gzip has its flags in the fourth
_GZIP = 16 + zlib.MAX_WBITS  # how zlib is told to expect gzip's header and trailer
_FHCRC = 0x02  # of a gzip header's fourth byte: a checksum of the header follows it (RFC 1952, 2.3.1)
_ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)  # the package's stubs call it an instance


class Decoder(Protocol):
    """Decompressed bytes, in order."""

    @property
    def consumed(self) -> int:
        """How many bytes of the compressed file have been read."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, b'' at the end. Raises ArchiveRefused if the file is damaged or cut off."""

    def close(self) -> None:
        """Release the file."""


class _Member(Protocol):
    """What lzma and isal have in common: one member of a file of several."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def open_decoder(path: Path, compression: Compression, name: str) -> Decoder:
    """Return the decoder for the file at `path`; `name` is what messages call it. Raises ArchiveRefused."""
    match compression:
        case "gz":
            return _Members(path, name, "gz", _gunzip)
        case "bz2":
            return bzip2.open_bzip2(path, name, workers=_cores())
        case "xz":
            if layout := xz_blocks.layout(path, workers=_cores()):
                return xz_blocks.ParallelXz(path, name, layout)
            return _Members(path, name, "xz", lambda _: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
        case "zst":
            return _Zstd(path, name)


def _cores() -> int:
    # Each thread holds blocks of up to 46 MB; four are as fast as a disk takes the bytes.
    return min(len(os.sched_getaffinity(0)), 4)


class _Members:
    """A file of one or more members, one after the other, with zeros allowed between and after them.

    The classic tools disagree on other trailing bytes (gzip and bzip2 warn, xz and zstd refuse); here they are refused:
    an image file with something behind its end was not made by its publisher's compressor alone.
    """

    def __init__(self, path: Path, name: str, compression: Compression, fresh: Callable[[bytes], _Member]) -> None:
        """Decode the file at `path`; `fresh` makes the decoder of a member that begins with these bytes."""
        self._file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self._name = name
        self._compression = compression
        self._fresh = fresh
        self.consumed = 0
        self._input = self._more()
        self._member = fresh(self._input)

    def read(self, size: int) -> bytes:
        while True:
            if self._member.eof and not self._advance():
                return b""
            if self._member.needs_input and not self._input:
                self._input = self._more()
                if not self._input:
                    raise ArchiveRefused(
                        f"{self._name} is cut off: its {self._compression} data does not end", hint=DAMAGED
                    )
            data, self._input = self._input, b""
            try:
                decoded = self._member.decompress(data, size)
            except (OSError, ValueError, EOFError, lzma.LZMAError, zlib.error, _ISAL_ERROR) as error:
                raise ArchiveRefused(
                    f"{self._name}: damaged {self._compression} data ({error})", hint=DAMAGED
                ) from error
            if decoded:
                return decoded

    def close(self) -> None:
        self._file.close()

    def _more(self) -> bytes:
        data = self._file.read(_INPUT)
        self.consumed += len(data)
        return data

    def _advance(self) -> bool:
        """Go on to the next member; False if there is none."""
        magic = _MAGICS[self._compression]
        rest = self._member.unused_data.lstrip(b"\0")
        while len(rest) < _BEGINNING:
            data = self._more()
            if not data:
                break
            rest = (rest + data).lstrip(b"\0")
        if not rest:
            return False
        if not rest.startswith(magic):
            raise ArchiveRefused(f"{self._name}: bytes that are no {self._compression} follow its end", hint=DAMAGED)
        self._member = self._fresh(rest)
        self._input = rest
        return True


def _gunzip(begins: bytes) -> _Member:
    """Return the decoder of a gzip member: isal's, which takes a header with a checksum for damaged, or zlib's."""
    with_checksum = len(begins) > 3 and begins[3] & _FHCRC
    return _ByZlib() if with_checksum else igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


class _ByZlib:
    """A gzip member by Python's own library."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))
        # As long as the output is full there may be more of it, also where all input was taken.
        self.needs_input = not self._inner.unconsumed_tail and len(out) != max_length
        return out


class _Zstd:
    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            zstd_frames.require_whole(self._file, name)
        except BaseException:
            self._file.close()
            raise
        self._file.seek(0)
        context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._reader = context.stream_reader(self._file, read_size=_INPUT, read_across_frames=True, closefd=False)

    @property
    def consumed(self) -> int:
        return self._file.tell()

    def read(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as error:
            hint = DAMAGED
            if "memory" in str(error):
                hint = "It needs a window above 128 MiB: let its publisher compress it without --long."
            raise ArchiveRefused(f"{self._name}: zstd data cannot be read ({error})", hint=hint) from error

    def close(self) -> None:
        self._file.close()
