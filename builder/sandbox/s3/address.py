"""What a request is about: the bucket and the key in its path or its Host header, and the name of the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import unquote_to_bytes

from builder.sandbox.protocols import hosts, rest_xml
from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.wire import Refusal, Request

_LONGEST_KEY = 1024  # bytes of UTF-8
# Where the model has two names for one call, the one in use today.
_OLD = {
    "GetBucketLifecycle", "PutBucketLifecycle", "GetBucketNotification", "PutBucketNotification",
    "ListDirectoryBuckets", "WriteGetObjectResponse",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Address:
    """The bucket and the key, each "" where there is none; the region that the host name says, if it does."""

    bucket: str = ""
    key: str = ""
    region: str | None = None
    virtual: bool = False


def of(request: Request) -> Address:
    """Return what the request is about: virtual-host style where the Host header says so. Raises Refusal."""
    named, region = hosts.of_s3(request)
    try:
        path = unquote_to_bytes(request.raw_path.removeprefix("/")).decode()
    except UnicodeDecodeError:
        raise S3Refusal("InvalidURI", "Couldn't parse the specified URI.", URI=request.raw_path) from None
    if named:
        return Address(bucket=named, key=_checked(path), region=region, virtual=True)
    bucket, _, key = path.partition("/")
    return Address(bucket=bucket, key=_checked(key), region=region)


def _checked(key: str) -> str:
    size = len(key.encode())
    if size > _LONGEST_KEY:
        raise S3Refusal("KeyTooLongError", "Your key is too long", Size=size, MaxSizeAllowed=_LONGEST_KEY)
    return key


def action(request: Request) -> str:
    """Return the name of the call, by S3's model; of one that S3 does not have, its method and path."""
    try:
        address = of(request)
    except Refusal:
        address = Address(bucket="?", key="?")
    level = "object" if address.key else "bucket" if address.bucket else "service"
    plain, special = _routes()
    for words, name in special.get((request.method, level), ()):
        if all(_has(request.query, word) for word in words):
            return name
    return _by_header(request, plain.get((request.method, level), f"{request.method} {request.path}"))


def _has(query: Mapping[str, str], word: str) -> bool:
    name, _, value = word.partition("=")
    return name in query and (not value or query[name] == value)


def _by_header(request: Request, name: str) -> str:
    copied = request.header("x-amz-copy-source") is not None
    match name:
        case "PutObject" if "uploadId" in request.query and "partNumber" in request.query:
            return "UploadPartCopy" if copied else "UploadPart"
        case "PutObject" if copied:
            return "CopyObject"
        case "GetObject" if "uploadId" in request.query:
            return "ListParts"
        case "DeleteObject" if "uploadId" in request.query:
            return "AbortMultipartUpload"
    return name


@cache
def _routes() -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], list[tuple[list[str], str]]]]:
    """Return the calls by method and level: those without a word in the query, and those with."""
    plain: dict[tuple[str, str], str] = {}
    special: dict[tuple[str, str], list[tuple[list[str], str]]] = {}
    for name, method, uri in rest_xml.model().operations():
        if name in _OLD:
            continue
        path, _, query = uri.partition("?")
        place = (method, {"/": "service", "/{Bucket}": "bucket"}.get(path, "object"))
        if query:
            special.setdefault(place, []).append((query.split("&"), name))
    for calls in special.values():  # Get… before List… of the same word; nothing of what differs is answered
        calls.sort(key=lambda one: (-len(one[0]), one[1]))
    for method, name in {"PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket",
                         "GET": "ListObjects", "POST": "PostObject"}.items():  # fmt: skip
        plain[method, "bucket"] = name
    for method, name in {"PUT": "PutObject", "DELETE": "DeleteObject", "HEAD": "HeadObject", "GET": "GetObject",
                         "POST": "CompleteMultipartUpload"}.items():  # fmt: skip
        plain[method, "object"] = name
    plain["GET", "service"] = "ListBuckets"
    return plain, special
