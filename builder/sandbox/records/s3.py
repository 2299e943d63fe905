"""S3's buckets, objects, multipart uploads and their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class Grant:
    """One grant of an access control list: who has the canonical id, or the group of that URI, has `permission`."""

    permission: str
    grantee: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Acl:
    """An access control list: the owner's account and the grants as they were given."""

    owner: str
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bucket(Record):
    """A bucket, whose name is unique among all accounts. `lifecycle` is the configuration by the model's names.

    `access_block` names those of the four settings of the public access block that are on; a bucket starts with all,
    and with ACLs off (BucketOwnerEnforced), as S3's have since April 2023.
    """

    name: str
    account: str
    region: str
    creation_time: float
    acl: Acl
    ownership: str | None = "BucketOwnerEnforced"
    access_block: tuple[str, ...] | None = (
        "BlockPublicAcls",
        "IgnorePublicAcls",
        "BlockPublicPolicy",
        "RestrictPublicBuckets",
    )
    policy: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    lifecycle: str | None = None  # JSON

    @property
    def key(self) -> str:
        """The bucket's name."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a client says about an object when it makes it, and gets back with it. `headers` are those of HTTP.

    They are kept under their names in S3's model (ContentType, CacheControl, …).
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    storage_class: str = "STANDARD"
    acl: Acl


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Bytes that lie in the file `file` of the store, from `offset`; the file is never written again."""

    file: str
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class S3Object(Record):
    """An object. Its bytes are the extents in order: here, or when it is `scattered` over many files in its Layout.

    `data` is new whenever the bytes are, so that a reader of the old ones can hold on to them. `checksums` are base64
    by algorithm (of the whole, or of the parts' checksums with -N after it, by `checksum_type`); `etag` is without its
    quotes; `parts` is 0 unless it was uploaded in parts. `upload_id` is the multipart upload that made it, so that
    completing again answers the same.
    """

    in_memory: ClassVar[bool] = False

    bucket: str
    name: str
    data: str
    size: int
    etag: str
    last_modified: float
    traits: Traits
    extents: tuple[Stored, ...] = ()
    parts: int = 0
    scattered: bool = False
    checksums: Mapping[str, str] = field(default_factory=dict)
    checksum_type: str = "FULL_OBJECT"
    upload_id: str | None = None

    @property
    def key(self) -> str:
        """The bucket and the object's key: in the order of their UTF-8 bytes, as S3 lists."""
        return f"{self.bucket}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One part of an object that was uploaded in parts."""

    number: int
    size: int
    checksums: Mapping[str, str] = field(default_factory=dict)
    extents: tuple[Stored, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout(Record):
    """The parts of an object that was uploaded in parts, beside it: a listing need not read them."""

    in_memory: ClassVar[bool] = False

    data: str
    pieces: tuple[Piece, ...]

    @property
    def key(self) -> str:
        """The object's `data`."""
        return self.data


@dataclass(frozen=True, kw_only=True)
class Upload(Record):
    """A multipart upload that is neither completed nor aborted."""

    upload_id: str
    bucket: str
    name: str
    initiated: float
    initiator: str  # ARN
    account: str
    traits: Traits
    checksum_algorithm: str | None = None
    checksum_type: str | None = None

    @property
    def key(self) -> str:
        """The upload's id."""
        return self.upload_id


@dataclass(frozen=True, kw_only=True)
class Part(Record):
    """A part that was uploaded: the last one of its number."""

    in_memory: ClassVar[bool] = False

    upload_id: str
    number: int
    size: int
    etag: str
    last_modified: float
    extents: tuple[Stored, ...]
    checksums: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The upload and the number, in the order of numbers."""
        return f"{self.upload_id}/{self.number:05d}"
