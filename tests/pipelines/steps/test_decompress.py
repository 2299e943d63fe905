"""The step `decompress`: from a file in the store to a file in the store."""

from __future__ import annotations

import io
import lzma
import tarfile

import pytest
from pydantic import ValidationError

from builder.errors import ArchiveRefused, FormatRefused
from builder.progress import SILENT
from pipelines.artifact import File
from pipelines.kinds import load
from pipelines.step import Inputs, Outside, Work
from pipelines.steps.decompress import DecompressOptions
from pipelines.store import FileStore

STEP = load("decompress")
MIB = 1 << 20
DATA = bytes(MIB) + b"image" * 1000 + bytes(MIB)


@pytest.fixture
def run(tmp_path):
    """Seal bytes into a store, run the step on them, and return the store and the result."""
    store = FileStore(tmp_path / "objects")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def run(content: bytes, name: str, **options):
        (tmp_path / "source").write_bytes(content)
        source = store.seal_file(tmp_path / "source", name=name)
        outside = Outside(recipe_directory=tmp_path, cache=tmp_path, store=store)
        work = Work(scratch=scratch, outside=outside, pins={}, progress=SILENT)
        try:
            return store, STEP.build(DecompressOptions(**options), Inputs(source=source), work)
        finally:
            assert list(scratch.iterdir()) == []

    return run


def tar_of(**members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_a_compressed_image_comes_out_sparse_and_named(run):
    store, file = run(lzma.compress(DATA), "disk.raw.xz")
    assert isinstance(file, File)
    assert (file.name, file.size) == ("disk.raw", len(DATA))
    assert store.path(file).read_bytes() == DATA
    assert store.path(file).stat().st_blocks * 512 < MIB
    assert file.digest.startswith("blocks:")


def test_one_member_of_a_compressed_archive(run):
    store, file = run(
        tar_of(README=b"read me", disk=DATA), "images.tar.xz", member="disk", max_size="4 MiB", format="xz"
    )
    assert (file.name, store.path(file).read_bytes()) == ("disk", DATA)


@pytest.mark.parametrize(
    ("content", "options", "kind", "message"),
    [
        (
            b"text",
            {},
            FormatRefused,
            "f is a text file, which is not compressed with xz, gz, bz2 or zst, nor a tar or zip archive",
        ),
        (lzma.compress(DATA), {"format": "gz"}, FormatRefused, "f is packed with xz, not gz"),
        (
            lzma.compress(DATA),
            {"max_size": "1 MiB"},
            ArchiveRefused,
            "f expands beyond max_size, 1 MiB (1048576 bytes)",
        ),
        (lzma.compress(DATA)[:-9], {}, ArchiveRefused, "f is cut off: its xz data does not end"),
        (tar_of(a=b"", b=b""), {}, ArchiveRefused, "f holds 'a' and 'b', and `member` does not say which"),
        (tar_of(a=b""), {"member": "c"}, ArchiveRefused, "f holds no member 'c'; it holds 'a'"),
    ],
)
def test_refusals(content, options, kind, message, run):
    with pytest.raises(kind) as caught:
        run(content, "f", **options)
    assert caught.value.message == message


def test_the_default_limit_is_written_as_a_size():
    assert DecompressOptions().max_size == DecompressOptions(max_size="64 GiB").max_size


@pytest.mark.parametrize("options", [{"max_size": "much"}, {"format": "rar"}, {"members": "x"}, {"member": 1}])
def test_the_options_are_closed(options):
    with pytest.raises(ValidationError):
        DecompressOptions(**options)
