"""The bundles under fixtures/ are what they say: openssl, gzip and tar open them, and their maker makes them again."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess  # noqa: TID251 - foreign programs open the bundles, with none of our code
import sys
from pathlib import Path

import pytest

BUNDLES = Path(__file__).parents[3] / "fixtures/bundles"
MIB = 1 << 20


def run(*command: object, data: bytes = b"") -> bytes:
    return subprocess.run([*map(str, command)], input=data, stdout=subprocess.PIPE, check=True).stdout


def field(text: str, name: str) -> str:
    found = re.search(rf"<{name}[^>]*>\s*([^<]+?)\s*</{name}>", text)
    assert found
    return found[1]


def test_foreign_programs_find_the_image_that_is_expected(made, tmp_path) -> None:
    text = made.data.decode()
    who, fields = ("user", "user") if "user" in made.expected["opened_by"] else ("cloud", "ec2")
    key, vector = (
        run("openssl", "pkeyutl", "-decrypt", "-inkey", BUNDLES / f"keys/{who}.key", data=bytes.fromhex(half)).decode()
        for half in (field(text, f"{fields}_encrypted_key"), field(text, f"{fields}_encrypted_iv"))
    )
    pieces = [(made.directory / name).read_bytes() for name in made.expected["parts"]]
    digests = re.findall(r"<digest[^>]*>([0-9a-f]{40})</digest>", text)
    assert sorted(digests) == sorted([hashlib.sha1(piece).hexdigest() for piece in pieces] + [field(text, "digest")])
    packed = run("openssl", "enc", "-d", "-aes-128-cbc", "-K", key, "-iv", vector, data=b"".join(pieces))
    tar = run("gzip", "-dc", data=packed)
    assert hashlib.sha1(tar).hexdigest() == field(text, "digest")
    run("tar", "-x", "-C", tmp_path, data=tar)
    (image,) = tmp_path.iterdir()
    assert image.name == made.expected["says"]["name"]
    assert image.stat().st_size == made.expected["image"]["size"]
    with open(image, "rb") as file:
        at = 0
        for data in made.expected["image"]["data"]:
            gap = data["offset"] - at
            if gap < MIB:  # in the large one holes are gigabytes, and tar made them
                assert file.read(gap) == bytes(gap)
            file.seek(data["offset"])
            assert hashlib.sha256(file.read(data["length"])).hexdigest() == data["sha256"]
            at = data["offset"] + data["length"]
        assert file.read(MIB).strip(b"\0") == b""


def described(directory: Path) -> dict[str, object]:
    return {
        str(path.relative_to(directory)): json.loads(path.read_text()) for path in directory.glob("*/expected.json")
    }


def names(directory: Path) -> set[str]:
    found = {str(path.relative_to(directory)) for path in directory.glob("*/*")}
    return {name for name in found if not name.startswith(("keys/", "__pycache__"))}


def manifests(directory: Path) -> dict[str, str]:
    """Return the manifests without what depends on the compressor's version."""
    found = {str(path.relative_to(directory)): path.read_text() for path in directory.glob("*/*.manifest.xml")}
    varying = r"<(digest|bundled_size|signature)[^>]*>[^<]*<"
    return {name: re.sub(varying, r"<\1<", text) for name, text in found.items()}


def test_they_are_what_their_maker_makes(tmp_path) -> None:
    run(sys.executable, BUNDLES / "make.py", tmp_path)
    assert len(described(BUNDLES)) == 14
    assert described(tmp_path) == described(BUNDLES)
    assert names(tmp_path) == names(BUNDLES)
    assert manifests(tmp_path) == manifests(BUNDLES)


def test_they_are_small_and_the_readme_knows_each() -> None:
    readme = (BUNDLES / "README.md").read_text()
    for path in BUNDLES.rglob("*"):
        assert path.is_dir() or path.stat().st_size < 64 << 10
    for path in BUNDLES.glob("*/expected.json"):
        assert f"`{path.parent.name}`" in readme


@pytest.mark.parametrize("who", ["user", "cloud", "other"])
def test_certificates_and_keys_belong_together(who) -> None:
    public = run("openssl", "x509", "-pubkey", "-noout", "-in", BUNDLES / f"keys/{who}.crt")
    assert public == run("openssl", "pkey", "-pubout", "-in", BUNDLES / f"keys/{who}.key")
