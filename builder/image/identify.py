"""Establish what a file is, by magic and header checks of our own.

Nothing is probed by qemu: an untrusted file could choose there how it is read, and with it which files of this host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from builder.digest import is_zero
from builder.errors import InputError
from builder.image import foreign_headers, qcow2_header
from builder.image.identity import UNKNOWN, Format, Header, Identity, Read, require_safe

__all__ = ["Format", "Identity", "identify", "require_safe"]

_HEAD = 128 * 1024  # bytes read at once; btrfs keeps its superblock at 64 KiB
_ZEROS_READ = 64 << 20  # bytes of zeros after which a file is called empty of content
_DECOMPRESS = "Add a `decompress` step before this one."
_EXTRACT = "Add a `decompress` step with `member:` naming the disk image inside."
_AS_RAW = (
    "If it is a raw disk without partition table, say so: a step `convert: {from_format: raw}` in a recipe,"
    " `--format raw` of `emi bundle`."
)
_SOURCE = "Check the URL: this is no disk image. Open it by hand to see what the server sent."

# (offset, magic, format, reader of the header)
_IMAGES: tuple[tuple[int, bytes, Format, Callable[[Read, int], Header]], ...] = (
    (0, qcow2_header.MAGIC, "qcow2", qcow2_header.describe),
    (0, b"KDMV", "vmdk", foreign_headers.vmdk),
    (0, b"COWD", "vmdk", foreign_headers.vmdk3),
    (0, b"# Disk DescriptorFile", "vmdk", foreign_headers.vmdk_descriptor),
    (64, b"\x7f\x10\xda\xbe", "vdi", foreign_headers.vdi),
    (0, b"vhdxfile", "vhdx", foreign_headers.vhdx),
    (0, b"conectix", "vpc", foreign_headers.vpc),
)
# (offset, magic, noun, advice) of what people hand over instead of an image.
_OTHERS: tuple[tuple[int, bytes, str, str | None], ...] = (
    (0, b"\xfd7zXZ\0", "an xz-compressed file", _DECOMPRESS),
    (0, b"\x1f\x8b\x08", "a gzip-compressed file", _DECOMPRESS),
    (0, b"\x28\xb5\x2f\xfd", "a zstd-compressed file", _DECOMPRESS),
    (0, b"PK\x03\x04", "a zip archive", _EXTRACT),
    (0, b"PK\x05\x06", "an empty zip archive", _SOURCE),
    (257, b"ustar", "a tar archive", _EXTRACT),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it by hand: emi reads xz, gz, bz2, zst, tar and zip."),
    (0, b"\x04\x22\x4d\x18", "an lz4-compressed file", "Unpack it by hand: emi reads xz, gz, bz2, zst, tar and zip."),
    (0, b"\x7fELF", "an ELF program", _SOURCE),
    (0, b"QED\0", "a QED image", "Convert it to qcow2 where you trust it: `qemu-img convert -f qed -O qcow2`."),
    (0, b"LUKS\xba\xbe", "a LUKS-encrypted volume", "Decrypt it first: emi holds no keys of images."),
    (0, b"-----BEGIN PGP", "a PGP signature or signed text", _SOURCE),
    (0x8001, b"CD001", "an ISO 9660 CD image", "Take the publisher's disk image (often called cloud image) instead."),
)
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|Error>)", re.IGNORECASE)
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")

# (offset, magic, noun) of what may begin a raw image that has no partition table.
_VOLUMES: tuple[tuple[int, bytes, str], ...] = (
    (0x438, b"\x53\xef", "a raw ext2, ext3 or ext4 filesystem"),
    (0, b"XFSB", "a raw XFS filesystem"),
    (0x10040, b"_BHRfS_M", "a raw btrfs filesystem"),
    (0x36, b"FAT1", "a raw FAT filesystem"),
    (0x52, b"FAT32", "a raw FAT filesystem"),
    (3, b"NTFS    ", "a raw NTFS filesystem"),
    (0, b"hsqs", "a raw squashfs filesystem"),
    (0x218, b"LVM2 001", "a raw LVM physical volume"),
    (4086, b"SWAPSPACE2", "a raw swap area"),
)


class _Peek:
    """Bounded reads of one open file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.head = self.read(0, _HEAD)

    def read(self, offset: int, length: int) -> bytes:
        if not 0 <= offset < self.size:
            return b""
        return os.pread(self.descriptor, length, offset)


def identify(path: Path) -> Identity:
    """Return what the file at `path` is: its format, what its header claims, and every danger found in it.

    Reads a few hundred KiB at most (64 MiB of a file of zeros). Raises InputError when `path` is no readable file.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file", hint="Name the image file itself, not a directory or a device.")
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _identify(path, _Peek(descriptor))
    finally:
        os.close(descriptor)


def _identify(path: Path, file: _Peek) -> Identity:
    if found := _image(file):
        image_format, header = found
        return Identity(
            path=path,
            format=image_format,
            noun=header.noun,
            file_size=file.size,
            virtual_size=header.virtual_size,
            backing_file=header.backing_file,
            dangers=tuple(header.dangers),
        )
    if other := _other(file):
        noun, advice = other
        return Identity(path=path, format=None, noun=noun, file_size=file.size, advice=advice)
    if volume := _volume(file.head):
        return Identity(path=path, format="raw", noun=volume, file_size=file.size, virtual_size=file.size)
    noun, advice = _nothing(file)
    return Identity(path=path, format=None, noun=noun, file_size=file.size, advice=advice)


def _image(file: _Peek) -> tuple[Format, Header] | None:
    """Return the format and header of an image that has one."""
    for offset, magic, image_format, describe in _IMAGES:
        if file.head[offset : offset + len(magic)] == magic:
            return image_format, describe(file.read, file.size)
    # A fixed VHD is a raw disk with a footer, so that only the footer's checksum tells it from its content.
    if foreign_headers.is_vhd_footer(file.read(file.size - 512, 512)):
        return "vpc", foreign_headers.vpc(file.read, file.size)
    return None


def _other(file: _Peek) -> tuple[str, str | None] | None:
    """Return noun and advice for what is known and no disk image."""
    head = file.head
    for offset, magic, noun, advice in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            return noun, advice
    if _BZIP2.match(head):
        return "a bzip2-compressed file", _DECOMPRESS
    if _ZSTD_SKIPPABLE.match(head):
        return "a zstd-compressed file", _DECOMPRESS
    if _HTML.match(head[:1024]):
        return "an HTML page, most likely a server's error message", _SOURCE
    if _XML.match(head[:1024]):
        return "an XML document, most likely a server's error message", _SOURCE
    return None


def _volume(head: bytes) -> str | None:
    """Return the noun of a raw image that begins with a partition table or a filesystem."""
    for sector in (512, 4096):
        if head[sector : sector + 8] == b"EFI PART":
            return "a raw disk with a GPT partition table"
    for offset, magic, noun in _VOLUMES:
        if head[offset : offset + len(magic)] == magic:
            return noun
    if head[510:512] == b"\x55\xaa" and _plausible_mbr(head):
        return "a raw disk with an MBR partition table"
    return None


def _plausible_mbr(head: bytes) -> bool:
    """Say whether a boot sector ends in partitions rather than in the code of a boot loader."""
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    return all(entry[0] in (0, 0x80) for entry in entries) and any(
        entry[4] and any(entry[8:12]) and any(entry[12:16]) for entry in entries
    )


def _nothing(file: _Peek) -> tuple[str, str | None]:
    if not file.size:
        return "an empty file", _SOURCE
    if _only_zeros(file):
        return "a file of zeros", "Whatever wrote it did not finish: make or download it again."
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in file.head[:1024]) and 127 not in file.head[:1024]:
        return "a text file", _SOURCE
    return UNKNOWN, _AS_RAW


def _only_zeros(file: _Peek) -> bool:
    offset, read = 0, 0
    while read < _ZEROS_READ:
        try:
            offset = os.lseek(file.descriptor, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return True
        data = file.read(offset, 512 * 1024)
        if not data:
            return True
        if not is_zero(data):
            return False
        offset += len(data)
        read += len(data)
    return True
