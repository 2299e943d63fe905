"""A large object out of S3: ranges in parallel into a sparse file, gone on with after a kill.

Beside the file PATH lie, until it is whole, `.NAME.part` (its bytes) and `.NAME.parts` (what is in there: a line for
the object's ETag, size and part size, then the number and MD5 of every range that arrived). Nothing is fsynced before
the end, so a line is believed only when the bytes still have its MD5: after a kill and after a power cut alike.
Renaming `.NAME.part` is the commit point.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from builder import durable, pool
from builder.cloud.s3 import records
from builder.cloud.s3.client import S3
from builder.cloud.s3.records import ObjectRecord
from builder.cloud.s3.source import FileSlice, md5_of
from builder.cloud.s3.upload import PART, WORKERS
from builder.digest import file_sha256
from builder.errors import CloudConflict, CloudNotFound, CloudTrouble

MIB = 1 << 20
_PAGE = 64 * 1024  # bytes; aligned zeros of this length become a hole
_ZEROS = bytes(_PAGE)
# Part sizes (MiB) by which other tools upload, the commonest first: what an ETag of parts can be held against.
_USUAL_PARTS = (8, 16, 5, 10, 15, 20, 25, 32, 50, 64, 100, 128, 256, 512)
Means: TypeAlias = Literal["sha256", "md5", "length"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What to download, and what is known of it beforehand.

    `digest` (`sha256:HEX`) stands above the one that emi wrote beside the object. `md5s`, one for each range of `part`
    bytes, let each range be checked as it arrives.
    """

    bucket: str
    key: str
    digest: str = ""
    md5s: Sequence[bytes] = ()
    part: int = 0

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """What arrived, and what its bytes were held against; `length` is all that can be done without digest or MD5s."""

    record: ObjectRecord
    verified: Means


def download(s3: S3, origin: Origin, path: Path, *, workers: int = WORKERS) -> Downloaded:
    """Have `path` hold the object's bytes, durably and with holes for its zeros.

    Held against the digest, else against the ETag; a range that is known to be damaged is fetched again. At most a MiB
    a worker is held in memory. A failure leaves the two files that the next call goes on with. Raises CloudNotFound,
    CloudConflict when the object changes meanwhile, CloudTrouble when the bytes are not what they should be (nothing is
    left then).
    """
    record = s3.head(origin.bucket, origin.key)
    if record is None:
        raise CloudNotFound(f"{origin} does not exist, says the cloud")
    s3.progress.total(record.size)
    task = _Download(s3, origin, record, path)
    try:
        verified = task.verify(task.run(workers))
        os.fsync(task.descriptor)
    finally:
        os.close(task.descriptor)
    durable.commit(task.aside, path)
    task.journal.unlink()
    return Downloaded(record=record, verified=verified)


def _usual_part(record: ObjectRecord) -> int:
    """Return the part size by which the object was probably uploaded."""
    fitting = (size * MIB for size in _USUAL_PARTS if -(-record.size // (size * MIB)) == record.parts)
    return next(fitting, PART)


class _Download:
    def __init__(self, s3: S3, origin: Origin, record: ObjectRecord, path: Path) -> None:
        self._s3, self._origin, self._record = s3, origin, record
        self._part = origin.part or record.part_size or _usual_part(record)
        self.aside = path.with_name(f".{path.name}.part")
        self.journal = path.with_name(f".{path.name}.parts")
        self._header = f"{record.etag} {record.size} {self._part}"
        self._known = self._read_journal()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if self._known else os.O_TRUNC)
        self.descriptor = os.open(self.aside, flags, 0o600)
        with durable.translate_disk_full(self.aside):
            os.ftruncate(self.descriptor, record.size)

    def run(self, workers: int) -> list[bytes]:
        """Fetch what is missing; return the MD5 of every range."""
        if not self._known:
            self.journal.write_text(f"{self._header}\n")
        with open(self.journal, "ab", buffering=0) as journal:

            def settle(number: int) -> bytes:
                md5 = self._kept(number) or self._fetch(number)
                if number not in self._known:
                    with durable.translate_disk_full(self.journal):
                        journal.write(f"{number} {md5.hex()}\n".encode())  # one write, appended as a whole
                return md5

            return list(pool.in_order(settle, range(-(-self._record.size // self._part)), workers=workers))

    def verify(self, found: list[bytes]) -> Means:
        """Hold the whole file against what is known of it. Raises CloudTrouble, leaving nothing to go on with."""
        means, same = self._judge(found)
        if not same:
            self.journal.unlink()
            self.aside.unlink()
            raise CloudTrouble(f"{self._origin} did not arrive as it is stored: its {means} differs")
        return means

    def _judge(self, found: list[bytes]) -> tuple[Means, bool]:
        record = self._record
        digest = self._origin.digest or record.digest
        if digest.startswith("sha256:"):
            # Ranges arrive in any order, SHA-256 wants them in one: a second reading, of what is in memory mostly.
            return "sha256", file_sha256(self.aside) == digest
        if record.md5:
            whole = FileSlice(self.descriptor, path=self.aside, offset=0, size=record.size)
            return "md5", (found[0] if len(found) == 1 else md5_of(whole)).hex() == record.md5
        if record.parts and records.composite(found) == record.etag:
            return "md5", True
        if record.part_size == self._part and record.parts == len(found) and not record.opaque:
            return "md5", False  # emi's own parts: no other reading of the ETag is left
        return "length", True

    def _read_journal(self) -> dict[int, bytes]:
        try:
            header, *lines = self.journal.read_text().splitlines()
        except (FileNotFoundError, ValueError):
            return {}
        if header != self._header or not self.aside.exists():
            return {}
        words = [line.split() for line in lines]
        return {int(pair[0]): bytes.fromhex(pair[1]) for pair in words if len(pair) == 2 and len(pair[1]) == 32}

    def _kept(self, number: int) -> bytes | None:
        """Return the MD5 of a range that arrived earlier and is still what arrived."""
        if number not in self._known:
            return None
        offset, size = self._range(number)
        if md5_of(FileSlice(self.descriptor, path=self.aside, offset=offset, size=size)) != self._known[number]:
            return None
        self._s3.progress.advance(size)
        return self._known[number]

    def _fetch(self, number: int) -> bytes:
        offset, size = self._range(number)
        stretch = _Stretch(self.descriptor, offset, size)

        def once() -> bytes:
            request = {"Bucket": self._origin.bucket, "Key": self._origin.key, "Range": stretch.wanted}
            if self._record.etag:
                request["IfMatch"] = f'"{self._record.etag}"'
            if not stretch.whole:
                with durable.translate_disk_full(self.aside):
                    self._s3.receive(stretch.begin, **request)
            return stretch.finish(self._origin.md5s[number] if self._origin.md5s else None)

        try:
            md5 = self._s3.repeat("GetObject", once)
        except CloudConflict as error:
            raise CloudConflict(
                f"{self._origin} was changed while it was being downloaded",
                hint="Run again: it begins anew with what is there now.",
            ) from error
        self._s3.progress.advance(size)
        return md5

    def _range(self, number: int) -> tuple[int, int]:
        offset = number * self._part
        return offset, min(self._part, self._record.size - offset)


class _Stretch:
    """A range of the file that is filled by one answer, or by several where connections are cut."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor, self._offset, self._size = descriptor, offset, size
        self._got = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def whole(self) -> bool:
        """Say whether every byte is there."""
        return self._got == self._size

    @property
    def wanted(self) -> str:
        """The Range header for what is missing."""
        return f"bytes={self._offset + self._got}-{self._offset + self._size - 1}"

    def begin(self, answer: Mapping[str, Any]) -> Callable[[bytes], None]:
        """Take the beginning of an answer, which must be of the very range that was asked for."""
        first = str(answer.get("ContentRange", "")).partition(" ")[2].partition("-")[0]
        if first != str(self._offset + self._got) or answer["ContentLength"] != self._size - self._got:
            raise CloudTrouble(f"s3:GetObject: {self.wanted} was answered with {answer.get('ContentRange')}")
        return self._take

    def finish(self, expected: bytes | None) -> bytes:
        """Return the MD5 of the whole range. Raises CloudTrouble when something is missing or it is not as expected."""
        if not self.whole:
            raise CloudTrouble(f"s3:GetObject: the answer ended before {self.wanted}")
        md5 = self._md5.digest()
        if expected is None or md5 == expected:
            return md5
        self._got = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        raise CloudTrouble("s3:GetObject: a range was damaged on the way")

    def _take(self, piece: bytes) -> None:
        self._md5.update(piece)
        begin = None  # of the run of pages to write, relative to piece
        for at in range(0, len(piece), _PAGE):
            length = min(_PAGE, len(piece) - at)
            if self._is_hole(piece, at, length):
                if begin is not None:
                    self._put(piece, begin, at)
                begin = None
            elif begin is None:
                begin = at
        if begin is not None:
            self._put(piece, begin, len(piece))
        self._got += len(piece)

    def _is_hole(self, piece: bytes, at: int, length: int) -> bool:
        """Say whether zeros may be left out: over what an earlier attempt left there they must be written."""
        zeros = _ZEROS if length == _PAGE else _ZEROS[:length]
        if not piece.startswith(zeros, at):
            return False
        return os.pread(self._descriptor, length, self._offset + self._got + at) == zeros

    def _put(self, piece: bytes, start: int, end: int) -> None:
        data, offset = memoryview(piece)[start:end], self._offset + self._got + start
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written
