"""What S3 says of objects, parts and uploads; and what emi writes beside an object so that it knows it again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

# Names of user metadata (x-amz-meta-…), written in the same call as the bytes and so as true as they are.
DIGEST = "emi-digest"  # `sha256:HEX` or `md5:HEX` of the whole object
PART_SIZE = "emi-part-size"  # bytes of every part but the last
ACL = "emi-acl"  # the canned ACL that was set with the bytes

_MD5 = re.compile(r"[0-9a-f]{32}")
_COMPOSITE = re.compile(r"[0-9a-f]{32}-(\d+)")


@dataclass(frozen=True, kw_only=True)
class ObjectRecord:
    """An object as the server describes it: `size` in bytes, `etag` without quotes, empty when none was given."""

    key: str
    size: int
    etag: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    opaque: bool = False  # encrypted with a key of KMS or of ours: the ETag is no MD5 then
    modified: datetime | None = field(default=None, compare=False)

    @property
    def digest(self) -> str:
        """The digest that was written beside the object, or nothing."""
        return self.metadata.get(DIGEST, "")

    @property
    def part_size(self) -> int:
        """The part size in bytes that was written beside the object, or 0."""
        written = self.metadata.get(PART_SIZE, "")
        return int(written) if written.isdecimal() else 0

    @property
    def md5(self) -> str:
        """The MD5 (hex) of the object where its ETag is one, else nothing."""
        return self.etag if _MD5.fullmatch(self.etag) and not self.opaque else ""

    @property
    def parts(self) -> int:
        """The number of parts it was made of, where the ETag says so, else 0."""
        found = _COMPOSITE.fullmatch(self.etag)
        return int(found[1]) if found else 0

    def may_hold(self, data: bytes) -> bool:
        """Say whether these bytes fit the ETag; True as well where it says nothing of them."""
        if self.md5:
            return self.md5 == _md5(data).hex()
        size = self.part_size
        if not size or self.opaque or self.parts != -(-len(data) // size):
            return True
        return composite(_md5(data[at : at + size]) for at in range(0, len(data), size)) == self.etag


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """A part of an unfinished upload, as the server lists it."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class UploadRecord:
    """A multipart upload that is neither completed nor aborted; its parts are stored, and billed, until it is."""

    bucket: str
    key: str
    upload_id: str
    initiated: datetime | None = None


def described(key: str, answer: Mapping[str, Any]) -> ObjectRecord:
    """Return the record of an answer to HeadObject, GetObject or PutObject, or of an entry of ListObjects."""
    encryption = str(answer.get("ServerSideEncryption", ""))
    return ObjectRecord(
        key=key,
        size=int(answer.get("Size", answer.get("ContentLength", 0))),
        etag=bare(answer.get("ETag")),
        metadata={name.lower(): value for name, value in answer.get("Metadata", {}).items()},
        opaque=encryption.startswith("aws:kms") or "SSECustomerAlgorithm" in answer,
        modified=answer.get("LastModified"),
    )


def bare(etag: str | None) -> str:
    """Return an ETag without its quotes; some servers give none at all."""
    return (etag or "").strip('"')


def composite(md5s: Iterable[bytes]) -> str:
    """Return the ETag of an object made of parts with these MD5s: the MD5 over them, and their number."""
    listed = list(md5s)
    return f"{_md5(b''.join(listed)).hex()}-{len(listed)}"


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
