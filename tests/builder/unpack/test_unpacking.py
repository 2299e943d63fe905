"""What the classic tools pack comes out whole and sparse, and what is damaged does not come out at all."""

import bz2
import gzip
import lzma
import os
import subprocess  # noqa: TID251 - memory is measured in a process of its own
import sys
import zlib

import pytest
import zstandard

from builder.errors import ArchiveRefused, FormatRefused
from builder.unpack import packing, unpack, xz_blocks

MIB = 1 << 20
KINDS = [
    *("gz", "bz2", "xz", "multi.xz", "zst", "zip", "tar", "tar.gz", "tar.xz", "tar.zst", "tar.bz2"),
    *("gnu.tar", "pax.tar.gz", "pax01.tar", "old.tar"),
]
STREAMS = ["gz", "bz2", "xz", "multi.xz", "zst"]


class Counted:
    def __init__(self):
        self.done = self.of = 0

    def total(self, count):
        self.of = count

    def advance(self, count):
        assert count >= 0
        self.done += count

    def note(self, text):
        pass


@pytest.fixture
def refused(tmp_path):
    """Unpack what must be refused; return the error. Nothing is left."""

    def check(source, kind=ArchiveRefused, **options):
        into = tmp_path / "out"
        with pytest.raises(kind) as caught:
            unpack(source, into, name=source.name, **options)
        assert not into.exists()
        return caught.value

    return check


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_come_out_with_holes(kind, packed, tmp_path):
    source = tmp_path / "a name that says nothing"
    source.symlink_to(packed[kind])
    done = unpack(source, tmp_path / "out", name=f"disk.raw.{kind}")
    assert done.path.read_bytes() == packed.image.read_bytes()
    assert done.size == packed.image.stat().st_size
    assert done.path.stat().st_blocks * 512 < 2 * MIB
    assert done.name == {"multi.xz": "disk.raw.multi"}.get(kind, "disk.raw")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("zip", "multi.xz")])
def test_progress_ends_at_the_packed_size(kind, packed, tmp_path):
    counted = Counted()
    unpack(packed[kind], tmp_path / "out", name="x", progress=counted)
    assert counted.of == packed[kind].stat().st_size
    assert 0 <= counted.of - counted.done < 16  # bz2 counts whole bytes of bits


def test_multi_block_xz_is_decoded_in_parallel_and_only_if_it_is_sound(packed, tmp_path):
    assert len(xz_blocks.layout(packed["multi.xz"], workers=2).blocks) == 5
    for kind in ("xz", "gz", "tar"):
        assert xz_blocks.layout(packed[kind], workers=2) is None
    assert xz_blocks.layout(packed["multi.xz"], workers=1) is None
    data = bytearray(packed["multi.xz"].read_bytes())
    for position in (-1, -7, -12, -14, -20):
        damaged = bytearray(data)
        damaged[position] ^= 1
        (tmp_path / "x").write_bytes(damaged)
        assert xz_blocks.layout(tmp_path / "x", workers=2) is None


@pytest.mark.parametrize("kind", STREAMS)
def test_members_one_after_the_other_are_one_file(kind, packed, tmp_path):
    source = tmp_path / "two"
    source.write_bytes(packed[kind].read_bytes() * 2)
    assert unpack(source, tmp_path / "out", name="x").path.read_bytes() == packed.image.read_bytes() * 2


def with_header_checksum(member: bytes) -> bytes:
    """Return a plain gzip member with FHCRC of RFC 1952 set."""
    header = member[:3] + b"\x02" + member[4:10]
    return header + (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") + member[10:]


@pytest.mark.parametrize("order", ["checked", "plain checked", "checked plain checked"])
def test_gzip_headers_with_a_checksum(order, packed, refused, tmp_path):
    plain = gzip.compress(packed.image.read_bytes(), 1)
    kinds = {"plain": plain, "checked": with_header_checksum(plain)}
    members = [kinds[word] for word in order.split()]
    source = tmp_path / "source.gz"
    source.write_bytes(b"".join(members) + bytes(1000))
    assert unpack(source, tmp_path / "image", name="x").path.read_bytes() == packed.image.read_bytes() * len(members)
    for harmed in (-5, 10 - len(members[-1])):  # the data's checksum and, where there is one, the header's
        damaged = bytearray(b"".join(members))
        damaged[harmed] ^= 1
        source.write_bytes(damaged)
        assert "damaged gz data" in refused(source).message
    source.write_bytes(b"".join(members)[:-1])
    assert "is cut off" in refused(source).message


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "multi.xz"])
def test_zeros_behind_the_end_are_padding(kind, packed, tmp_path):
    source = tmp_path / "padded"
    source.write_bytes(packed[kind].read_bytes() + bytes(512 * 1024))
    assert unpack(source, tmp_path / "out", name="x").path.read_bytes() == packed.image.read_bytes()


WORDS = {"gz": "gz", "bz2": "bz2", "xz": "xz", "multi.xz": "xz"}


@pytest.mark.parametrize("kind", STREAMS)
def test_other_bytes_behind_the_end_are_refused(kind, packed, tmp_path, refused):
    source = tmp_path / "behind"
    source.write_bytes(packed[kind].read_bytes() + b"garbage")
    expected = f"behind: bytes that are no {WORDS.get(kind)} follow its end"
    assert refused(source).message == (expected if kind != "zst" else "behind: 7 bytes that are no zstd follow its end")


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("left", [12, 20, 0.3, 0.7, -12, -5, -1])
def test_what_is_cut_off_is_refused(kind, left, packed, tmp_path, refused):
    data = packed[kind].read_bytes()
    source = tmp_path / "cut"
    source.write_bytes(data[: int(len(data) * left)] if isinstance(left, float) else data[:left])
    expected = f"cut is cut off: its {WORDS.get(kind)} data does not end"
    if kind == "zst":
        expected = "cut is cut off: its last zstd frame is not whole"
    assert refused(source).message == expected


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_one_wrong_bit_is_refused(kind, where, packed, tmp_path, refused):
    data = bytearray(packed[kind].read_bytes())
    data[int(len(data) * where)] ^= 4
    source = tmp_path / "bit"
    source.write_bytes(data)
    error = refused(source)
    assert error.message.startswith("bit")
    assert error.hint == "Download it again; if the publisher's own file is damaged, tell them."


def test_the_streams_own_checksum_counts(packed, tmp_path, refused):
    data = bytearray(packed["bz2"].read_bytes())
    data[-3] ^= 1  # in the CRC over all blocks, which stands in the last 32 bits but for padding
    (tmp_path / "crc").write_bytes(data)
    assert refused(tmp_path / "crc").message == "crc: damaged bz2 data (the stream's CRC differs)"


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "tar.bz2", "tar.zst"])
def test_damage_behind_the_member_counts_as_well(kind, packed, tmp_path, refused):
    data = bytearray(packed[kind].read_bytes())
    data[-6] ^= 1
    (tmp_path / "tail").write_bytes(data)
    assert refused(tmp_path / "tail").message.startswith("tail")


@pytest.mark.parametrize("left", [0.2, 0.6, 0.95])
def test_a_tar_archive_that_is_cut_off_is_refused(left, packed, tmp_path, refused):
    data = packed["tar"].read_bytes()
    end = (packed.image.stat().st_size + 512) * left
    (tmp_path / "cut.tar").write_bytes(data[: int(end)])
    assert "cut.tar" in refused(tmp_path / "cut.tar").message


PACKERS = {
    "gz": lambda data: gzip.compress(data, 9),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}


@pytest.mark.parametrize("kind", PACKERS)
def test_bombs_are_bounded_to_the_byte(kind, tmp_path, refused):
    source = tmp_path / "bomb"
    source.write_bytes(PACKERS[kind](bytes(20 * MIB)))
    error = refused(source, max_size=20 * MIB - 1)
    assert error.message == "bomb expands beyond max_size, 20.0 MiB (20971519 bytes)"
    assert error.hint == "If it really is that large, raise it: `max_size: 200 GiB` in the `decompress` step."
    assert unpack(source, tmp_path / "out", name="x", max_size=20 * MIB).size == 20 * MIB


@pytest.mark.parametrize("kind", PACKERS)
def test_a_file_of_no_bytes_is_a_file(kind, tmp_path):
    (tmp_path / "empty").write_bytes(PACKERS[kind](b""))
    assert unpack(tmp_path / "empty", tmp_path / "out", name="x").size == 0


# A block of bz2 holds up to 46 MB of zeros, and three are in memory.
@pytest.mark.parametrize(
    ("kinds", "commands", "megabytes"),
    [
        (("gz", "zst", "xz"), (["gzip", "-1"], ["zstd", "-q"], ["xz", "-0", "-T2"]), 128),
        (("bz2",), (["bzip2"],), 224),
    ],
)
def test_memory_does_not_grow_with_the_file(kinds, commands, megabytes, tmp_path):
    """256 MiB of zeros, in a process of its own."""
    script = "\n".join(
        [
            "import re, sys",
            "from pathlib import Path",
            "from builder.unpack import unpack",
            "for name in sys.argv[2:]:",
            "    assert unpack(Path(name), Path(sys.argv[1]), name=name).size == 1 << 28",
            # Not ru_maxrss: it counts what this process was before its exec, a copy of pytest.
            "print(re.search(r'VmHWM:\\s+([0-9]+) kB', Path('/proc/self/status').read_text())[1])",
        ]
    )
    sources = [tmp_path / kind for kind in kinds]
    with open(tmp_path / "zeros", "wb") as zeros:
        zeros.truncate(1 << 28)
    for source, command in zip(sources, commands, strict=True):
        with open(source, "wb") as out:
            subprocess.run([*command, "-c", tmp_path / "zeros"], stdout=out, check=True)
    words = [sys.executable, "-c", script, tmp_path / "out", *sources]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) < megabytes * 1024
    assert (tmp_path / "out").stat().st_blocks == 0


def test_a_window_beyond_the_memory_is_refused(tmp_path, refused):
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28, compression_level=1)
    )
    writer = compressor.compressobj()
    (tmp_path / "long").write_bytes(writer.compress(os.urandom(MIB)) + writer.flush())
    error = refused(tmp_path / "long")
    assert error.message.startswith("long: zstd data cannot be read (")
    assert error.hint == "It needs a window above 128 MiB: let its publisher compress it without --long."


def test_skippable_zstd_frames_are_skipped(packed, tmp_path):
    skipped = b"\x53\x2a\x4d\x18\x04\x00\x00\x00note"
    (tmp_path / "x").write_bytes(skipped + packed["zst"].read_bytes() + skipped)
    assert packing(tmp_path / "x") == "zst"
    assert unpack(tmp_path / "x", tmp_path / "out", name="x").path.read_bytes() == packed.image.read_bytes()


@pytest.mark.parametrize(
    ("content", "noun"),
    [
        (b"", "f is an empty file"),
        (b"text\n", "f is a text file"),
        (b"<html>", "f is an HTML page, most likely a server's error message"),
        (
            b"7z\xbc\xaf\x27\x1c" + bytes(100),
            "f is a 7z archive",
        ),
    ],
)
def test_what_is_not_packed_is_named(content, noun, tmp_path, refused):
    (tmp_path / "f").write_bytes(content)
    assert packing(tmp_path / "f") is None
    rest = "which is not compressed with xz, gz, bz2 or zst, nor a tar or zip archive"
    assert refused(tmp_path / "f", FormatRefused).message == f"{noun}, {rest}"


def test_an_image_that_is_not_compressed_says_what_to_do(tmp_path, refused):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "disk.img", "1M"], check=True)
    error = refused(tmp_path / "disk.img", FormatRefused)
    assert error.message == "disk.img is a qcow2 image, not compressed: remove the decompress step"


def test_a_member_of_what_is_no_archive(packed, refused):
    error = refused(packed["gz"], member="disk.raw")
    assert error.message == "disk.raw.gz holds one file and is no archive: there is no member 'disk.raw' to choose"
