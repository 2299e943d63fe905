"""From an image to a bundle and back, by our own code at both ends: the same bytes and the same holes."""

from __future__ import annotations

import pickle
import random
import subprocess  # noqa: TID251 - cmp compares gigabytes
import sys
from pathlib import Path

import pytest

from builder.bundle import stream
from builder.bundle.folder import parts_in
from builder.bundle.limits import PART_SIZE
from builder.bundle.records import Bundler, ContentKey, Manifest, Part, Shape
from builder.bundle.unbundle import unbundle
from builder.image.raw import RawReader

MIB = 1 << 20
PAGE = 4096
KEY = ContentKey(key=bytes(range(16)), iv=bytes(range(16, 32)))


def bundled(image: Path, place: Path, **shape: object) -> Manifest:
    """Bundle the image into `place`; what a manifest would say of it."""
    with RawReader(image) as reader:
        made = stream.write(reader, place, Shape(**{"name": "p", **shape}), KEY)
    return Manifest(
        bundler=Bundler(name="tests", version="1", release="0"),
        architecture="x86_64",
        name="p",
        user="000000000001",
        tar_sha1=made.tar_sha1,
        size=made.size,
        bundled_size=made.bundled_size,
        parts=tuple(Part(filename=part.filename, sha1=part.sha1) for part in made.parts),
    )


def round_trip(image: Path, place: Path, **shape: object) -> Manifest:
    """Bundle and unbundle; the image must come out, as sparse as it was."""
    says = bundled(image, place, **shape)
    target = place / "out"
    unbundle(says, parts_in(place, says), KEY, target)
    subprocess.run(["cmp", image, target], check=True)
    # A page of our own granularity more at each end of the image's runs, and of the file system's own lists.
    assert target.stat().st_blocks <= image.stat().st_blocks + 8 * 16
    return says


def sparse(path: Path, size: int, *runs: tuple[int, int]) -> Path:
    """A file of this size with so many random bytes at these offsets."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, length in runs:
            file.seek(offset)
            for at in range(0, length, MIB):
                file.write(random.Random(offset + at).randbytes(min(MIB, length - at)))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    return tmp_path / "bundle"


@pytest.mark.parametrize("size", [1, 511, 512, 513, PAGE, 10240 - 512, MIB - 1, MIB, MIB + 1, 3 * MIB - 512])
def test_sizes_around_every_edge(tmp_path, place, size):
    round_trip(sparse(tmp_path / "image", size, (0, size)), place, part_size=MIB)


@pytest.mark.parametrize("compression", ["fast", "small"])
def test_data_and_holes(tmp_path, place, compression):
    runs = [(0, 5), (MIB - 5, 10), (5 * MIB + 4096, 70_000), (20 * MIB, 3 * MIB)]
    image = sparse(tmp_path / "image", 40 * MIB + 17, *runs)
    says = round_trip(image, place, compression=compression)
    assert (place / "out").stat().st_blocks * 512 < 4 * MIB
    assert says.bundled_size < 4 * MIB


def test_nothing_but_a_hole(tmp_path, place):
    round_trip(sparse(tmp_path / "image", 30 * MIB), place)
    assert (place / "out").stat().st_blocks == 0


def test_parts_that_the_stream_fills_exactly(tmp_path, place):
    length = bundled(sparse(tmp_path / "image", 5000, (0, 5000)), place).bundled_size
    counts = set()
    for part_size in (length, length // 16, length - 16, length + 16, length // 2 + 1):
        for part in place.glob("p.part.*"):
            part.unlink()
        (place / "out").unlink(missing_ok=True)
        says = round_trip(tmp_path / "image", place, part_size=part_size)
        counts.add((len(says.parts), says.bundled_size % part_size == 0))
    assert {(1, True), (16, True), (2, False), (1, False)} <= counts


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("size", "runs"),
    [
        (4 << 30, [(0, 50 * MIB), (1 << 30, 100 * MIB), ((4 << 30) - 10 * MIB, 10 * MIB)]),
        ((8 << 30) - 1, [(0, 3), ((8 << 30) - 4, 3)]),
        ((9 << 30) + 5, [((8 << 30) - MIB, 2 * MIB), (9 << 30, 5)]),
    ],
)
def test_gigabytes(tmp_path, place, size, runs):
    says = round_trip(sparse(tmp_path / "image", size, *runs), place)
    assert len(says.parts) == -(-says.bundled_size // PART_SIZE)


@pytest.mark.sweep
def test_parts_of_ten_mib_filled_exactly(tmp_path, place):
    # Deflate stores random bytes as they are, in blocks; from one length to the next the stream grows by as much.
    image = sparse(tmp_path / "image", 2 * PART_SIZE, (0, 2 * PART_SIZE))
    excess = bundled(image, place).bundled_size - 2 * PART_SIZE
    for length in range(2 * PART_SIZE - excess - 600, 2 * PART_SIZE - excess + 600, 16):
        for part in place.iterdir():
            part.unlink()
        if bundled(sparse(image, length, (0, length)), place).bundled_size == 2 * PART_SIZE:
            break
    else:
        pytest.fail("no length fills two parts exactly")
    for part in place.iterdir():
        part.unlink()
    assert len(round_trip(image, place).parts) == 2


def test_memory_stays_below_its_limit(tmp_path, place):
    says = bundled(sparse(tmp_path / "image", 200 * MIB, (0, 40 * MIB)), place)
    script = f"""
import pickle, sys
from pathlib import Path
from builder.bundle.folder import parts_in
from builder.bundle.unbundle import unbundle
says, key = pickle.load(sys.stdin.buffer)
def peak():  # not ru_maxrss, which begins with that of the process it was forked from
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
before = peak()
unbundle(says, parts_in(Path({str(place)!r}), says), key, Path({str(tmp_path / "out")!r}))
print(peak() - before, before)
"""
    told = pickle.dumps((says, KEY))
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", script], input=told, stdout=subprocess.PIPE, check=True, cwd=root)
    grown, before = map(int, done.stdout.split())
    assert before + grown < 200 * 1024  # KiB
    assert grown < 100 * 1024
