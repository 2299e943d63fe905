"""The single calls of S3: buckets, objects in one request, parts, listings, ACLs, presigned URLs.

Every attempt is reported through `on_call`, paced, and framed by the crash points `before s3:ACTION` and
`after s3:ACTION`. Every call here may be repeated: it only reads, or names its end state. The one that does neither,
CreateMultipartUpload, looks for what a lost answer left before it creates again.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import TYPE_CHECKING, Any, TypeVar

from builder import pool
from builder.cloud.api import Call
from builder.cloud.pacer import Pacer
from builder.cloud.s3 import records
from builder.cloud.s3.conditional import Conditional, ask
from builder.cloud.s3.records import ObjectRecord, PartRecord, UploadRecord, bare
from builder.cloud.s3.source import Body, md5_of
from builder.cloud.settings import Settings
from builder.crashpoint import reach
from builder.errors import CloudConflict, CloudError, CloudNotFound, CloudTrouble
from builder.progress import SILENT, Progress
from builder.retry import retrying

if TYPE_CHECKING:
    from builder.cloud.session import Session

Answer = TypeVar("Answer")

REQUESTS_A_SECOND = 1000  # AWS allows 3500 writes a second for each prefix; older services far less, and say SlowDown
_DELETED_AT_ONCE = 1000  # keys that one DeleteObjects takes
_NO_CONSTRAINT = "us-east-1"  # the region that is asked for by no LocationConstraint at all


class S3:
    """One service with one set of credentials. Nothing is loaded, looked up or connected before the first call.

    Safe to use from several threads at once. Raises only errors of builder/errors.py.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_call: Callable[[Call], None] = lambda _: None,
        progress: Progress = SILENT,
        requests_a_second: float = REQUESTS_A_SECOND,
    ) -> None:
        self._settings = settings
        self._on_call, self.progress = on_call, progress
        self._pacer = Pacer(requests_a_second)
        self._lock = pool.Lock()
        self._session_made: Session | None = None
        self._conditional: dict[str, Conditional] = {}

    # Buckets
    def ensure_bucket(self, bucket: str, *, location: str | None = None, acls: bool = False) -> bool:
        """Have the bucket be there; say whether this made it.

        `location` is the LocationConstraint; None: that of the settings, or the region, and where the service knows
        regions by other names, its own default. With `acls` a bucket that is made takes ACLs, which AWS has switched
        off by default since 2023 and instance-store images need. Raises CloudConflict when the name is taken by another
        account, CloudDenied when it may not be looked at.
        """
        if self.has_bucket(bucket):
            return False
        location = self._settings.location if location is None else location
        wanted = self._settings.region if location is None else location
        try:
            self._create_bucket(bucket, "" if wanted == _NO_CONSTRAINT else wanted, acls=acls)
        except CloudConflict as error:
            # A lost answer, or a second run at the same moment: the bucket is ours all the same.
            if error.code != "BucketAlreadyOwnedByYou" and bucket not in self.buckets():
                raise
            return False
        except CloudError as error:
            if location is not None or error.code not in (
                "InvalidLocationConstraint",
                "IllegalLocationConstraintException",
            ):
                raise
            self._create_bucket(bucket, "", acls=acls)
        return True

    def has_bucket(self, bucket: str) -> bool:
        """Say whether the bucket is there. Raises CloudDenied for one that may not be looked at."""
        try:
            self.call("HeadBucket", Bucket=bucket)
        except CloudNotFound:
            return False
        return True

    def refuses_acls(self, bucket: str) -> bool:
        """Say whether the bucket has ACLs switched off, as AWS makes buckets since 2023; False where it does not tell.

        That asks for s3:GetBucketOwnershipControls, which not everybody may call and not every service has.
        """
        try:
            controls = self.call("GetBucketOwnershipControls", Bucket=bucket).get("OwnershipControls", {})
        except CloudTrouble:
            raise
        except CloudError:  # no such setting (an old bucket), no such permission, no such call
            return False
        return any(rule.get("ObjectOwnership") == "BucketOwnerEnforced" for rule in controls.get("Rules", ()))

    def buckets(self) -> set[str]:
        """Return the names of the account's own buckets."""
        return {str(bucket["Name"]) for bucket in self.call("ListBuckets").get("Buckets", ())}

    @property
    def drops_conditions(self) -> bool:
        """Whether the service is known to drop If-None-Match. Nothing is asked of it."""
        return self._settings.s3.drops_conditions

    def conditional(self, bucket: str) -> Conditional:
        """Return which conditional writes the service honours, found by asking it once (see conditional.py)."""
        if bucket not in self._conditional:
            self._conditional[bucket] = ask(self, bucket)
        return self._conditional[bucket]

    # Objects
    def head(self, bucket: str, key: str) -> ObjectRecord | None:
        """Return the object's record, or None when there is no such object."""
        try:
            return records.described(key, self.call("HeadObject", Bucket=bucket, Key=key))
        except CloudNotFound:
            return None

    def put(
        self,
        bucket: str,
        key: str,
        body: Body,
        *,
        metadata: Mapping[str, str] | None = None,
        acl: str = "",
        if_absent: bool = False,
    ) -> ObjectRecord:
        """Have the object hold these bytes and this canned ACL; an object that does already is not sent again.

        With `if_absent` an object of other bytes is kept: CloudConflict. Where the service honours no If-None-Match
        another writer's object may be replaced in the moment between looking and writing.
        """
        md5 = md5_of(body)
        there = self.head(bucket, key)
        if there is not None:
            if _is_same(there, len(body), md5):
                self.adopt(bucket, there, acl)
                return there
            if if_absent:
                raise taken(bucket, key)
        request: dict[str, Any] = {"Bucket": bucket, "Key": key, "ContentMD5": base64.b64encode(md5).decode()}
        if acl:
            request["ACL"] = acl
        if if_absent and self.conditional(bucket).put:
            request["IfNoneMatch"] = "*"
        request["Metadata"] = {
            records.DIGEST: f"md5:{md5.hex()}",
            **({records.ACL: acl} if acl else {}),
            **(metadata or {}),
        }
        try:
            answer = self.send("PutObject", body, **request)
        except CloudConflict:
            there = self.head(bucket, key)
            if there is not None and _is_same(there, len(body), md5):
                return there  # our own, whose answer was lost
            raise taken(bucket, key) from None
        stored = records.described(key, {**answer, "Size": len(body), "Metadata": request["Metadata"]})
        if not stored.etag:
            stored = self.looked_at(bucket, key, len(body))
        if stored.md5 and stored.md5 != md5.hex():
            raise CloudTrouble(f"s3:PutObject: s3://{bucket}/{key} was acknowledged with another MD5")
        return stored

    def read(self, bucket: str, key: str, *, most: int = 16 << 20) -> bytes:
        """Return a small object's bytes, held against its ETag where that says anything of them.

        Raises CloudNotFound, and CloudError for an object of more than `most` bytes.
        """
        found = self.head(bucket, key)
        if found is None:
            raise CloudNotFound(f"s3://{bucket}/{key} does not exist, says the cloud")
        if found.size > most:
            raise CloudError(f"s3://{bucket}/{key} has {found.size} bytes; at most {most} were expected")

        def once() -> bytes:
            pieces: list[bytes] = []
            self.receive(
                lambda _: pieces.append, Bucket=bucket, Key=key, **({"IfMatch": found.etag} if found.etag else {})
            )
            data = b"".join(pieces)
            if len(data) != found.size or not found.may_hold(data):
                raise CloudTrouble(f"s3:GetObject: s3://{bucket}/{key} was damaged on the way")
            return data

        return self.repeat("GetObject", once)

    def objects(self, bucket: str, prefix: str = "") -> Iterator[ObjectRecord]:
        """Yield every object whose key begins with `prefix`, in the order of the keys, without its metadata."""
        # Version 1 of the listing, which every server has; its marker is the last key of the page before.
        marker = ""
        while True:
            page = self.call("ListObjects", Bucket=bucket, Prefix=prefix, Marker=marker)
            for entry in page.get("Contents", ()):
                marker = str(entry["Key"])
                yield records.described(marker, entry)
            if not page.get("IsTruncated") or not page.get("Contents"):
                return

    def delete(self, bucket: str, key: str) -> None:
        """Delete the object; fine when it is gone already."""
        self.call("DeleteObject", Bucket=bucket, Key=key)

    def delete_many(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete the objects, a thousand a call; fine when some are gone already. Raises the first refusal."""
        left = iter(keys)
        while batch := [{"Key": key} for key in islice(left, _DELETED_AT_ONCE)]:
            answer = self.call("DeleteObjects", Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
            for refused in answer.get("Errors", ()):
                words = f"{refused.get('Key')}: {refused.get('Message') or 'no message'} ({refused.get('Code')})"
                raise CloudError(f"s3:DeleteObjects: s3://{bucket}/{words}")

    def set_acl(self, bucket: str, key: str, acl: str) -> None:
        """Give the object a canned ACL, such as aws-exec-read."""
        self.call("PutObjectAcl", Bucket=bucket, Key=key, ACL=acl)

    def presigned(self, bucket: str, key: str, *, seconds: int, action: str = "GetObject") -> str:
        """Return a URL with which anybody can read (or with action `PutObject` write) the object for that long."""
        return self._session().presigned("s3", action, {"Bucket": bucket, "Key": key}, seconds=seconds)

    # Unfinished uploads
    def uploads(self, bucket: str, prefix: str = "") -> Iterator[UploadRecord]:
        """Yield every unfinished multipart upload whose key begins with `prefix`."""
        markers: dict[str, str] = {}
        while True:
            page = self.call("ListMultipartUploads", Bucket=bucket, Prefix=prefix, **markers)
            for found in page.get("Uploads", ()):
                yield UploadRecord(
                    bucket=bucket, key=found["Key"], upload_id=found["UploadId"], initiated=found.get("Initiated")
                )
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}

    def parts(self, upload: UploadRecord) -> Iterator[PartRecord]:
        """Yield every part that the upload holds, ascending: past the thousandth as well."""
        named = {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.upload_id}
        marker = 0
        while True:
            page = self.call("ListParts", **named, PartNumberMarker=marker)
            for part in page.get("Parts", ()):
                marker = int(part["PartNumber"])
                yield PartRecord(number=marker, size=int(part["Size"]), etag=bare(part.get("ETag")))
            if not page.get("IsTruncated") or not page.get("Parts"):
                return

    def unfinished(self, bucket: str, key: str) -> list[UploadRecord]:
        """Return the unfinished uploads of exactly this key."""
        return [found for found in self.uploads(bucket, key) if found.key == key]

    def begin_upload(self, bucket: str, key: str, *, known: Iterable[UploadRecord], **options: Any) -> UploadRecord:
        """Begin a multipart upload beside the `known` ones: one, also when the first attempt's answer is lost."""
        before = {upload.upload_id for upload in known}
        attempts = count()

        def once() -> UploadRecord:
            if next(attempts):
                for found in self.unfinished(bucket, key):
                    if found.upload_id not in before:
                        return found
            answer = self._session().call("s3", "CreateMultipartUpload", {"Bucket": bucket, "Key": key, **options})
            return UploadRecord(bucket=bucket, key=key, upload_id=str(answer["UploadId"]))

        return self.repeat("CreateMultipartUpload", once)

    def abort(self, upload: UploadRecord) -> None:
        """Drop the upload and its parts; fine when it is gone already."""
        try:
            self.call("AbortMultipartUpload", Bucket=upload.bucket, Key=upload.key, UploadId=upload.upload_id)
        except CloudNotFound:
            return

    # What the other files of this package call with
    def call(self, action: str, **request: Any) -> Mapping[str, Any]:
        """Make a call that may be repeated and return its answer."""
        session = self._session()
        return self.repeat(action, lambda: session.call("s3", action, request))

    def send(self, action: str, body: Body, **request: Any) -> Mapping[str, Any]:
        """Make a call with a body, sent from its beginning at each attempt."""
        session = self._session()

        def once() -> Mapping[str, Any]:
            if not isinstance(body, bytes):
                body.seek(0)
            return session.call("s3", action, {**request, "Body": body})

        return self.repeat(action, once)

    def receive(self, begin: Callable[[Mapping[str, Any]], Callable[[bytes], None]], **request: Any) -> None:
        """Make one GetObject, once, and hand its body over in pieces (see Session.receive); to be used in `repeat`."""
        self._session().receive("s3", "GetObject", request, begin)

    def repeat(self, action: str, once: Callable[[], Answer]) -> Answer:
        """Return `once()`, repeated while the cloud is in trouble; for what may be repeated."""
        call = Call("s3", action)
        before, after = f"before {call}", f"after {call}"

        def attempt() -> Answer:
            self._pacer.wait()
            self._on_call(call)
            reach(before)
            answer = once()
            reach(after)
            return answer

        return retrying(attempt, progress=self.progress)

    def _create_bucket(self, bucket: str, location: str, *, acls: bool) -> None:
        request: dict[str, Any] = {"ObjectOwnership": "BucketOwnerPreferred"} if acls else {}
        if location:
            request["CreateBucketConfiguration"] = {"LocationConstraint": location}
        self.call("CreateBucket", Bucket=bucket, **request)

    def adopt(self, bucket: str, there: ObjectRecord, acl: str) -> None:
        """Let an object that holds the right bytes already have the wanted ACL too."""
        self.progress.note(f"s3://{bucket}/{there.key} is there already")
        if acl and there.metadata.get(records.ACL) != acl:
            self.set_acl(bucket, there.key, acl)

    def looked_at(self, bucket: str, key: str, size: int) -> ObjectRecord:
        """Return the record of an object that was just written; it must be there and have its size."""
        found = self.head(bucket, key)
        if found is None or found.size != size:
            raise CloudTrouble(f"s3://{bucket}/{key} was acknowledged and is not there in its size of {size} bytes")
        return found

    def _session(self) -> Session:
        with self._lock:
            if self._session_made is None:
                from builder.cloud.session import Session  # botocore costs 0.15 s that `emi --help` does not owe

                self._session_made = Session(self._settings, on_throttling=self._pacer.throttled)
            return self._session_made


def _is_same(there: ObjectRecord, size: int, md5: bytes) -> bool:
    return there.size == size and md5.hex() in (there.md5, there.digest.removeprefix("md5:"))


def taken(bucket: str, key: str) -> CloudConflict:
    """Return the error of a key that holds other bytes and may not be replaced."""
    return CloudConflict(
        f"s3://{bucket}/{key} exists and holds other bytes",
        hint="Choose another prefix or bucket, or delete that object; emi never replaces what it did not make.",
    )
