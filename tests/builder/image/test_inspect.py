"""What `emi inspect` shows, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from builder.errors import InputError
from builder.image.inspect import describe, inspect

Tool = Callable[..., str]
Disk = Callable[..., Path]
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path, tool: Tool) -> Path:
    """A small cloud image: ESP and ext4 root on GPT."""
    path, esp, root = (tmp_path / name for name in ("disk.raw", "esp", "root"))
    for file, size in ((path, 40 * MIB), (esp, 4 * MIB), (root, 30 * MIB)):
        with open(file, "wb") as out:
            out.truncate(size)
    tool("sgdisk", "-n15:2048:+4M", "-t15:ef00", "-n1:0:+30M", "-t1:8300", "-c1:rootfs", path)
    tool("mkfs.vfat", "-n", "UEFI", "-i", "1234abcd", esp)
    tool("mkfs.ext4", "-q", "-L", "cloudimg-rootfs", root)
    with open(path, "r+b") as out:
        for file, at in ((esp, MIB), (root, 5 * MIB)):
            out.seek(at)
            out.write(file.read_bytes())
    return path


@pytest.mark.parametrize("image_format", ["raw", "qcow2", "vmdk", "vdi", "vhdx"])
def test_an_image_is_shown_whatever_its_format(image_format: str, disk: Path, tool: Tool, tmp_path: Path) -> None:
    image = tmp_path / "image"
    tool("qemu-img", "convert", "-f", "raw", "-O", image_format, disk, image)
    facts = inspect(image)
    assert (facts.format, facts.virtual_size, facts.refused) == (image_format, 40 * MIB, None)
    assert facts.data_size is not None
    assert 0 < facts.data_size < 40 * MIB
    found = {volume.partition: (volume.filesystem.type, volume.filesystem.label) for volume in facts.volumes}
    assert found == {15: ("vfat", "UEFI"), 1: ("ext4", "cloudimg-rootfs")}
    text = describe(facts)
    assert "partition table: GPT, sectors of 512 bytes" in text
    assert "   1: 30 MiB at byte 5242880, Linux filesystem 'rootfs'; ext4, label 'cloudimg-rootfs', UUID " in text
    assert "  15: 4 MiB at byte 1048576, EFI system; vfat, label 'UEFI', UUID 1234-ABCD" in text
    json.dumps(asdict(facts))


def test_a_filesystem_without_partitions(tmp_path: Path, tool: Tool) -> None:
    for number, command in enumerate((["mkfs.ext4", "-q"], ["mkfs.vfat"])):
        path = tmp_path / f"volume{number}"
        with open(path, "wb") as file:
            file.truncate(16 * MIB)
        tool(*command, path)
        facts = inspect(path)
        assert facts.table is None
        assert [volume.partition for volume in facts.volumes] == [None]
        assert f"whole disk: {facts.volumes[0].filesystem.type}" in describe(facts)


def test_what_is_not_opened_says_why(tmp_path: Path, tool: Tool) -> None:
    hostile, page = tmp_path / "hostile.qcow2", tmp_path / "page.html"
    tool("qemu-img", "create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", hostile, "1M")
    page.write_text("<html>Not found</html>")
    facts = inspect(hostile)
    assert (facts.format, facts.backing_file, facts.virtual_size) == ("qcow2", "/etc/passwd", MIB)
    assert "not opened: " in describe(facts)
    assert "it names '/etc/passwd' as its backing file" in describe(facts)
    facts = inspect(page)
    assert (facts.format, facts.noun) == (None, "an HTML page, most likely a server's error message")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        inspect(tmp_path / "none")
