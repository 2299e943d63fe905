"""Initramfs files made in a few lines, for tests and the fuzzer."""

from __future__ import annotations

import bz2
import gzip
import lzma

import lz4.block
import zstandard


def newc(*names: str | bytes, data: bytes = b"x", magic: bytes = b"070701", trailer: bool = True) -> bytes:
    """A cpio archive as `cpio -o -H newc` writes it, every file with the same bytes."""
    out = b""
    for name in [*names, *(["TRAILER!!!"] if trailer else [])]:
        encoded = (name.encode() if isinstance(name, str) else name) + b"\0"
        content = b"" if name == "TRAILER!!!" else data
        numbers = [1, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        head = magic + b"".join(b"%08X" % number for number in numbers) + encoded
        out += head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
    return out


def lz4_legacy(data: bytes, block: int = 8 << 20) -> bytes:
    """What `lz4 -l` writes."""
    out = b"\x02\x21\x4c\x18"
    for start in range(0, len(data), block):
        packed = lz4.block.compress(data[start : start + block], store_size=False)
        out += len(packed).to_bytes(4, "little") + packed
    return out


def zstd(data: bytes, *, sized: bool = False) -> bytes:
    """What `zstd` writes from a pipe, or with `sized` from a file."""
    parameters = zstandard.ZstdCompressionParameters(write_checksum=True, write_content_size=sized)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


PACKERS = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "bzip2": lambda data: bz2.compress(data, 1),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE, preset=0),
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=0),
    "lz4": lz4_legacy,
    "zstd": zstd,
}


def without(archive: bytes, *endings: str) -> bytes:
    """A plain cpio archive without the files whose names end so, in place or not."""
    out, at = b"", 0
    while archive[at : at + 6] == b"070701":
        size, length = int(archive[at + 54 : at + 62], 16), int(archive[at + 94 : at + 102], 16)
        name = archive[at + 110 : at + 109 + length].decode("utf-8", "surrogateescape")
        end = -(-(-(-(at + 110 + length) // 4) * 4 + size) // 4) * 4
        if not name.endswith(endings):
            out += archive[at:end]
        at = end
        if name == "TRAILER!!!":
            break
    return out
