"""Small bundles made here with Python's own library, so that every byte of every stage can be made wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from builder.bundle.records import Bundler, ContentKey, Manifest, Part
from builder.bundle.unbundle import unbundle

KEY = ContentKey(key=bytes(range(16)), iv=bytes(range(16, 32)))
PART = 1 << 16  # bytes
IMAGE = random.Random(11).randbytes(200_000) + bytes(300_000) + random.Random(12).randbytes(12_345)


def header(name: str = "p", size: int = len(IMAGE), **fields: object) -> bytes:
    """A GNU header; `fields` are those of TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = size
    for field_name, value in fields.items():
        setattr(info, field_name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes, block: int = 512) -> bytes:
    return data + bytes(-len(data) % block)


def plain_tar(image: bytes = IMAGE) -> bytes:
    return padded(header(size=len(image)) + padded(image) + bytes(1024), 10240)


def pkcs7(data: bytes) -> bytes:
    count = 16 - len(data) % 16
    return data + bytes([count]) * count


def encrypt(data: bytes, key: ContentKey = KEY) -> bytes:
    context = Cipher(algorithms.AES128(key.key), modes.CBC(key.iv)).encryptor()
    return context.update(data) + context.finalize()


def padding(bundle: Bundle) -> int:
    """How many bytes of padding the last block has, as far as that can be told."""
    stream = b"".join(bundle.files[part.filename] for part in bundle.manifest.parts if part.filename in bundle.files)
    context = Cipher(algorithms.AES128(KEY.key), modes.CBC(KEY.iv)).decryptor()
    return context.update(stream[: len(stream) // 16 * 16])[-1]


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A manifest and the parts that lie there."""

    manifest: Manifest
    files: Mapping[str, bytes]
    key: ContentKey = KEY
    opened: list[int] = field(default_factory=list)

    def open_part(self, index: int) -> io.BytesIO:
        self.opened.append(index)
        name = self.manifest.parts[index].filename
        if name not in self.files:
            raise FileNotFoundError(name)
        return io.BytesIO(self.files[name])

    def saying(self, **words: object) -> Bundle:
        """Return it with other words in the manifest."""
        return replace(self, manifest=replace(self.manifest, **words))

    def holding(self, **files: bytes) -> Bundle:
        """Return it with other bytes in a part's file, `p02=…` being part 2's; None is no file."""
        names = {f"p.part.{name[1:]}": data for name, data in files.items()}
        return replace(self, files={name: data for name, data in {**self.files, **names}.items() if data is not None})

    def listing(self, *indexes: int) -> Bundle:
        """Return it with its parts listed in another order, which bundled_size knows of."""
        parts = tuple(self.manifest.parts[index] for index in indexes)
        size = sum(len(self.files[part.filename]) for part in parts)
        return self.saying(parts=parts, bundled_size=size)

    def unbundle(self, target: Path, **options: object) -> bytes:
        """Unbundle it and return the image."""
        unbundle(self.manifest, self.open_part, self.key, target, **options)
        return target.read_bytes()


def cut(encrypted: bytes, *, tar: bytes, size: int = len(IMAGE), part_size: int = PART) -> Bundle:
    """The bundle of an encrypted stream, whose digests are all right."""
    pieces = [encrypted[at : at + part_size] for at in range(0, len(encrypted), part_size)]
    names = [f"p.part.{index:02d}" for index in range(len(pieces))]
    manifest = Manifest(
        bundler=Bundler(name="tests", version="1", release="0"),
        architecture="x86_64",
        name="p",
        user="000000000001",
        tar_sha1=sha1(tar),
        size=size,
        bundled_size=len(encrypted),
        parts=tuple(Part(filename=name, sha1=sha1(piece)) for name, piece in zip(names, pieces, strict=True)),
    )
    return Bundle(manifest=manifest, files=dict(zip(names, pieces, strict=True)))


def bundled(
    tar: bytes, *, size: int = len(IMAGE), part_size: int = PART, compress: Callable[[bytes], bytes] = gzip.compress
) -> Bundle:
    """The bundle of a tar stream."""
    return cut(encrypt(pkcs7(compress(tar))), tar=tar, size=size, part_size=part_size)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """What a test makes a bundle with, stage by stage."""
    return SimpleNamespace(
        IMAGE=IMAGE,
        KEY=KEY,
        PART=PART,
        bundled=bundled,
        cut=cut,
        encrypt=encrypt,
        header=header,
        padded=padded,
        padding=padding,
        pkcs7=pkcs7,
        plain_tar=plain_tar,
        sha1=sha1,
        with_key=lambda bundle, key: replace(bundle, key=key),
    )
