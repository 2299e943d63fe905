"""Superblocks by every mkfs there is, against what blkid says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builder.image.filesystems import Filesystem, probe
from builder.image.raw import RawReader

Tool = Callable[..., str]
MIB = 1 << 20
UUID = "12345678-9abc-def0-1234-56789abcdef0"
MAKE = {
    "ext2": (64, ["mkfs.ext2", "-q", "-L", "root", "-U", UUID]),
    "ext3": (64, ["mkfs.ext3", "-q", "-L", "a label of 16 ch", "-U", UUID]),
    "ext4": (64, ["mkfs.ext4", "-q", "-L", "cloudimg-rootfs", "-U", UUID]),
    "ext4-64bit-1k": (64, ["mkfs.ext4", "-q", "-b", "1024", "-O", "64bit"]),
    "xfs": (400, ["mkfs.xfs", "-q", "-L", "root", "-m", f"uuid={UUID}"]),
    "btrfs": (128, ["mkfs.btrfs", "-q", "-L", "a longer label than others have", "-U", UUID]),
    "vfat12": (2, ["mkfs.vfat", "-F", "12", "-n", "EFI", "-i", "1234abcd"]),
    "vfat16": (16, ["mkfs.vfat", "-F", "16", "-n", "UEFI BOOT", "-i", "1234abcd"]),
    "vfat32": (64, ["mkfs.vfat", "-F", "32", "-n", "UEFI", "-i", "00000001"]),
    "vfat-unnamed": (16, ["mkfs.vfat"]),
    "ntfs": (16, ["mkfs.ntfs", "-q", "-F", "-f"]),
    "swap": (16, ["mkswap", "-q", "-L", "swap", "-U", UUID]),
    "luks1": (32, ["cryptsetup", "luksFormat", "-q", "--type", "luks1", "--iter-time", "1", "--key-file", "/bin/true"]),
}


def blkid(tool: Tool, path: Path) -> dict[str, str]:
    lines = tool("blkid", "-p", "-o", "export", path).splitlines()
    return dict(line.replace("\\ ", " ").split("=", 1) for line in lines)


@pytest.mark.parametrize("name", MAKE)
def test_what_blkid_says(name: str, tool: Tool, tmp_path: Path) -> None:
    megabytes, command = MAKE[name]
    path = tmp_path / "volume.raw"
    with open(path, "wb") as file:
        file.truncate(megabytes * MIB)
    tool(*command, path)
    with RawReader(path) as reader:
        found = probe(reader)
    said = blkid(tool, path)
    assert found is not None
    assert (found.type, found.label) == (said["TYPE"], said.get("LABEL", "") if name != "ntfs" else "")
    assert found.uuid == said.get("UUID", "")
    if found.type not in ("crypto_LUKS", "xfs"):
        assert megabytes * MIB * 0.9 < found.size <= megabytes * MIB


def test_the_label_in_the_root_directory_counts(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "volume.raw"
    with open(path, "wb") as file:
        file.truncate(16 * MIB)
    tool("mkfs.vfat", "-n", "FIRST", path)
    image = bytearray(path.read_bytes())
    at = image.index(b"FIRST      \x08", 512)
    image[at : at + 11] = b"SECOND     "
    path.write_bytes(image)
    with RawReader(path) as reader:
        assert probe(reader).label == "SECOND" == blkid(tool, path)["LABEL"]


def test_squashfs_and_iso9660(tool: Tool, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    (content / "file").write_bytes(bytes(range(256)) * 99)
    squash, iso = tmp_path / "a.squashfs", tmp_path / "a.iso"
    tool("mksquashfs", content, squash, "-quiet", "-no-progress")
    tool("genisoimage", "-quiet", "-V", "CIDATA", "-o", iso, content)
    with RawReader(squash) as reader:
        assert probe(reader).type == "squashfs"
        assert 0 < probe(reader).size <= squash.stat().st_size
    with RawReader(iso) as reader:
        assert probe(reader) == Filesystem(type="iso9660", label="CIDATA", size=iso.stat().st_size)


def test_an_lvm_physical_volume(tmp_path: Path) -> None:
    """pvcreate wants a device: the label is written as LVM2's lib/format_text/layout.h has it."""
    path = tmp_path / "pv.raw"
    label = b"LABELONE" + (1).to_bytes(8, "little") + bytes(4) + (32).to_bytes(4, "little") + b"LVM2 001"
    header = b"0123456789abcdefghijABCDEFGHIJ01" + (8 * MIB).to_bytes(8, "little")
    path.write_bytes(bytes(512) + label + header + bytes(MIB))
    with RawReader(path) as reader:
        assert probe(reader) == Filesystem(
            type="LVM2_member", uuid="012345-6789-abcd-efgh-ijAB-CDEF-GHIJ01", size=8 * MIB
        )


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"\x01\x02\x03" * 50_000], ids=["empty", "zeros", "noise"])
def test_nothing_known(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "volume.raw"
    path.write_bytes(content)
    with RawReader(path) as reader:
        assert probe(reader) is None


def test_labels_cannot_steer_a_terminal(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "volume.raw"
    with open(path, "wb") as file:
        file.truncate(16 * MIB)
    tool("mkfs.ext4", "-q", "-L", "ö\x1b[2Jb", path)
    with RawReader(path) as reader:
        assert probe(reader).label == "ö\N{REPLACEMENT CHARACTER}[2Jb"
