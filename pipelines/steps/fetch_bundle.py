"""The step kind `fetch-bundle`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from pydantic import Field

from builder.bundle import manifest
from builder.bundle.limits import LARGEST_MANIFEST
from builder.bundle.records import Manifest
from builder.cloud.fetch_bundle import fetch_bundle
from builder.digest import file_sha1
from builder.errors import InputError, UsageError
from builder.fetch import Web, resolve
from builder.verify import Checksum
from pipelines.artifact import Bundle, File
from pipelines.step import Inputs, LocalStep, Options, Outside, Work

_SUFFIX = ".manifest.xml"


class FetchBundleOptions(Options):
    """Where the bundle lies."""

    manifest: str = Field(
        description="`BUCKET/KEY` of the manifest, or its URL (file:///, http, https); the parts lie beside it"
    )
    cloud: str | None = Field(
        default=None, description="the cloud that has the bucket, as --cloud names it; by default the run's"
    )


class FetchBundle(LocalStep[FetchBundleOptions]):
    """Fetch a bundle: its manifest, and every part the manifest names, each held against its digest as it arrives.

    The manifest is pinned as the run begins: one that is replaced later is refused. Parts that are here already are not
    fetched again, and after a crash it goes on with those that are missing. What is inside is not looked at: that is
    for `unbundle`, which needs the private key, as `migrate-manifest` does. Bundles of every tool are taken.
    """

    options = FetchBundleOptions
    returns = Bundle
    continues = True

    def check(self, options: FetchBundleOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        if "://" in options.manifest and not options.manifest.startswith("s3://"):
            try:
                resolve(options.manifest)
            except UsageError as error:
                return [error.message]
            return ["`cloud` is for buckets; a URL says itself where it leads"] if options.cloud else []
        bucket, key = _place(options)
        return [] if bucket and key else [f"`manifest` is BUCKET/KEY or a URL, not {options.manifest!r}"]

    def pin(self, options: FetchBundleOptions, outside: Outside) -> Mapping[str, Any]:
        """Return the manifest's digest, and the bytes of the parts."""
        data = _read(options, outside)
        says = manifest.read(data, where=options.manifest)
        return {"manifest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": says.bundled_size}

    def expect(self, options: FetchBundleOptions, pins: Mapping[str, Any]) -> int | None:
        """Return the parts' bytes."""
        return pins.get("size")

    def build(self, options: FetchBundleOptions, inputs: Inputs, work: Work) -> Bundle:
        """Fetch what is missing and seal it."""
        data = _read(options, work.outside)
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != work.pins["manifest"]:
            raise InputError(
                f"{options.manifest} changed after this run began: it was {work.pins['manifest']}, and now is {found}",
                hint="Run again for the new one.",
            )
        says = manifest.read(data, where=options.manifest)
        into = work.scratch / "bundle"
        into.mkdir(exist_ok=True)
        _link(says, into, work)
        if _is_url(options):
            _download(options.manifest, says, into, work)
        else:
            bucket, key = _place(options)
            s3 = work.outside.site(options.cloud).cloud.s3
            fetch_bundle(s3, bucket, key, into, data=data, progress=work.progress)
        return _sealed(options, data, says, into, work)


def _is_url(options: FetchBundleOptions) -> bool:
    return "://" in options.manifest and not options.manifest.startswith("s3://")


def _place(options: FetchBundleOptions) -> tuple[str, str]:
    bucket, _, key = options.manifest.removeprefix("s3://").lstrip("/").partition("/")
    return bucket, key


def _read(options: FetchBundleOptions, outside: Outside) -> bytes:
    if _is_url(options):
        return Web(mirrors=outside.mirrors).read(options.manifest, limit=LARGEST_MANIFEST)
    bucket, key = _place(options)
    return outside.site(options.cloud).cloud.s3.read(bucket, key, most=LARGEST_MANIFEST)


def _link(says: Manifest, into: Path, work: Work) -> None:
    """Put those parts there that the store has: of a bundle that was made here, or fetched in part by a killed run."""
    for part in says.parts:
        held = File(digest=f"sha1:{part.sha1}", size=0, name=part.filename)
        if work.store.contains(held.digest):
            with suppress(OSError):  # there already, or a filesystem without hard links: it is fetched
                os.link(work.store.path(held), into / part.filename)


def _download(url: str, says: Manifest, into: Path, work: Work) -> None:
    """Have every part be there, from beside the manifest's URL."""
    work.progress.total(says.bundled_size)
    web = Web(mirrors=work.outside.mirrors)
    for part in says.parts:
        target = into / part.filename
        if not target.exists() or file_sha1(target) != f"sha1:{part.sha1}":  # a power cut may have emptied it
            spool = work.scratch / "part"
            spool.mkdir(exist_ok=True)
            expected = Checksum(algorithm="sha1", value=part.sha1, source=f"the manifest {url}")
            # A manifest names files: what is a query or a fragment in a URL is part of a name here.
            fetched = web.download(urljoin(url, quote(part.filename, safe="")), spool, expected=expected)
            fetched.path.replace(target)
        work.progress.advance(target.stat().st_size)


def _sealed(options: FetchBundleOptions, data: bytes, says: Manifest, into: Path, work: Work) -> Bundle:
    parts = tuple(work.store.seal_part(into / part.filename, name=part.filename, sha1=part.sha1) for part in says.parts)
    name = options.manifest.rpartition("/")[2]
    name = name if name.endswith(_SUFFIX) else f"{says.name}{_SUFFIX}"
    path = work.scratch / "manifest"
    path.write_bytes(data)
    return Bundle(
        manifest=work.store.seal_file(path, name=name, sha256=str(work.pins["manifest"])),
        parts=parts,
        type=says.type,
        architecture=says.architecture,
        size=says.size,
    )
