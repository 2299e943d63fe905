"""Parts as plain tools read them: `cat | openssl enc -d | gzip -d | tar`, none of our own code on that side."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess  # noqa: TID251 - the pipe is what people type
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from builder.bundle import stream
from builder.bundle.records import ContentKey, Shape, Stream, WrittenPart
from builder.errors import HostError, InputError, UsageError
from builder.image.raw import RawReader, window
from builder.image.reader import open_image
from builder.image.stream import Extent

MIB = 1 << 20
KEY = ContentKey(key=bytes(range(16)), iv=bytes(range(16, 32)))
READ = (
    "set -o pipefail; cat {parts} | openssl enc -d -aes-128-cbc"
    f" -K {KEY.key.hex()} -iv {KEY.iv.hex()} | gzip -dc > {{tar}}"
)


def sparse(path: Path, size: int, *runs: tuple[int, bytes]) -> Path:
    """Make a sparse file with these bytes at these offsets."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in runs:
            file.seek(offset)
            file.write(data)
    return path


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def bundle(image: Path, place: Path, **shape: object) -> Stream:
    place.mkdir()
    with open_image(image, "raw") as reader:
        return stream.write(reader, place, Shape(**{"name": "demo", **shape}), KEY)


def unbundle(made: Stream, place: Path, target: Path) -> None:
    """Write the tar inside the parts to `target`; hold every claim of `made` against what plain tools say."""
    names = [part.filename for part in made.parts]
    assert sorted(names) == sorted(path.name for path in place.iterdir())
    said = subprocess.run(["sha1sum", *names], cwd=place, capture_output=True, check=True, text=True).stdout
    assert [line.split() for line in said.splitlines()] == [[part.sha1, part.filename] for part in made.parts]
    assert [part.size for part in made.parts] == [(place / name).stat().st_size for name in names]
    command = READ.format(parts=" ".join(names), tar=target)
    done = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # gzip and openssl warn of what they do not like
    assert subprocess.run(["sha1sum", target], capture_output=True, check=True, text=True).stdout.startswith(
        made.tar_sha1
    )


def extracted(archive: Path, name: str = "demo") -> bytes:
    assert subprocess.run(["tar", "-tf", archive], capture_output=True, check=True, text=True).stdout == f"{name}\n"
    return subprocess.run(["tar", "-xOf", archive], capture_output=True, check=True).stdout


SIZES = {
    "one byte": 1,
    "a block of tar": 512,
    "a whole record of tar": 10240 - 3 * 512,
    "one byte more than a record": 10240 - 3 * 512 + 1,
    "a byte short of a chunk": MIB - 1,
    "a chunk": MIB,
    "a chunk and a byte": MIB + 1,
    "chunks": 5 * MIB,
}


@pytest.mark.parametrize("compression", ["fast", "small"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_an_image_of_this_size_comes_out_as_it_went_in(tmp_path, size, compression):
    image = sparse(tmp_path / "image", size, (size // 2, noise(1 + size // 3)[: size - size // 2]))
    made = bundle(image, tmp_path / "parts", part_size=MIB, compression=compression)
    unbundle(made, tmp_path / "parts", tmp_path / "tar")
    assert extracted(tmp_path / "tar") == image.read_bytes()
    assert (tmp_path / "tar").stat().st_size % 10240 == 0
    assert made.size == size


def test_an_image_of_nothing_but_a_hole(tmp_path):
    for number, size in enumerate((7, 3 * MIB, 140 * MIB + 5)):
        image = sparse(tmp_path / f"image{number}", size)
        made = bundle(image, tmp_path / f"parts{number}")
        unbundle(made, tmp_path / f"parts{number}", tmp_path / "tar")
        assert extracted(tmp_path / "tar") == bytes(size)
        assert [part.filename for part in made.parts] == ["demo.part.00"]


def test_an_empty_image_is_refused(tmp_path):
    with pytest.raises(InputError, match="0 bytes"):
        bundle(sparse(tmp_path / "image", 0), tmp_path / "parts")
    assert list((tmp_path / "parts").iterdir()) == []


def test_parts_end_where_the_stream_does_and_none_is_empty(tmp_path):
    image = sparse(tmp_path / "image", 2 * MIB + 17, (5, noise(40_000)), (MIB, noise(300_000, 2)))
    whole = bundle(image, tmp_path / "whole", part_size=1 << 30)
    (only,) = whole.parts
    assert only.size % 16 == 0
    content = (tmp_path / "whole" / only.filename).read_bytes()
    length = only.size
    divisor = next(number for number in range(3, 100) if (length - 1) % number == 0)
    wanted = {  # part size: sizes of the parts
        length: [length],
        length + 1: [length],
        length - 1: [length - 1, 1],
        length // 2: [length // 2] * 2,
        length // 16: [length // 16] * 16,
        (length - 1) // divisor: [(length - 1) // divisor] * divisor + [1],
    }
    for part_size, sizes in wanted.items():
        place = tmp_path / f"parts-{part_size}"
        made = bundle(image, place, part_size=part_size)
        assert [part.size for part in made.parts] == sizes
        assert b"".join((place / part.filename).read_bytes() for part in made.parts) == content
        assert [part.sha1 for part in made.parts] == [
            hashlib.sha1(content[start : start + part_size]).hexdigest() for start in range(0, length, part_size)
        ]
        assert (made.tar_sha1, made.size, made.bundled_size) == (whole.tar_sha1, 2 * MIB + 17, length)
    unbundle(made, place, tmp_path / "tar")
    assert extracted(tmp_path / "tar") == image.read_bytes()


def test_parts_are_named_as_euca2ools_names_them(tmp_path):
    made = bundle(sparse(tmp_path / "image", 3000, (0, noise(3000))), tmp_path / "parts", part_size=29, name="v1.2_a-b")
    names = [part.filename for part in made.parts]
    assert names[:2] + names[98:102] == [f"v1.2_a-b.part.{n}" for n in ("00", "01", "98", "99", "100", "101")]
    assert [part.index for part in made.parts] == list(range(len(names)))


def test_the_same_bytes_make_the_same_parts_however_they_lie(tmp_path, monkeypatch):
    runs = [(3 * MIB - 700, noise(MIB)), (7 * MIB, bytes(MIB)), (9 * MIB + 4096, b"text " * 90_000)]
    size = 12 * MIB
    images = {
        "sparse": sparse(tmp_path / "sparse", size, *runs),
        "written": tmp_path / "written",
        "disk": sparse(tmp_path / "disk", size + 5000, *((offset + 1234, data) for offset, data in runs)),
        "qcow2": tmp_path / "qcow2",
    }
    images["written"].write_bytes(images["sparse"].read_bytes())
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", images["sparse"], images["qcow2"]], check=True
    )
    assert images["sparse"].stat().st_blocks < images["written"].stat().st_blocks

    found = {}
    for compression in ("fast", "small"):
        for name, path in images.items():
            place = tmp_path / f"{name}-{compression}"
            place.mkdir()
            with open_image(path, "qcow2" if name == "qcow2" else "raw") as reader:
                image = window(reader, 1234, size) if name == "disk" else reader
                made = stream.write(image, place, Shape(name="x", part_size=MIB, compression=compression), KEY)
            found[compression, name] = made
    for compression in ("fast", "small"):
        assert len({found[compression, name] for name in images}) == 1
    assert found["fast", "disk"].tar_sha1 == found["small", "disk"].tar_sha1
    assert found["fast", "disk"].parts != found["small", "disk"].parts

    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert bundle(images["sparse"], tmp_path / "one-core", name="x", part_size=MIB) == found["fast", "sparse"]
    finally:
        os.sched_setaffinity(0, cores)
    unbundle(found["fast", "disk"], tmp_path / "disk-fast", tmp_path / "tar")
    assert extracted(tmp_path / "tar", "x") == images["written"].read_bytes()


def test_the_parts_do_not_change_with_a_release_unless_somebody_says_so(tmp_path):
    # If this fails because isal or zlib-ng was raised: pin the new digests, and say in CHANGELOG.md that bundles made
    # with `reproducible: true` change.
    words = b" ".join(noise(2, seed).hex().encode() for seed in range(400))
    image = sparse(tmp_path / "image", 4 * MIB + 99, (77, words * 300), (3 * MIB, noise(1000)))
    found = {
        compression: [part.sha1 for part in bundle(image, tmp_path / compression, compression=compression).parts]
        for compression in ("fast", "small")
    }
    assert found == {
        "fast": ["8e8abf3c885607378f42827bc93f6183077dfd20"],
        "small": ["77ed97db51505232d4f06ed854faf1f96d837cb2"],
    }


class Watched:
    """An image that notes what is read of it, and fails at a byte that it was told of."""

    def __init__(self, path: Path, bad: int = -1) -> None:
        self._reader = RawReader(path)
        self._bad = bad
        self.virtual_size = self._reader.virtual_size
        self.read: list[tuple[int, int]] = []

    def extents(self) -> Iterator[Extent]:
        return self._reader.extents()

    def pread(self, length: int, offset: int) -> bytes:
        self.read.append((offset, length))
        if offset <= self._bad < offset + length:
            raise HostError("the disk is broken")
        return self._reader.pread(length, offset)

    def close(self) -> None:
        self._reader.close()


def test_holes_are_not_read(tmp_path):
    data = [(5 * MIB + 100, b"a" * 3000), (90 * MIB, noise(2 * MIB + 1))]
    reader = Watched(sparse(tmp_path / "image", 400 * MIB + 77, *data))
    stream.write(reader, tmp_path, Shape(name="x"), KEY)
    reader.close()
    wanted = [(number * MIB, MIB) for number in (5, 90, 91, 92)]
    assert sorted(reader.read) == sorted(2 * wanted)  # once for the SHA-1


def test_each_part_is_handed_over_when_it_is_whole_and_before_the_next(tmp_path):
    image = sparse(tmp_path / "image", 5 * MIB, (0, noise(5 * MIB)))
    place = tmp_path / "parts"
    place.mkdir()
    handed: list[WrittenPart] = []

    def done(part: WrittenPart, path: Path) -> None:
        handed.append(part)
        assert sorted(one.name for one in place.iterdir()) == [one.filename for one in handed]
        assert hashlib.sha1(path.read_bytes()).hexdigest() == part.sha1

    with RawReader(image) as reader:
        made = stream.write(reader, place, Shape(name="x", part_size=MIB), KEY, done=done)
    assert len(handed) == 6
    assert made.parts == tuple(handed)


def test_progress_counts_the_images_bytes_holes_included(tmp_path):
    told = {"total": 0, "advance": 0}

    class Told:
        def total(self, count: int) -> None:
            told["total"] += count

        def advance(self, count: int) -> None:
            told["advance"] += count

        def note(self, text: str) -> None:
            raise AssertionError(text)

    size = 700 * MIB + 9
    with RawReader(sparse(tmp_path / "image", size, (300 * MIB, b"x"), (size - 1, b"y"))) as reader:
        stream.write(reader, tmp_path, Shape(name="x"), KEY, progress=Told())
    assert told == {"total": size, "advance": size}


@pytest.mark.parametrize("at", [0, 3 * MIB + 5, 8 * MIB - 1])
def test_an_image_that_cannot_be_read_leaves_no_part(tmp_path, at):
    place = tmp_path / "parts"
    place.mkdir()
    reader = Watched(sparse(tmp_path / "image", 8 * MIB, (0, noise(8 * MIB))), bad=at)
    handed: list[str] = []
    with pytest.raises(HostError, match="the disk is broken"):
        stream.write(
            reader, place, Shape(name="x", part_size=100_000), KEY, done=lambda part, path: handed.append(path.name)
        )
    reader.close()
    assert bool(handed) == (at > 0)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("at", [0, 3 * MIB + 5, 5 * MIB - 1])
def test_an_image_that_changes_meanwhile_is_noticed(tmp_path, at):
    place = tmp_path / "parts"
    place.mkdir()

    times = count()

    class Changing(Watched):
        def pread(self, length: int, offset: int) -> bytes:
            data = super().pread(length, offset)
            if not offset <= at < offset + length or next(times) == 0:
                return data
            return data[: at - offset] + b"#" + data[at - offset + 1 :]

    reader = Changing(sparse(tmp_path / "image", 5 * MIB, (0, bytes(MIB) + b"text" * MIB)))
    with pytest.raises(HostError, match="the image changed while it was bundled"):
        stream.write(reader, place, Shape(name="x", part_size=5000), KEY)
    reader.close()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("error", [HostError("no"), KeyboardInterrupt()], ids=["an error", "Ctrl-C"])
def test_an_end_in_between_leaves_no_part(tmp_path, error):
    place = tmp_path / "parts"
    place.mkdir()

    def done(part: WrittenPart, path: Path) -> None:
        if part.index == 2:
            raise error

    with (
        RawReader(sparse(tmp_path / "image", 8 * MIB, (0, noise(8 * MIB)))) as reader,
        pytest.raises(type(error)),
    ):
        stream.write(reader, place, Shape(name="x", part_size=MIB), KEY, done=done)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".", ".a", "-a", "a b", "a\n", "a\0", "a<b", "ä", "a" * 201])
def test_a_name_that_cannot_be_a_files_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be the name"):
        bundle(sparse(tmp_path / "image", 5), tmp_path / "parts", name=name)
    assert list((tmp_path / "parts").iterdir()) == []


def test_a_part_size_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(UsageError, match="parts of 0 bytes"):
        bundle(sparse(tmp_path / "image", 5), tmp_path / "parts", part_size=0)


def test_a_directory_that_is_not_there_is_said(tmp_path):
    with RawReader(sparse(tmp_path / "image", 5)) as reader, pytest.raises(HostError) as caught:
        stream.write(reader, tmp_path / "none", Shape(name="x"), KEY)
    assert caught.value.message == f"{tmp_path}/none/.x.part.00.new cannot be written: No such file or directory"
