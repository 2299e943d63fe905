"""Feed mutated images to every parser of ours that reads untrusted bytes.

    PYTHONPATH=. python tests/builder/image/fuzz_qcow2.py SECONDS [SEED] [FILE]

Runs coverage-guided (atheris) for SECONDS from a small corpus made here; with FILE, tries that one input. The promise:
a file is read, or refused by FormatRefused, InputError or HostError; no other exception, no large memory, no hang.
tests/fuzzing.py says how it ends.
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
import zlib
from pathlib import Path

import atheris

from tests import fuzzing

with atheris.instrument_imports(include=["builder.image"]):
    from builder.errors import FormatRefused, HostError, InputError
    from builder.image.filesystems import probe
    from builder.image.identify import identify, require_safe
    from builder.image.inspect import look_inside
    from builder.image.partitions import read_partitions
    from builder.image.raw import RawReader
    from builder.image.reader import open_image

READS = 16  # extents read of each image
CLUSTER = 512

_directory = tempfile.TemporaryDirectory(prefix="emi-fuzz-")
_path = Path(_directory.name) / "input"
_base = Path(_directory.name) / "base"
_base.write_bytes(b"\7" * 8192)


def qcow2(entries: list[int], data: bytes, *, version: int = 3, incompatible: int = 0) -> bytes:
    """A qcow2 with clusters of 512 bytes: header, L1 at 512, L2 at 1024, data from 1536."""
    size = len(entries) * CLUSTER
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, 9, size, 0, 1, 512, 0, 0, 0, 0)
    head += struct.pack(">QQQII", incompatible, 0, 0, 4, 112) + bytes([incompatible >> 3 & 1]) + bytes(7)
    table = b"".join(struct.pack(">Q", entry) for entry in entries)
    return head.ljust(512, b"\0") + struct.pack(">Q", 1 << 63 | 1024).ljust(512, b"\0") + table.ljust(512, b"\0") + data


def deflated(data: bytes) -> bytes:
    """A raw deflate stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return packer.compress(data) + packer.flush()


def corpus() -> list[bytes]:
    """Small inputs of every kind the parsers know."""
    packed = deflated(b"abcd" * 128)
    mbr = bytes(446) + struct.pack("<B3xB3xII", 0x80, 0x83, 1, 2) + struct.pack("<B3xB3xII", 0, 5, 3, 4)
    ext = bytes(1024 + 56) + b"\x53\xef" + bytes(200)
    fat = bytearray(1024)
    fat[11:24], fat[54:59], fat[510:512] = (
        struct.pack("<HBHBHHBH", 512, 1, 1, 1, 16, 64, 0, 1)[:13],
        b"FAT16",
        b"\x55\xaa",
    )
    return [
        qcow2([1 << 63 | 1536, 0, 1, 1 << 63 | 2048], b"\1" * 1024),
        qcow2([1 << 62 | 1536, 0, 0], packed.ljust(512, b"\0")),
        qcow2([1 << 62 | 1536], b"\x28\xb5\x2f\xfd\x60\0\1" + bytes(64), incompatible=8),
        qcow2([1 << 63 | 1536], b"\1" * 512, version=2),
        b"KDMV"
        + struct.pack("<IIQQQQIQQQ", 1, 3, 64, 128, 1, 20, 512, 21, 26, 128).ljust(508, b"\0")
        + b'# Disk DescriptorFile\nRW 64 SPARSE "a.vmdk"\n'
        + bytes(9999),
        bytes(64) + struct.pack("<IIII", 0xBEDA107F, 0x10001, 400, 1) + bytes(400),
        b"vhdxfile" + bytes(192 * 1024 - 8) + b"regi" + bytes(4) + struct.pack("<I", 1).ljust(1024, b"\0"),
        b"conectix" + bytes(504),
        bytes(512) + b"conectix" + bytes(504),
        (mbr.ljust(510, b"\0") + b"\x55\xaa").ljust(4096, b"\0"),
        bytes(512) + b"EFI PART" + struct.pack("<IIII", 0x10000, 92, 0, 0) + bytes(2048),
        ext,
        bytes(fat),
        b"XFSB" + bytes(508),
        bytes(65536 + 64) + b"_BHRfS_M" + bytes(4096),
        bytes(512) + b"LABELONE" + bytes(16) + b"LVM2 001" + bytes(99),
        bytes(4086) + b"SWAPSPACE2",
        b"LUKS\xba\xbe\0\2" + bytes(504),
    ]


def read_some(data: bytes) -> None:
    """Open the input as an image, as an overlay, and as a raw disk, and look at what it holds."""
    _path.write_bytes(data)
    require_safe(identify(_path), backing_given=True)
    for backing in (None, _base):
        below = RawReader(backing) if backing else None
        try:
            with open_image(_path, backing=below) as reader:
                assert 0 < reader.virtual_size <= 64 << 40
                end = 0
                for number, extent in enumerate(reader.extents()):
                    assert end <= extent.offset < extent.offset + extent.length <= reader.virtual_size
                    end = extent.offset + extent.length
                    if number < READS:
                        length = min(extent.length, 65536) + 7
                        assert len(reader.pread(length, extent.offset)) == length
                look_inside(reader)
        except (FormatRefused, HostError):
            continue


def look(data: bytes) -> None:
    """Take the bytes for a raw disk and for a volume."""
    _path.write_bytes(data)
    with RawReader(_path) as reader:
        table = read_partitions(reader)
        for partition in table.partitions if table else ():
            assert 0 < partition.size <= reader.virtual_size - partition.start
        probe(reader)


def one_input(data: bytes) -> None:
    """What atheris calls for each input."""
    with contextlib.suppress(FormatRefused, InputError, HostError):
        read_some(data)
    look(data)


if __name__ == "__main__":
    fuzzing.main(one_input, corpus(), longest=200_000)
