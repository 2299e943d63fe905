"""Every format to raw and to qcow2, byte for byte; chains flattened; refusals by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import FormatRefused
from builder.image import qemu
from builder.image.convert import convert, to_qcow2
from builder.image.reader import open_image

Tool = Callable[..., str]
Disk = Callable[..., Path]
FORMATS = [
    ("raw", ""),
    ("qcow2", ""),
    ("qcow2", "compat=0.10"),
    ("qcow2", "extended_l2=on"),
    ("vmdk", ""),
    ("vmdk", "subformat=streamOptimized"),
    ("vdi", ""),
    ("vhdx", ""),
    ("vpc", "force_size=on"),
    ("vpc", "subformat=fixed,force_size=on"),
]


@pytest.mark.parametrize(("image_format", "options"), FORMATS)
def test_every_format_becomes_raw_and_qcow2(
    image_format: str, options: str, make_disk: Disk, tool: Tool, tmp_path: Path
) -> None:
    disk, image = make_disk(size=9_000_448), tmp_path / "image"
    said = ["-o", options] if options else []
    tool("qemu-img", "convert", "-f", "raw", "-O", image_format, *said, disk, image)
    raw, qcow2 = tmp_path / "out.raw", tmp_path / "out.qcow2"
    assert convert(image, raw, from_format=image_format) == 9_000_448
    assert raw.read_bytes() == disk.read_bytes()
    assert raw.stat().st_blocks <= disk.stat().st_blocks
    for compress in (False, True):
        assert convert(image, qcow2, to="qcow2", compress=compress) == 9_000_448
        tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, qcow2)
        tool("qemu-img", "check", "-f", "qcow2", qcow2)
        assert "backing-filename" not in json.loads(tool("qemu-img", "info", "--output=json", qcow2))


def test_vhd_rounded_to_its_geometry_keeps_its_bytes(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, image, raw = make_disk(size=9_000_448), tmp_path / "image.vhd", tmp_path / "out.raw"
    tool("qemu-img", "convert", "-f", "raw", "-O", "vpc", disk, image)
    size = convert(image, raw)
    assert size >= 9_000_448
    assert raw.read_bytes() == disk.read_bytes().ljust(size, b"\0")


def test_compressed_qcow2_is_smaller_and_always_the_same(make_disk: Disk, tmp_path: Path) -> None:
    disk, digests, sizes = make_disk(), set(), {}
    for compress in (False, True, True, True):
        target = tmp_path / "out.qcow2"
        convert(disk, target, to="qcow2", compress=compress)
        sizes[compress] = target.stat().st_size
        if compress:
            digests.add(hashlib.sha256(target.read_bytes()).hexdigest())
        target.unlink()
    assert sizes[True] < sizes[False]
    assert len(digests) == 1


def test_a_chain_is_flattened_from_the_files_stated(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    disk, top, target = make_disk(), tmp_path / "top.qcow2", tmp_path / "flat.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", top, disk.stat().st_size)
    chain = qemu.Source(path=top, format="qcow2", backing=qemu.Source(path=disk, format="raw"))
    to_qcow2(chain, target, compress=False)
    with open_image(target) as flat, open_image(disk) as raw:
        assert flat.pread(flat.virtual_size, 0) == raw.pread(raw.virtual_size, 0)


def test_names_that_json_and_options_would_mistake(make_disk: Disk, tool: Tool, tmp_path: Path) -> None:
    odd = tmp_path / 'a,b:c=d "e"'
    odd.mkdir()
    image, raw = odd / "x,y.vdi", odd / "out,file.driver=nbd.raw"
    disk = make_disk(size=1 << 20)
    plain = tmp_path / "plain.vdi"
    tool("qemu-img", "convert", "-f", "raw", "-O", "vdi", disk, plain)
    plain.rename(image)
    convert(image, raw)
    assert raw.read_bytes() == disk.read_bytes()


REFUSED = [
    ("qcow2", "vmdk", "should be vmdk but is a qcow2 image"),
    ("raw", "qcow2", "should be qcow2 but is a raw disk with an MBR partition table"),
    ("vdi", "raw", "should be raw but is a VDI image"),
]


@pytest.mark.parametrize(("really", "claimed", "reason"), REFUSED)
def test_what_is_not_what_the_recipe_says_is_refused(
    really: str, claimed: str, reason: str, make_disk: Disk, tool: Tool, tmp_path: Path
) -> None:
    image, target = tmp_path / "image", tmp_path / "out"
    tool("qemu-img", "convert", "-f", "raw", "-O", really, make_disk(size=1 << 20), image)
    with pytest.raises(FormatRefused) as caught:
        convert(image, target, from_format=claimed)
    assert caught.value.message == f"{image} {reason}"
    assert not target.exists()


def test_a_raw_disk_without_partitions_needs_the_recipes_word(tmp_path: Path) -> None:
    disk, target = tmp_path / "disk", tmp_path / "out"
    disk.write_bytes(b"\1\2\3" * 1000)
    with pytest.raises(FormatRefused, match="is not a disk image but data of no known format"):
        convert(disk, target)
    assert convert(disk, target, from_format="raw") == 3000
    assert target.read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("backing_format", ["raw", "qcow2"])
def test_etc_passwd_never_gets_into_an_image(backing_format: str, tool: Tool, tmp_path: Path) -> None:
    image, target = tmp_path / "image.qcow2", tmp_path / "out"
    tool("qemu-img", "create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", backing_format, image, "1M")
    for to in ("raw", "qcow2"):
        with pytest.raises(FormatRefused, match="it names '/etc/passwd' as its backing file"):
            convert(image, target, to=to)
        assert not target.exists()
