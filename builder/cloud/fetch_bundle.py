"""A bundle out of S3 or Walrus: the manifest is read first, then the parts come in parallel, each held against it.

| when | what a crash leaves in the directory |
| --- | --- |
| a part arrives | `.PART.arriving`, which the next attempt begins anew |
| a part was verified and renamed | the part; the next attempt computes its digest again instead of fetching it |
| all parts are there (**commit point**: the manifest is written) | the bundle, complete |

Parts are not fsynced: whoever reads them, the next attempt too, holds them against their digests.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from builder import durable, pool
from builder.bundle import limits, manifest
from builder.bundle.folder import is_part, parts_in
from builder.bundle.joined import Parts
from builder.bundle.records import Manifest
from builder.cloud.s3 import S3
from builder.errors import BundleRefused, BusyError, CloudNotFound, HostError, InputError
from builder.progress import SILENT, Progress

WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A bundle that lies in a directory: its manifest's path and words, its parts' paths in the manifest's order."""

    path: Path
    manifest: Manifest
    parts: tuple[Path, ...]
    kept: int  # parts that were there already


def fetch_bundle(
    s3: S3,
    bucket: str,
    manifest_key: str,
    into: Path,
    *,
    data: bytes | None = None,
    workers: int = WORKERS,
    progress: Progress = SILENT,
) -> Fetched:
    """Have the directory `into`, made if need be, hold the bundle whose manifest is `manifest_key`.

    `data` is the manifest, where the caller has read it already and holds on to what it said then.
    Parts are looked for beside the manifest, then at the bucket's root, where Eucalyptus 4.0 to 4.4.1 have them. What
    is here with the right digest is not fetched again. Nothing is written outside of `into`, and nothing in it is
    replaced but what is named like a part (`….part.N`). Raises BundleRefused when a part is missing or arrives damaged
    twice (what arrived well is kept), InputError where another manifest or file has the name, CloudError, BusyError,
    DiskFull, HostError.
    """
    if data is None:
        data = s3.read(bucket, manifest_key, most=limits.LARGEST_MANIFEST)
    name = posixpath.basename(manifest_key)
    says = manifest.read(data, where=f"s3://{bucket}/{manifest_key}")
    _require_names(says, name)
    _make(into)
    _require_same(into / name, data)
    progress.total(says.bundled_size)
    fetch = _Fetch(s3, bucket, posixpath.dirname(manifest_key), says, into)

    def settle(index: int) -> bool:
        kept = fetch.is_here(index)
        if not kept:
            fetch.part(index)
        progress.advance(fetch.sizes[index])
        return kept

    kept = sum(pool.in_order(settle, range(len(says.parts)), workers=workers))
    if wrong := Parts(says, parts_in(into, says, alone=False)).wrong_total(sum(fetch.sizes.values())):
        raise BundleRefused(f"s3://{bucket}/{manifest_key}: {wrong}", hint="Get the bundle from another source.")
    with durable.translate_failures(into / name):
        durable.write_file(into / name, data)
    parts = tuple(into / part.filename for part in says.parts)
    return Fetched(path=into / name, manifest=says, parts=parts, kept=kept)


class _Fetch:
    def __init__(self, s3: S3, bucket: str, folder: str, says: Manifest, into: Path) -> None:
        self._s3, self._bucket, self._into = s3, bucket, into
        self._folder = f"{folder}/" if folder else ""
        self._says = says
        self._parts = Parts(says, parts_in(into, says, alone=False))
        self._at_root = False  # where the last part that was looked for was found
        self.sizes: dict[int, int] = {}

    def is_here(self, index: int) -> bool:
        """Say whether the directory has the part, with its digest."""
        try:
            sha1, size = self._parts.look(index)
        except (BundleRefused, HostError):  # missing, or something that is no file: fetched, and replaced
            return False
        self.sizes[index] = size
        return sha1 == self._says.parts[index].sha1

    def part(self, index: int) -> None:
        """Have the directory hold the part, verified."""
        part = self._says.parts[index]
        if not is_part(part.filename) and os.path.lexists(self._into / part.filename):
            raise _taken(self._into / part.filename, "no part of the bundle, which calls one so")
        with _Aside(self._into / part.filename) as aside:
            found, key = self._arrive(part.filename, aside)
            if found != part.sha1:
                found, key = self._arrive(part.filename, aside)
            if found == part.sha1:
                self.sizes[index] = aside.size
                aside.commit()
                return
        raise BundleRefused(
            f"s3://{self._bucket}/{key}, {self._parts.named(index)}, arrived twice with the SHA-1 {found}, "
            f"the manifest says {part.sha1}",
            hint="It is damaged where it lies: upload that part again, or bundle the image again. The others are kept.",
        )

    def _arrive(self, filename: str, aside: _Aside) -> tuple[str, str]:
        """Fetch a part from where it lies; return the SHA-1 of what arrived, and the key."""
        for at_root in dict.fromkeys((self._at_root, False, True)):
            key = filename if at_root else f"{self._folder}{filename}"
            try:
                sha1 = self._receive(key, aside)
            except CloudNotFound:
                continue
            self._at_root = at_root
            return sha1, key
        tried = dict.fromkeys(f"s3://{self._bucket}/{place}{filename}" for place in (self._folder, ""))
        raise BundleRefused(
            f"a part of the bundle is missing: {' and '.join(tried)} {'do' if len(tried) > 1 else 'does'} not exist",
            hint="Upload the bundle again; what is there already is not sent twice.",
        )

    def _receive(self, key: str, aside: _Aside) -> str:
        def once() -> str:
            digest = hashlib.sha1(usedforsecurity=False)

            def begin(answer: Mapping[str, Any]) -> Callable[[bytes], None]:
                size, most = int(answer["ContentLength"]), self._says.bundled_size
                if size > most:
                    raise BundleRefused(
                        f"s3://{self._bucket}/{key} has {size} bytes, all parts of the bundle have {most}",
                        hint="Something else lies under that key: upload the bundle again.",
                    )
                aside.begin()
                return take

            def take(piece: bytes) -> None:
                digest.update(piece)
                aside.write(piece)

            self._s3.receive(begin, Bucket=self._bucket, Key=key)
            return digest.hexdigest()

        return self._s3.repeat("GetObject", once)


class _Aside:
    """A part's file before it has its name, which only one process writes; removed by every end but a crash."""

    def __init__(self, path: Path) -> None:
        self._aside = path.with_name(f".{path.name}.arriving")
        self._path = path
        self._file = -1
        self._named = False
        self.size = 0

    def __enter__(self) -> Self:
        with durable.translate_failures(self._aside):
            try:
                self._file = durable.take_aside(self._aside)
            except BlockingIOError:
                raise BusyError(f"another process is fetching {self._path}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if not self._named:  # else the next process may have begun one there
            self._aside.unlink(missing_ok=True)
        os.close(self._file)

    def begin(self) -> None:
        """Forget what was written."""
        os.ftruncate(self._file, 0)
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Append a piece. Raises DiskFull and HostError."""
        left = memoryview(piece)
        with durable.translate_failures(self._aside):
            while left:
                written = os.pwrite(self._file, left, self.size)
                left, self.size = left[written:], self.size + written

    def commit(self) -> None:
        """Give the file its name."""
        with durable.translate_failures(self._path):
            self._aside.replace(self._path)
        self._named = True


_RIGHTS = "Look at the directory's rights and at the filesystem, then run again."


def _require_names(says: Manifest, name: str) -> None:
    """Return if the files can lie beside each other under these names, and beside what is on its way."""
    if not name or not name.isprintable():
        raise BundleRefused(f"{name!r} is no name for a manifest's file", hint="Give the key of a manifest.")
    for part in says.parts:
        # The manifest's reader has refused every name with a directory in it.
        if part.filename == name or part.filename.startswith("."):
            raise BundleRefused(
                f"the manifest calls a part {part.filename!r}, which is refused as a file name beside {name}",
                hint="No tool gives such names. Do not use this bundle.",
            )


def _require_same(path: Path, data: bytes) -> None:
    if path.is_file() and not path.is_symlink():
        with open(path, "rb") as file:
            if file.read(len(data) + 1) != data:
                raise _taken(path, "another manifest: of another bundle, or migrated since")


def _taken(path: Path, what: str) -> InputError:
    return InputError(f"{path} is there already, {what}", hint="Move it away, or fetch into another directory.")


def _make(into: Path) -> None:
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"the directory {into} cannot be made: {error.strerror}", hint=_RIGHTS) from error
