"""The part of a download that has arrived: a file, its digests so far, and a sidecar that says what file it is part of.

Write order: the sidecar (URL, validators, size), durably, before the first byte of the body; then the bytes. A crash

- before the sidecar leaves no spool, or one without a matching sidecar: the download begins anew;
- after it, at any byte, leaves the beginning of the version that the sidecar names: none of it is asked for again;
- of the whole machine may leave a file longer than what reached the disk: the sidecar holds the kernel's boot id, and
  a spool from another boot is thrown away.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from builder import crashpoint, durable
from builder.digest import BLOCK, is_zero
from builder.errors import DiskFull
from builder.fetch.client import Answer
from builder.units import format_size

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_REHASH = 1 << 20  # bytes per read


@dataclass(frozen=True, kw_only=True)
class Validators:
    """What a server says about the version of a file that it has, to tell it from the next. Size in bytes."""

    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read them from an answer; the size is the whole file's, also when the answer holds a part."""
        length = answer.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else None
        if answer.status == 206:
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            size = int(total) if total.isdigit() else None
        # A file changed in the second it was read may change again in that second (RFC 9110, 8.8.2.2).
        changed = answer.headers.get("Last-Modified")
        return cls(
            etag=answer.headers.get("ETag"),
            last_modified=changed if changed and _settled(answer.headers.get("Date"), changed) else None,
            size=size,
        )

    @property
    def condition(self) -> str | None:
        """Return the value of If-Range by which the rest of this version, and no other, may be asked for."""
        # A weak ETag promises equivalent bytes, not equal ones, and is not allowed there (RFC 9110, 13.1.5).
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class _Sidecar(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    url: str
    boot_id: str
    etag: str | None
    last_modified: str | None
    size: int | None


class Spool:
    """One download's file in `directory`, hashed as it grows by each of `algorithms`."""

    def __init__(self, directory: Path, url: str, algorithms: frozenset[str]) -> None:
        self.path = directory / "download.part"
        self._sidecar = directory / "download.json"
        self._url = url
        self._algorithms = algorithms
        self._digests = {name: hashlib.new(name) for name in sorted(algorithms)}
        self.size = 0  # bytes that have arrived
        self.validators = Validators()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._adopt()

    @property
    def hexdigests(self) -> dict[str, str]:
        """The digests of what has arrived, by algorithm."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    @property
    def whole(self) -> bool:
        """Whether all of the file has arrived, as far as its size is known."""
        return self.size == self.validators.size

    def begin(self, validators: Validators) -> None:
        """Start over, with the version of the file that `validators` describe. Raises DiskFull if it cannot fit."""
        self.clear()
        disk = os.statvfs(self.path)
        free = disk.f_bavail * disk.f_frsize
        if validators.size and validators.size > free:
            need = format_size(validators.size)
            self.discard()
            raise DiskFull(f"{self.path.parent} has {format_size(free)} free, and the download is {need} large")
        self.validators = validators
        sidecar = _Sidecar(
            url=self._url,
            boot_id=_BOOT_ID.read_text().strip(),
            etag=validators.etag,
            last_modified=validators.last_modified,
            size=validators.size,
        )
        durable.write_file(self._sidecar, sidecar.model_dump_json().encode())

    def write(self, data: bytes) -> None:
        """Append bytes that arrived. On a full disk nothing is kept, and DiskFull is raised."""
        try:
            with durable.translate_disk_full(self.path):
                self._append(memoryview(data))
        except DiskFull:
            self.discard()
            raise
        for digest in self._digests.values():
            digest.update(data)
        self.size += len(data)
        crashpoint.reach("fetch.spooled")

    def _append(self, data: memoryview) -> None:
        if len(data) <= BLOCK and is_zero(data):  # a raw image's empty parts become holes
            os.ftruncate(self._file, self.size + len(data))
            os.lseek(self._file, 0, os.SEEK_END)
            return
        while data:
            data = data[os.write(self._file, data) :]

    def clear(self) -> None:
        """Forget what has arrived."""
        self._sidecar.unlink(missing_ok=True)
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._digests = {name: hashlib.new(name) for name in sorted(self._algorithms)}
        self.size = 0
        self.validators = Validators()

    def discard(self) -> None:
        """Remove the file and the sidecar."""
        self._sidecar.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and leave it where it is."""
        os.close(self._file)

    def _adopt(self) -> None:
        """Take up what a killed process of this boot left of the same URL."""
        try:
            found = _Sidecar.model_validate_json(self._sidecar.read_bytes())
        except (OSError, ValidationError):
            return self.clear()
        if found.url != self._url or found.boot_id != _BOOT_ID.read_text().strip():
            return self.clear()
        # The one place that reads the bytes a second time: the hash of the first part died with its process.
        while chunk := os.read(self._file, _REHASH):
            for digest in self._digests.values():
                digest.update(chunk)
            self.size += len(chunk)
        self.validators = Validators(etag=found.etag, last_modified=found.last_modified, size=found.size)
        if found.size is not None and self.size > found.size:
            self.clear()
        return None


def _settled(answered: str | None, changed: str) -> bool:
    if answered is None:
        return True
    with contextlib.suppress(ValueError, TypeError):
        return (parsedate_to_datetime(answered) - parsedate_to_datetime(changed)).total_seconds() >= 1
    return False
