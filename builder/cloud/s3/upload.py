"""Large objects into S3: parts in parallel, and after a kill only what had not been acknowledged.

A part that the unfinished upload holds is believed when its size and ETag are those of the bytes here: they are hashed
for Content-MD5 in any case, so going on costs no more than reading. Where the server's ETags are no MD5s (keys of KMS)
parts are sent again.

| step | killed after it |
| --- | --- |
| CreateMultipartUpload | an upload without parts; found by its key and used by the next run |
| UploadPart | the part is held; the next run does not send it again |
| CompleteMultipartUpload (**commit point**) | the object is there, whole; the next run finds it and sends nothing |

Unfinished uploads of the same key that were not used are left: they may be another run's. `S3.uploads` lists them.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder import pool
from builder.cloud.s3 import records
from builder.cloud.s3.client import S3, taken
from builder.cloud.s3.records import ObjectRecord, PartRecord, UploadRecord
from builder.cloud.s3.source import Body, FileSlice, md5_of
from builder.errors import CloudConflict, CloudNotFound, CloudTrouble, InputError

MIB = 1 << 20
PART = 16 * MIB  # bytes; at 100 MiB/s a part a sixth of a second
MOST_PARTS = 10_000  # S3's limits: "Amazon S3 multipart upload limits"
LARGEST_PART = 5 << 30
WORKERS = 4


def part_size(size: int) -> int:
    """Return the bytes of a part with which an object of `size` bytes needs at most 10,000 of them.

    Raises InputError for more than S3 can hold that way (48.8 TiB).
    """
    needed = -(-size // MOST_PARTS)
    if needed > LARGEST_PART:
        raise InputError(f"{size} bytes are more than {MOST_PARTS} parts of 5 GiB hold")
    return max(PART, -(-needed // MIB) * MIB)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where an object goes and how: `digest` (`sha256:HEX`) where the caller knows it, by which it is known again.

    `if_absent` keeps an object of other bytes: CloudConflict. `abort` drops the parts when the upload fails; without it
    they are left for the next attempt.
    """

    bucket: str
    key: str
    digest: str = ""
    acl: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    if_absent: bool = False
    abort: bool = False

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def upload_file(s3: S3, target: Target, path: Path, *, part: int = 0, workers: int = WORKERS) -> ObjectRecord:
    """Have the object hold the file's bytes; what is there already, whole or in parts, is not sent again.

    At most a MiB a worker is held in memory. `part` is the part size in bytes (0: as the size needs). The file must not
    change meanwhile.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        part = part or part_size(size)

        def bodies() -> Iterator[Body]:
            for offset in range(0, size, part):
                yield FileSlice(descriptor, path=path, offset=offset, size=min(part, size - offset))

        s3.progress.total(size)
        if size <= part:
            return _put(s3, target, FileSlice(descriptor, path=path, offset=0, size=size))
        return _Upload(s3, target, part, workers).run(bodies, size)
    finally:
        os.close(descriptor)


def upload_stream(
    s3: S3, target: Target, pieces: Iterable[bytes], *, most: int, part: int = 0, workers: int = WORKERS
) -> ObjectRecord:
    """As `upload_file`, of bytes that come in pieces and are at most `most` in all (which chooses the part size).

    Two parts a worker are held in memory. With the target's digest an object that is there is found before anything
    is read.
    """
    part = part or part_size(most)
    there = s3.head(target.bucket, target.key) if target.digest else None
    if there is not None and there.digest == target.digest:
        s3.adopt(target.bucket, there, target.acl)
        return there
    bodies = _cut(pieces, part)
    first = next(bodies)
    if len(first) < part:
        return _put(s3, target, first)

    def all_of_them() -> Iterator[Body]:
        yield first
        yield from bodies

    return _Upload(s3, target, part, workers).run(all_of_them, None)


def _put(s3: S3, target: Target, body: Body) -> ObjectRecord:
    metadata = {**target.metadata, **({records.DIGEST: target.digest} if target.digest else {})}
    stored = s3.put(target.bucket, target.key, body, metadata=metadata, acl=target.acl, if_absent=target.if_absent)
    s3.progress.advance(len(body))
    return stored


def _cut(pieces: Iterable[bytes], part: int) -> Iterator[bytes]:
    """Yield the same bytes in parts; at least one, which may be empty."""
    held = bytearray()
    empty = True
    for piece in pieces:
        held += piece
        while len(held) >= part:
            yield bytes(memoryview(held)[:part])
            del held[:part]
            empty = False
    if held or empty:
        yield bytes(held)


class _Upload:
    """One multipart upload, begun or gone on with."""

    def __init__(self, s3: S3, target: Target, part: int, workers: int) -> None:
        self._s3, self._target, self._part, self._workers = s3, target, part, workers

    def run(self, bodies: Callable[[], Iterator[Body]], size: int | None) -> ObjectRecord:
        """Have the object be there. `bodies` may be called a second time only when `size` is known."""
        target, s3 = self._target, self._s3
        there = s3.head(target.bucket, target.key)
        if there is not None and size is not None and self._is_same(there, bodies, size):
            s3.adopt(target.bucket, there, target.acl)
            return there
        if there is not None and target.if_absent and size is not None:
            raise taken(target.bucket, target.key)
        upload, held = self._begin()
        try:
            return self._finish(upload, list(self._send(upload, held, bodies())))
        except BaseException:
            if target.abort:
                s3.abort(upload)
            raise

    def _is_same(self, there: ObjectRecord, bodies: Callable[[], Iterator[Body]], size: int) -> bool:
        if there.size != size:
            return False
        if self._target.digest and there.digest:
            return there.digest == self._target.digest
        if there.parts != -(-size // self._part):
            return False
        return records.composite(pool.in_order(md5_of, bodies(), workers=self._workers)) == there.etag

    def _begin(self) -> tuple[UploadRecord, dict[int, PartRecord]]:
        """Return the upload to go on with, and the parts it holds: the one that holds most, or a new one."""
        target, s3 = self._target, self._s3
        known = s3.unfinished(target.bucket, target.key)
        held = [(upload, {part.number: part for part in s3.parts(upload)}) for upload in known]
        if held:
            chosen = max(held, key=lambda one: len(one[1]))
            s3.progress.note(f"going on with the upload of {target}: {len(chosen[1])} parts are there")
            return chosen
        metadata = {**target.metadata, records.PART_SIZE: str(self._part)}
        metadata |= {records.DIGEST: target.digest} if target.digest else {}
        metadata |= {records.ACL: target.acl} if target.acl else {}
        options: dict[str, Any] = {"ACL": target.acl} if target.acl else {}
        return s3.begin_upload(target.bucket, target.key, known=known, Metadata=metadata, **options), {}

    def _send(
        self, upload: UploadRecord, held: Mapping[int, PartRecord], bodies: Iterator[Body]
    ) -> Iterator[tuple[bytes, str, int]]:
        """Yield each part's MD5, ETag and size, in order, once the server has acknowledged it."""
        named = {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.upload_id}

        def settle(numbered: tuple[int, Body]) -> tuple[bytes, str, int]:
            number, body = numbered
            if number > MOST_PARTS:
                raise InputError(f"{self._target}: more than {MOST_PARTS} parts of {self._part} bytes")
            md5 = md5_of(body)
            there = held.get(number)
            if there is None or (there.size, there.etag) != (len(body), md5.hex()):
                answer = self._s3.send(
                    "UploadPart", body, **named, PartNumber=number, ContentMD5=base64.b64encode(md5).decode()
                )
                etag = records.described(upload.key, answer)
                if etag.md5 and etag.md5 != md5.hex():
                    raise CloudTrouble(f"s3:UploadPart: part {number} of {self._target} was acknowledged as another")
                name = etag.etag or md5.hex()
            else:
                name = there.etag
            self._s3.progress.advance(len(body))
            return md5, name, len(body)

        return pool.in_order(settle, enumerate(bodies, 1), workers=self._workers)

    def _finish(self, upload: UploadRecord, sent: list[tuple[bytes, str, int]]) -> ObjectRecord:
        """Complete the upload and look at the object; its size, and its ETag where there is one, must be as sent."""
        target, s3 = self._target, self._s3
        named = {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.upload_id}
        parts = [{"PartNumber": number, "ETag": f'"{name}"'} for number, (_, name, _) in enumerate(sent, 1)]
        condition = {"IfNoneMatch": "*"} if target.if_absent and s3.conditional(target.bucket).complete else {}
        if target.if_absent and not condition and s3.head(target.bucket, target.key) is not None:
            return self._given_up(upload, sent)
        refusal = None
        try:
            s3.call("CompleteMultipartUpload", **named, MultipartUpload={"Parts": parts}, **condition)
        except CloudConflict:
            return self._given_up(upload, sent)
        except CloudNotFound as error:
            refusal = error  # either it is as it says, or our own first attempt was completed and its answer lost
        there = s3.head(target.bucket, target.key)
        if there is not None and _as_sent(there, sent):
            return there
        raise refusal or CloudTrouble(f"{target} was completed and is not there as it was sent: {there}")

    def _given_up(self, upload: UploadRecord, sent: list[tuple[bytes, str, int]]) -> ObjectRecord:
        """Drop the parts, for somebody else has written the object; return it when it holds the same bytes."""
        self._s3.abort(upload)
        there = self._s3.head(self._target.bucket, self._target.key)
        if there is None or not there.etag or not _as_sent(there, sent):
            raise taken(self._target.bucket, self._target.key)
        return there


def _as_sent(there: ObjectRecord, sent: list[tuple[bytes, str, int]]) -> bool:
    plain = all(md5.hex() == name for md5, name, _ in sent)
    etag = records.composite(md5 for md5, _, _ in sent)
    return there.size == sum(length for _, _, length in sent) and (not plain or there.etag in ("", etag))
