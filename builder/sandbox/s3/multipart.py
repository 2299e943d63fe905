"""Multipart uploads: an object is its parts' files in order, so that completing moves no byte.

Write order: a part's bytes, on the disk; its record (commit). Completing: the object, its layout, and the end of the
upload in one transaction (commit); then the files of parts that were not named are removed. A crash before a commit
leaves files that no record names, which the next start sweeps.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from builder.sandbox.protocols.rest_xml import S3Refusal, malformed
from builder.sandbox.records import Layout, Part, Piece, S3Object, Upload
from builder.sandbox.s3 import checksums, conditions, ranges, traits
from builder.sandbox.s3.checksums import ALGORITHMS, COMPOSITE, FULL_OBJECT
from builder.sandbox.s3.copies import hash_extents, shared_range, source_of
from builder.sandbox.s3.depot import Call, Depot
from builder.sandbox.s3.objects import ENCRYPTED, look, quoted, received, told
from builder.sandbox.s3.receive import LARGEST
from builder.sandbox.wire import Answer, Refusal

SMALLEST = 5 << 20  # bytes of every part but the last; S3's limit
_MOST = 10_000  # parts


def create(depot: Depot, call: Call) -> Answer:
    """Answer CreateMultipartUpload."""
    bucket = depot.bucket(call.address.bucket)
    said = traits.of(call.values, call.request, bucket, call.caller)
    algorithm, kind = call.values.get("ChecksumAlgorithm"), call.values.get("ChecksumType")
    if algorithm is not None:
        algorithm = algorithm.upper()
        if algorithm not in ALGORITHMS:
            message = "Checksum algorithm provided is unsupported. Please try again with any of the valid types"
            raise Refusal("InvalidRequest", message)
        kind = _kind(algorithm, kind)
    elif kind is not None:
        message = "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
        raise Refusal("InvalidRequest", message)
    upload = Upload(
        upload_id=secrets.token_urlsafe(72),
        bucket=bucket.name,
        name=call.key,
        initiated=time.time(),
        initiator=call.caller.arn,
        account=call.caller.account,
        traits=said,
        checksum_algorithm=algorithm,
        checksum_type=kind,
    )
    with depot.state.lock:
        depot.bucket(bucket.name)
        depot.state.put(upload)
    return call.answer(
        root="InitiateMultipartUploadResult",
        Bucket=bucket.name,
        Key=call.key,
        UploadId=upload.upload_id,
        ChecksumAlgorithm=algorithm,
        ChecksumType=kind,
        ServerSideEncryption=ENCRYPTED,
    )


def _kind(algorithm: str, asked: str | None) -> str:
    """Return how the parts' checksums make the object's. Raises Refusal where S3 cannot combine them so."""
    allowed = [FULL_OBJECT] if algorithm == "CRC64NVME" else [COMPOSITE]
    if algorithm in ("CRC32", "CRC32C"):
        allowed = [COMPOSITE, FULL_OBJECT]
    if asked is not None and asked not in allowed:
        message = f"The {asked} checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
        raise Refusal("InvalidRequest", message)
    return asked or allowed[0]


def upload_of(depot: Depot, call: Call) -> Upload:
    """Return the upload that the call names. Raises Refusal (NoSuchUpload)."""
    upload = depot.state.all(Upload).get(call.values["UploadId"])
    if upload is None or (upload.bucket, upload.name) != (call.address.bucket, call.key):
        raise no_such_upload(call.values["UploadId"])
    return upload


def no_such_upload(upload_id: str) -> S3Refusal:
    """Return S3's refusal of an upload that is not there any more, or never was."""
    message = (
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed."
    )
    return S3Refusal("NoSuchUpload", message, status=404, UploadId=upload_id)


# Parts


def upload_part(depot: Depot, call: Call) -> Answer:
    """Answer UploadPart; a part of the same number replaces the one before."""
    number = _number(call)
    depot.bucket(call.address.bucket)
    traits.check_supported(call.values)
    upload = upload_of(depot, call)
    claim = checksums.claim(call.request)
    if upload.checksum_algorithm is not None and claim.algorithm != upload.checksum_algorithm:
        expected, found = upload.checksum_algorithm.lower(), (claim.algorithm or "null").lower()
        message = f"Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {found}"
        raise Refusal("InvalidRequest", message)
    kept = upload.checksum_algorithm or checksums.DEFAULT
    with received(depot, call, claim, keep=kept) as (got, extents):
        part = _put_part(
            depot,
            Part(
                upload_id=upload.upload_id,
                number=number,
                size=got.size,
                etag=got.md5.hex(),
                last_modified=time.time(),
                extents=extents,
                checksums=got.checksums,
            ),
        )
    shown = told(part.checksums, None) if kept == claim.algorithm else {}
    return call.answer(ETag=quoted(part.etag), ServerSideEncryption=ENCRYPTED, **shown)


def upload_part_copy(depot: Depot, call: Call) -> Answer:
    """Answer UploadPartCopy: the part shares the source's bytes; they are read once, for its ETag and checksum."""
    number = _number(call)
    depot.bucket(call.address.bucket)
    traits.check_supported(call.values)
    upload = upload_of(depot, call)
    held = look(depot, call, *source_of(call.request))
    try:
        if not conditions.modified(call.values, held.one, prefix="CopySource"):
            raise conditions.failed("x-amz-copy-source-If-None-Match")
        asked = call.values.get("CopySourceRange")
        first, last = ranges.of_copy(asked, held.one.size) if asked is not None else (0, held.one.size - 1)
        if last - first + 1 > LARGEST:
            message = (
                f"The specified copy source is larger than the maximum allowable size for a copy source: {LARGEST}"
            )
            raise Refusal("InvalidRequest", message)
        extents = shared_range(depot, held, first, last - first + 1)
    finally:
        depot.store.release(held.one.data)
    kept = upload.checksum_algorithm or checksums.DEFAULT
    try:
        states = {name: ALGORITHMS[name].start() for name in {kept, "MD5"}}
        hash_extents(depot.store, extents, list(states.values()))
        part = Part(
            upload_id=upload.upload_id,
            number=number,
            size=last - first + 1,
            etag=states["MD5"].digest().hex(),
            last_modified=time.time(),
            extents=extents,
            checksums={kept: base64.b64encode(states[kept].digest()).decode()},
        )
        _put_part(depot, part)
    except BaseException:
        depot.store.remove("", extents)
        raise
    shown = told(part.checksums, None) if upload.checksum_algorithm is not None else {}
    result = {"ETag": quoted(part.etag), "LastModified": part.last_modified, **shown}
    return call.answer(CopyPartResult=result, ServerSideEncryption=ENCRYPTED)


def _number(call: Call) -> int:
    number: int = call.values["PartNumber"]
    if not 1 <= number <= _MOST:
        message = f"Part number must be an integer between 1 and {_MOST}, inclusive"
        raise S3Refusal("InvalidArgument", message, ArgumentName="partNumber", ArgumentValue=number)
    return number


def _put_part(depot: Depot, part: Part) -> Part:
    """Make it the upload's part of its number: the commit point."""
    with depot.state.lock:
        if part.upload_id not in depot.state.all(Upload):  # completed or aborted while its bytes came
            raise no_such_upload(part.upload_id)
        old = depot.state.find(Part, part.key)
        depot.state.put(part)
    if old is not None:
        depot.store.remove(part.upload_id, old.extents)
    return part


def parts_of(depot: Depot, upload: Upload, *, after: int = 0, limit: int = _MOST) -> list[Part]:
    """Return the upload's parts in order. Call it under the state's lock."""
    start = f"{upload.upload_id}/{after + 1:05d}"
    return depot.state.scan(Part, start, f"{upload.upload_id}0", limit)  # 0 comes after /


# The end


def abort(depot: Depot, call: Call) -> Answer:
    """Answer AbortMultipartUpload."""
    depot.bucket(call.address.bucket)
    with depot.state.lock:
        upload = upload_of(depot, call)
        parts = parts_of(depot, upload)
        depot.state.remove(upload, *parts)
    _free(depot, parts)
    return Answer(status=204)


def _free(depot: Depot, parts: Sequence[Part]) -> None:
    for part in parts:
        depot.store.remove(part.upload_id, part.extents)


def complete(depot: Depot, call: Call) -> Answer:
    """Answer CompleteMultipartUpload; once more after it succeeded, the same as long as the object is there."""
    bucket = depot.bucket(call.address.bucket)
    wanted = call.body.get("Parts", [])
    condition = conditions.of_write(call.values, depot.find(bucket.name, call.key))
    upload = depot.state.all(Upload).get(call.values["UploadId"])
    if upload is None or (upload.bucket, upload.name) != (bucket.name, call.key):
        done = depot.find(bucket.name, call.key)
        if done is None or done.upload_id != call.values["UploadId"]:
            raise no_such_upload(call.values["UploadId"])
        return _completed(call, done)
    with depot.state.lock:
        parts = parts_of(depot, upload)
    chosen = _chosen(parts, wanted, upload)
    one, layout = _assembled(call, upload, chosen)

    def unchanged() -> None:  # under the lock: what was looked at above is still what there is
        if upload.upload_id not in depot.state.all(Upload):
            raise no_such_upload(upload.upload_id)
        if [part.extents for part in parts_of(depot, upload)] != [part.extents for part in parts]:
            raise Refusal("InvalidPart", "A part was uploaded again meanwhile.")

    one = depot.put(one, condition, layout=layout, also_remove=[upload, *parts], unless=unchanged)
    used = {part.number for part in chosen}
    _free(depot, [part for part in parts if part.number not in used])
    return _completed(call, one)


def _completed(call: Call, one: S3Object) -> Answer:
    location = (
        f"{'https' if call.request.is_secure else 'http'}://{call.request.header('Host')}{call.request.sent_path}"
    )
    return call.answer(
        root="CompleteMultipartUploadResult",
        Location=location,
        Bucket=one.bucket,
        Key=one.name,
        ETag=quoted(one.etag),
        ServerSideEncryption=ENCRYPTED,
        **told(one.checksums, one.checksum_type),
    )


def _chosen(parts: Sequence[Part], wanted: Sequence[Mapping[str, Any]], upload: Upload) -> list[Part]:
    """Return the parts that the request names, in order. Raises Refusal where S3 would."""
    if not wanted:
        raise malformed()
    numbers = [entry.get("PartNumber", 0) for entry in wanted]
    if any(number >= after for number, after in itertools.pairwise(numbers)):
        message = "The list of parts was not in ascending order. Parts must be ordered by part number."
        raise S3Refusal("InvalidPartOrder", message, UploadId=upload.upload_id)
    there = {part.number: part for part in parts}
    chosen = []
    for entry, number in zip(wanted, numbers, strict=True):
        part, etag = there.get(number), entry.get("ETag", "").strip('"')
        if part is None or part.etag != etag or not _same_sums(part, entry, upload):
            message = (
                "One or more of the specified parts could not be found.  The part may not have been uploaded, or the "
                "specified entity tag may not match the part's entity tag."
            )
            fields = {"UploadId": upload.upload_id, "PartNumber": number, "ETag": etag}
            raise S3Refusal("InvalidPart", message, **fields)
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size < SMALLEST:
            message = "Your proposed upload is smaller than the minimum allowed size"
            fields = {"ProposedSize": part.size, "MinSizeAllowed": SMALLEST, "PartNumber": part.number}
            raise S3Refusal("EntityTooSmall", message, **fields, ETag=part.etag)
    return chosen


def _same_sums(part: Part, entry: Mapping[str, Any], upload: Upload) -> bool:
    stated = {name: entry[checksums.member(name)] for name in ALGORITHMS if checksums.member(name) in entry}
    if upload.checksum_type == COMPOSITE and upload.checksum_algorithm not in stated:
        name = (upload.checksum_algorithm or "").lower()
        message = (
            f"The upload was created using a {name} checksum. The complete request must include the checksum for each "
            f"part. It was missing for part {part.number} in the request."
        )
        raise Refusal("InvalidRequest", message)
    return all(part.checksums.get(name, value) == value for name, value in stated.items())


def _assembled(call: Call, upload: Upload, parts: Sequence[Part]) -> tuple[S3Object, Layout]:
    """Return the object that the parts make, held against what the request says of the whole. Raises Refusal."""
    algorithm = upload.checksum_algorithm or checksums.DEFAULT
    kind = upload.checksum_type or FULL_OBJECT
    sums = [part.checksums[algorithm] for part in parts]
    if kind == FULL_OBJECT:
        total = checksums.joined(algorithm, zip(sums, (part.size for part in parts), strict=True))
    else:
        total = checksums.composite(algorithm, sums)
    size = sum(part.size for part in parts)
    _check_whole(call, algorithm, kind, total, size)
    etag = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False).hexdigest()
    data = secrets.token_hex(16)
    pieces = tuple(
        Piece(number=part.number, size=part.size, checksums=part.checksums, extents=part.extents) for part in parts
    )
    one = S3Object(
        bucket=upload.bucket,
        name=upload.name,
        data=data,
        size=size,
        etag=f"{etag}-{len(parts)}",
        last_modified=0,
        traits=upload.traits,
        parts=len(parts),
        scattered=True,
        checksums={algorithm: total},
        checksum_type=kind,
        upload_id=upload.upload_id,
    )
    return one, Layout(data=data, pieces=pieces)


def _check_whole(call: Call, algorithm: str, kind: str, total: str, size: int) -> None:
    if call.values.get("MpuObjectSize", size) != size:
        stated = call.values["MpuObjectSize"]
        message = f"The provided 'x-amz-mp-object-size' header value {stated} does not match what was computed: {size}"
        raise Refusal("InvalidRequest", message)
    if call.values.get("ChecksumType", kind) != kind:
        raise Refusal("BadDigest", f"The upload was created with the {kind} checksum type.")
    stated = call.values.get(checksums.member(algorithm))
    if stated is not None and stated not in (total, total.partition("-")[0]):
        raise checksums.mismatch(algorithm)
