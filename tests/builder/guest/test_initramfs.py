"""What lies in an initramfs, in each of the ways that kernels take one."""

from __future__ import annotations

import os
import tracemalloc

import pytest

from builder import proc
from builder.errors import FormatRefused
from builder.guest.initramfs import Limits, module_name, read
from tests.builder.guest import archives

newc, PACKERS = archives.newc, archives.PACKERS

MODULE = "usr/lib/modules/6.1.0/kernel/drivers/block/virtio_blk.ko"
MICROCODE = newc("kernel", "kernel/x86/microcode/GenuineIntel.bin", data=b"m" * 1022)
NAMES = ("init", MODULE, "usr/lib/modules/6.1.0/kernel/drivers/net/xen-netfront.ko.zst")


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("packing", sorted(PACKERS))
@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_every_compression_and_what_lies_before_and_behind(packing, size):
    packed = PACKERS[packing](newc(*NAMES, data=os.urandom(300)))
    contents = read(pieces(MICROCODE + bytes(512) + packed + bytes(7) + newc("last"), size))
    assert contents.names == ("kernel", "kernel/x86/microcode/GenuineIntel.bin", *NAMES, "last")
    assert contents.packings == ("plain", packing, "plain")
    assert contents.modules == {"virtio_blk", "xen_netfront"}


@pytest.mark.parametrize("packing", sorted(PACKERS))
def test_two_compressed_archives_follow_each_other(packing):
    one, two = (PACKERS[packing](newc(name)) for name in ("one", "two"))
    assert read(one + two).names == ("one", "two")
    assert read(one + bytes(4) + two).names == ("one", "two")


@pytest.mark.parametrize("packing", sorted(PACKERS))
def test_one_that_is_cut_off_is_refused_wherever_it_is_cut(packing):
    data = PACKERS[packing](newc(*NAMES, data=os.urandom(3000)))
    for end in range(7, len(data) - 1, 97):
        with pytest.raises(FormatRefused, match=r"cut off|cannot be read|damaged"):
            read(data[:end], path="/boot/initrd.img")


def test_the_real_cpio_and_compressors_agree(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("init", "with blank", "line\nbreak", os.fsdecode(b"l\xe4tin")):
        (tree / name).write_bytes(b"x" * 70_001)
    (tree / "sub").mkdir()
    (tree / "link").symlink_to("/init")
    listed = sorted([*(path.name for path in tree.iterdir()), "."])
    words = 'cd "$1" && find . -print0 | cpio -0 --quiet -o -H "$2" | $3'
    for form, tool in (("newc", "cat"), ("crc", "xz --check=crc32"), ("newc", "bzip2"), ("newc", "zstd -q")):
        data = proc.run(["sh", "-c", words, "sh", tree, form, tool]).stdout
        assert sorted(name or "." for name in read(data).names) == listed


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (newc("a", trailer=False), ("a",)),
        (newc("a") + b"#BOOTCONFIG\n", ("a",)),
        (newc("a") + bytes(100) + newc("b", magic=b"070702"), ("a", "b")),
        (newc("./a", "/b", "c/"), ("a", "b", "c/")),
        (newc(b"padded\0\0\0\0\0"), ("padded",)),
        (newc(b"l\xe4tin\n"), ("l\udce4tin\n",)),
        (PACKERS["zstd"](newc("a") + bytes(512) + newc("b")), ("a", "b")),
        (newc(), ()),
    ],
)
def test_forms_that_kernels_take(data, names):
    assert read(data).names == names


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (bytes(4096), "is empty"),
        (b"\x7fELF", "is no initramfs"),
        (bytes(1080) + b"\x53\xef", "is no initramfs"),
        (b"\x89LZO\0\r\n\x1a\n", "compressed with lzo"),
        (b"\x04\x22\x4d\x18aaaa", "an LZ4 frame that kernels do not read"),
        (b"070707" + b"0" * 100, "of the old format"),
        (b"MZ" + bytes(100), "a unified kernel image"),
        (b"070701" + b"Z" * 104, "damaged: no cpio header"),
        (b"070701" + b"0" * 104, "damaged: no cpio header"),
        (newc("a" * 5000), "damaged: no cpio header"),
        (newc("a") + newc("b", data=b"y" * 90)[:150], "is cut off"),
        (newc("a", data=b"070701")[:-124] + b"070701" + b"0" * 50, "is cut off"),
        (PACKERS["gzip"](b"\x53\xef" * 500), "what its gzip data unpacks to is no cpio archive"),
        (b"\x1f\x8b" + b"\xff" * 99, "its gzip data cannot be read"),
        (b"\x28\xb5\x2f\xfd\x00\xff" + bytes(99), "its zstd data cannot be read"),
        (b"\xfd7zXZ\0" + bytes(99), "its xz data cannot be read"),
        (b"\x5d\0\0" + b"\xff" * 99, "its lzma data cannot be read"),
    ],
)
def test_what_is_refused(data, why):
    with pytest.raises(FormatRefused, match=why) as caught:
        read(data, path="/boot/initrd.img-6.1")
    assert "/boot/initrd.img-6.1" in caught.value.message


def test_names_are_counted():
    many = newc(*(str(number) for number in range(50)), data=b"")
    assert len(read(many, limits=Limits(names=50)).names) == 50
    for limits in (Limits(names=49), Limits(name_bytes=60)):
        with pytest.raises(FormatRefused, match="names, more than any has"):
            read(many, limits=limits)


@pytest.mark.parametrize("packing", sorted(PACKERS))
def test_a_bomb_ends_at_the_limit_and_needs_no_memory(packing):
    bomb = PACKERS[packing](newc("zeros", data=bytes(70 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(FormatRefused, match="unpacks to more than 60 MiB"):
            read(bomb, limits=Limits(unpacked=60 << 20))
        assert tracemalloc.get_traced_memory()[1] < 40 << 20  # a block of LZ4 is 8 MiB
    finally:
        tracemalloc.stop()


def test_a_window_of_gigabytes_is_refused():
    for data in (b"\x28\xb5\x2f\xfd\x00\xb8" + bytes(99), b"\x5d\0\0\0\x7f" + b"\xff" * 8 + bytes(99)):
        with pytest.raises(FormatRefused, match="cannot be read"):
            read(data)


def test_an_image_in_it_hides_the_rest():
    assert read(newc("init", "squashfs-root.img")).hides == "squashfs-root.img"
    assert read(newc("init")).hides == ""


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("kernel/drivers/block/xen-blkfront.ko", "xen_blkfront"),
        ("lib/nvme.ko.xz", "nvme"),
        ("virtio_pci.ko.zst", "virtio_pci"),
        ("lib/modules/modules.dep", ""),
        ("x.ko/", ""),
        (".ko", ""),
        ("etc/x.ko.conf", ""),
    ],
)
def test_module_names(path, module):
    assert module_name(path) == module
