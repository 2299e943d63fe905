"""What a bundle is made of, as values: the manifest's own words, and the key that its parts are encrypted with."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Literal

from builder.bundle.limits import PART_SIZE

ImageType = Literal["machine", "kernel", "ramdisk"]
_ID = re.compile(r"[ae]([kr])i-[0-9A-Fa-f]{8,17}")


def is_id_of(role: str, text: str) -> bool:
    """Say whether the text is the id of a registered `kernel` (aki-, eki-) or `ramdisk` (ari-, eri-)."""
    found = _ID.fullmatch(text)
    return found is not None and found[1] == role[0]


@dataclass(frozen=True, kw_only=True)
class ContentKey:
    """The AES-128 key and the CBC initialisation vector of one bundle, 16 bytes each."""

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> ContentKey:
        """Return a key and a vector that nobody can guess."""
        return cls(key=secrets.token_bytes(16), iv=secrets.token_bytes(16))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part: its file's name, and the SHA-1 (lowercase hex) of its encrypted bytes."""

    filename: str
    sha1: str


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """One entry of the block device mapping: `ami`, `root`, `swap` or `ephemeralN`, and the device's name."""

    virtual: str
    device: str


@dataclass(frozen=True, kw_only=True)
class Bundler:
    """Which program made the bundle."""

    name: str
    version: str
    release: str


@dataclass(frozen=True, kw_only=True)
class Encrypted:
    """A ContentKey as the manifest holds it: each half the hex of an RSA PKCS#1 v1.5 ciphertext, or "" for none."""

    key: str = ""
    iv: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A bundle manifest, of whatever dialect it was read from; what a dialect has no word for has its default.

    `tar_sha1` is of the tar stream before compression, `size` the image's bytes, `bundled_size` the sum of the parts'.
    `user` is the account id as it stands there. `signature` is "" for none, or what stands there (`UNSIGNED`).
    """

    version: str = "2007-10-10"
    bundler: Bundler
    architecture: str
    mappings: tuple[Mapping, ...] = ()
    product_codes: tuple[str, ...] = ()
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    name: str
    user: str
    type: ImageType = "machine"
    kernel_name: str | None = None
    ancestry: tuple[str, ...] = ()
    tar_sha1: str
    size: int
    bundled_size: int
    for_cloud: Encrypted = Encrypted()  # ec2_encrypted_key, ec2_encrypted_iv
    for_user: Encrypted = Encrypted()  # user_encrypted_key, user_encrypted_iv
    parts: tuple[Part, ...]
    signature: str = ""


@dataclass(frozen=True, kw_only=True)
class WrittenPart:
    """One part that was made: where in the bundle it comes, its name, its bytes' SHA-1 (hex) and number."""

    index: int
    filename: str
    sha1: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What came of bundling one image: everything about it that a manifest has to say."""

    parts: tuple[WrittenPart, ...]
    tar_sha1: str
    size: int

    @property
    def bundled_size(self) -> int:
        """The sum of the parts' sizes, in bytes."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a bundle's stream is made; with the image and the key it decides every byte of the parts.

    `compression` `fast` is for local links, `small` for slow ones. `name` is the tar member's and the parts' prefix.
    """

    name: str
    part_size: int = PART_SIZE
    compression: Literal["fast", "small"] = "fast"
