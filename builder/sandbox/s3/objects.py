"""PutObject, GetObject, HeadObject, DeleteObject, DeleteObjects and what is told about an object."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from builder.sandbox.protocols.rest_xml import S3Refusal, malformed
from builder.sandbox.records import Layout, S3Object, Stored
from builder.sandbox.s3 import acl, checksums, conditions, ranges, traits
from builder.sandbox.s3.depot import Call, Depot, Held, no_such_key
from builder.sandbox.s3.receive import Received, receive
from builder.sandbox.s3.store import Reading
from builder.sandbox.wire import Answer, Need, Refusal

ENCRYPTED = "AES256"  # what every object says since January 2023; the sandbox encrypts nothing
_OVERRIDES = {  # by their names in the query
    "response-cache-control": "Cache-Control",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
    "response-content-language": "Content-Language",
    "response-content-type": "Content-Type",
    "response-expires": "Expires",
}
_PRINTABLE = re.compile(r"[ -~\t\x80-\xff]*")


@contextmanager
def received(
    depot: Depot, call: Call, claim: checksums.Claim, *, keep: str
) -> Iterator[tuple[Received, tuple[Stored, ...]]]:
    """Give what the request carries, in a file of its own that is on the disk; removed again if the block fails."""
    name, descriptor = depot.store.create()
    found: tuple[Stored, ...] = (Stored(file=name, offset=0, length=0),)
    try:
        try:
            got = receive(call.request, descriptor, claim, keep=keep)
            depot.store.commit(descriptor)
        finally:
            os.close(descriptor)
        found = (Stored(file=name, offset=0, length=got.size),)
        yield got, found
    except BaseException:
        depot.store.remove(name, found)
        raise


def put_object(depot: Depot, call: Call) -> Answer:
    """Answer PutObject."""
    bucket = depot.bucket(call.address.bucket)
    said = traits.of(call.values, call.request, bucket, call.caller)
    condition = conditions.of_write(call.values, depot.find(bucket.name, call.key))
    claim = checksums.claim(call.request)
    with received(depot, call, claim, keep=claim.algorithm or checksums.DEFAULT) as (got, extents):
        one = S3Object(
            bucket=bucket.name,
            name=call.key,
            data=secrets.token_hex(16),
            size=got.size,
            etag=got.md5.hex(),
            last_modified=0,
            traits=said,
            extents=extents,
            checksums=got.checksums,
        )
        depot.put(one, condition)
    return call.answer(ETag=quoted(one.etag), ServerSideEncryption=ENCRYPTED, **told(one.checksums, one.checksum_type))


def told(values: Any, kind: str | None) -> dict[str, str]:
    """Return checksums by the names of the model."""
    found = {checksums.member(name): value for name, value in values.items()}
    return found | ({"ChecksumType": kind} if found and kind is not None else {})


def quoted(etag: str) -> str:
    """Return an ETag as HTTP writes it."""
    return f'"{etag}"'


# Reading


def get_object(depot: Depot, call: Call) -> Answer:
    """Answer GetObject: what is asked for is read when it is sent, and nothing else."""
    return _read(depot, call)


def head_object(depot: Depot, call: Call) -> Answer:
    """Answer HeadObject."""
    return _read(depot, call)


def _read(depot: Depot, call: Call) -> Answer:
    depot.bucket(call.address.bucket)
    traits.check_supported(call.values)
    _check_overrides(call)
    held = look(depot, call, call.address.bucket, call.key)
    try:
        answer = _answer(depot, call, held)
    except BaseException:
        depot.store.release(held.one.data)
        raise
    if answer.stream is None:
        depot.store.release(held.one.data)
    return answer


def look(depot: Depot, call: Call, bucket: str, key: str) -> Held:
    """Hold an object for reading; who may not list the bucket is not told that a key is not there. Raises Refusal."""
    try:
        return depot.hold(bucket, key)
    except Refusal:
        found = depot.bucket(bucket)
        listing = Need(
            action="s3:ListBucket",
            resources=(f"arn:aws:s3:::{bucket}",),
            policy=depot.policy(found, call.caller),
            owner=found.account,
        )
        if not depot.gate.allows(listing, call.request, call.caller):
            raise Refusal("AccessDenied", "Access Denied", status=403) from None
        raise


def _answer(depot: Depot, call: Call, held: Held) -> Answer:
    one, values = held.one, call.values
    headers = {
        "Last-Modified": formatdate(one.last_modified, usegmt=True),
        "ETag": quoted(one.etag),
        "Accept-Ranges": "bytes",
        "x-amz-server-side-encryption": ENCRYPTED,
    }
    if not conditions.modified(values, one):
        return Answer(status=304, headers=headers)
    headers |= traits.headers_of(one)
    headers |= {_OVERRIDES[word]: text for word, text in call.request.query.items() if word in _OVERRIDES}
    start, length, status, sums = 0, one.size, 200, dict(one.checksums)
    if "PartNumber" in values:
        start, length, sums = _part(held, values["PartNumber"])
        status, headers["x-amz-mp-parts-count"] = 206, str(one.parts)
        if not one.parts:
            del headers["x-amz-mp-parts-count"]
    elif (asked := ranges.of(_range(call, one), one.size)) is not None:
        start, length, status = asked[0], asked[1] - asked[0] + 1, 206
        sums = {}  # those of the whole are not those of a range
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{one.size}"
    if str(values.get("ChecksumMode", "")).upper() == "ENABLED" and sums:
        headers |= {checksums.header(name): value for name, value in sums.items()}
        headers["x-amz-checksum-type"] = one.checksum_type
    headers["Content-Length"] = str(length)
    if call.request.method == "HEAD" or length == 0:
        return Answer(status=status, headers=headers)
    reading = Reading(depot.store, one.data, held.extents, start, length)
    return Answer(status=status, headers=headers, stream=reading)


def _range(call: Call, one: S3Object) -> str | None:
    """Return the Range header unless an If-Range says that it was meant for another version."""
    condition = call.request.header("If-Range")
    meant = (quoted(one.etag), formatdate(one.last_modified, usegmt=True))
    if condition is not None and condition.strip() not in meant:
        return None
    return call.request.header("Range")


def _part(held: Held, number: int) -> tuple[int, int, dict[str, str]]:
    """Return where part `number` begins, its length and its checksums. Raises Refusal (InvalidPartNumber)."""
    if held.layout is None or not held.one.parts:
        if number == 1:
            return 0, held.one.size, dict(held.one.checksums)
    elif 1 <= number <= len(held.layout.pieces):
        before = held.layout.pieces[: number - 1]
        piece = held.layout.pieces[number - 1]
        return sum(one.size for one in before), piece.size, dict(piece.checksums)
    raise S3Refusal(
        "InvalidPartNumber",
        "The requested partnumber is not satisfiable",
        status=416,
        PartNumberRequested=number,
        ActualPartCount=held.one.parts or 1,
    )


def _check_overrides(call: Call) -> None:
    stated = [text for word, text in call.request.query.items() if word in _OVERRIDES]
    if stated and not call.caller.account:
        message = "Request specific response headers cannot be used for anonymous GET requests."
        raise Refusal("InvalidRequest", message)
    if not all(_PRINTABLE.fullmatch(text) for text in stated):
        raise Refusal("InvalidArgument", "Header value cannot be represented using ISO-8859-1.")
    if "PartNumber" in call.values and call.request.header("Range") is not None:
        raise Refusal("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")


def get_object_attributes(depot: Depot, call: Call) -> Answer:
    """Answer GetObjectAttributes."""
    known = {"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}
    wanted = set(call.values.get("ObjectAttributes", []))
    if not wanted or wanted - known:
        message = "Invalid attribute name specified."
        raise S3Refusal("InvalidArgument", message, ArgumentName="x-amz-object-attributes")
    depot.bucket(call.address.bucket)
    held = look(depot, call, call.address.bucket, call.key)
    depot.store.release(held.one.data)
    one = held.one
    found = {
        "ETag": one.etag,
        "Checksum": told(one.checksums, one.checksum_type) or None,
        "ObjectParts": _parts_told(call, held.layout) if held.layout is not None and one.parts else None,
        "StorageClass": one.traits.storage_class,
        "ObjectSize": one.size,
    }
    chosen = {name: value for name, value in found.items() if name in wanted}
    return call.answer(root="GetObjectAttributesResponse", LastModified=one.last_modified, **chosen)


def _parts_told(call: Call, layout: Layout) -> dict[str, Any]:
    marker, limit = call.values.get("PartNumberMarker", 0), min(call.values.get("MaxParts", 1000), 1000)
    page = layout.pieces[marker : marker + limit]
    more = len(layout.pieces) > marker + limit
    told_parts = [
        {"PartNumber": number, "Size": piece.size, **told(piece.checksums, None)}
        for number, piece in enumerate(page, marker + 1)
    ]
    found = {"TotalPartsCount": len(layout.pieces), "PartNumberMarker": marker, "MaxParts": limit, "IsTruncated": more}
    if more:
        found["NextPartNumberMarker"] = marker + limit
    # S3 tells each part only of objects with a checksum of their own choosing; all of ours have one.
    return found | {"Parts": told_parts}


# Deleting


def _condition(match: str | None, key: str) -> Callable[[S3Object | None], None]:
    def check(current: S3Object | None) -> None:
        if match is None:
            return
        if current is None:
            raise no_such_key(key)
        conditions.WriteCondition(match=match).check(current, key)

    return check


def delete_object(depot: Depot, call: Call) -> Answer:
    """Answer DeleteObject: the same whether there was one."""
    traits.check_supported(call.values)
    depot.bucket(call.address.bucket)
    depot.delete(call.address.bucket, call.key, _condition(call.values.get("IfMatch"), call.key))
    return Answer(status=204)


def delete_objects(depot: Depot, call: Call) -> Answer:
    """Answer DeleteObjects: each key by itself, with the permission for it."""
    bucket = depot.bucket(call.address.bucket)
    traits.check_supported(call.values)
    wanted = call.body["Objects"]
    if not 0 < len(wanted) <= 1000:
        raise malformed()
    deleted, errors = [], []
    for entry in wanted:
        key = entry["Key"]
        need = Need(
            action="s3:DeleteObject",
            resources=(f"arn:aws:s3:::{bucket.name}/{key}",),
            policy=depot.policy(bucket, call.caller),
            owner=bucket.account,
        )
        try:
            if not depot.gate.allows(need, call.request, call.caller):
                raise Refusal("AccessDenied", "Access Denied", status=403)  # noqa: TRY301 - each key has its answer
            traits.check_supported(entry)
            depot.delete(bucket.name, key, _condition(entry.get("ETag"), key))
        except Refusal as refusal:
            errors.append({"Key": key, "Code": refusal.code, "Message": refusal.message})
        else:
            deleted.append({"Key": key})
    quiet = call.body.get("Quiet", False)
    return call.answer(root="DeleteResult", Deleted=[] if quiet else deleted, Errors=errors)


# Tags and ACLs


def get_object_tagging(depot: Depot, call: Call) -> Answer:
    """Answer GetObjectTagging."""
    tags = _one(depot, call).traits.tags
    return call.answer(root="Tagging", TagSet=[{"Key": name, "Value": value} for name, value in tags.items()])


def put_object_tagging(depot: Depot, call: Call) -> Answer:
    """Answer PutObjectTagging."""
    tags = traits.check_tags(call.body["TagSet"], limit=10)
    _change(depot, call, tags=tags)
    return call.answer()


def delete_object_tagging(depot: Depot, call: Call) -> Answer:
    """Answer DeleteObjectTagging."""
    _change(depot, call, tags={})
    return Answer(status=204)


def get_object_acl(depot: Depot, call: Call) -> Answer:
    """Answer GetObjectAcl."""
    bucket, one = depot.bucket(call.address.bucket), _one(depot, call)
    shown = acl.private(bucket.account) if bucket.ownership == acl.ENFORCED else one.traits.acl
    return call.answer(root="AccessControlPolicy", **acl.answer(shown))


def put_object_acl(depot: Depot, call: Call) -> Answer:
    """Answer PutObjectAcl: by x-amz-acl, by x-amz-grant-*, or by the body."""
    bucket, one = depot.bucket(call.address.bucket), _one(depot, call)
    owner = one.traits.acl.owner
    asked = acl.from_headers(call.values, owner=owner, bucket_owner=bucket.account)
    if asked is None:
        asked = acl.from_body(call.body, owner=owner)
    acl.check_allowed(bucket, asked, call.values)
    if bucket.ownership != acl.ENFORCED:
        _change(depot, call, acl=asked)
    return call.answer()


def _one(depot: Depot, call: Call) -> S3Object:
    traits.check_supported(call.values)
    depot.bucket(call.address.bucket)
    one = depot.find(call.address.bucket, call.key)
    if one is None:
        raise no_such_key(call.key)
    return one


def _change(depot: Depot, call: Call, **fields: Any) -> None:
    traits.check_supported(call.values)
    depot.bucket(call.address.bucket)
    depot.change_object(call.address.bucket, call.key, lambda one: replace(one, traits=replace(one.traits, **fields)))
