"""A small root filesystem, and a kernel with nothing but the header by which loaders know one."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import proc

MIB = 1 << 20


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    head = bytearray(0x10000)
    head[0x1FE:0x206] = b"\x55\xaa\xeb\x66HdrS"
    struct.pack_into("<H", head, 0x206, 0x020F)
    path = tmp_path / "kernel"
    path.write_bytes(bytes(head) + random.Random(1).randbytes(300_000))
    return path


@pytest.fixture
def ramdisk(tmp_path: Path) -> Path:
    path = tmp_path / "ramdisk"
    path.write_bytes(random.Random(2).randbytes(500_001))
    return path


@pytest.fixture
def make_root(tmp_path: Path) -> Callable[..., Path]:
    """Make a filesystem image with 3 MiB of data in it, not in one piece."""

    def make_root(kind: str = "ext4", label: str = "rootfs", size: int = 24 * MIB) -> Path:
        tree, image = tmp_path / f"{kind}-{label}.tree", tmp_path / f"{kind}-{label}.img"
        (tree / "etc").mkdir(parents=True)
        (tree / "etc" / "fstab").write_text("/dev/sda1 / ext4 defaults 0 1\n")
        (tree / "data").write_bytes(random.Random(3).randbytes(3 * MIB))
        with open(image, "wb") as file:
            file.truncate(size)
        words = ["mke2fs", "-q", "-F", "-t", kind, "-d", tree, "-E", "nodiscard,lazy_itable_init=1"]
        proc.run([*words, *(["-L", label] if label else []), image])
        return image

    return make_root
