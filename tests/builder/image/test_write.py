"""Sparse copies and content digests, against the same done naively."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.digest import BLOCK
from builder.image.raw import RawReader, window
from builder.image.reader import open_image
from builder.image.stream import Extent
from builder.image.write import content_digest, write_into, write_sparse

Tool = Callable[..., str]
Disk = Callable[..., Path]
MIB = 1 << 20


def naive_digest(content: bytes) -> str:
    """builder/digest.py in so many words."""
    found = hashlib.sha256()
    for index in range(-(-len(content) // BLOCK)):
        block = content[index * BLOCK : (index + 1) * BLOCK].ljust(BLOCK, b"\0")
        if any(block):
            found.update(index.to_bytes(8, "big") + hashlib.sha256(block).digest())
    found.update(len(content).to_bytes(8, "big"))
    return f"blocks:{found.hexdigest()}"


@pytest.mark.parametrize("size", [24 * MIB, 5 * MIB + 512, 100_000])
def test_a_copy_is_the_same_and_sparser(size: int, make_disk: Disk, tmp_path: Path) -> None:
    disk, target = make_disk(size=size), tmp_path / "copy.raw"
    with RawReader(disk) as reader:
        write_sparse(reader, target)
    assert target.read_bytes() == disk.read_bytes()
    assert target.stat().st_blocks <= disk.stat().st_blocks


def test_written_zeros_become_holes(tmp_path: Path) -> None:
    disk, target = tmp_path / "disk.raw", tmp_path / "copy.raw"
    disk.write_bytes(b"\1" + bytes(4 * MIB) + b"\2" * 100)
    with RawReader(disk) as reader:
        write_sparse(reader, target)
    assert target.read_bytes() == disk.read_bytes()
    assert disk.stat().st_blocks * 512 >= 4 * MIB
    assert target.stat().st_blocks * 512 <= 256 * 1024


def test_an_old_target_leaves_nothing_behind(make_disk: Disk, tmp_path: Path) -> None:
    disk, target = make_disk(size=MIB), tmp_path / "copy.raw"
    target.write_bytes(b"\xff" * 3 * MIB)
    with RawReader(disk) as reader:
        write_sparse(reader, target)
    assert target.read_bytes() == disk.read_bytes()


def test_a_copy_of_a_window(make_disk: Disk, tmp_path: Path) -> None:
    disk, target = make_disk(), tmp_path / "copy.raw"
    with RawReader(disk) as reader:
        write_sparse(window(reader, 3 * MIB + 512, 5 * MIB), target)
    assert target.read_bytes() == disk.read_bytes()[3 * MIB + 512 : 8 * MIB + 512]


def test_an_image_goes_into_a_larger_file_and_leaves_the_rest(make_disk: Disk, tmp_path: Path) -> None:
    disk, target = make_disk(), tmp_path / "larger.raw"
    with open(target, "w+b") as file, RawReader(disk) as reader:
        file.write(b"before")
        file.truncate(4 * MIB + 512 + reader.virtual_size + 512)
        file.flush()
        write_into(reader, file.fileno(), offset=4 * MIB + 512)
    content = disk.read_bytes()
    assert target.read_bytes() == b"before".ljust(4 * MIB + 512, b"\0") + content + bytes(512)
    assert target.stat().st_blocks <= disk.stat().st_blocks + 32


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("size", [24 * MIB, 3 * BLOCK, 3 * BLOCK + 1, 513])
def test_the_digest_is_that_of_its_definition(size: int, workers: int, make_disk: Disk) -> None:
    disk = make_disk(size=size)
    with RawReader(disk) as reader:
        assert content_digest(reader, workers) == naive_digest(disk.read_bytes())


def test_all_formats_of_one_disk_have_one_digest(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk = make_disk()
    expected = naive_digest(disk.read_bytes())
    for image_format in ("qcow2", "vmdk", "vdi", "vhdx"):
        image = tmp_path / f"disk.{image_format}"
        tool("qemu-img", "convert", "-f", "raw", "-O", image_format, disk, image)
        with open_image(image, scratch=tmp_path) as reader:
            assert content_digest(reader) == expected


class Counting(RawReader):
    """A raw image that knows which bytes were asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: list[Extent] = []

    def pread(self, length: int, offset: int) -> bytes:
        self.asked.append(Extent(offset, length))
        return super().pread(length, offset)


def test_holes_are_never_read(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    with open(disk, "wb") as file:
        file.truncate(1 << 36)
        for spot in (0, 1 << 35):
            file.seek(spot)
            file.write(b"\1" * 4096)
    with Counting(disk) as reader:
        content_digest(reader)
        write_sparse(reader, tmp_path / "copy.raw")
        assert sum(extent.length for extent in reader.asked) <= 2 * BLOCK + 2 * 4096


class Failing(RawReader):
    """A raw image whose disk gives up in the middle."""

    def pread(self, length: int, offset: int) -> bytes:
        if offset >= 8 * MIB:
            raise OSError(5, "Input/output error")
        return super().pread(length, offset)


def test_a_read_error_is_raised(make_disk: Disk, tmp_path: Path) -> None:
    for work in (content_digest, lambda reader: write_sparse(reader, tmp_path / "copy.raw")):
        with Failing(make_disk()) as reader, pytest.raises(OSError, match="Input/output error"):
            work(reader)


FULL_DISK = """
import sys
from pathlib import Path
from builder.errors import DiskFull
from builder.image.convert import convert
source, small = map(Path, sys.argv[1:3])
for to in ("raw", "qcow2"):
    try:
        convert(source, small / "target", to=to)
    except DiskFull as full:
        print(full.message)
"""


def test_a_full_disk_is_told_as_one(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, small = make_disk(), tmp_path / "small"
    small.mkdir()
    image = tmp_path / "disk.vdi"
    tool("qemu-img", "convert", "-f", "raw", "-O", "vdi", disk, image)
    script = f'mount -t tmpfs -o size=1m none {small} && exec {sys.executable} -c "$0" "$1" {small}'
    for source in (disk, image):  # by our own writer, by qemu-img
        said = tool("unshare", "--map-root-user", "--mount", "sh", "-c", script, FULL_DISK, source)
        assert said.count("no space left for") == 2, said
        assert str(small / "target") in said


@pytest.fixture
def shared_extents(tmp_path: Path, tool: Tool) -> Iterator[Path]:
    """A directory on a filesystem that shares extents. Needs root to mount it."""
    image, mounted = tmp_path / "xfs.img", tmp_path / "mounted"
    mounted.mkdir()
    with open(image, "wb") as file:
        file.truncate(400 * MIB)
    tool("mkfs.xfs", "-q", "-m", "reflink=1", image)
    tool("mount", "-o", "loop", image, mounted)
    try:
        yield mounted
    finally:
        tool("umount", mounted)


@pytest.mark.sweep
def test_shared_extents_are_not_copied(shared_extents: Path, make_disk: Disk) -> None:
    disk = shared_extents / "disk.raw"
    disk.write_bytes(make_disk().read_bytes())
    with Counting(disk) as reader:
        write_sparse(reader, shared_extents / "copy.raw")
        write_sparse(window(reader, 4 * MIB, 8 * MIB), shared_extents / "part.raw")
        write_sparse(window(reader, 512, 8 * MIB), shared_extents / "odd.raw")
    content = disk.read_bytes()
    assert (shared_extents / "copy.raw").read_bytes() == content
    assert (shared_extents / "part.raw").read_bytes() == content[4 * MIB : 12 * MIB]
    assert (shared_extents / "odd.raw").read_bytes() == content[512 : 512 + 8 * MIB]
    assert sum(extent.length for extent in reader.asked) <= 8 * MIB
