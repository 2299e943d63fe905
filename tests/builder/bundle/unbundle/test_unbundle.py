"""What unbundling promises: the same bytes, holes for zeros, one name, and nothing at all when it fails."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import subprocess  # noqa: TID251 - the programs that classic tools made bundles with
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest

from builder.bundle.unbundle import unbundle
from builder.errors import BundleRefused, BusyError, HostError

PAGE = 4096
MIB = 1 << 20


def test_the_image_comes_out_with_holes_and_nothing_beside_it(make, tmp_path):
    target = tmp_path / "disk.raw"
    assert make.bundled(make.plain_tar()).unbundle(target) == make.IMAGE
    assert target.stat().st_blocks * 512 <= 200_000 + 12_345 + 4 * PAGE
    assert list(tmp_path.iterdir()) == [target]


def test_what_had_the_name_is_replaced(make, tmp_path):
    target = tmp_path / "disk.raw"
    target.write_bytes(b"older and longer" * MIB)
    assert make.bundled(make.plain_tar()).unbundle(target) == make.IMAGE


@pytest.mark.parametrize("size", [1, 511, 512, 513, PAGE, 10240, (2 << 20) - 512, 2 << 20])
def test_sizes_around_every_block(make, tmp_path, size):
    image = random.Random(size).randbytes(size)
    assert make.bundled(make.plain_tar(image), size=size).unbundle(tmp_path / "disk") == image


@pytest.mark.parametrize("part_size", [1, 15, 16, 17, 1000])
def test_parts_of_any_length(make, tmp_path, part_size):
    image = b"x" * 3000
    bundle = make.bundled(make.plain_tar(image), size=3000, part_size=part_size)
    assert bundle.unbundle(tmp_path / "disk") == image


def test_an_empty_last_part(make, tmp_path):
    bundle = make.bundled(make.plain_tar())
    count = len(bundle.manifest.parts)
    more = make.cut(b"", tar=b"").manifest.parts or (
        type(bundle.manifest.parts[0])(filename="p.part.99", sha1=make.sha1(b"")),
    )
    bundle = bundle.saying(parts=bundle.manifest.parts + more).holding(p99=b"")
    assert len(bundle.manifest.parts) == count + 1
    assert bundle.unbundle(tmp_path / "disk") == make.IMAGE


@pytest.mark.parametrize("members", [2, 50])
def test_gzip_members_one_after_the_other(make, tmp_path, members):
    def compress(data: bytes) -> bytes:
        step = -(-len(data) // members)
        return b"".join(gzip.compress(data[at : at + step], mtime=at) for at in range(0, len(data), step))

    assert make.bundled(make.plain_tar(), compress=compress).unbundle(tmp_path / "disk") == make.IMAGE


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a" * 99, "a" * 300, "n\N{LATIN SMALL LETTER U WITH DIAERESIS}", "-"]
)
def test_the_members_name_is_nothing_to_us(make, tmp_path, name):
    tar = make.header(name) + make.padded(make.IMAGE) + bytes(1024)
    target = tmp_path / "in" / "disk"
    target.parent.mkdir()
    assert make.bundled(tar).unbundle(target) == make.IMAGE
    assert list(tmp_path.rglob("*")) == [target.parent, target]


FORMATS = {
    "gnu": ("--format=gnu",),
    "v7": ("--format=v7",),
    "ustar": ("--format=ustar",),
    "pax": ("--format=posix",),
    "ec2-ami-tools": ("-h", "-S", "--owner", "0", "--group", "0"),
    "old GNU sparse": ("--format=gnu", "-S"),
    "pax sparse 0.0": ("--format=posix", "-S", "--sparse-version=0.0"),
    "pax sparse 0.1": ("--format=posix", "-S", "--sparse-version=0.1"),
    "pax sparse 1.0": ("--format=posix", "-S", "--sparse-version=1.0"),
    "large records": ("--format=gnu", "-b", "1024"),
}


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse file of 150 ranges, which the old GNU map needs seven more blocks for, and a hole at its end."""
    path = tmp_path_factory.mktemp("sparse") / "sparse.img"
    numbers = random.Random(3)
    with open(path, "wb") as file:
        for index in range(150):
            file.seek(index * 5 * PAGE)
            file.write(numbers.randbytes(PAGE))
        file.truncate(200 * 5 * PAGE + 123)
        os.fsync(file.fileno())  # only then the blocks of its list of extents count
    return path


@pytest.mark.parametrize("words", FORMATS.values(), ids=FORMATS)
def test_tars_that_gnu_tar_makes(make, sparse, tmp_path, words):
    tar = subprocess.run(["tar", "-c", *words, sparse.name], cwd=sparse.parent, capture_output=True, check=True).stdout
    assert ("-S" in words) == (len(tar) < 2 * MIB)
    target = tmp_path / "disk"
    assert make.bundled(tar, size=sparse.stat().st_size).unbundle(target) == sparse.read_bytes()
    assert target.stat().st_blocks <= sparse.stat().st_blocks


@pytest.mark.parametrize(("data_at", "size"), [(0, 9 << 30), (9 << 30, (9 << 30) + 5)])
def test_more_than_eight_gib(make, tmp_path, data_at, size):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(size)
        file.seek(data_at)
        file.write(b"data!")
    words = ["tar", "-c", "-S", "--format=gnu", "large"]
    tar = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True).stdout
    target = tmp_path / "disk"
    bundle = make.bundled(tar, size=size)
    unbundle(bundle.manifest, bundle.open_part, bundle.key, target)
    assert target.stat().st_size == size
    assert target.stat().st_blocks <= 16
    with open(target, "rb") as file:
        file.seek(data_at)
        assert file.read(5) == b"data!"


def failing(bundle, target: Path) -> str:
    with pytest.raises(BundleRefused) as refused:
        bundle.unbundle(target)
    return refused.value.message


def test_a_failure_leaves_what_was_there(make, tmp_path):
    target = tmp_path / "disk.raw"
    target.write_bytes(b"older")
    failing(make.bundled(make.plain_tar()).saying(tar_sha1="0" * 40), target)
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]


def test_an_interrupt_leaves_nothing(make, tmp_path):
    bundle = make.bundled(make.plain_tar())

    def interrupted(index: int):
        if bundle.opened.count(2):
            raise KeyboardInterrupt
        return bundle.open_part(index)

    with pytest.raises(KeyboardInterrupt):
        unbundle(bundle.manifest, interrupted, bundle.key, tmp_path / "disk")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_attempt_is_begun_anew_and_never_has_the_name(make, tmp_path):
    bundle = make.bundled(make.plain_tar())
    target = tmp_path / "disk"
    script = f"""
import io, os, pickle, sys
from pathlib import Path
from builder.bundle.unbundle import unbundle
manifest, files, key = pickle.load(sys.stdin.buffer)
opened = []
def open_part(index):
    if index == 2 and index in opened:
        os.kill(os.getpid(), 9)
    opened.append(index)
    return io.BytesIO(files[manifest.parts[index].filename])
unbundle(manifest, open_part, key, Path({str(target)!r}))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    told = pickle.dumps((bundle.manifest, bundle.files, bundle.key))
    done = subprocess.run([sys.executable, "-c", script], env=environment, input=told, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".disk.unbundling"]
    assert bundle.unbundle(target) == make.IMAGE
    assert list(tmp_path.iterdir()) == [target]


def test_two_at_once_do_not_mix(make, tmp_path):
    bundle = make.bundled(make.plain_tar())
    told = []

    def meanwhile(index: int):
        if index == 3 and bundle.opened.count(3) == 1:
            with pytest.raises(BusyError) as busy:
                bundle.unbundle(tmp_path / "disk")
            told.append(busy.value.message)
        return bundle.open_part(index)

    unbundle(bundle.manifest, meanwhile, bundle.key, tmp_path / "disk")
    assert told == [f"another process is unbundling to {tmp_path}/disk"]
    assert (tmp_path / "disk").read_bytes() == make.IMAGE


def test_a_link_in_the_way_is_not_followed(make, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".disk.unbundling").symlink_to(victim)
    with pytest.raises(HostError, match="cannot be made"):
        make.bundled(make.plain_tar()).unbundle(tmp_path / "disk")
    assert victim.read_bytes() == b"precious"


def test_a_directory_in_the_way_is_said(make, tmp_path):
    (tmp_path / "disk").mkdir()
    with pytest.raises(HostError) as error:
        make.bundled(make.plain_tar()).unbundle(tmp_path / "disk")
    assert error.value.message == f"{tmp_path}/disk cannot be written: Is a directory"
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_no_directory_is_said(make, tmp_path):
    with pytest.raises(HostError, match="No such file or directory"):
        make.bundled(make.plain_tar()).unbundle(tmp_path / "none" / "disk")


def test_a_limit_on_the_size_of_files_is_said(tmp_path):
    script = f"""
import resource
from pathlib import Path
from builder.bundle.sparse_image import SparseImage
from builder.errors import HostError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with SparseImage(Path("{tmp_path}/disk"), 2 << 20):
        pass
except HostError as error:
    print(error.message)
"""
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == f"{tmp_path}/.disk.unbundling cannot be made with 2097152 bytes: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_cannot_be_read_is_the_machines_fault(make, tmp_path):
    bundle = make.bundled(make.plain_tar())

    def denied(index: int):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(HostError) as error:
        unbundle(bundle.manifest, denied, bundle.key, tmp_path / "disk")
    count = len(bundle.manifest.parts)
    assert error.value.message == f"p.part.00 (index 0 of {count} parts) cannot be read: Permission denied"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    script = f"""
        mkdir {tmp_path}/small && mount -t tmpfs -o size=1m tmpfs {tmp_path}/small && exec {sys.executable} -c '
from pathlib import Path
from builder.bundle.sparse_image import SparseImage
from builder.errors import DiskFull
place = Path("{tmp_path}/small")
try:
    with SparseImage(place / "disk", 2 << 20) as image:
        image.write(0, b"x" * (2 << 20), 0, 2 << 20)
except DiskFull as error:
    print(error.message)
print(list(place.iterdir()))
'"""
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"no space left for {tmp_path}/small/.disk.unbundling: No space left on device",
        "[]",
    ]


def test_progress_tells_the_bytes_of_the_parts(make, tmp_path):
    seen = {"total": 0, "done": 0}

    class Seen:
        def total(self, count: int) -> None:
            seen["total"] = count

        def advance(self, count: int) -> None:
            seen["done"] += count

        def note(self, text: str) -> None:
            raise AssertionError(text)

    bundle = make.bundled(make.plain_tar())
    bundle.unbundle(tmp_path / "disk", progress=Seen())
    assert seen == {"total": bundle.manifest.bundled_size, "done": bundle.manifest.bundled_size}


def test_memory_does_not_grow_with_the_image(make, tmp_path):
    image = bytes(64 * MIB)
    bundle = make.bundled(make.plain_tar(image), size=len(image), compress=lambda tar: gzip.compress(tar, 1))
    del image
    tracemalloc.start()
    unbundle(bundle.manifest, bundle.open_part, bundle.key, tmp_path / "disk")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * MIB
    assert (tmp_path / "disk").stat().st_blocks == 0


@pytest.mark.parametrize("part_size", [7, 1 << 20])
def test_everything_that_a_gzip_header_may_hold(make, tmp_path, part_size):
    def compress(data: bytes) -> bytes:
        plain = gzip.compress(data)
        flags = 0x02 | 0x04 | 0x08 | 0x10  # RFC 1952: FHCRC, FEXTRA, FNAME, FCOMMENT
        header = plain[:3] + bytes([flags]) + plain[4:10]
        header += (300).to_bytes(2, "little") + b"e" * 300 + b"n" * 400 + b"\0" + b"c" * 500 + b"\0"
        return header + (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") + plain[10:]

    image = b"x" * 3000
    bundle = make.bundled(make.plain_tar(image), size=3000, part_size=part_size, compress=compress)
    assert bundle.unbundle(tmp_path / "disk") == image


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_altered_the_image_is_right_or_refused(make, sparse, tmp_path, seed):
    """Bytes of a sparse tar's headers and maps, and of its gzip stream, altered at random; digests made to fit."""
    numbers = random.Random(seed)
    words = [*FORMATS.values()][5:9][seed % 4]
    original = subprocess.run(["tar", "-c", *words, sparse.name], cwd=sparse.parent, capture_output=True, check=True)
    for _ in range(12):
        tar = bytearray(original.stdout)
        gz = bytearray(gzip.compress(tar, 1))
        if numbers.random() < 0.7:
            for _ in range(numbers.randint(1, 3)):
                tar[numbers.randrange(5000)] = numbers.choice((0, 1, 0x30, 0x37, 0x80, 0xFF, numbers.randrange(256)))
            tar[148:156] = b"%06o\0 " % (sum(tar[:148]) + 8 * 32 + sum(tar[156:512]))
            gz = bytearray(gzip.compress(tar, 1))
        else:
            gz[numbers.randrange(len(gz))] ^= 1 << numbers.randrange(8)
        bundle = make.cut(make.encrypt(make.pkcs7(bytes(gz))), tar=bytes(tar), size=sparse.stat().st_size)
        try:
            image = bundle.unbundle(tmp_path / "disk")
        except BundleRefused:
            assert list(tmp_path.iterdir()) == []
        else:
            assert len(image) == sparse.stat().st_size
            (tmp_path / "disk").unlink()
