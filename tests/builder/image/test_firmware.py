"""What a disk boots by: FAT filesystems and boot sectors of the real tools."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.image.fat import fat_files, fat_read
from builder.image.firmware import Firmware, read_firmware
from builder.image.inspect import describe, inspect, look_inside
from builder.image.raw import RawReader

Tool = Callable[..., str]
MIB = 1 << 20
FAT_SIZES = {"12": 4 * MIB, "16": 32 * MIB, "32": 80 * MIB}
GRUB = "/usr/lib/grub/i386-pc/boot.img"


def fat(path: Path, tool: Tool, kind: str, *files: str) -> Path:
    """Make a FAT filesystem with the real tools, and files of one byte in it."""
    with open(path, "xb") as out:
        out.truncate(FAT_SIZES[kind])
    tool("mkfs.vfat", "-F", kind, path)
    byte = path.with_name("byte")
    byte.write_bytes(b"x")
    made = set()
    for file in files:
        for end in range(1, file.count("/") + 1):
            directory = "/".join(file.split("/")[:end])
            if directory not in made:
                tool("mmd", "-i", path, f"::{directory}")
                made.add(directory)
        tool("mcopy", "-i", path, byte, f"::{file}")
    return path


@pytest.mark.parametrize("kind", FAT_SIZES)
def test_the_files_of_a_fat_are_found(tmp_path: Path, tool: Tool, kind: str) -> None:
    many = [f"EFI/debian/file{number:03}.efi" for number in range(200)]  # more than one cluster
    path = fat(tmp_path / "esp", tool, kind, "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/a long name.txt", "top.txt", *many)
    with RawReader(path) as reader:
        found = {file.path: file.size for file in fat_files(reader, below="efi", depth=2)}
        assert found["EFI/BOOT/BOOTX64.EFI"] == 1
        assert len([name for name in found if name.startswith("EFI/DEBIAN/")]) == 200
        assert len(found) == 202
        assert "TOP.TXT" not in found
        assert [file.path for file in fat_files(reader, depth=1)] == ["TOP.TXT"]
        assert fat_files(reader, below="absent") == ()


@pytest.mark.parametrize("kind", FAT_SIZES)
def test_a_small_file_is_read(tmp_path: Path, tool: Tool, kind: str) -> None:
    path = fat(tmp_path / "fat", tool, kind, "boot/grub/x")
    contents = {"grub.cfg": bytes(range(256)) * 70, "empty": b"", "large": bytes(300 << 10)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        tool("mcopy", "-i", path, tmp_path / name, f"::boot/grub/{name}")
    with RawReader(path) as reader:
        assert fat_read(reader, "boot/grub/grub.cfg") == contents["grub.cfg"]
        assert fat_read(reader, "BOOT/GRUB/EMPTY") == b""
        for absent in ("boot/grub/large", "boot/grub/none", "boot/none/x", "boot/grub", "none"):
            assert fat_read(reader, absent) is None


@pytest.mark.parametrize("seed", [b"", b"\xff" * 512, b"\xff" * (1 << 16), bytes(range(256)) * 16])
def test_any_bytes_are_no_fat_or_an_end(tmp_path: Path, seed: bytes) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(seed)
    with RawReader(path) as reader:
        assert fat_files(reader) == ()
        assert fat_read(reader, "BOOT/GRUB/GRUB.CFG") is None


def test_a_directory_that_leads_to_itself_ends(tmp_path: Path, tool: Tool) -> None:
    path = fat(tmp_path / "esp", tool, "16", "EFI/BOOT/BOOTX64.EFI")
    data = bytearray(path.read_bytes())
    at = data.index(b"EFI        \x10")
    (cluster,) = struct.unpack_from("<H", data, at + 26)
    inner = data.index(b"BOOT       \x10")
    data[inner + 26 : inner + 28] = struct.pack("<H", cluster)  # BOOT is EFI again
    (fat_at,) = struct.unpack_from("<H", data, 14)
    entry = fat_at * 512 + cluster * 2
    data[entry : entry + 2] = struct.pack("<H", cluster)  # whose chain is a ring
    path.write_bytes(data)
    with RawReader(path) as reader:
        assert fat_files(reader, below="EFI", depth=9) == ()


def disk(tmp_path: Path, tool: Tool, *, loaders: tuple[str, ...] = (), esp: bool = True, table: str = "gpt") -> Path:
    """Make a disk of 64 MiB with a root partition, and an ESP with loaders."""
    path = tmp_path / "disk"
    with open(path, "xb") as out:
        out.truncate(64 * MIB)
    if table == "mbr":
        tool("sfdisk", "-q", path, stdin=b"2048,8192,ef\n10240,,83,*\n")
    else:
        tool("sgdisk", "-n14:2048:+1M", "-t14:ef02", "-n1:8M:0", "-t1:8300", path)
        if esp:
            tool("sgdisk", "-n15:4096:+4M", "-t15:ef00", path)
    if esp:
        made = fat(tmp_path / "esp", tool, "12", *loaders)
        with open(path, "r+b") as out:
            out.seek(MIB if table == "mbr" else 2 * MIB)
            out.write(made.read_bytes())
    return path


def install(path: Path, code: bytes, *, core: bytes = b"") -> None:
    """Put boot code into the first sector, told that its rest is in sector 2048."""
    with open(path, "r+b") as out:
        out.write(code[:440])
        if core:
            out.seek(0x5C)
            out.write(struct.pack("<Q", 2048))
            out.seek(2048 * 512)
            out.write(core)


def firmware(path: Path) -> Firmware:
    with RawReader(path) as reader:
        return read_firmware(reader, look_inside(reader)[0])


def test_grub_and_a_loader(tmp_path: Path, tool: Tool) -> None:
    path = disk(tmp_path, tool, loaders=("EFI/BOOT/BOOTX64.EFI", "EFI/debian/grubx64.efi"))
    install(path, Path(GRUB).read_bytes(), core=b"core")
    found = firmware(path)
    assert (found.boot_code, found.bios, found.uefi, found.esp) == ("GRUB", True, True, 15)
    assert found.loaders == ("EFI/BOOT/BOOTX64.EFI", "EFI/DEBIAN/GRUBX64.EFI")
    assert "  boots by BIOS (GRUB); UEFI (EFI/BOOT/BOOTX64.EFI on partition 15)" in describe(inspect(path)).splitlines()


def test_a_loader_that_no_firmware_was_told_of(tmp_path: Path, tool: Tool) -> None:
    found = firmware(disk(tmp_path, tool, loaders=("EFI/debian/grubx64.efi",)))
    assert (found.bios, found.uefi, found.loaders) == (False, False, ("EFI/DEBIAN/GRUBX64.EFI",))


@pytest.mark.parametrize(
    ("core", "sector", "problem"),
    [
        (bytes(512), 2048, "which is empty"),
        (b"core", 1 << 40, "which is not on the disk"),
        (b"core", 0, "not on the disk"),
    ],
)
def test_grub_without_its_rest(tmp_path: Path, tool: Tool, core: bytes, sector: int, problem: str) -> None:
    path = disk(tmp_path, tool, esp=False)
    install(path, Path(GRUB).read_bytes(), core=core)
    with open(path, "r+b") as out:
        out.seek(0x5C)
        out.write(struct.pack("<Q", sector))
    found = firmware(path)
    assert (found.bios, found.esp) == (False, None)
    assert problem in found.bios_problem


def test_an_mbr_with_an_esp(tmp_path: Path, tool: Tool) -> None:
    path = disk(tmp_path, tool, table="mbr", loaders=("EFI/BOOT/BOOTAA64.EFI",))
    assert (firmware(path).uefi, firmware(path).esp, firmware(path).boot_code) == (True, 1, "")
    assert "BIOS: no, there is no boot code; UEFI (EFI/BOOT/BOOTAA64.EFI on partition 1)" in describe(inspect(path))


@pytest.mark.parametrize(
    ("code", "kind", "works"),
    [
        (b"\xeb\x48".ljust(0x3E, b"\0") + b"\x03\x02" + bytes(32) + b"GRUB \0Geom\0Hard Disk\0", "GRUB legacy", True),
        (b"\x33\xc0 Missing operating system.\r\n", "SYSLINUX", False),  # sgdisk marks nothing bootable
        (b"\xfa\x31\xc0 something", "unknown code", True),
        (b"", "", False),
    ],
)
def test_other_boot_code(tmp_path: Path, tool: Tool, code: bytes, kind: str, *, works: bool) -> None:
    path = disk(tmp_path, tool, esp=False)
    install(path, code)
    assert (firmware(path).boot_code, firmware(path).bios) == (kind, works)


def test_a_filesystem_without_a_disk_boots_by_neither(tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "bare"
    with open(path, "wb") as out:
        out.truncate(16 * MIB)
    tool("mkfs.ext4", "-q", path)
    assert firmware(path) == Firmware()
    assert "boots by" not in describe(inspect(path))
