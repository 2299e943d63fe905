"""The step `expect`: hands on what is as expected, and says all that is not at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import FormatRefused, InputError
from builder.progress import SILENT
from pipelines.artifact import File, ImageFile
from pipelines.step import Inputs, Outside, Work
from pipelines.steps.expect import ExpectOptions, ExpectStep
from pipelines.store import FileStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FileStore:
    return FileStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def disk(store, tiny_disk, tmp_path_factory) -> File:
    """The tiny disk in the store: GPT, one ext4 without a label, 256 MiB."""
    copy = tmp_path_factory.mktemp("scratch") / "tiny.raw"
    copy.write_bytes(tiny_disk.read_bytes())
    return store.seal_file(copy, name="tiny.raw")


def expect(store: FileStore, source: File | ImageFile, tmp_path: Path, **options) -> ImageFile:
    outside = Outside(recipe_directory=tmp_path, cache=tmp_path, store=store)
    work = Work(scratch=tmp_path, outside=outside, pins={}, progress=SILENT)
    return ExpectStep().build(ExpectOptions(**options), Inputs(source=source), work)


@pytest.mark.parametrize("options", [{}, {"table": "gpt"}, {"max_size": 256 << 20}, {"labels": ()}])
def test_what_is_as_expected_is_handed_on(store, disk, tmp_path, options) -> None:
    image = expect(store, disk, tmp_path, **options)
    assert image == ImageFile(digest=disk.digest, format="raw", virtual_size=256 << 20)
    assert expect(store, image, tmp_path, **options) is image


SURPRISES = [
    ({"table": "mbr"}, "partition table mbr; it has gpt"),
    ({"table": "none"}, "partition table none; it has gpt"),
    ({"labels": ("rootfs",)}, "a filesystem labelled rootfs; its labels: none"),
    ({"boots": ("bios",)}, "a partition of type BIOS boot to boot by bios"),
    ({"boots": ("uefi",)}, "a partition of type EFI system to boot by uefi"),
    ({"max_size": 1 << 20}, "a disk of at most 1 MiB; it is 256 MiB"),
]


@pytest.mark.parametrize(("options", "said"), SURPRISES)
def test_a_surprise_is_said_with_what_was_found(store, disk, tmp_path, options, said) -> None:
    with pytest.raises(InputError) as caught:
        expect(store, disk, tmp_path, **options)
    assert caught.value.message == f"the image is not as expected:\n  expected {said}"


def test_all_surprises_are_said_at_once(store, disk, tmp_path) -> None:
    with pytest.raises(InputError) as caught:
        expect(store, disk, tmp_path, table="mbr", labels=("a", "b"), boots=("bios", "uefi"), max_size=1)
    assert caught.value.message.count("\n  expected ") == 6


def test_what_is_no_image_is_refused_by_name(store, tmp_path) -> None:
    page = tmp_path / "page"
    page.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    with pytest.raises(FormatRefused, match=r"^disk\.raw is not a disk image"):
        expect(store, store.seal_file(page, name="disk.raw"), tmp_path)
