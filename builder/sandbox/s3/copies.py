"""CopyObject and UploadPartCopy. No byte is copied: the bytes never change, so source and copy share them."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.records import Bucket, Layout, Piece, S3Object, Stored, Traits
from builder.sandbox.s3 import checksums, conditions, traits
from builder.sandbox.s3.depot import Call, Depot, Held, extents_of
from builder.sandbox.s3.objects import ENCRYPTED, look, quoted, told
from builder.sandbox.s3.receive import LARGEST
from builder.sandbox.s3.store import Store, clip
from builder.sandbox.wire import Answer, Refusal, Request

_PIECE = 1 << 20  # bytes hashed at once


def source_of(request: Request) -> tuple[str, str]:
    """Return the bucket and the key that x-amz-copy-source names. Raises Refusal."""
    text, _, query = (request.header("x-amz-copy-source") or "").partition("?")
    bucket, _, key = unquote(text).removeprefix("/").partition("/")
    if query and query != "versionId=null":
        raise S3Refusal("InvalidArgument", "Invalid version id specified", ArgumentName="x-amz-copy-source")
    if not bucket or not key or bucket.startswith("arn:"):
        message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise S3Refusal("InvalidArgument", message, ArgumentName="x-amz-copy-source", ArgumentValue=text)
    return bucket, key


def copy_object(depot: Depot, call: Call) -> Answer:
    """Answer CopyObject."""
    bucket, values = depot.bucket(call.address.bucket), call.values
    said = traits.of(values, call.request, bucket, call.caller)
    source_bucket, source_key = source_of(call.request)
    condition = conditions.of_write(values, depot.find(bucket.name, call.key))
    held = _source(depot, call, source_bucket, source_key)
    try:
        source = held.one
        if not conditions.modified(values, source, prefix="CopySource"):
            raise conditions.failed("x-amz-copy-source-If-None-Match")
        if source.size > LARGEST:
            message = (
                f"The specified copy source is larger than the maximum allowable size for a copy source: {LARGEST}"
            )
            raise Refusal("InvalidRequest", message)
        copied = _traits(values, source, said)
        same = (source_bucket, source_key) == (bucket.name, call.key)
        if same and values.get("MetadataDirective", "COPY") == "COPY" and "StorageClass" not in values:
            message = (
                "This copy request is illegal because it is trying to copy an object to itself without changing the "
                "object's metadata, storage class, website redirect location or encryption attributes."
            )
            raise Refusal("InvalidRequest", message)
        one = _copied(depot, call, held, bucket, copied, condition)
    finally:
        depot.store.release(held.one.data)
    result = {
        "LastModified": one.last_modified, "ETag": quoted(one.etag), **told(one.checksums, one.checksum_type),
    }  # fmt: skip
    return call.answer(CopyObjectResult=result, ServerSideEncryption=ENCRYPTED)


def _source(depot: Depot, call: Call, bucket: str, key: str) -> Held:
    found = depot.bucket(bucket)
    if call.values.get("ExpectedSourceBucketOwner") not in (None, found.account):
        raise Refusal("AccessDenied", "Access Denied", status=403)
    return look(depot, call, bucket, key)


def _copied(
    depot: Depot, call: Call, held: Held, bucket: Bucket, said: Traits, condition: conditions.WriteCondition
) -> S3Object:
    """Make the copy: one object with the whole source's bytes, never in parts, as S3's own copies are."""
    source = held.one
    sums, etag = _digests(depot.store, held, call.values.get("ChecksumAlgorithm"))
    extents = depot.store.share(held.extents)
    data = secrets.token_hex(16)
    # An object with many extents keeps them beside its record, like one that was uploaded in parts.
    layout = (
        Layout(data=data, pieces=(Piece(number=1, size=source.size, extents=extents),)) if len(extents) > 1 else None
    )
    one = S3Object(
        bucket=bucket.name,
        name=call.key,
        data=data,
        size=source.size,
        etag=etag,
        last_modified=0,
        traits=said,
        extents=extents if layout is None else (),
        scattered=layout is not None,
        checksums=sums,
    )
    try:
        return depot.put(one, condition, layout=layout)
    except BaseException:
        depot.store.remove(data, extents_of(one, layout))
        raise


def _traits(values: dict[str, Any], source: S3Object, said: Traits) -> Traits:
    directive, tagging = values.get("MetadataDirective", "COPY"), values.get("TaggingDirective", "COPY")
    for name, word in (("x-amz-metadata-directive", directive), ("x-amz-tagging-directive", tagging)):
        if word not in ("COPY", "REPLACE"):
            raise S3Refusal("InvalidArgument", f"Unknown {name[6:]}.", ArgumentName=name, ArgumentValue=word)
    kept = source.traits
    if directive == "COPY":
        said = replace(said, headers=kept.headers, metadata=kept.metadata)
    return replace(said, tags=kept.tags if tagging == "COPY" else said.tags)


def _digests(store: Store, held: Held, wanted: str | None) -> tuple[dict[str, str], str]:
    """Return the copy's checksums and its ETag, reading the source only where they cannot be told from its record."""
    source = held.one
    algorithm = (wanted or next(iter(source.checksums), checksums.DEFAULT)).upper()
    if algorithm not in checksums.ALGORITHMS:
        message = "Checksum algorithm provided is unsupported. Please try again with any of the valid types"
        raise Refusal("InvalidRequest", message)
    known = source.checksums.get(algorithm) if source.checksum_type == checksums.FULL_OBJECT else None
    if known is not None and not source.parts:
        return {algorithm: known}, source.etag
    states = {name: checksums.ALGORITHMS[name].start() for name in {algorithm, "MD5"}}
    hash_extents(store, held.extents, list(states.values()))
    return {algorithm: _base64(states[algorithm])}, states["MD5"].digest().hex()


def _base64(state: checksums.Hash) -> str:
    return base64.b64encode(state.digest()).decode()


def hash_extents(store: Store, extents: Sequence[Stored], states: Sequence[checksums.Hash]) -> None:
    """Feed the bytes of some extents to the hashes, piece by piece."""
    buffer = memoryview(bytearray(_PIECE))
    for one in extents:
        descriptor = store.open(one.file)
        try:
            done = 0
            while done < one.length:
                count = os.preadv(descriptor, [buffer[: min(_PIECE, one.length - done)]], one.offset + done)
                for state in states:
                    state.update(buffer[:count])
                done += count
        finally:
            os.close(descriptor)


def shared_range(depot: Depot, held: Held, first: int, length: int) -> tuple[Stored, ...]:
    """Return extents of one's own with `length` of the object's bytes from `first` on."""
    return depot.store.share(clip(held.extents, first, length))
