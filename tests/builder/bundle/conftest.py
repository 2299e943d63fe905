"""The key pairs and bundles under fixtures/bundles, and a manifest to change things of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder.bundle import keys
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.records import Bundler, ContentKey, Manifest, Mapping, Part

BUNDLES = Path(__file__).parents[3] / "fixtures/bundles"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its private key, and the files that they came from."""

    certificate: Certificate
    key: PrivateKey
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, kw_only=True)
class Made:
    """One bundle of an old tool."""

    directory: Path
    data: bytes
    expected: dict[str, Any]


def pair(who: str) -> Pair:
    certificate, key = (BUNDLES / "keys" / f"{who}.{kind}" for kind in ("crt", "key"))
    return Pair(
        certificate=Certificate.load(certificate.read_bytes(), f"{who}.crt"),
        key=PrivateKey.load(key.read_bytes(), f"{who}.key"),
        certificate_file=certificate,
        key_file=key,
    )


@pytest.fixture(scope="session")
def user() -> Pair:
    return pair("user")


@pytest.fixture(scope="session")
def cloud() -> Pair:
    return pair("cloud")


@pytest.fixture(scope="session")
def other() -> Pair:
    return pair("other")


def bundle(name: str) -> Made:
    expected = json.loads((BUNDLES / name / "expected.json").read_text())
    return Made(directory=BUNDLES / name, data=(BUNDLES / name / expected["manifest"]).read_bytes(), expected=expected)


NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/expected.json"))
assert len(NAMES) == 14


@pytest.fixture(params=NAMES)
def made(request: pytest.FixtureRequest) -> Made:
    """Each of the old tools' bundles."""
    return bundle(request.param)


@pytest.fixture(scope="session")
def content_key() -> ContentKey:
    return ContentKey(key=bytes(range(16)), iv=bytes(range(240, 256)))


@pytest.fixture(scope="session")
def manifest(user: Pair, cloud: Pair, content_key: ContentKey) -> Manifest:
    """A manifest that has everything."""
    return Manifest(
        bundler=Bundler(name="emi", version="0.1.0", release="0"),
        architecture="x86_64",
        mappings=(Mapping(virtual="swap", device="sda3"), Mapping(virtual="ami", device="/dev/sda1")),
        product_codes=("B2", "A1"),
        kernel_id="eki-3f2a1b4c",
        ramdisk_id="eri-9d8c7b6a",
        name="debian-12.img",
        user="000100729354",
        kernel_name="vmlinuz",
        ancestry=("emi-1a2b3c4d",),
        tar_sha1="a" * 40,
        size=10 << 30,
        bundled_size=32,
        for_cloud=keys.encrypt(content_key, cloud.certificate),
        for_user=keys.encrypt(content_key, user.certificate),
        parts=tuple(Part(filename=f"debian-12.img.part.{index:02d}", sha1=f"{index:040x}") for index in range(3)),
    )
