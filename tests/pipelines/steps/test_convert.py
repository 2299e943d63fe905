"""The step `convert` in a real store: what is made, what is taken as it is, what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from builder import proc
from builder.errors import FormatRefused
from builder.image.raw import RawReader
from builder.image.write import content_digest
from pipelines.artifact import File, ImageFile
from pipelines.step import Inputs, Outside, Work
from pipelines.steps.convert import ConvertOptions, ConvertStep
from pipelines.store import FileStore

MIB = 1 << 20
Build = Callable[..., ImageFile]


class Notes:
    """A Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.bytes = self.expected = 0

    def total(self, count: int) -> None:
        self.expected = count

    def advance(self, count: int) -> None:
        self.bytes += count

    def note(self, text: str) -> None:
        self.notes.append(text)


def qemu_img(*arguments: object) -> None:
    proc.run(["qemu-img", *map(str, arguments)], timeout=60)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "objects")


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def build(tmp_path: Path, store: FileStore, notes: Notes) -> Build:
    """Run the step as the runner does, in a scratch that a killed execution may have used."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    outside = Outside(recipe_directory=tmp_path, cache=tmp_path, store=store)
    work = Work(scratch=scratch, outside=outside, pins={}, progress=notes)

    def run(source: File | ImageFile, **options: Any) -> ImageFile:
        chosen = ConvertOptions(**options)
        assert ConvertStep().check(chosen) == ()
        return ConvertStep().build(chosen, Inputs(source=source), work)

    return run


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A sparse raw disk with a partition table."""
    path = tmp_path / "disk.raw"
    with open(path, "wb") as out:
        out.truncate(8 * MIB)
        for at in (MIB, 5 * MIB):
            out.seek(at)
            out.write(os.urandom(300_000))
    proc.run([proc.find("sgdisk"), "-n1:0:0", path])
    return path


def content(path: Path) -> str:
    with RawReader(path) as reader:
        return content_digest(reader)


def sealed(store: FileStore, path: Path, name: str | None = None) -> File:
    """Put a copy of `path` into the store, holes kept."""
    copy = path.with_name(f"{path.name}.copy")
    proc.run(["cp", "--sparse=auto", path, copy])
    return store.seal_file(copy, name=name or path.name)


@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vdi", "vhdx", "raw"])
@pytest.mark.parametrize("to", ["raw", "qcow2"])
def test_a_file_of_any_format(
    image_format: str, to: str, disk: Path, store: FileStore, build: Build, tmp_path: Path
) -> None:
    image = tmp_path / f"image.{image_format}"
    qemu_img("convert", "-f", "raw", "-O", image_format, disk, image)
    made = build(sealed(store, image), format=to, from_format=image_format)
    assert (made.format, made.virtual_size, made.backing) == (to, 8 * MIB, None)
    assert store.contains(made.digest)
    with store.open_image(made) as reader:
        assert content_digest(reader) == content(disk)
    if to == "raw":
        assert made.digest == content(disk)
        assert store.path(made).stat().st_blocks * 512 < 2 * MIB


def test_a_sparse_raw_file_is_the_image_already(disk: Path, store: FileStore, build: Build, notes: Notes) -> None:
    file = sealed(store, disk)
    assert file.digest.startswith("blocks:")
    assert build(file) == ImageFile(digest=file.digest, format="raw", virtual_size=8 * MIB)
    assert notes.notes == ["disk.raw is a raw disk with a GPT partition table already"]


def test_a_raw_file_known_by_its_sha256_gets_a_second_name(disk: Path, store: FileStore, build: Build) -> None:
    file = store.seal_file(disk, name="disk.raw", sha256="sha256:" + "ab" * 32)
    made = build(file)
    assert made.digest == content(store.path(made))
    assert store.path(made).samefile(store.path(file))


def test_a_raw_file_without_holes_becomes_sparse(disk: Path, store: FileStore, build: Build, notes: Notes) -> None:
    dense = disk.with_name("dense.raw")
    dense.write_bytes(disk.read_bytes())
    file = store.seal_file(dense, name="dense.raw")
    made = build(file)
    assert made.digest == content(disk)
    assert store.path(made).stat().st_blocks * 512 < 2 * MIB < store.path(file).stat().st_blocks * 512
    assert notes.bytes == notes.expected == 8 * MIB


def test_a_qcow2_is_taken_as_it_is(disk: Path, store: FileStore, build: Build, tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", disk, image)
    file = sealed(store, image)
    made = build(file, format="qcow2")
    assert store.path(made).samefile(store.path(file))
    assert made.virtual_size == 8 * MIB
    again = build(made, format="qcow2")
    assert again == made


def test_an_image_is_compressed_when_asked(disk: Path, store: FileStore, build: Build) -> None:
    raw = build(sealed(store, disk))
    plain = build(raw, format="qcow2")
    small = build(plain, format="qcow2", compress=True)
    assert len({raw.digest, plain.digest, small.digest}) == 3
    with store.open_image(small) as reader:
        assert content_digest(reader) == raw.digest
    assert build(plain, format="raw") == raw


@pytest.mark.parametrize("to", ["raw", "qcow2"])
def test_an_overlay_chain_is_flattened(to: str, disk: Path, store: FileStore, build: Build, tmp_path: Path) -> None:
    base = build(sealed(store, disk))
    top, flat = tmp_path / "top.qcow2", tmp_path / "flat.raw"
    qemu_img("create", "-f", "qcow2", "-b", store.path(base), "-F", "raw", top)
    proc.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 1100k 90k", "-c", "write -z 5M 1M", str(top)])
    qemu_img("convert", "-f", "qcow2", "-O", "raw", top, flat)
    overlay = store.seal_image(top, format="qcow2", virtual_size=8 * MIB, backing=base)
    made = build(overlay, format=to)
    assert made.backing is None
    with store.open_image(made) as reader:
        assert content_digest(reader) == content(flat)


@pytest.mark.parametrize("to", ["raw", "qcow2"])
def test_a_part_of_a_disk_becomes_a_file_of_its_own(
    to: str, disk: Path, store: FileStore, build: Build, tmp_path: Path
) -> None:
    base = build(sealed(store, disk))
    top, flat = tmp_path / "top.qcow2", tmp_path / "flat.raw"
    qemu_img("create", "-f", "qcow2", "-b", store.path(base), "-F", "raw", top)
    proc.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 1100k 90k", str(top)])
    qemu_img("convert", "-f", "qcow2", "-O", "raw", top, flat)
    overlay = store.seal_image(top, format="qcow2", virtual_size=8 * MIB, backing=base)
    for image, whole in ((base, disk), (overlay, flat), (build(overlay, format="qcow2", compress=True), flat)):
        made = build(image.part(MIB, 3 * MIB), format=to)
        assert (made.virtual_size, made.window, made.backing) == (3 * MIB, None, None)
        with store.open_image(made) as reader:
            assert reader.pread(3 * MIB, 0) == whole.read_bytes()[MIB : 4 * MIB]


def test_what_a_killed_execution_left_is_replaced(disk: Path, store: FileStore, build: Build, tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, image)
    file = sealed(store, image)
    for to in ("raw", "qcow2"):
        (tmp_path / "scratch" / f"image.{to}").write_bytes(b"half" * MIB)
        made = build(file, format=to)
        with store.open_image(made) as reader:
            assert content_digest(reader) == content(disk)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_refusals_name_the_file_as_its_publisher_does(disk: Path, store: FileStore, build: Build) -> None:
    packed = disk.with_name("disk.raw.xz")
    proc.run(["xz", "-k", "-1", disk])
    hostile = disk.with_name("hostile.qcow2")
    qemu_img("create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", hostile, "1M")
    expected = {
        packed: "disk.raw.xz is not a disk image but an xz-compressed file",
        hostile: "hostile.qcow2 is a qcow2 image that is not safe to open: it names '/etc/passwd' as its backing file, "
        "which would be read into it",
    }
    for path, message in expected.items():
        for to in ("raw", "qcow2"):
            with pytest.raises(FormatRefused) as caught:
                build(sealed(store, path), format=to)
            assert caught.value.message == message


def test_a_mismatch_with_the_recipe_is_refused(disk: Path, store: FileStore, build: Build) -> None:
    file = sealed(store, disk)
    with pytest.raises(FormatRefused, match="should be vmdk but is a raw disk with a GPT"):
        build(file, from_format="vmdk")
    with pytest.raises(FormatRefused, match="the image should be qcow2 but is raw"):
        build(build(file), from_format="qcow2")


def test_data_of_no_known_format_is_raw_when_the_recipe_says_so(store: FileStore, build: Build, disk: Path) -> None:
    path = disk.with_name("odd.img")
    path.write_bytes(b"\1\2\3\4" * 1024)
    file = sealed(store, path)
    with pytest.raises(FormatRefused, match=r"odd\.img is not a disk image but data of no known format"):
        build(file)
    assert build(file, from_format="raw").virtual_size == 4096


def test_options_are_closed_and_checked() -> None:
    assert ConvertStep().check(ConvertOptions(compress=True)) == (
        "`compress` needs `format: qcow2`: a raw image is never compressed",
    )
    for wrong in ({"format": "vmdk"}, {"from_format": "iso"}, {"compress": "yes"}, {"formatt": "raw"}):
        with pytest.raises(ValidationError):
            ConvertOptions(**wrong)
