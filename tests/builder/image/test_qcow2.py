"""Our qcow2 reader against qemu's writer: byte for byte, overlays included, and what it refuses."""

from __future__ import annotations

import random
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder import pool
from builder.errors import FormatRefused
from builder.image.qcow2 import Qcow2Reader
from builder.image.raw import RawReader
from builder.image.reader import open_image
from builder.image.stream import Extent, ImageReader
from builder.image.write import content_digest

Tool = Callable[..., str]
Disk = Callable[..., Path]
KIB, MIB = 1 << 10, 1 << 20
SHAPES = [
    "cluster_size=512",
    "cluster_size=4k",
    "cluster_size=64k",
    "cluster_size=2M",
    "compat=0.10",
    "compat=0.10,cluster_size=1k",
    "compression_type=zstd",
    "compression_type=zstd,cluster_size=512",
    "compression_type=zstd,cluster_size=2M",
    "lazy_refcounts=on,refcount_bits=1",
]


def written(disk: Path) -> bytes:
    return disk.read_bytes()


def read_all(reader: ImageReader) -> bytes:
    return b"".join(reader.pread(extent.length, extent.offset) for extent in reader.extents())


def covered(reader: ImageReader, content: bytes) -> None:
    """Check that the extents are well-formed and that nothing outside them differs from zero."""
    end = 0
    for extent in reader.extents():
        assert extent.length > 0
        assert extent.offset > end or (extent.offset == end == 0)
        assert not any(content[end : extent.offset])
        end = extent.offset + extent.length
    assert end <= reader.virtual_size
    assert not any(content[end:])


@pytest.mark.parametrize("deflate", [[], ["-c"]], ids=["plain", "compressed"])
@pytest.mark.parametrize("options", SHAPES)
def test_reads_what_qemu_wrote(options: str, deflate: list[str], make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, image = make_disk(size=9 * MIB + 512), tmp_path / "disk.qcow2"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *deflate, "-o", options, disk, image)
    content = written(disk)
    dice = random.Random(options)
    with Qcow2Reader(image) as reader, RawReader(disk) as raw:
        assert reader.virtual_size == len(content)
        assert reader.pread(len(content), 0) == content
        covered(reader, content)
        assert content_digest(reader) == content_digest(raw)
        for _ in range(100):
            offset, length = dice.randrange(len(content) + 5000), dice.randrange(1, 300_000)
            assert reader.pread(length, offset) == content[offset : offset + length].ljust(length, b"\0")


def test_preallocated_images_read_as_zeros(tool: Tool, tmp_path: Path) -> None:
    for mode in ("metadata", "falloc"):
        image = tmp_path / f"{mode}.qcow2"
        tool("qemu-img", "create", "-f", "qcow2", "-o", f"preallocation={mode}", image, 3_000_320)
        with Qcow2Reader(image) as reader:
            assert reader.pread(3_000_320, 0) == bytes(3_000_320)


def test_snapshots_inside_an_image_do_not_matter(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, image = make_disk(size=4 * MIB), tmp_path / "disk.qcow2"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image)
    tool("qemu-img", "snapshot", "-c", "before", image)
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", image)
    content = bytearray(written(disk))
    content[MIB : 2 * MIB] = b"\7" * MIB
    with Qcow2Reader(image) as reader:
        assert reader.pread(len(content), 0) == content


@pytest.fixture
def overlay(make_disk: Disk, tool: Tool, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A compressed base, an overlay that hides, changes and outgrows it, and what qemu makes of both."""
    base, top, flat = tmp_path / "base.qcow2", tmp_path / "top.qcow2", tmp_path / "flat.raw"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", make_disk(size=8 * MIB), base)
    tool("qemu-img", "create", "-f", "qcow2", "-b", base.name, "-F", "qcow2", top, 10 * MIB)
    for command in ("write -P 5 1000k 90k", "write -z 2M 1M", "write -P 9 9M 5k", "write -z 100k 3k"):
        tool("qemu-io", "-f", "qcow2", "-c", command, top)
    tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", top, flat)
    return base, top, flat


def test_an_overlay_hides_what_lies_below(overlay: tuple[Path, Path, Path]) -> None:
    base, top, flat = overlay
    content = written(flat)
    with open_image(top, "qcow2", backing=open_image(base, "qcow2")) as reader:
        assert reader.pread(reader.virtual_size, 0) == content
        covered(reader, content)
        hidden = [extent for extent in reader.extents() if 2 * MIB < extent.offset + extent.length <= 3 * MIB]
        assert hidden == []
        with RawReader(flat) as raw:
            assert content_digest(reader) == content_digest(raw)


def test_an_overlay_without_what_lies_below_is_refused(overlay: tuple[Path, Path, Path]) -> None:
    _, top, _ = overlay
    for open_it in (open_image, Qcow2Reader):
        with pytest.raises(FormatRefused, match=r"it names 'base\.qcow2' as its backing file"):
            open_it(top)


def test_the_backing_file_is_the_one_given_not_the_one_named(overlay: tuple[Path, Path, Path], make_disk: Disk) -> None:
    base, top, _ = overlay
    base.unlink()
    other = make_disk("other.raw", size=8 * MIB, seed=99)
    with open_image(top, backing=open_image(other, "raw")) as reader:
        assert reader.pread(64 * KIB, 4 * MIB) == written(other)[4 * MIB : 4 * MIB + 64 * KIB]


def without_rewrites(pattern: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """qemu writes compressed data only where nothing was written before."""
    return [
        (kind, at)
        for n, (kind, at) in enumerate(pattern)
        if "-c" not in kind or at not in {earlier for _, earlier in pattern[:n]}
    ]


kinds = st.sampled_from(["write -P 3", "write -z", "write -c -P 8", "discard"])
writes = st.lists(st.tuples(kinds, st.integers(0, 63)), max_size=12).map(without_rewrites)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(below=writes, above=writes, shape=st.sampled_from(["cluster_size=4k", "compat=0.10,cluster_size=4k"]))
def test_any_pattern_of_writes(
    below: list[tuple[str, int]], above: list[tuple[str, int]], shape: str, tool: Tool, tmp_path: Path
) -> None:
    base, top, flat = (tmp_path / name for name in ("base.qcow2", "top.qcow2", "flat.raw"))
    tool("qemu-img", "create", "-f", "qcow2", "-o", shape, base, 256 * KIB)
    tool("qemu-img", "create", "-f", "qcow2", "-o", shape, "-u", "-b", base.name, "-F", "qcow2", top, 256 * KIB)
    for image, pattern in ((base, below), (top, above)):
        commands = [word for kind, at in pattern for word in ("-c", f"{kind} {at * 4}k 4k")]
        tool("qemu-io", "-f", "qcow2", *commands, "-c", "flush", image)
    tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", top, flat)
    content = written(flat)
    with open_image(top, "qcow2", backing=open_image(base, "qcow2")) as reader:
        assert reader.pread(256 * KIB, 0) == content
        covered(reader, content)


def test_many_threads_read_the_same_bytes(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    for options in ("cluster_size=2M,compression_type=zstd", "cluster_size=1k"):
        disk, image = make_disk(), tmp_path / "disk.qcow2"
        tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", options, disk, image)
        content = written(disk)
        with Qcow2Reader(image) as reader:

            def same(at: int, reader: Qcow2Reader = reader, content: bytes = content) -> bool:
                return reader.pread(100_000, at) == content[at : at + 100_000].ljust(100_000, b"\0")

            offsets = list(range(0, len(content), 33_333)) * 3
            random.Random(1).shuffle(offsets)
            assert all(pool.each(same, offsets, workers=8))


def test_memory_stays_flat_at_any_virtual_size(tool: Tool, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", image, "64T")
    spots = [n * (1 << 40) for n in range(64)]
    commands = [word for spot in spots for word in ("-c", f"write -P 1 {spot} 64k")]
    tool("qemu-io", "-f", "qcow2", *commands, image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Qcow2Reader(image) as reader:
        assert list(reader.extents()) == [Extent(spot, 64 * KIB) for spot in spots]
        assert reader.pread(3, (63 << 40) - 1) == b"\0\1\1"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def entry(table: str, index: int, change: Callable[[int], int]) -> Callable[[bytearray], None]:
    """Change one entry of the L1 table, or of the first L2 table."""

    def apply(image: bytearray) -> None:
        at = struct.unpack_from(">Q", image, 40)[0]
        if table == "l2":
            at = struct.unpack_from(">Q", image, at)[0] & 0x00FFFFFFFFFFFE00
        old = struct.unpack_from(">Q", image, at + index * 8)[0]
        struct.pack_into(">Q", image, at + index * 8, change(old))

    return apply


COPIED, COMPRESSED = 1 << 63, 1 << 62
HOSTILE = {
    "l2-outside": (entry("l1", 0, lambda _: COPIED | 1 << 50), "an L2 table at 1125899906842624 does not lie"),
    "l2-unaligned": (entry("l1", 0, lambda old: old + 512), "does not lie within the file"),
    "data-outside": (entry("l2", 0, lambda _: COPIED | 1 << 50), "lies beyond the end of the file"),
    "data-unaligned": (entry("l2", 0, lambda old: old + 512), "is no multiple of the cluster size"),
    "packed-outside": (entry("l2", 0, lambda _: COMPRESSED | 1 << 50), "lies beyond the end of the file"),
    "packed-garbage": (entry("l2", 0, lambda _: COMPRESSED | 3), "compressed data at 3"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damage_is_refused_when_it_is_met(name: str, tool: Tool, tmp_path: Path) -> None:
    change, reason = HOSTILE[name]
    path = tmp_path / "disk.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", path, "1M")
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", path)
    image = bytearray(path.read_bytes())
    change(image)
    path.write_bytes(image)
    with open_image(path) as reader, pytest.raises(FormatRefused) as caught:
        read_all(reader)
    assert reason in caught.value.message
    assert str(path) in caught.value.message


def test_a_zero_flag_in_version_2_is_damage(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", "-o", "compat=0.10", path, "1M")
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", path)
    image = bytearray(path.read_bytes())
    entry("l2", 1, lambda _: 1)(image)
    path.write_bytes(image)
    with Qcow2Reader(path) as reader, pytest.raises(FormatRefused, match="a zero cluster, which version 2"):
        reader.pread(MIB, 0)


BOMBS = {
    "deflate": (0, zlib.compress(bytes(1 << 24), wbits=-12), ""),
    "zstd-claims-2^60": (1, b"\x28\xb5\x2f\xfd\xe0" + (1 << 60).to_bytes(8, "little") + b"\1\0\0", "holds 0 bytes"),
    "zstd": (1, zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 24)), "cannot be read"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_compressed_cluster_is_never_larger_than_a_cluster(name: str, tool: Tool, tmp_path: Path) -> None:
    method, packed, reason = BOMBS[name]
    path = tmp_path / "disk.qcow2"
    said = "compression_type=zstd" if method else "compression_type=zlib"
    tool("qemu-img", "create", "-f", "qcow2", "-o", said, path, "1M")
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", path)
    image = bytearray(path.read_bytes())
    at = len(image)
    sectors = -(-len(packed) // 512)
    entry("l2", 0, lambda _: COMPRESSED | (sectors - 1) << 54 | at)(image)
    path.write_bytes(image + packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Qcow2Reader(path) as reader:
        if name == "deflate":  # qemu, too, takes the first cluster's worth of a longer stream
            assert reader.pread(MIB, 0) == bytes(65536) + b"\1" * (MIB - 65536)
        else:
            with pytest.raises(FormatRefused, match=reason):
                reader.pread(MIB, 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB


def test_a_cut_off_file_is_refused_at_the_latest_when_read(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, path = make_disk(size=4 * MIB), tmp_path / "disk.qcow2"
    for deflate in ([], ["-c"]):
        tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *deflate, disk, path)
        whole = path.read_bytes()
        for tenth in range(10):
            path.write_bytes(whole[: len(whole) * tenth // 10])
            with pytest.raises(FormatRefused), open_image(path) as reader:
                reader.pread(4 * MIB, 0)


def test_an_l1_that_shares_its_tables_is_refused(tool: Tool, tmp_path: Path) -> None:
    """Thousands of entries for one table would ask for endless work."""
    path = tmp_path / "disk.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", path, "1T")
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", path)
    image = bytearray(path.read_bytes())
    at = struct.unpack_from(">Q", image, 40)[0]
    image[at : at + 2048 * 8] = image[at : at + 8] * 2048
    path.write_bytes(image)
    with pytest.raises(FormatRefused, match="it has more L2 tables than fit into the file"):
        open_image(path)


def test_extended_l2_entries_are_left_to_qemu(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, path = make_disk(size=4 * MIB), tmp_path / "disk.qcow2"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "extended_l2=on", disk, path)
    with pytest.raises(FormatRefused, match="extended L2"):
        Qcow2Reader(path)
    with open_image(path, "qcow2", scratch=tmp_path) as reader:
        assert reader.pread(4 * MIB, 0) == written(disk)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["disk.qcow2", "disk.raw"]
