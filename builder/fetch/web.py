"""Downloads that continue where they were cut, small files in memory, and questions about a file's version."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from builder import retry
from builder.errors import ChecksumMismatch, InputError
from builder.fetch.address import Address, resolve
from builder.fetch.client import Client, Limits
from builder.fetch.spool import Spool, Validators
from builder.fetch.transfer import Transfer, require_identity
from builder.progress import SILENT, Progress
from builder.units import format_size
from builder.verify.checksums import Checksum

_COPY = 512 * 1024  # bytes per read of a local file

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A downloaded file in scratch, whole, and checked if a checksum was given. `digests` are hexadecimal."""

    path: Path
    size: int
    digests: Mapping[str, str]
    validators: Validators

    @property
    def sha256(self) -> str:
        """`sha256:HEX` of its bytes."""
        return f"sha256:{self.digests['sha256']}"


class Web:
    """Reads URLs, through mirrors if there are any. One per thread."""

    def __init__(
        self, *, mirrors: Sequence[tuple[str, str]] = (), limits: Limits | None = None, progress: Progress = SILENT
    ) -> None:
        self._mirrors = mirrors
        self._limits = limits or Limits()
        self._progress = progress
        self._client = Client(self._limits)

    def address(self, url: str) -> Address:
        """Return where `url` is read from. Raises UsageError if it is no URL."""
        return resolve(url, self._mirrors)

    def download(self, url: str, scratch: Path, *, expected: Checksum | None = None) -> Fetched:
        """Return the file, from `scratch`/download.part; a call killed at any moment is continued by the next.

        What arrived is asked for again only if the server's file changed or the server cannot send a part. Cuts,
        timeouts and busy servers are retried while bytes keep coming. Raises NetworkError, NetworkTrouble, DiskFull,
        ChecksumMismatch (nothing is kept then) and InputError.
        """
        address = self.address(url)
        algorithms = frozenset({"sha256"} | ({expected.algorithm} if expected else set()))
        with closing(Spool(scratch, address.actual, algorithms)) as spool:
            resumed = spool.size > 0
            fetched = self._fill(spool, address)
            if expected and resumed and fetched.digests[expected.algorithm] != expected.value:
                # The part that an earlier process left may be what is wrong; only a whole download is proof.
                self._progress.note("the continued download has the wrong checksum: reading it anew")
                self._progress.advance(-spool.size)
                spool.clear()
                fetched = self._fill(spool, address)
            if expected and (found := fetched.digests[expected.algorithm]) != expected.value:
                spool.discard()
                raise ChecksumMismatch(
                    f"{address}: {expected.algorithm} is {found}, expected {expected.value}"
                    + (f" ({expected.source})" if expected.source else "")
                )
        return fetched

    def read(self, url: str, *, limit: int = 16 << 20) -> bytes:
        """Return a small file (a checksum file, a signature) whole. Raises InputError above `limit` bytes."""
        address = self.address(url)
        if local := address.local:
            data = _read_local(local, address, limit)
        else:
            data = self._retrying(lambda: self._read_once(address, limit))
        if len(data) > limit:
            raise InputError(f"{address} is larger than {format_size(limit)}: not a checksum file or signature")
        return data

    def probe(self, url: str) -> Validators:
        """Return what the server says about the file without reading it. Raises as `read` does."""
        address = self.address(url)
        if local := address.local:
            return _local_version(_regular(local, address))
        return self._retrying(lambda: self._probe_once(address))

    def _fill(self, spool: Spool, address: Address) -> Fetched:
        if local := address.local:
            self._copy(local, address, spool)
        else:
            Transfer(self._client, address, spool, self._progress).run(self._retrying)
        return Fetched(path=spool.path, size=spool.size, digests=spool.hexdigests, validators=spool.validators)

    def _copy(self, local: Path, address: Address, spool: Spool) -> None:
        before = _regular(local, address)
        spool.begin(_local_version(before))
        self._progress.total(before.st_size)
        with open(local, "rb", buffering=0) as source:
            while chunk := source.read(_COPY):
                spool.write(chunk)
                self._progress.advance(len(chunk))
        after = local.stat()
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns) or not spool.whole:
            spool.discard()
            raise InputError(f"{address} changed while it was read")

    def _read_once(self, address: Address, limit: int) -> bytes:
        with self._client.request("GET", address) as answer:
            if answer.status != 200:
                raise answer.refusal()
            require_identity(answer, address)
            data = b""
            while len(data) <= limit and (chunk := answer.read()):
                data += chunk
            return data

    def _probe_once(self, address: Address) -> Validators:
        with self._client.request("HEAD", address) as answer:
            if answer.status == 200:
                return Validators.of(answer)
            # Servers that know no HEAD, and links signed for GET alone.
            if answer.status not in (403, 405, 501):
                raise answer.refusal()
        with self._client.request("GET", address, {"Range": "bytes=0-0"}) as answer:
            if answer.status not in (200, 206):
                raise answer.refusal()
            return Validators.of(answer)

    def _retrying(self, call: Callable[[], Result]) -> Result:
        limits = self._limits
        return retry.retrying(
            call,
            deadline=limits.deadline,
            attempts=limits.attempts,
            first_wait=limits.first_wait,
            longest_wait=limits.longest_wait,
            progress=self._progress,
        )


def _regular(local: Path, address: Address) -> os.stat_result:
    try:
        status = local.stat()
    except OSError as error:
        raise InputError(f"{address}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{address} is not a regular file")
    return status


def _local_version(status: os.stat_result) -> Validators:
    return Validators(size=status.st_size, last_modified=str(status.st_mtime_ns))


def _read_local(local: Path, address: Address, limit: int) -> bytes:
    _regular(local, address)
    with open(local, "rb") as source:
        return source.read(limit + 1)
