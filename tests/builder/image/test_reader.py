"""open_image: what is opened by whom, and what is not opened at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import FormatRefused, HostError, ToolFailed
from builder.image.qcow2 import Qcow2Reader
from builder.image.raw import RawReader
from builder.image.reader import open_image

Tool = Callable[..., str]
Disk = Callable[..., Path]
FOREIGN = [
    ("vmdk", ""),
    ("vmdk", "subformat=streamOptimized"),
    ("vdi", ""),
    ("vdi", "static=on"),
    ("vhdx", ""),
    ("vhdx", "subformat=fixed"),
    ("vpc", "force_size=on"),
    ("vpc", "subformat=fixed,force_size=on"),
]


def open_files() -> set[Path]:
    return {found.resolve() for found in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize(("image_format", "options"), FOREIGN)
def test_what_only_qemu_reads_is_read_through_it(
    image_format: str, options: str, make_disk: Disk, tool: Tool, tmp_path: Path
) -> None:
    disk, image, scratch = make_disk(size=5_000_192), tmp_path / "disk.img", tmp_path / "scratch"
    scratch.mkdir()
    said = ["-o", options] if options else []
    tool("qemu-img", "convert", "-f", "raw", "-O", image_format, *said, disk, image)
    with pytest.raises(HostError, match="has to be converted before it can be read"):
        open_image(image)
    with open_image(image, scratch=scratch) as reader:
        assert reader.pread(reader.virtual_size, 0) == disk.read_bytes()
        assert list(scratch.iterdir()) == []


def test_raw_and_qcow2_are_read_by_ourselves(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, image = make_disk(), tmp_path / "disk.qcow2"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image)
    with open_image(disk) as raw, open_image(image) as qcow2:
        assert (type(raw), type(qcow2)) == (RawReader, Qcow2Reader)


def test_a_raw_disk_may_hold_anything_when_it_is_said_to_be_raw(tool: Tool, tmp_path: Path) -> None:
    """A guest can write another format's header to its own disk; that must not change how the disk is read."""
    image = tmp_path / "disk.img"
    tool("qemu-img", "create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", image, "1M")
    with open_image(image, "raw") as reader:
        assert reader.pread(4, 0) == b"QFI\xfb"
        assert reader.virtual_size == image.stat().st_size
    with pytest.raises(FormatRefused, match="it names '/etc/passwd' as its backing file"):
        open_image(image)


def test_what_is_not_of_the_format_claimed_is_refused_by_name(make_disk: Disk) -> None:
    disk = make_disk()
    with pytest.raises(FormatRefused) as caught:
        open_image(disk, "qcow2")
    assert caught.value.message == f"{disk} should be qcow2 but is a raw disk with an MBR partition table"


def test_what_is_refused_leaves_no_file_open(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, image = make_disk(), tmp_path / "disk.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", image, "1M")
    image.write_bytes(image.read_bytes()[:4096])
    with pytest.raises(FormatRefused):
        open_image(image)
    with pytest.raises(FormatRefused):
        open_image(image, backing=open_image(disk))
    with pytest.raises(FormatRefused, match="should be qcow2"):
        open_image(disk, backing=open_image(disk))
    assert not open_files() & {disk, image}


def test_closing_an_overlay_closes_what_lies_below(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, image = make_disk(), tmp_path / "top.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", "-b", disk, "-F", "raw", image)
    with open_image(image, "qcow2", backing=open_image(disk, "raw")):
        assert open_files() >= {disk, image}
    assert not open_files() & {disk, image}


def test_what_qemu_cannot_read_is_told_with_its_command(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    image = tmp_path / "disk.vhdx"
    tool("qemu-img", "convert", "-f", "raw", "-O", "vhdx", make_disk(), image)
    damaged = bytearray(image.read_bytes())
    damaged[64 * 1024 : 192 * 1024] = bytes(128 * 1024)  # both headers
    image.write_bytes(damaged)
    with pytest.raises(ToolFailed, match="qemu-img convert"):
        open_image(image, scratch=tmp_path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["disk.raw", "disk.vhdx"]
