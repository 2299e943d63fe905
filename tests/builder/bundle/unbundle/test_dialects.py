"""The bundles of every old tool (fixtures/bundles), read from their manifests to their last byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from builder.bundle import keys, manifest
from builder.bundle.folder import parts_in
from builder.bundle.unbundle import unbundle


def holds(path: Path, image: dict) -> bool:
    """Say whether the file has the image's size and data, zeros between, and takes space for its data only."""
    at = 0
    with open(path, "rb") as file:
        for data in image["data"]:
            before = min(data["offset"] - at, 1 << 20)
            file.seek(data["offset"] - before)
            if file.read(before).strip(b"\0"):
                return False
            if hashlib.sha256(file.read(data["length"])).hexdigest() != data["sha256"]:
                return False
            at = file.tell()
        if file.read(1 << 20).strip(b"\0"):
            return False
    stored = path.stat()
    return stored.st_size == image["size"] and stored.st_blocks * 512 <= sum(
        data["length"] + 8192 for data in image["data"]
    )


@pytest.mark.parametrize("who", ["user", "cloud"])
def test_the_image_comes_out(made, who, request, tmp_path):
    if who not in made.expected["opened_by"]:
        who = made.expected["opened_by"][0]
    says = manifest.read(made.data, where="fixture")
    key = keys.decrypt(says, request.getfixturevalue(who).key)
    unbundle(says, parts_in(made.directory, says), key, tmp_path / "disk")
    assert holds(tmp_path / "disk", made.expected["image"])
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]
