"""Bundling at its limits: killed at each durable moment, on a full disk, within its memory, above 8 GiB."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess  # noqa: TID251 - processes that are killed, limited and measured
import sys
from pathlib import Path

import pytest

MIB, GIB = 1 << 20, 1 << 30
PEAK = 200_000  # kB
ROOT = Path(__file__).parents[3]
KEY, IV = "00112233445566778899aabbccddeeff", "0f" * 16
MAKE = f"""
import re, sys
from pathlib import Path
from builder.bundle import stream
from builder.bundle.records import ContentKey, Shape
from builder.errors import EmiError
from builder.image.reader import open_image
image, place, part_size, compression = sys.argv[1:]
key = ContentKey(key=bytes.fromhex("{KEY}"), iv=bytes.fromhex("{IV}"))
try:
    with open_image(Path(image), "raw") as reader:
        shape = Shape(name="x", part_size=int(part_size), compression=compression)
        print(stream.write(reader, Path(place), shape, key).tar_sha1)
except EmiError as error:
    print(type(error).__name__, error.message)
print(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
"""


def make(image: Path, place: Path, part_size: int = MIB, compression: str = "fast", **environment: str):
    """Bundle in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", MAKE, image, place, str(part_size), compression],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def image_of(path: Path, size: int, data: int) -> Path:
    """Make a sparse image, `data` bytes of it noise, here and there."""
    dice = random.Random(4)
    noise = dice.randbytes(MIB)
    with open(path, "wb") as file:
        file.truncate(size)
        for _ in range(data // MIB):
            file.seek(dice.randrange(size - MIB))
            file.write(noise)
    return path


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_killed_at_any_moment_it_leaves_only_whole_parts_and_the_next_run_makes_the_same(tmp_path):
    image = image_of(tmp_path / "image", 8 * MIB, 3 * MIB)
    whole, place = tmp_path / "whole", tmp_path / "place"
    whole.mkdir()
    place.mkdir()
    log = tmp_path / "log"
    assert make(image, whole, EMI_CRASH_LOG=str(log)).returncode == 0
    wanted = contents(whole)
    moments = log.read_text().splitlines()
    assert len(moments) == 2 * len(wanted) >= 6
    for number, moment in enumerate(moments[:-1]):
        assert make(image, place, EMI_CRASH_AT=moment).returncode == -signal.SIGKILL
        left = contents(place)
        names = {name for name in left if not name.startswith(".")}
        assert names == set(sorted(wanted)[: (number + 1) // 2])
        assert all(left[name] == wanted[name] for name in names)
        assert len(left) - len(names) <= 1
        assert len(names) < len(wanted)
        for name in left:
            (place / name).unlink()
        if moment.endswith("@2"):  # what was left may as well be there when it begins again
            for name, data in left.items():
                (place / name).write_bytes(data)
            assert make(image, place).returncode == 0
            assert contents(place) == wanted
            for name in wanted:
                (place / name).unlink()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    image, small = image_of(tmp_path / "image", 64 * MIB, 12 * MIB), tmp_path / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=5m tmpfs {small} && "$@"; ls -A {small}'
    words = [sys.executable, "-c", MAKE, image, small, str(MIB), "fast"]
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    said, *rest = done.stdout.splitlines()
    assert re.fullmatch(rf"DiskFull no space left for {small}/\.x\.part\.0[0-9]\.new: No space left on device", said)
    assert len(rest) == 1  # the peak of memory; ls has nothing to list


def test_a_limit_on_the_size_of_files_is_said_and_leaves_nothing(tmp_path):
    image, place = image_of(tmp_path / "image", 8 * MIB, 3 * MIB), tmp_path / "place"
    place.mkdir()
    words = [sys.executable, "-c", MAKE, image, place, str(2 * MIB), "fast"]
    script = 'ulimit -f 1024; exec "$@"'  # blocks of 512 or 1024 bytes, by the shell
    done = subprocess.run(["sh", "-c", script, "sh", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"HostError {place}/.x.part.00.new cannot be written: File too large\n")
    assert list(place.iterdir()) == []


def test_memory_does_not_grow_with_the_image(tmp_path):
    data = 160 * MIB
    image, place = image_of(tmp_path / "image", 3 * data, data), tmp_path / "place"
    place.mkdir()
    assert int(make(image, place, 10 * MIB).stdout.splitlines()[-1]) * 1024 < data


@pytest.mark.sweep
@pytest.mark.parametrize("compression", ["fast", "small"])
def test_an_image_above_8_gib_is_read_by_plain_tools_and_was_made_in_little_memory(tmp_path, compression):
    image, place = image_of(tmp_path / "image", 9 * GIB + 12345, 400 * MIB), tmp_path / "place"
    place.mkdir()
    sha1, peak = make(image, place, 10 * MIB, compression).stdout.splitlines()
    assert int(peak) < PEAK
    command = (
        f"set -o pipefail; cat {place}/x.part.* | openssl enc -d -aes-128-cbc -K {KEY} -iv {IV} | gzip -dc"
        f" | tee >(sha1sum >{tmp_path}/sum) | tar -xOf - | cmp - {image}"
    )
    subprocess.run(["bash", "-c", command], check=True)
    for _ in range(100):  # the shell does not wait for sha1sum
        if (tmp_path / "sum").read_text():
            break
        subprocess.run(["sleep", "0.1"], check=True)
    assert (tmp_path / "sum").read_text().startswith(sha1)
