"""What a client says about an object when it makes it: HTTP's headers, metadata, tags, storage class and ACL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.records import Acl, Bucket, S3Object, Traits
from builder.sandbox.s3 import acl
from builder.sandbox.s3.conditions import unsupported
from builder.sandbox.wire import Caller, Refusal, Request

# Those of the model's members that are kept with an object and come back with it, and their HTTP headers.
HEADERS = {
    "CacheControl": "Cache-Control",
    "ContentDisposition": "Content-Disposition",
    "ContentEncoding": "Content-Encoding",
    "ContentLanguage": "Content-Language",
    "ContentType": "Content-Type",
    "Expires": "Expires",
    "WebsiteRedirectLocation": "x-amz-website-redirect-location",
}
_CLASSES = {
    "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR",
}  # fmt: skip
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE", "OUTPOSTS", "SNOW", "EXPRESS_ONEZONE"}
_METADATA = 2048  # bytes of names and values; S3's limit
_TAG = re.compile(r"[\w\s+\-=._:/@]*")
_REFUSED = {  # members of requests that mean something the sandbox does not have
    "SSECustomerAlgorithm": "x-amz-server-side-encryption-customer-algorithm",
    "SSECustomerKey": "x-amz-server-side-encryption-customer-key",
    "CopySourceSSECustomerAlgorithm": "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "SSEKMSEncryptionContext": "x-amz-server-side-encryption-context",
    "ObjectLockMode": "x-amz-object-lock-mode",
    "ObjectLockRetainUntilDate": "x-amz-object-lock-retain-until-date",
    "ObjectLockLegalHoldStatus": "x-amz-object-lock-legal-hold",
    "WriteOffsetBytes": "x-amz-write-offset-bytes",
    "MFA": "x-amz-mfa",
    "IfMatchLastModifiedTime": "x-amz-if-match-last-modified-time",
    "IfMatchSize": "x-amz-if-match-size",
}


def check_supported(values: Mapping[str, Any]) -> None:
    """Raise Refusal for headers that ask for what the sandbox does not have, and for a version that cannot exist."""
    for name, header in _REFUSED.items():
        if name in values:
            raise unsupported(header)
    if values.get("ServerSideEncryption") not in (None, "AES256"):
        if values["ServerSideEncryption"] in ("aws:kms", "aws:kms:dsse"):
            raise unsupported("x-amz-server-side-encryption")
        message = "The encryption method specified is not supported"
        raise S3Refusal("InvalidEncryptionAlgorithmError", message)
    if values.get("ObjectLockEnabledForBucket") or values.get("BucketKeyEnabled"):
        raise unsupported("x-amz-bucket-object-lock-enabled")
    if values.get("VersionId", "null") != "null":
        message = "Invalid version id specified"
        raise S3Refusal("InvalidArgument", message, ArgumentName="versionId", ArgumentValue=values["VersionId"])


def of(values: Mapping[str, Any], request: Request, bucket: Bucket, caller: Caller) -> Traits:
    """Return what the request says about the object it makes. Raises Refusal."""
    check_supported(values)
    return Traits(
        headers=_headers(values, request),
        metadata=_metadata(values),
        tags=tags_of_header(values.get("Tagging")),
        storage_class=storage_class(values),
        acl=_acl(values, bucket, caller),
    )


def _headers(values: Mapping[str, Any], request: Request) -> dict[str, str]:
    """Return the headers to keep, as they came: an Expires that is no date is kept too."""
    found = {name: text for name, header in HEADERS.items() if name in values and (text := request.header(header))}
    if "ContentEncoding" in found:  # aws-chunked was for the way only
        words = [word.strip() for word in found["ContentEncoding"].split(",")]
        kept = ",".join(word for word in words if word != "aws-chunked")
        found = (
            {**found, "ContentEncoding": kept} if kept else {n: t for n, t in found.items() if n != "ContentEncoding"}
        )
    return {"ContentType": "binary/octet-stream", **found}


def _metadata(values: Mapping[str, Any]) -> dict[str, str]:
    metadata: dict[str, str] = values.get("Metadata", {})
    size = sum(len(name.encode("latin-1")) + len(text.encode("latin-1")) for name, text in metadata.items())
    if size > _METADATA:
        message = "Your metadata headers exceed the maximum allowed metadata size"
        raise S3Refusal("MetadataTooLarge", message, Size=size, MaxSizeAllowed=_METADATA)
    return metadata


def storage_class(values: Mapping[str, Any]) -> str:
    """Return the storage class asked for. Raises Refusal; the archives would need RestoreObject before a read."""
    found: str = values.get("StorageClass", "STANDARD")
    if found in _ARCHIVES:
        raise unsupported("x-amz-storage-class")
    if found not in _CLASSES:
        message = "The storage class you specified is not valid"
        raise S3Refusal("InvalidStorageClass", message, StorageClassRequested=found)
    return found


def _acl(values: Mapping[str, Any], bucket: Bucket, caller: Caller) -> Acl:
    asked = acl.from_headers(values, owner=caller.account, bucket_owner=bucket.account)
    acl.check_allowed(bucket, asked, values)
    owner = caller.account
    if bucket.ownership == acl.ENFORCED or (
        bucket.ownership == "BucketOwnerPreferred" and values.get("ACL") == "bucket-owner-full-control"
    ):
        owner = bucket.account
    if asked is None or owner != caller.account:
        return acl.private(owner)
    return asked


def tags_of_header(text: str | None) -> dict[str, str]:
    """Return the tags of an x-amz-tagging header, encoded as a query string. Raises Refusal."""
    if not text:
        return {}
    pairs = parse_qsl(text, keep_blank_values=True)
    return check_tags([{"Key": name, "Value": value} for name, value in pairs], limit=10)


def check_tags(entries: list[dict[str, Any]], *, limit: int) -> dict[str, str]:
    """Return tags as a mapping. Raises Refusal where S3 would: too many, doubles, reserved or malformed names."""
    tags: dict[str, str] = {}
    if len(entries) > limit:
        what = "Object tags" if limit == 10 else "Bucket tag count"
        raise Refusal("BadRequest" if limit == 10 else "InvalidTag", f"{what} cannot be greater than {limit}")
    for entry in entries:
        name, value = entry["Key"], entry["Value"]
        if name in tags:
            raise S3Refusal("InvalidTag", "Cannot provide multiple Tags with the same key", TagKey=name)
        if not 0 < len(name) <= 128 or not _TAG.fullmatch(name) or name.startswith("aws:"):
            raise S3Refusal("InvalidTag", "The TagKey you have provided is invalid", TagKey=name)
        if len(value) > 256 or not _TAG.fullmatch(value):
            raise S3Refusal("InvalidTag", "The TagValue you have provided is invalid", TagKey=name, TagValue=value)
        tags[name] = value
    return tags


def headers_of(one: S3Object) -> dict[str, str]:
    """Return the headers that come back with an object: what was kept, its time and its tag count."""
    headers = {HEADERS[name]: text for name, text in one.traits.headers.items()}
    headers |= {f"x-amz-meta-{name}": text for name, text in one.traits.metadata.items()}
    if one.traits.tags:
        headers["x-amz-tagging-count"] = str(len(one.traits.tags))
    if one.traits.storage_class != "STANDARD":
        headers["x-amz-storage-class"] = one.traits.storage_class
    return headers
