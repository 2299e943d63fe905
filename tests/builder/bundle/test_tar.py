"""The tar's bytes beside those of Python's tarfile, mended as the facts about euca2ools say, and GNU tar's reading."""

from __future__ import annotations

import hashlib
import io
import subprocess  # noqa: TID251 - GNU tar is asked
import tarfile

import pytest

from builder.bundle import tar

GIB = 1 << 30
LONG = "n" * 160


def mended(block: bytes) -> bytes:
    """Return a header of Python 3's tarfile as Python 2's wrote it: with the numbers of a device."""
    block = block[:329] + b"0000000\0" * 2 + block[345:]
    checksum = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + f"{checksum:06o}\0 ".encode() + block[156:]


def reference(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    blocks = member.tobuf(tarfile.GNU_FORMAT)
    if len(blocks) == 512:
        return mended(blocks)
    return mended(blocks[:512]) + blocks[512:-512] + mended(blocks[-512:])


@pytest.mark.parametrize("size", [1, 511, 8 * GIB - 1, 8 * GIB, 8 * GIB + 1, 1 << 50])
@pytest.mark.parametrize("name", ["disk", "a.b_c-d", "n" * 100, "n" * 101, LONG])
def test_the_header_is_that_of_euca2ools(name, size):
    assert tar.header(name, size) == reference(name, size)


def test_the_header_does_not_change():
    # If Python's tarfile ever changes with ours: this is what every earlier bundle has.
    found = hashlib.sha1(tar.header("precise.img", 4161 * 10**6)).hexdigest()
    assert found == "6aa5f0fb2a2cd3948ceec3c7fcf5ba93727ca7c0"
    found = hashlib.sha1(tar.header("precise.img", 9 * GIB)).hexdigest()
    assert found == "0e311bc0c1978354c9cb5a020defdcd9f4f476d9"


@pytest.mark.parametrize("name", ["disk", LONG])
@pytest.mark.parametrize("size", [1, 512, 8703, 8704, 8705, 20_000])
def test_an_archive_is_as_long_as_tarfiles_and_gnu_tar_takes_it(name, size):
    head = tar.header(name, size)
    archive = head + b"x" * size + tar.trailer(len(head) + size)
    peer = io.BytesIO()
    with tarfile.open(fileobj=peer, mode="w", format=tarfile.GNU_FORMAT) as opened:
        member = tarfile.TarInfo(name)
        member.size = size
        opened.addfile(member, io.BytesIO(b"x" * size))
    assert archive[len(head) :] == peer.getvalue()[len(head) :]
    listed = subprocess.run(["tar", "--numeric-owner", "-tvf", "-"], input=archive, capture_output=True, check=True)
    assert (listed.stdout.split()[:3], listed.stdout.split()[-1]) == (
        [b"-rw-r--r--", b"0/0", str(size).encode()],
        name.encode(),
    )
    assert listed.stderr == b""


def test_gnu_tar_reads_a_size_above_8_gib():
    head = tar.header("large", 9 * GIB + 5)
    listed = subprocess.run(["tar", "-tvf", "-"], input=head, capture_output=True, check=False)
    assert b" 9663676421 " in listed.stdout
