"""The names in an initramfs, read as the kernel reads it and never unpacked to anywhere.

An initramfs is one cpio archive after another, each plain (early microcode comes first, so) or compressed, with zeros
between. Sources: Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c of Linux; cpio(5) for
the header "newc"; RFC 8878 for the blocks of zstd; lib/decompress_unlz4.c for LZ4's legacy frame.

The bytes are hostile. What is held at a time is a chunk of the input, one decoder's window (bounded) and the names.
"""

from __future__ import annotations

import bz2
import lzma
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import lz4.block
import zstandard
from isal import igzip_lib

from builder.errors import FormatRefused

Packing = Literal["plain", "gzip", "bzip2", "lzma", "xz", "lz4", "zstd"]

_MAGICS: tuple[tuple[bytes, Packing], ...] = (  # lib/decompress.c
    (b"070701", "plain"),
    (b"070702", "plain"),
    (b"\x1f\x8b", "gzip"),
    (b"\x1f\x9e", "gzip"),
    (b"BZh", "bzip2"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"\x89LZO", "compressed with lzo, which is not read here"),
    (b"\x04\x22\x4d\x18", "an LZ4 frame that kernels do not read"),
    (b"070707", "a cpio archive of the old format, which kernels do not read"),
    (b"MZ", "a unified kernel image"),
)
_HEADER = 110  # bytes of a newc header: the magic, then thirteen numbers of eight hexadecimal digits
_SIZE, _NAME_SIZE = slice(54, 62), slice(94, 102)
_HEX = re.compile(rb"[0-9A-Fa-f]{8}")
_TRAILER = "TRAILER!!!"
_PATH_MAX = 4096
_PIECE = 64 << 10  # bytes given to a decoder, and asked of it, at a time
_MEMORY = 80 << 20  # bytes: xz -9 takes 65 MiB; a header may ask for gigabytes
_WINDOW = 64 << 20  # bytes, of zstd
_LZ4_BLOCK = 8 << 20  # bytes a block of the legacy frame unpacks to, and at most takes:
_LZ4_PACKED = _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16  # LZ4_COMPRESSBOUND of lz4.h
_RLE = 1
_ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)  # the package's stubs call it an instance
_BROKEN = (OSError, ValueError, EOFError, lzma.LZMAError, zstandard.ZstdError, _ISAL_ERROR, lz4.block.LZ4BlockError)
_MODULE = re.compile(r"(?:.*/)?([^/]+)\.ko(?:\.gz|\.xz|\.zst|\.bz2)?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an initramfs may unpack to (bytes), and how many names it may have (and bytes of them)."""

    unpacked: int = 1 << 30
    names: int = 100_000
    name_bytes: int = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What lies in an initramfs: paths without a leading slash, as os.fsdecode gives them, in their order."""

    names: tuple[str, ...]
    packings: tuple[Packing, ...]  # of its archives, in their order

    @property
    def modules(self) -> frozenset[str]:
        """The kernel modules in it, as `lsmod` calls them: virtio_blk."""
        return frozenset(module for name in self.names if (module := module_name(name)))

    @property
    def hides(self) -> str:
        """The file in it that holds most of it where that is an image again (dracut's squash), else nothing."""
        return next((name for name in self.names if name.endswith(("squashfs-root.img", "erofs-root.img"))), "")


def module_name(path: str) -> str:
    """Return the name that the kernel has for the module in that file, or nothing when it is no module's file."""
    found = _MODULE.fullmatch(path)
    return found[1].replace("-", "_") if found else ""


def read(chunks: bytes | Iterable[bytes], *, path: str = "the initramfs", limits: Limits = Limits()) -> Contents:
    """Return what lies in an initramfs, given whole or in pieces; `path` is what messages call it.

    What follows the last archive is passed over, as the kernel does. Raises FormatRefused when it is no initramfs, is
    damaged or cut off, compressed in a way that is not read here, or unpacks to more than `limits`.
    """
    return _Reading(path, limits).whole(_Bytes(iter([chunks] if isinstance(chunks, bytes) else chunks), path))


class _Bytes:
    """Bytes in order, from pieces."""

    def __init__(self, pieces: Iterator[bytes], path: str) -> None:
        self._pieces = pieces
        self._path = path
        self._held = b""
        self._at = 0

    def _more(self) -> bool:
        """Hold another piece behind what is left; False at the end."""
        for piece in self._pieces:
            if piece:
                self._held = self._held[self._at :] + piece
                self._at = 0
                return True
        return False

    def peek(self, count: int) -> bytes:
        """Return the next bytes without taking them; fewer at the end."""
        while len(self._held) - self._at < count and self._more():
            pass
        return self._held[self._at : self._at + count]

    def take(self, count: int) -> bytes:
        """Return so many bytes. Raises FormatRefused when there are fewer."""
        data = self.peek(count)
        if len(data) < count:
            raise FormatRefused(f"{self._path} is cut off")
        self._at += count
        return data

    def skip(self, count: int) -> None:
        """Pass over so many bytes. Raises FormatRefused when there are fewer."""
        while count > (there := len(self._held) - self._at):
            count -= there
            self._held, self._at = b"", 0
            if not self._more():
                raise FormatRefused(f"{self._path} is cut off")
        self._at += count

    def skip_zeros(self) -> None:
        """Pass over zeros."""
        while piece := self.peek(1) and self._held[self._at : self._at + _PIECE]:
            rest = piece.lstrip(b"\0")
            self._at += len(piece) - len(rest)
            if rest:
                return

    def some(self) -> bytes:
        """Return a piece, b'' at the end."""
        self.peek(1)
        piece = self._held[self._at : self._at + _PIECE]
        self._at += len(piece)
        return piece

    def back(self, data: bytes) -> None:
        """Put back what was taken last."""
        self._at -= len(data)
        assert self._held[self._at : self._at + len(data)] == data


class _Reading:
    """One initramfs being read, and what was found so far."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._names: list[str] = []
        self._packings: list[Packing] = []
        self._name_bytes = 0
        self._unpacked = 0

    def whole(self, source: _Bytes) -> Contents:
        """Read archives until the end, or until something that is none."""
        while packing := self._packing(source):
            self._packings.append(packing)
            if packing == "plain":
                self._archive(source)
            else:
                self._packed(source, packing)
        return Contents(names=tuple(self._names), packings=tuple(self._packings))

    def _packing(self, source: _Bytes) -> Packing | None:
        source.skip_zeros()
        head = source.peek(6)
        for magic, packing in _MAGICS:
            if head.startswith(magic):
                return packing
        if not self._packings:
            why = next((why for magic, why in _FOREIGN if head.startswith(magic)), "no initramfs")
            raise FormatRefused(f"{self._path} is {why}" if head else f"{self._path} is empty")
        return None

    def _packed(self, source: _Bytes, packing: Packing) -> None:
        inner = _Bytes(self._counted(_unpack(source, packing, self._path)), self._path)
        inner.skip_zeros()
        while head := inner.peek(6):
            if head[:5] != b"07070" or head[5:] not in (b"1", b"2"):
                raise FormatRefused(f"{self._path}: what its {packing} data unpacks to is no cpio archive")
            self._archive(inner)
            inner.skip_zeros()

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._unpacked += len(piece)
            if self._unpacked > self._limits.unpacked:
                raise FormatRefused(f"{self._path} unpacks to more than {self._limits.unpacked >> 20} MiB")
            yield piece

    def _archive(self, source: _Bytes) -> None:
        """Take one cpio archive, up to its trailer; or up to its end when it has none: the kernel takes both."""
        while header := source.peek(_HEADER):
            source.take(_HEADER)
            size, name_size = self._number(header[_SIZE]), self._number(header[_NAME_SIZE])
            if header[:6] not in (b"070701", b"070702") or not 0 < name_size <= _PATH_MAX:
                raise FormatRefused(f"{self._path} is damaged: no cpio header where one must be")
            # A name may be padded with zeros, so that the data behind it is aligned (dracut does so).
            name = source.take(name_size).partition(b"\0")[0].decode("utf-8", "surrogateescape")
            source.skip(-(_HEADER + name_size) % 4)
            if name == _TRAILER:
                return
            source.skip(size)
            source.skip(min(-size % 4, len(source.peek(3))))
            self._add(name)

    def _number(self, digits: bytes) -> int:
        if not _HEX.fullmatch(digits):
            raise FormatRefused(f"{self._path} is damaged: no cpio header where one must be")
        return int(digits, 16)

    def _add(self, name: str) -> None:
        self._name_bytes += len(name)
        if len(self._names) >= self._limits.names or self._name_bytes > self._limits.name_bytes:
            raise FormatRefused(f"{self._path} has more than {len(self._names)} names, more than any has")
        self._names.append(name.removeprefix("./").lstrip("/"))


class _Decoder(Protocol):
    """What the decoders of Python and isal have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


_DECODERS: dict[Packing, Callable[[], _Decoder]] = {
    "gzip": lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
    "bzip2": bz2.BZ2Decompressor,
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY),
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
}


def _unpack(source: _Bytes, packing: Packing, path: str) -> Iterator[bytes]:
    """Yield what one compressed archive unpacks to, and leave `source` behind its end."""
    try:
        match packing:
            case "zstd":
                yield from _zstd(source)
            case "lz4":
                yield from _lz4(source, path)
            case _:
                yield from _stream(source, _DECODERS[packing](), path)
    except (*_BROKEN, MemoryError) as error:
        raise FormatRefused(f"{path}: its {packing} data cannot be read ({error})") from error


def _stream(source: _Bytes, decoder: _Decoder, path: str) -> Iterator[bytes]:
    while not decoder.eof:
        piece = source.some() if decoder.needs_input else b""
        if decoder.needs_input and not piece:
            raise FormatRefused(f"{path} is cut off")
        yield decoder.decompress(piece, _PIECE)
    source.back(decoder.unused_data)


def _zstd(source: _Bytes) -> Iterator[bytes]:
    """Take one frame, a block at a time (128 KiB at most): given more, the decoder may return gigabytes at once."""
    head = source.peek(18)
    parameters = zstandard.get_frame_parameters(head)
    decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
    yield decoder.decompress(source.take(zstandard.frame_header_size(head)))
    last = 0
    while not last:
        header = source.take(3)
        word = int.from_bytes(header, "little")
        last, kind, size = word & 1, word >> 1 & 3, word >> 3
        yield decoder.decompress(header + source.take(1 if kind == _RLE else size))
    if parameters.has_checksum:
        yield decoder.decompress(source.take(4))


def _lz4(source: _Bytes, path: str) -> Iterator[bytes]:
    """Take one legacy frame: blocks with their size before them, up to something that is no size of a block."""
    magic = source.take(4)
    if len(source.peek(4)) < 4:
        raise FormatRefused(f"{path} is cut off")
    while len(head := source.peek(4)) == 4:
        if head == magic:  # another frame: the kernel goes on
            source.take(4)
            continue
        size = int.from_bytes(head, "little")
        if not 0 < size <= _LZ4_PACKED:
            return
        source.take(4)
        yield lz4.block.decompress(source.take(size), uncompressed_size=_LZ4_BLOCK)
