"""Whether a service honours `If-None-Match: *`: asked once, with an object of its own, never guessed from a name.

AWS does since 2024, radosgw for single puts only, Walrus not at all; one that does not know the header takes it and
overwrites. The probe writes `.emi-probe-RANDOM` in the bucket and deletes it; a crash in between leaves that object, of
no bytes, or an unfinished upload of it: both are found under that prefix.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import CloudConflict, CloudDenied, CloudError

if TYPE_CHECKING:
    from builder.cloud.s3.client import S3

PROBE = ".emi-probe-"


@dataclass(frozen=True, kw_only=True)
class Conditional:
    """Which writes the service refuses under `If-None-Match: *` when the object is there."""

    put: bool
    complete: bool


def ask(s3: S3, bucket: str) -> Conditional:
    """Find out by writing over an object of our own under that condition. Raises CloudDenied where it may not write."""
    key = f"{PROBE}{secrets.token_hex(8)}"
    s3.call("PutObject", Bucket=bucket, Key=key, Body=b"")
    try:
        put = _refused(lambda: s3.call("PutObject", Bucket=bucket, Key=key, Body=b"", IfNoneMatch="*"))
        return Conditional(put=put, complete=put and _complete_is_refused(s3, bucket, key))
    finally:
        s3.delete(bucket, key)


def _complete_is_refused(s3: S3, bucket: str, key: str) -> bool:
    upload = s3.begin_upload(bucket, key, known=())
    try:
        named = {"Bucket": bucket, "Key": key, "UploadId": upload.upload_id}
        etag = s3.call("UploadPart", **named, PartNumber=1, Body=b"?")["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        return _refused(lambda: s3.call("CompleteMultipartUpload", **named, MultipartUpload=parts, IfNoneMatch="*"))
    finally:
        s3.abort(upload)


def _refused(write: Callable[[], object]) -> bool:
    try:
        write()
    except CloudConflict:
        return True
    except CloudDenied:
        raise
    except CloudError as error:
        if error.retryable:
            raise
        return False  # a server that knows no such header and says so: NotImplemented, InvalidArgument
    return False
