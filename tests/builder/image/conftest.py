"""Disks made by code, and the real tools that make images of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import proc

MIB = 1 << 20
Tool = Callable[..., str]
Disk = Callable[..., Path]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """Run a program, found in sbin too, and return what it says."""

    def run(program: str, *arguments: object, stdin: bytes | None = None) -> str:
        done = proc.run([proc.find(program), *map(str, arguments)], stdin=stdin, timeout=120)
        return done.stdout.decode()

    return run


@pytest.fixture
def make_disk(tmp_path: Path) -> Disk:
    """Make a sparse raw disk with an MBR, written zeros, holes, random and compressible runs at awkward offsets."""

    def make(name: str = "disk.raw", size: int = 24 * MIB, seed: int = 1) -> Path:
        dice = random.Random(seed)
        path = tmp_path / name
        with open(path, "wb") as disk:
            disk.truncate(size)
            for _ in range(size // MIB):
                disk.seek(dice.randrange(size))
                run = dice.randrange(1, 200_000)
                kind = dice.randrange(3)
                data = bytes(run) if kind == 0 else dice.randbytes(64 if kind == 1 else run)
                disk.write((data * (run // len(data) + 1))[: min(run, size - disk.tell())])
            disk.seek(446)
            disk.write(b"\x80\0\0\0\x83\0\0\0" + (2048).to_bytes(4, "little") + (1000).to_bytes(4, "little"))
            disk.seek(462)
            disk.write(bytes(48) + b"\x55\xaa")
        return path

    return make
