"""S3: objects as files, their records in the state, and every request held against what it says of itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from builder.sandbox.access.gate import Gate
from builder.sandbox.cloud import Cloud
from builder.sandbox.eucalyptus import objectstorage
from builder.sandbox.protocols import rest_xml
from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.records import Bucket
from builder.sandbox.s3 import address, buckets, copies, listing, multipart, objects, permissions, settings
from builder.sandbox.s3.depot import Call, Depot, host_id
from builder.sandbox.s3.store import Store, assemble
from builder.sandbox.wire import Answer, Caller, Denied, Need, Refusal, Request

Handler = Callable[[Depot, Call], Answer]
ACTIONS: dict[str, Handler] = {
    "AbortMultipartUpload": multipart.abort,
    "CompleteMultipartUpload": multipart.complete,
    "CopyObject": copies.copy_object,
    "CreateBucket": buckets.create_bucket,
    "CreateMultipartUpload": multipart.create,
    "DeleteBucket": buckets.delete_bucket,
    "DeleteBucketLifecycle": settings.delete_bucket_lifecycle,
    "DeleteBucketOwnershipControls": settings.delete_bucket_ownership_controls,
    "DeleteBucketPolicy": settings.delete_bucket_policy,
    "DeleteBucketTagging": settings.delete_bucket_tagging,
    "DeleteObject": objects.delete_object,
    "DeleteObjectTagging": objects.delete_object_tagging,
    "DeleteObjects": objects.delete_objects,
    "DeletePublicAccessBlock": settings.delete_public_access_block,
    "GetBucketAcl": settings.get_bucket_acl,
    "GetBucketEncryption": settings.get_bucket_encryption,
    "GetBucketLifecycleConfiguration": settings.get_bucket_lifecycle,
    "GetBucketLocation": settings.get_bucket_location,
    "GetBucketOwnershipControls": settings.get_bucket_ownership_controls,
    "GetBucketPolicy": settings.get_bucket_policy,
    "GetBucketPolicyStatus": settings.get_bucket_policy_status,
    "GetBucketTagging": settings.get_bucket_tagging,
    "GetBucketVersioning": settings.get_bucket_versioning,
    "GetObject": objects.get_object,
    "GetObjectAcl": objects.get_object_acl,
    "GetObjectAttributes": objects.get_object_attributes,
    "GetObjectTagging": objects.get_object_tagging,
    "GetPublicAccessBlock": settings.get_public_access_block,
    "HeadBucket": buckets.head_bucket,
    "HeadObject": objects.head_object,
    "ListBuckets": buckets.list_buckets,
    "ListMultipartUploads": listing.list_multipart_uploads,
    "ListObjectVersions": listing.list_object_versions,
    "ListObjects": listing.list_objects,
    "ListObjectsV2": listing.list_objects_v2,
    "ListParts": listing.list_parts,
    "PutBucketAcl": settings.put_bucket_acl,
    "PutBucketLifecycleConfiguration": settings.put_bucket_lifecycle,
    "PutBucketOwnershipControls": settings.put_bucket_ownership_controls,
    "PutBucketPolicy": settings.put_bucket_policy,
    "PutBucketTagging": settings.put_bucket_tagging,
    "PutObject": objects.put_object,
    "PutObjectAcl": objects.put_object_acl,
    "PutObjectTagging": objects.put_object_tagging,
    "PutPublicAccessBlock": settings.put_public_access_block,
    "UploadPart": multipart.upload_part,
    "UploadPartCopy": multipart.upload_part_copy,
}
ACTIONS.update(dict.fromkeys(settings.ABSENT, settings.absent))
_WITHOUT_BUCKET = {"ListBuckets", "CreateBucket"}
_ANYWHERE = {*_WITHOUT_BUCKET, "GetBucketLocation"}  # answered in whatever region the request is signed for
_ACL_HEADERS = ("x-amz-acl", "x-amz-grant-")


class S3:
    """The S3 API."""

    service = "s3"

    def __init__(self, cloud: Cloud, gate: Gate, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.depot = Depot(cloud, gate, Store(directory / "data", cloud.state))
        self._like = cloud.personality
        self._scratch = directory / "scratch"
        gate.places[self.service] = self._place
        shutil.rmtree(self._scratch, ignore_errors=True)  # what a crash left of `as_file`
        self._scratch.mkdir()

    @property
    def actions(self) -> frozenset[str]:
        """The calls that are answered."""
        return frozenset(ACTIONS)

    def action(self, request: Request) -> str:
        """Return the call's name."""
        name = address.action(request)
        return objectstorage.action(name, self._like) if self._like.is_eucalyptus else name

    def permissions(self, action: str, request: Request, caller: Caller) -> Sequence[Need]:
        """Return what the call needs, after what makes it void whoever asks: no such bucket, another region."""
        where = address.of(request)
        if self._like.is_eucalyptus:
            objectstorage.check(action, request, self._like)
        if action not in ACTIONS:
            raise Refusal("UnsupportedOperation", f"The sandbox does not support s3:{action}.", status=501)
        if action in _WITHOUT_BUCKET:
            if not caller.account:
                raise Denied("denied", "Access Denied")
            return [permissions.service_need(action)]
        bucket = self.depot.bucket(where.bucket)
        if action not in _ANYWHERE and not self._like.is_eucalyptus:
            _check_region(bucket, where, caller)
        expected = request.header("x-amz-expected-bucket-owner")
        if expected not in (None, bucket.account):
            raise Refusal("AccessDenied", "Access Denied", status=403)
        if action == "DeleteObjects":  # each key by itself
            return []
        one = self.depot.find(bucket.name, where.key) if where.key else None
        needs = [permissions.need(action, bucket, one, where.key, request, caller)]
        if action in ("CopyObject", "UploadPartCopy"):
            needs.append(self._source(request, caller))
        return permissions.whole(needs, _extra(action, request))

    def _place(self, request: Request) -> str:
        """Return the region of a request whose signature names none: its bucket's own, else the endpoint's.

        Without a region in its name that is the first one, which makes buckets in any other.
        """
        try:
            where = address.of(request)
        except Refusal:  # it is refused when it comes to that
            return buckets.FIRST_REGION
        bucket = self.depot.state.all(Bucket).get(where.bucket)
        return bucket.region if bucket is not None else where.region or buckets.FIRST_REGION

    def _source(self, request: Request, caller: Caller) -> Need:
        name, key = copies.source_of(request)
        bucket = self.depot.bucket(name)
        return permissions.need("GetObject", bucket, self.depot.find(name, key), key, request, caller)

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""
        where = address.of(request)
        answer = ACTIONS[action](self.depot, Call(action, request, caller, where))
        headers = {"x-amz-request-id": request.id, "x-amz-id-2": host_id(request)}
        bucket = self.depot.state.all(Bucket).get(where.bucket)
        told = action in ("ListObjects", "ListObjectsV2", "HeadBucket") and not self._like.is_eucalyptus
        if bucket is not None and told:
            headers["x-amz-bucket-region"] = bucket.region
        return Answer(
            status=answer.status, headers={**headers, **answer.headers}, body=answer.body, stream=answer.stream
        )

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as S3 words it."""
        answer = rest_xml.refuse(refusal, request, host_id(request))
        return Answer(
            status=answer.status,
            headers={"x-amz-request-id": request.id, "x-amz-id-2": host_id(request), **answer.headers},
            body=answer.body,
        )

    # For other services of the cloud

    @contextmanager
    def as_file(self, bucket: str, key: str) -> Iterator[Path]:
        """Give an object's bytes as a file of one's own within the block, whatever becomes of the object meanwhile.

        It is a link where the object is one file, else its parts copied inside the kernel. Whether the caller may read
        it is asked before, with `reading`. Raises Refusal (NoSuchBucket, NoSuchKey).
        """
        self.depot.bucket(bucket)
        with self.depot.holding(bucket, key) as held, tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            path = Path(directory) / "object"
            whole = [one for one in held.extents if one.length]
            store = self.depot.store
            if len(whole) == 1 and (store.directory / whole[0].file).stat().st_size == held.one.size:
                os.link(store.directory / whole[0].file, path)
            else:
                with open(path, "xb") as target:
                    assemble(store, whole, target.fileno())
            yield path

    def reading(self, bucket: str, key: str, request: Request, caller: Caller) -> Need:
        """Return the permission that reading the object needs. Raises Refusal (NoSuchBucket)."""
        found = self.depot.bucket(bucket)
        return permissions.need("GetObject", found, self.depot.find(bucket, key), key, request, caller)

    def size(self, bucket: str, key: str) -> int:
        """Return an object's size. Raises Refusal (NoSuchBucket, NoSuchKey)."""
        self.depot.bucket(bucket)
        with self.depot.holding(bucket, key) as held:
            return held.one.size


def _check_region(bucket: Bucket, where: address.Address, caller: Caller) -> None:
    """Raise Refusal, as S3 does, when the request went to another region than the bucket's."""
    headers = {"x-amz-bucket-region": bucket.region}
    if where.region is not None and where.region != bucket.region:
        raise S3Refusal(
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all "
            "future requests to this endpoint.",
            status=301,
            headers=headers,
            Endpoint=f"s3.{bucket.region}.amazonaws.com",
            Bucket=bucket.name,
        )
    if caller.account and caller.region != bucket.region:
        message = (
            f"The authorization header is malformed; the region '{caller.region}' is wrong; expecting '{bucket.region}'"
        )
        raise S3Refusal("AuthorizationHeaderMalformed", message, headers=headers, Region=bucket.region)


def _extra(action: str, request: Request) -> list[str]:
    """Return further permissions that what the request says needs."""
    found = []
    if action in ("PutObject", "CopyObject", "CreateMultipartUpload"):
        if any(name.startswith(_ACL_HEADERS) for name in request.header_names):
            found.append("PutObjectAcl")
        if request.header("x-amz-tagging"):
            found.append("PutObjectTagging")
    if action == "GetObjectAttributes":
        found.append("GetObject")
    return found
