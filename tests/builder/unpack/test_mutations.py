"""Damage at random: the right bytes come out or an error of ours does, never other bytes, a trace or a hang."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile

import pytest
import zstandard

from builder.errors import EmiError
from builder.unpack import unpack

CONTENT = bytes(5000) + random.Random(1).randbytes(3000) + b"text " * 2000 + bytes(3000)


def tar(data):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("d" * 120 + "/disk.raw")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("disk.raw", data)
    return out.getvalue()


PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "tar.gz": tar,
    "zip": zipped,
}


def mutated(data, source):
    """Return `data` with one to three bits flipped, a piece cut out, doubled or overwritten, or its end cut off."""
    out = bytearray(data)
    for _ in range(source.randint(1, 3)):
        at, length = source.randrange(len(out)), source.randint(1, 40)
        match source.randrange(6):
            case 0 | 1:
                out[at] ^= 1 << source.randrange(8)
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length]
            case 4:
                out[at : at + length] = source.choice([b"\0", b"\xff"]) * length
            case _:
                del out[max(at, 1) :]
    return bytes(out)


def survive(kind, seeds, tmp_path):
    packed, refused = PACKERS[kind](CONTENT), 0
    for seed in seeds:
        damaged = mutated(packed, random.Random(seed))
        (tmp_path / "packed").write_bytes(damaged)
        try:
            done = unpack(tmp_path / "packed", tmp_path / "out", name="x", max_size=1 << 20)
        except EmiError:
            refused += 1
            assert not (tmp_path / "out").exists()
        else:
            found = done.path.read_bytes()
            # What was cut off at its very end, or had a whole copy of itself appended, holds the content still.
            assert found == CONTENT or damaged[: len(packed)] == packed, seed
    assert refused > len(seeds) // 2


@pytest.mark.parametrize("kind", PACKERS)
def test_random_damage(kind, tmp_path):
    survive(kind, range(120), tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", PACKERS)
def test_much_random_damage(kind, tmp_path):
    survive(kind, range(120, 5_000), tmp_path)


@pytest.mark.parametrize("kind", ["multi.xz", "bz2"])
def test_random_damage_to_blocks_decoded_in_parallel(kind, packed, tmp_path):
    data, image = packed[kind].read_bytes(), packed.image.read_bytes()
    for seed in range(25):
        damaged = mutated(data, random.Random(seed))
        (tmp_path / "packed").write_bytes(damaged)
        try:
            done = unpack(tmp_path / "packed", tmp_path / "out", name="x")
        except EmiError:
            continue
        assert done.path.read_bytes() == image
