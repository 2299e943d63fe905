"""An image-like file, packed by the classic tools."""

from __future__ import annotations

import random
import shutil
import subprocess  # noqa: TID251 - the classic tools pack here
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 1 << 20
COMMANDS = {
    "gz": ["gzip", "-c", "-1"],
    "bz2": ["bzip2", "-c", "-1"],
    "xz": ["xz", "-c", "-0", "-T1"],
    "multi.xz": ["xz", "-c", "-0", "--block-size=1MiB"],
    "zst": ["zstd", "-c", "-q"],
    "tar": ["tar", "-c", "-f", "-"],
    "tar.gz": ["tar", "-c", "-z", "-f", "-"],
    "tar.xz": ["tar", "-c", "-J", "-f", "-"],
    "tar.zst": ["tar", "-c", "--zstd", "-f", "-"],
    "tar.bz2": ["tar", "-c", "-j", "-f", "-"],
    "gnu.tar": ["tar", "-c", "-S", "--format=gnu", "-f", "-"],
    "pax.tar.gz": ["tar", "-c", "-S", "--format=posix", "-z", "-f", "-"],
    "pax01.tar": ["tar", "-c", "-S", "--format=posix", "--sparse-version=0.1", "-f", "-"],
    "old.tar": ["tar", "-c", "--format=v7", "-f", "-"],
}


@dataclass(frozen=True)
class Packed:
    """The image `disk.raw` and its packings, in one directory."""

    place: Path
    image: Path

    def __getitem__(self, kind: str) -> Path:
        return self.place / f"disk.raw.{kind}"


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """5 MiB and a bit: random bytes, text, and zeros at the beginning, in the middle, unaligned and at the end."""
    place = tmp_path_factory.mktemp("packed")
    image = place / "disk.raw"
    source = random.Random(5)
    text = b" ".join(source.choices([b"alpha", b"beta", b"gamma", b"delta"], k=200_000))[:MIB]
    parts = [bytes(MIB), source.randbytes(MIB // 2 + 77), bytes(MIB), text, b"\1", bytes(MIB + 4321)]
    with open(image, "wb") as out:
        position = 0
        for part in parts:
            if part.strip(b"\0"):
                out.seek(position)
                out.write(part)
            position += len(part)
        out.truncate(position)
    for kind, command in COMMANDS.items():
        with open(place / f"disk.raw.{kind}", "wb") as out:
            subprocess.run([*command, "disk.raw"], cwd=place, stdout=out, check=True)
    subprocess.run(["zip", "-q", "disk.raw.zip", "disk.raw"], cwd=place, check=True)
    return Packed(place, image)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory to put odd members into."""
    found = tmp_path / "tree"
    found.mkdir()
    yield found
    shutil.rmtree(found)
