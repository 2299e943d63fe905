"""What a file is, and why it is refused: real images by qemu-img, and the same with hostile headers."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from builder.errors import FormatRefused, InputError, ToolFailed
from builder.image.convert import convert
from builder.image.identify import identify, require_safe

CONTENT = bytes(range(256)) * 64


def tar_of(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("disk.raw")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def zip_of(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("disk.raw", data)
    return out.getvalue()


def at(offset: int, data: bytes, size: int = 65536) -> bytes:
    return (bytes(offset) + data).ljust(size, b"\0")


NOT_IMAGES = {
    "xz": (lzma.compress(CONTENT), "an xz-compressed file", "decompress"),
    "gz": (gzip.compress(CONTENT), "a gzip-compressed file", "decompress"),
    "bz2": (bz2.compress(CONTENT), "a bzip2-compressed file", "decompress"),
    "bz2-empty": (bz2.compress(b""), "a bzip2-compressed file", "decompress"),
    "zst": (zstandard.compress(CONTENT), "a zstd-compressed file", "decompress"),
    "zst-skippable": (b"\x50\x2a\x4d\x18\4\0\0\0abcd", "a zstd-compressed file", "decompress"),
    "lz4": (b"\x04\x22\x4d\x18" + CONTENT, "an lz4-compressed file", "Unpack"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + CONTENT, "a 7z archive", "Unpack"),
    "zip": (zip_of(CONTENT), "a zip archive", "member"),
    "zip-empty": (b"PK\x05\x06" + bytes(18), "an empty zip archive", "URL"),
    "tar": (tar_of(CONTENT), "a tar archive", "member"),
    "elf": (Path("/bin/true").read_bytes(), "an ELF program", "URL"),
    "html": (b"\n<!DOCTYPE html>\n<html>404", "an HTML page, most likely a server's error message", "URL"),
    "html-bom": (b"\xef\xbb\xbf<HTML><HEAD>", "an HTML page, most likely a server's error message", "URL"),
    "xml": (b'<?xml version="1.0"?><Error/>', "an XML document, most likely a server's error message", "URL"),
    "text": (b"0123abcd  debian.qcow2\n", "a text file", "URL"),
    "pgp": (b"-----BEGIN PGP SIGNATURE-----\n", "a PGP signature or signed text", "URL"),
    "empty": (b"", "an empty file", "URL"),
    "zeros": (bytes(1 << 20), "a file of zeros", "again"),
    "iso": (at(0x8001, b"CD001"), "an ISO 9660 CD image", "cloud image"),
    "iso-hybrid": (at(510, b"\x55\xaa", 0x8001) + b"CD001" + bytes(999), "an ISO 9660 CD image", "cloud image"),
    "luks": (b"LUKS\xba\xbe\0\2" + bytes(999), "a LUKS-encrypted volume", "Decrypt"),
    "qed": (b"QED\0" + bytes(999), "a QED image", "qcow2"),
    "boot-sector": (at(510, b"\x55\xaa") + b"\1", "data of no known format", "convert: {from_format: raw}"),
    "unknown": (b"\x01\x02" + CONTENT, "data of no known format", "convert: {from_format: raw}"),
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_is_no_image_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    data, noun, advice = NOT_IMAGES[name]
    path = tmp_path / "input.img"
    path.write_bytes(data)
    identity = identify(path)
    assert identity.format is None
    with pytest.raises(FormatRefused) as caught:
        require_safe(identity)
    assert caught.value.message == f"{path} is not a disk image but {noun}"
    assert advice in caught.value.hint


def test_a_sparse_file_of_zeros_is_known_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "zeros.img"
    with open(path, "wb") as file:
        file.truncate(1 << 42)
    assert identify(path).noun == "a file of zeros"


@pytest.mark.parametrize("path", ["/", "/dev/null", "/nonexistent"])
def test_what_is_no_file_is_an_input_error(path: str) -> None:
    with pytest.raises(InputError, match="is not a file"):
        identify(Path(path))


MBR = at(446, b"\0\0\0\0\x83\0\0\0\0\x08\0\0\0\x10\0\0" + bytes(48) + b"\x55\xaa")
RAW = {
    "mbr": (MBR, "a raw disk with an MBR partition table"),
    "gpt": (at(512, b"EFI PART"), "a raw disk with a GPT partition table"),
    "gpt-4096": (at(4096, b"EFI PART"), "a raw disk with a GPT partition table"),
    "ext": (at(0x438, b"\x53\xef"), "a raw ext2, ext3 or ext4 filesystem"),
    "xfs": (at(0, b"XFSB"), "a raw XFS filesystem"),
    "btrfs": (at(0x10040, b"_BHRfS_M", 1 << 17), "a raw btrfs filesystem"),
    "fat": (at(0x36, b"FAT16"), "a raw FAT filesystem"),
    "fat32": (at(0x52, b"FAT32"), "a raw FAT filesystem"),
    "squashfs": (at(0, b"hsqs"), "a raw squashfs filesystem"),
    "lvm": (at(0x218, b"LVM2 001"), "a raw LVM physical volume"),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_disks_and_filesystems(name: str, tmp_path: Path) -> None:
    data, noun = RAW[name]
    path = tmp_path / "disk.img"
    path.write_bytes(data)
    identity = identify(path)
    require_safe(identity)
    assert (identity.format, identity.noun, identity.virtual_size) == ("raw", noun, len(data))


FORMATS = [
    ("qcow2", ""),
    ("qcow2", "compat=0.10"),
    ("qcow2", "extended_l2=on"),
    ("vmdk", ""),
    ("vmdk", "subformat=streamOptimized"),
    ("vdi", ""),
    ("vdi", "static=on"),
    ("vhdx", ""),
    ("vhdx", "subformat=fixed"),
    ("vpc", ""),
    ("vpc", "force_size=on"),
    ("vpc", "subformat=fixed"),
    ("vpc", "subformat=fixed,force_size=on"),
]


@pytest.mark.parametrize(("image_format", "options"), FORMATS)
def test_images_of_all_formats_have_the_size_that_qemu_sees(
    image_format: str, options: str, make_disk: Callable[..., Path], tool: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "disk.img"
    said = ["-o", options] if options else []
    tool("qemu-img", "convert", "-f", "raw", "-O", image_format, *said, make_disk(size=5_000_192), path)
    identity = identify(path)
    require_safe(identity)
    seen = json.loads(tool("qemu-img", "info", "-f", image_format, "--output=json", path))
    assert (identity.format, identity.virtual_size) == (image_format, seen["virtual-size"])


def poke(offset: int, data: bytes) -> Callable[[bytearray], None]:
    def apply(image: bytearray) -> None:
        image[offset : offset + len(data)] = data

    return apply


def big(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "big")


def little(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


def backing(name: bytes) -> Callable[[bytearray], None]:
    def apply(image: bytearray) -> None:
        image[8:20] = big(4096) + big(len(name), 4)
        image[4096 : 4096 + len(name)] = name

    return apply


def vmdk_text(text: bytes) -> Callable[[bytearray], None]:
    def apply(image: bytearray) -> None:
        end = image.index(b"\0", 512)
        image[end : end + len(text)] = text

    return apply


def vhdx_item(guid: str, value: bytes) -> Callable[[bytearray], None]:
    """Change a metadata item of a VHDX."""

    def apply(image: bytearray) -> None:
        region = image.index(b"metadata")
        entry = image.index(uuid.UUID(guid).bytes_le, region)
        offset = region + struct.unpack_from("<I", image, entry + 16)[0]
        image[offset : offset + len(value)] = value

    return apply


VHDX_PARAMETERS = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
VHDX_SIZE = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"

# (format, options, change, what the message must say)
HOSTILE = {
    "backing": ("qcow2", "", backing(b"/etc/passwd"), "it names '/etc/passwd' as its backing file"),
    "backing-escape": ("qcow2", "", backing(b"\x1b[2Jx"), "it names '\\x1b[2Jx' as its backing file"),
    "backing-json": ("qcow2", "", backing(b'json:{"driver":"nbd"}'), "as its backing file"),
    "backing-long": ("qcow2", "", poke(8, big(4096) + big(1 << 31, 4)), "a name of 2147483648 bytes at 4096"),
    "data-file": ("qcow2", "", poke(72, big(1 << 2)), "an external data file, 'a file it does not name'"),
    "data-file-name": (
        "qcow2",
        "",
        poke(112, big(0x44415441, 4) + big(11, 4) + b"/etc/shadow\0\0\0\0\0"),
        "an external data file, '/etc/shadow'",
    ),
    "encrypted": ("qcow2", "", poke(32, big(2, 4)), "it is encrypted"),
    "corrupt": ("qcow2", "", poke(72, big(1 << 1)), "it is marked corrupt"),
    "unknown-bits": ("qcow2", "", poke(72, big(1 << 40)), "incompatible bits 0x10000000000"),
    "compression": ("qcow2", "", poke(104, b"\x09"), "compressed by an unknown method (9)"),
    "size-2^63": ("qcow2", "", poke(24, big(1 << 63)), "it claims a disk of 9223372036854775808 bytes"),
    "size-0": ("qcow2", "", poke(24, big(0)), "it claims a disk of 0 bytes"),
    "cluster-bits-8": ("qcow2", "", poke(20, big(8, 4)), "clusters of 2^8 bytes"),
    "cluster-bits-63": ("qcow2", "", poke(20, big(63, 4)), "clusters of 2^63 bytes"),
    "l1-huge": ("qcow2", "", poke(36, big(0xFFFFFFFF, 4)), "an L1 table of 34359738360 bytes"),
    "l1-short": ("qcow2", "", poke(24, big(1 << 40)), "has 1 entries where its size needs 2048"),
    "l1-outside": ("qcow2", "", poke(40, big(1 << 60)), "its L1 table does not lie within the file"),
    "l1-unaligned": ("qcow2", "", poke(40, big(513)), "its L1 table does not lie within the file"),
    "version-1": ("qcow2", "", poke(4, big(1, 4)), "qcow version 1"),
    "version-4": ("qcow2", "", poke(4, big(4, 4)), "qcow version 4"),
    "vmdk-extent": ("vmdk", "", vmdk_text(b'\nRW 99 FLAT "/etc/passwd" 0\n'), "it names '/etc/passwd' as an extent"),
    "vmdk-path": ("vmdk", "", vmdk_text(b'\nRW 99 SPARSE "/tmp/x.vmdk"\n'), "it names '/tmp/x.vmdk' as an extent"),
    "vmdk-parent": ("vmdk", "", vmdk_text(b'\nparentFileNameHint="/etc/shadow"\n'), "'/etc/shadow' as its parent"),
    "vmdk-capacity-0": ("vmdk", "", poke(12, little(0)), "it claims a disk of 0 bytes"),
    "vmdk-capacity": ("vmdk", "", poke(12, little(1 << 54)), "it claims a disk of 9223372036854775808 bytes"),
    "vmdk-footer": ("vmdk", "", poke(56, b"\xff" * 8), "its footer does not match"),
    "vmdk-version": ("vmdk", "", poke(4, little(9, 4)), "its version is 9"),
    "vmdk-grain": ("vmdk", "", poke(20, little(1)), "absurd tables (grains of 1 sectors, 512 in a table)"),
    "vmdk-tables": ("vmdk", "", poke(44, little(1, 4)), "absurd tables (grains of 128 sectors, 1 in a table)"),
    "vmdk-overhead": ("vmdk", "", poke(64, little(1 << 40)), "it is shorter than its own tables"),
    "vdi-parent": ("vdi", "", poke(440, b"\x01" * 16), "it names a parent image"),
    "vdi-differencing": ("vdi", "", poke(76, little(4, 4)), "it is a differencing image"),
    "vdi-size": ("vdi", "", poke(368, little(1 << 63)), "it claims a disk of 9223372036854775808 bytes"),
    "vdi-blocks": ("vdi", "", poke(376, little(7, 4)), "its blocks have 7 bytes"),
    "vdi-cut": ("vdi", "", poke(388, little(3, 4)), "it is shorter than the blocks it has"),
    "vhdx-parent": ("vhdx", "", vhdx_item(VHDX_PARAMETERS, little(2 << 32)), "it is a differencing disk"),
    "vhdx-size": ("vhdx", "", vhdx_item(VHDX_SIZE, little(1 << 62)), "it claims a disk of 4611686018427387904 bytes"),
    "vhdx-no-metadata": ("vhdx", "", poke(192 * 1024, b"nope"), ""),
    "vpc-differencing": ("vpc", "", poke(60, big(4, 4)), "it is a differencing disk"),
    "vpc-type": ("vpc", "", poke(60, big(9, 4)), "its disk type is 9"),
    "vpc-size": ("vpc", "force_size=on", poke(48, big(1 << 62)), "it claims a disk of 4611686018427387904 bytes"),
    "vpc-table": ("vpc", "", poke(16, big(1 << 60)), "its dynamic header is missing"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_by_name(name: str, tmp_path: Path, tool: Callable[..., str]) -> None:
    image_format, options, change, reason = HOSTILE[name]
    path = tmp_path / "disk.img"
    tool("qemu-img", "create", "-f", image_format, *(["-o", options] if options else []), path, "4M")
    require_safe(identify(path))  # before the change it is fine
    image = bytearray(path.read_bytes())
    change(image)
    path.write_bytes(image)
    if name == "vhdx-no-metadata":  # the second copy of the region table serves
        require_safe(identify(path))
        path.write_bytes(image.replace(b"regi", b"nope"))
        reason = "it has no metadata"
    with pytest.raises(FormatRefused) as caught:
        require_safe(identify(path))
    assert reason in caught.value.message
    assert str(path) in caught.value.message
    assert "\x1b" not in caught.value.message


def test_a_vmdk_descriptor_that_names_other_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_text('# Disk DescriptorFile\nversion=1\nRW 8192 FLAT "/etc/passwd" 0\n')
    with pytest.raises(FormatRefused, match="it holds no data itself but names '/etc/passwd'"):
        require_safe(identify(path))


def test_all_dangers_are_told_at_once(tmp_path: Path, tool: Callable[..., str]) -> None:
    path = tmp_path / "disk.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", path, "4M")
    image = bytearray(path.read_bytes())
    for change in (backing(b"/etc/passwd"), poke(32, big(2, 4)), poke(72, big(1 << 1 | 1 << 9))):
        change(image)
    path.write_bytes(image)
    with pytest.raises(FormatRefused) as caught:
        require_safe(identify(path))
    for reason in ("'/etc/passwd'", "it is encrypted", "it is marked corrupt", "incompatible bits 0x200"):
        assert reason in caught.value.message


@pytest.mark.parametrize("length", [0, 1, 4, 8, 71, 72, 103, 104, 200, 511, 512, 4096])
@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vdi", "vhdx", "vpc"])
def test_a_cut_off_header_is_refused_or_no_image(
    image_format: str, length: int, tmp_path: Path, make_disk: Callable[..., Path], tool: Callable[..., str]
) -> None:
    path = tmp_path / "disk.img"
    tool("qemu-img", "convert", "-f", "raw", "-O", image_format, make_disk(), path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FormatRefused):
        require_safe(identify(path))


@pytest.mark.parametrize("options", ["vmdk", "vmdk,subformat=streamOptimized", "vdi", "vpc", "vhdx"])
def test_a_cut_off_image_does_not_become_one_with_zeros(
    options: str, tmp_path: Path, make_disk: Callable[..., Path], tool: Callable[..., str]
) -> None:
    image_format, _, said = options.partition(",")
    path = tmp_path / "disk.img"
    tool("qemu-img", "convert", "-f", "raw", "-O", image_format, *(["-o", said] if said else []), make_disk(), path)
    whole = path.read_bytes()
    for quarter in (1, 2, 3):
        path.write_bytes(whole[: len(whole) * quarter // 4])
        with pytest.raises((FormatRefused, ToolFailed)):
            convert(path, tmp_path / "out.raw")
