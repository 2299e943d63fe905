"""Holes for zeros, whatever the pieces."""

import random
import subprocess  # noqa: TID251 - a full disk needs a mount of its own
import sys

import pytest

from builder.unpack.sparse import SparseWriter

PAGE = 4096


@pytest.mark.parametrize("piece", [1000, PAGE, 3 * PAGE + 1, 1 << 20])
def test_pieces_of_any_size_make_the_same_file(piece, tmp_path):
    source = random.Random(7)
    parts = [source.randbytes(300), bytes(5 * PAGE), source.randbytes(2 * PAGE), bytes(100 * PAGE), b"\1", bytes(9999)]
    content = b"".join(parts)
    with SparseWriter(tmp_path / "out") as out:
        for start in range(0, len(content), piece):
            out.write(content[start : start + piece])
        out.finish()
    assert (tmp_path / "out").read_bytes() == content
    assert (tmp_path / "out").stat().st_blocks * 512 <= 8 * PAGE


def test_an_error_leaves_nothing(tmp_path):
    def interrupted():
        with SparseWriter(tmp_path / "out") as out:
            out.write(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    small, packed = tmp_path / "small", tmp_path / "random.gz"
    small.mkdir()
    with open(packed, "wb") as out:
        data = random.Random(8).randbytes(2 << 20)
        subprocess.run(["gzip", "-c", "-1"], input=data, stdout=out, check=True)
    script = f"""
        mount -t tmpfs -o size=1m tmpfs {small} && exec {sys.executable} -c '
from pathlib import Path
from builder.errors import DiskFull
from builder.unpack import unpack
try:
    unpack(Path("{packed}"), Path("{small}/out"), name="x")
except DiskFull as error:
    print(error.message)
print(list(Path("{small}").iterdir()))
'"""
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"no space left for {small}/out: No space left on device", "[]"]
