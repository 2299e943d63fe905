"""If-Match and its kin, on reads and on writes. Sources: RFC 7232, "Conditional requests" in the S3 user guide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.records import S3Object
from builder.sandbox.wire import Refusal


def failed(condition: str) -> S3Refusal:
    """Return S3's refusal of a request whose precondition does not hold."""
    message = "At least one of the pre-conditions you specified did not hold"
    return S3Refusal("PreconditionFailed", message, status=412, Condition=condition)


def _names(header: str, etag: str) -> bool:
    words = [word.strip().removeprefix("W/").strip('"') for word in header.split(",")]
    return "*" in words or etag in words


def modified(values: Mapping[str, Any], one: S3Object, *, prefix: str = "") -> bool:
    """Hold a read against its conditions; False means `not modified`. Raises Refusal (PreconditionFailed).

    If-Match outranks If-Unmodified-Since, and If-None-Match outranks If-Modified-Since. `prefix` is the names' in the
    model: `CopySource` for the source of a copy.
    """
    match, unmatch = values.get(f"{prefix}IfMatch"), values.get(f"{prefix}IfNoneMatch")
    before, since = values.get(f"{prefix}IfUnmodifiedSince"), values.get(f"{prefix}IfModifiedSince")
    moment = int(one.last_modified)  # HTTP dates have no fractions
    if match is not None:
        if not _names(match, one.etag):
            raise failed("If-Match")
    elif before is not None and moment > before:
        raise failed("If-Unmodified-Since")
    if unmatch is not None:
        return not _names(unmatch, one.etag)
    return since is None or moment > since


@dataclass(frozen=True, kw_only=True)
class WriteCondition:
    """What a write demands of the object that is there. `existed` is whether there was one when the write began."""

    match: str | None = None
    absent: bool = False
    existed: bool = False

    def check(self, current: S3Object | None, key: str) -> None:
        """Raise Refusal unless the write may replace `current`. Call it where nobody can write in between."""
        if self.match is not None:
            if current is None:
                raise S3Refusal("NoSuchKey", "The specified key does not exist.", status=404, Key=key)
            if not _names(self.match, current.etag):
                raise failed("If-Match")
        if self.absent:
            if current is not None:
                raise failed("If-None-Match")
            if self.existed:  # deleted while our bytes came
                raise S3Refusal(
                    "ConditionalRequestConflict",
                    "The conditional request cannot succeed due to a conflicting operation against this resource.",
                    status=409,
                    Condition="If-None-Match",
                    Key=key,
                )


def of_write(values: Mapping[str, Any], current: S3Object | None) -> WriteCondition:
    """Return what the request demands; `current` is the object as the request begins. Raises Refusal."""
    unmatch = values.get("IfNoneMatch")
    if unmatch is not None and unmatch.strip() != "*":
        raise unsupported("If-None-Match")
    return WriteCondition(match=values.get("IfMatch"), absent=unmatch is not None, existed=current is not None)


def unsupported(header: str) -> Refusal:
    """Return S3's refusal of a header whose meaning it does not have."""
    message = "A header you provided implies functionality that is not implemented"
    return S3Refusal("NotImplemented", message, status=501, Header=header)
