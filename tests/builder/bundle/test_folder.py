"""Parts that lie in a directory: which belong there, which do not, and what is no file."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from builder.bundle.folder import parts_in, surplus
from builder.bundle.joined import Parts
from builder.errors import BundleRefused, HostError


@pytest.fixture
def place(tmp_path, manifest):
    for part in manifest.parts:
        (tmp_path / part.filename).write_bytes(part.filename.encode())
    return tmp_path


def test_each_part_is_opened_by_its_index(place, manifest):
    open_part = parts_in(place, manifest)
    for index in (2, 0, 1):
        with open_part(index) as file:
            assert file.read() == f"debian-12.img.part.0{index}".encode()


def test_parts_of_another_bundle_of_the_same_name(place, manifest):
    for name in ("debian-12.img.part.03", "debian-12.img.part.100"):
        (place / name).touch()
    for name in ("debian-12.img.part.03.new", "debian-12.img.part.", "other.part.03", "debian-12.img.manifest.xml"):
        (place / name).touch()
    assert surplus(place, manifest) == ["debian-12.img.part.03", "debian-12.img.part.100"]
    with pytest.raises(BundleRefused) as refused:
        parts_in(place, manifest)
    assert refused.value.message == (
        f"{place}/debian-12.img.part.03 and 1 more is named like a part of debian-12.img, "
        "and the manifest does not list it"
    )
    with parts_in(place, manifest, alone=False)(0) as file:
        assert file.read() == b"debian-12.img.part.00"


def test_a_directory_that_is_not_there_has_no_parts(tmp_path, manifest):
    assert surplus(tmp_path / "none", manifest) == []


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_file_is_not_waited_for(place, manifest, kind):
    path = place / manifest.parts[1].filename
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(HostError) as error:
        Parts(manifest, parts_in(place, manifest)).look(1)
    cause = "it is no regular file" if kind == "pipe" else "Is a directory"
    assert error.value.message.startswith("debian-12.img.part.01 (index 1 of 3 parts) cannot be read: ")
    assert error.value.message.endswith(("it is no regular file", cause))


def test_a_name_without_a_number_has_no_others_like_it(tmp_path, manifest):
    renamed = replace(manifest, parts=tuple(replace(part, filename=f"p{at}") for at, part in enumerate(manifest.parts)))
    (tmp_path / "p9").touch()
    assert surplus(tmp_path, renamed) == []
