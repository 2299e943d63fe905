"""What the object storage gateway of Eucalyptus does otherwise than S3.

Source: the pipelines and bindings of object-storage: parameters of the query and headers that they do not know are
dropped, so that a call which Eucalyptus does not have is taken for another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.sandbox.personality import Personality
from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.wire import Refusal, Request

MOST_BUCKETS = 100  # of one account
_LARGEST_METADATA = 300 << 10  # bytes of a body in the pipeline for everything that is no object's bytes
# Calls that are taken for others, because what tells them apart is dropped: `?tagging` deletes the object.
_TAKEN_FOR = {
    "DeleteObjectTagging": "DeleteObject",
    "GetObjectAttributes": "GetObject",
    "GetObjectLegalHold": "GetObject",
    "GetObjectRetention": "GetObject",
    "GetObjectTagging": "GetObject",
    "PutObjectLegalHold": "PutObject",
    "PutObjectRetention": "PutObject",
    "PutObjectTagging": "PutObject",
}
# Calls that S3 answers and Eucalyptus has not: what is put is refused, what is asked for is not there.
_MISSING = {
    "DeleteBucketOwnershipControls", "DeletePublicAccessBlock", "GetBucketEncryption", "GetBucketOwnershipControls",
    "GetBucketPolicyStatus", "GetPublicAccessBlock", "PutBucketOwnershipControls", "PutPublicAccessBlock",
}  # fmt: skip
_MAKING = {"PutObject", "CopyObject", "CreateMultipartUpload", "CompleteMultipartUpload"}
# Members of requests that are dropped with their headers. A condition on a write is no condition here.
_DROPPED = {"Tagging", "IfNoneMatch", "IfMatch", "StorageClass", "ServerSideEncryption", "ObjectOwnership"}


def action(name: str, personality: Personality) -> str:
    """Return what a call by S3's model is taken for."""
    if name == "ListObjectsV2" and personality.before(5, 0):
        return "ListObjects"
    return _TAKEN_FOR.get(name, name)


def check(name: str, request: Request, personality: Personality) -> None:
    """Raise Refusal for a call that the release does not have, or a body that it does not read."""
    if name in _MISSING and name.startswith("Get"):
        raise S3Refusal("NoSuchConfiguration", "The specified configuration does not exist.", status=404)
    if name in _MISSING or (name == "UploadPartCopy" and personality.before(5, 1)):
        raise Refusal("NotImplemented", "A header or query you provided implies functionality that is not implemented",
                      status=501)  # fmt: skip
    others = set(request.query) - {"uploadId", "partNumber"}
    if name in ("PutObject", "UploadPart") and others and request.length > _LARGEST_METADATA:
        message = (
            f"A PUT with the parameters {', '.join(sorted(others))} has at most {_LARGEST_METADATA} bytes, not "
            f"{request.length}."
        )
        raise Refusal("EntityTooLarge", message)


def known(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a call's query and headers Eucalyptus knows."""
    dropped = _DROPPED if name in _MAKING or name == "CreateBucket" else frozenset()
    return {member: value for member, value in values.items() if member not in dropped}
