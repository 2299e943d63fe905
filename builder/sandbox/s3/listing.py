"""Listings of objects, uploads and parts, page by page.

Keys are listed out of SQLite's index over (kind, key): its order of text is that of the UTF-8 bytes, which is S3's; a
page is one seek and a scan, and a common prefix one seek more, however many keys it stands for. Nothing is held in
memory for it or rebuilt at the start, as a sorted list would have to be (a million keys: a gigabyte).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.records import S3Object, Upload
from builder.sandbox.s3 import acl
from builder.sandbox.s3.depot import Call, Depot
from builder.sandbox.s3.multipart import parts_of, upload_of
from builder.sandbox.s3.objects import quoted, told
from builder.sandbox.wire import Answer

_PAGE = 1000  # S3's limit
_FIRST = 16  # rows looked at together where a common prefix may make the rest of them needless


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page: objects and common prefixes, each in order, and the last of both when there is more."""

    objects: list[S3Object]
    prefixes: list[str]
    last: str | None


def page(depot: Depot, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """Return up to `limit` keys and common prefixes that begin with `prefix` and come after `after`."""
    objects: list[S3Object] = []
    prefixes: list[str] = []
    last = ""
    if limit <= 0:
        return Page(objects=[], prefixes=[], last=None)
    for one, common in _entries(depot, bucket, prefix, delimiter, after, limit):
        if len(objects) + len(prefixes) == limit:
            return Page(objects=objects, prefixes=prefixes, last=last)
        if common is not None:
            prefixes.append(common)
            last = common
        else:
            objects.append(one)
            last = one.name
    return Page(objects=objects, prefixes=prefixes, last=None)


def _entries(
    depot: Depot, bucket: str, prefix: str, delimiter: str, after: str, limit: int
) -> Iterator[tuple[S3Object, str | None]]:
    """Yield objects in order, each with the common prefix that stands for it, if one does; then it is its first."""
    base = f"{bucket}/"
    stop = base + beyond(prefix) if prefix and beyond(prefix) else f"{bucket}0"  # 0 comes after /
    start = base + max(prefix, after + "\0" if after else "")
    shown = _common(after, prefix, delimiter)
    if shown is not None and shown == after:  # a page that ended with a common prefix: what it stands for is told
        start = base + beyond(shown)
    size = _FIRST if delimiter else limit + 1
    while True:
        with depot.state.lock:
            rows = depot.state.scan(S3Object, start, stop, size)
        jumped = False
        for one in rows:
            common = _common(one.name, prefix, delimiter)
            yield one, common
            if common is not None:
                start, jumped = base + beyond(common), True
                break
            start = base + one.name + "\0"
        if not jumped and len(rows) < size:
            return
        size = _FIRST if jumped else min(2 * size, limit + 1)


def _common(name: str, prefix: str, delimiter: str) -> str | None:
    """Return the common prefix that `name` belongs to: up to the first delimiter after the listing's own prefix."""
    if not delimiter or not name.startswith(prefix):
        return None
    end = name.find(delimiter, len(prefix))
    return name[: end + len(delimiter)] if end >= 0 else None


def beyond(text: str) -> str:
    """Return the least text that comes after everything that begins with `text`; "" when there is none."""
    while text:
        point = ord(text[-1]) + 1
        if point == 0xD800:  # the surrogates are no characters
            point = 0xE000
        if point <= 0x10FFFF:
            return text[:-1] + chr(point)
        text = text[:-1]
    return ""


def list_objects(depot: Depot, call: Call) -> Answer:
    """Answer ListObjects."""
    values, limit = call.values, _limit(call.values, "MaxKeys", "max-keys")
    marker = values.get("Marker", "")
    found = _page(depot, call, marker, limit)
    more = found.last is not None
    return call.answer(
        root="ListBucketResult",
        **_head(call, limit),
        Marker=_word(call)(marker),
        NextMarker=_word(call)(found.last) if found.last is not None and values.get("Delimiter") else None,
        IsTruncated=more,
        Contents=_contents(depot, call, found, owner=True),
        CommonPrefixes=[{"Prefix": _word(call)(prefix)} for prefix in found.prefixes],
    )


def list_objects_v2(depot: Depot, call: Call) -> Answer:
    """Answer ListObjectsV2."""
    values, limit = call.values, _limit(call.values, "MaxKeys", "max-keys")
    token = values.get("ContinuationToken")
    found = _page(depot, call, _after(token) if token is not None else values.get("StartAfter", ""), limit)
    return call.answer(
        root="ListBucketResult",
        **_head(call, limit),
        KeyCount=len(found.objects) + len(found.prefixes),
        ContinuationToken=token,
        NextContinuationToken=_token(found.last) if found.last is not None else None,
        StartAfter=_word(call)(values["StartAfter"]) if "StartAfter" in values else None,
        IsTruncated=found.last is not None,
        Contents=_contents(depot, call, found, owner=values.get("FetchOwner", False)),
        CommonPrefixes=[{"Prefix": _word(call)(prefix)} for prefix in found.prefixes],
    )


def list_object_versions(depot: Depot, call: Call) -> Answer:
    """Answer ListObjectVersions: in a bucket that never had versions, each object is its version `null`."""
    limit = _limit(call.values, "MaxKeys", "max-keys")
    marker = call.values.get("KeyMarker", "")
    found = _page(depot, call, marker, limit)
    versions = [{**entry, "VersionId": "null", "IsLatest": True} for entry in _contents(depot, call, found, owner=True)]
    return call.answer(
        root="ListVersionsResult",
        **_head(call, limit),
        KeyMarker=_word(call)(marker),
        VersionIdMarker="",
        NextKeyMarker=_word(call)(found.last) if found.last is not None else None,
        NextVersionIdMarker="null" if found.last is not None else None,
        IsTruncated=found.last is not None,
        Versions=versions,
        CommonPrefixes=[{"Prefix": _word(call)(prefix)} for prefix in found.prefixes],
    )


def _page(depot: Depot, call: Call, after: str, limit: int) -> Page:
    depot.bucket(call.address.bucket)
    prefix, delimiter = call.values.get("Prefix", ""), call.values.get("Delimiter", "")
    return page(depot, call.address.bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)


def _head(call: Call, limit: int) -> dict[str, Any]:
    word, values = _word(call), call.values
    return {
        "Name": call.address.bucket,
        "Prefix": word(values.get("Prefix", "")),
        "MaxKeys": limit,
        "Delimiter": word(values["Delimiter"]) if values.get("Delimiter") else None,
        "EncodingType": values.get("EncodingType"),
    }


def _contents(depot: Depot, call: Call, found: Page, *, owner: bool) -> list[dict[str, Any]]:
    word, bucket = _word(call), depot.bucket(call.address.bucket)
    entries = []
    for one in found.objects:
        entry = {
            "Key": word(one.name),
            "LastModified": one.last_modified,
            "ETag": quoted(one.etag),
            "ChecksumAlgorithm": list(one.checksums),
            "ChecksumType": one.checksum_type if one.checksums else None,
            "Size": one.size,
            "StorageClass": one.traits.storage_class,
        }
        if owner:
            account = bucket.account if bucket.ownership == acl.ENFORCED else one.traits.acl.owner
            entry["Owner"] = {"ID": acl.canonical_id(account)}
        entries.append(entry)
    return entries


def _word(call: Call) -> Callable[[str], str]:
    """Return how keys are written: as they are, or with encoding-type=url as the real service encodes them."""
    kind = call.values.get("EncodingType")
    if kind is None:
        return str
    if kind != "url":
        message = "Invalid Encoding Method specified in Request"
        raise S3Refusal("InvalidArgument", message, ArgumentName="encoding-type", ArgumentValue=kind)
    return lambda text: quote_plus(text, safe="/*")


def _limit(values: Mapping[str, Any], name: str, wire: str) -> int:
    limit: int = values.get(name, _PAGE)
    if not 0 <= limit < 1 << 31:
        message = f"Argument {wire} must be an integer between 0 and 2147483647"
        raise S3Refusal("InvalidArgument", message, ArgumentName=wire, ArgumentValue=limit)
    return min(limit, _PAGE)


def _token(last: str) -> str:
    return base64.urlsafe_b64encode(b"1" + last.encode()).decode()


def _after(token: str) -> str:
    try:
        data = base64.urlsafe_b64decode(token.encode())
        if data[:1] == b"1":
            return data[1:].decode()
    except (binascii.Error, ValueError):
        pass
    message = "The continuation token provided is incorrect"
    raise S3Refusal("InvalidArgument", message, ArgumentName="continuation-token")


# Uploads and parts


def list_multipart_uploads(depot: Depot, call: Call) -> Answer:
    """Answer ListMultipartUploads: by key, those of one key by their age."""
    values, word = call.values, _word(call)
    depot.bucket(call.address.bucket)
    limit = _limit(values, "MaxUploads", "max-uploads")
    prefix, delimiter = values.get("Prefix", ""), values.get("Delimiter", "")
    key_marker, id_marker = (
        values.get("KeyMarker", ""),
        values.get("UploadIdMarker", "") if values.get("KeyMarker") else "",
    )
    there = [one for one in list(depot.state.all(Upload).values()) if one.bucket == call.address.bucket]
    there = sorted((one for one in there if one.name.startswith(prefix)), key=_order)
    shown, prefixes, more = _uploads_page(there, prefix, delimiter, key_marker, id_marker, limit)
    last = more[-1] if more else None
    return call.answer(
        root="ListMultipartUploadsResult",
        Bucket=call.address.bucket,
        KeyMarker=word(key_marker),
        UploadIdMarker=id_marker,
        NextKeyMarker=word(last[0]) if last else None,
        NextUploadIdMarker=last[1] if last else None,
        Prefix=word(prefix),
        Delimiter=word(delimiter) if delimiter else None,
        MaxUploads=limit,
        EncodingType=values.get("EncodingType"),
        IsTruncated=last is not None,
        Uploads=[_upload_told(one, word) for one in shown],
        CommonPrefixes=[{"Prefix": word(one)} for one in prefixes],
    )


def _order(one: Upload) -> tuple[bytes, float, str]:
    return one.name.encode(), one.initiated, one.upload_id


def _uploads_page(
    there: Sequence[Upload], prefix: str, delimiter: str, key_marker: str, id_marker: str, limit: int
) -> tuple[list[Upload], list[str], list[tuple[str, str]]]:
    """Return uploads and common prefixes of one page, and its last (key, upload id) when there is more."""
    marked = next((_order(one) for one in there if (one.name, one.upload_id) == (key_marker, id_marker)), None)
    shown: list[Upload] = []
    prefixes: list[str] = []
    last = ("", "")
    for one in there:
        common = _common(one.name, prefix, delimiter)
        if key_marker and (
            (common or one.name) < key_marker
            or ((common or one.name) == key_marker and (marked is None or _order(one) <= marked))
        ):
            continue
        if common is not None and common in prefixes[-1:]:
            continue
        if len(shown) + len(prefixes) == limit:
            return shown, prefixes, [last]
        if common is not None:
            prefixes.append(common)
            last = (common, "")
        else:
            shown.append(one)
            last = (one.name, one.upload_id)
    return shown, prefixes, []


def _upload_told(one: Upload, word: Callable[[str], str]) -> dict[str, Any]:
    return {
        "UploadId": one.upload_id,
        "Key": word(one.name),
        "Initiated": one.initiated,
        "StorageClass": one.traits.storage_class,
        "Owner": {"ID": acl.canonical_id(one.traits.acl.owner)},
        "Initiator": {"ID": one.initiator, "DisplayName": one.initiator.rpartition("/")[2]},
        "ChecksumAlgorithm": one.checksum_algorithm,
        "ChecksumType": one.checksum_type,
    }


def list_parts(depot: Depot, call: Call) -> Answer:
    """Answer ListParts."""
    depot.bucket(call.address.bucket)
    upload = upload_of(depot, call)
    limit = _limit(call.values, "MaxParts", "max-parts")
    marker = max(0, call.values.get("PartNumberMarker", 0))
    with depot.state.lock:
        parts = parts_of(depot, upload, after=marker, limit=limit + 1)
    shown, more = parts[:limit], len(parts) > limit > 0
    told_upload = _upload_told(upload, str)
    return call.answer(
        root="ListPartsResult",
        Bucket=upload.bucket,
        Key=upload.name,
        UploadId=upload.upload_id,
        PartNumberMarker=marker,
        NextPartNumberMarker=shown[-1].number if shown else 0,
        MaxParts=limit,
        IsTruncated=more,
        Parts=[
            {
                "PartNumber": part.number,
                "LastModified": part.last_modified,
                "ETag": quoted(part.etag),
                "Size": part.size,
                **(told(part.checksums, None) if upload.checksum_algorithm else {}),
            }
            for part in shown
        ],
        Initiator=told_upload["Initiator"],
        Owner=told_upload["Owner"],
        StorageClass=upload.traits.storage_class,
        ChecksumAlgorithm=upload.checksum_algorithm,
        ChecksumType=upload.checksum_type,
    )
