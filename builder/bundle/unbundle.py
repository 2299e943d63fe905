"""A bundle's parts back into the image: decrypted, gunzipped, untarred and verified in one pass, written once.

Every stage is a thread of its own, as many as a bundle keeps busy: digests of the parts and AES; inflate; SHA-1 of the
tar stream; writing. SHA-1 of a tar with all its zeros is what cannot be shared out.

| when | what a crash leaves |
| --- | --- |
| before the last check | `.NAME.unbundling` beside the target, which the next attempt begins anew |
| after the rename (**commit point**) | the image, whole, verified and durable |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from itertools import repeat
from pathlib import Path
from typing import TypeVar

from builder import pool
from builder.bundle.decrypt import decrypted
from builder.bundle.inflate import Inflate
from builder.bundle.joined import OpenPart, Parts
from builder.bundle.records import ContentKey, Manifest
from builder.bundle.sparse_image import SparseImage
from builder.bundle.untar import untar
from builder.errors import BundleRefused
from builder.image.memory import keep_freed_memory
from builder.progress import SILENT, Progress
from builder.units import format_size

MAX_SIZE = 64 << 30  # bytes; twice Eucalyptus' own limit, and what `decompress` has
_AHEAD = 3  # pieces of at most 2 MiB between two stages
Piece = TypeVar("Piece")


def unbundle(
    manifest: Manifest,
    open_part: OpenPart,
    key: ContentKey,
    target: Path,
    *,
    max_size: int = MAX_SIZE,
    progress: Progress = SILENT,
) -> None:
    """Have `target` be the image inside the bundle, raw, with holes for its zeros, or be as it was.

    `open_part(index)` opens a part of the manifest as a binary file that can seek. Digests of the parts and of the tar
    stream and all sizes are held against the manifest; at most its `size` is written, and nothing under a name that the
    bundle chose. At most 200 MB of memory are used. Raises BundleRefused, BusyError, DiskFull and HostError.
    """
    if manifest.size > max_size:
        raise BundleRefused(
            f"the manifest says that its image has {manifest.size} bytes, beyond the limit of {format_size(max_size)}",
            hint="If it really is that large, raise it: `max_size: 200 GiB` in the `unbundle` step.",
        )
    keep_freed_memory()
    parts = Parts(manifest, open_part, progress)
    parts.require_complete()
    with SparseImage(target, manifest.size) as image:
        try:
            _through(parts, key, manifest, image)
        except BundleRefused as error:
            if disorder := parts.disorder():
                raise BundleRefused(
                    f"{error.message}; {disorder}", hint="Get the manifest again from where the bundle comes from."
                ) from error
            raise
        image.commit()


def _through(parts: Parts, key: ContentKey, manifest: Manifest, image: SparseImage) -> None:
    digest = hashlib.sha1(usedforsecurity=False)
    with ExitStack() as stages:
        encrypted = stages.enter_context(closing(parts.pieces()))
        plain = _ahead(decrypted(encrypted, key), stages)
        tar = _ahead(iter(Inflate(plain, parts.at)), stages)
        untar(_ahead(_hashed(tar, digest.update), stages), manifest.size, image)
    if digest.hexdigest() != manifest.tar_sha1.lower():
        raise BundleRefused(
            f"the tar stream's SHA-1 is {digest.hexdigest()}, the manifest says {manifest.tar_sha1}",
            hint="The parts are those of the manifest, so one of both was made or altered wrongly: bundle it again.",
        )


def _ahead(pieces: Iterator[Piece], stages: ExitStack) -> Iterator[Piece]:
    """Return an iterator over the same pieces, made by a thread that is a few ahead; `stages` ends it."""
    made = _until_none(pool.in_order(lambda _: next(pieces, None), repeat(None), workers=1, ahead=_AHEAD))
    return stages.enter_context(closing(made))


def _until_none(pieces: Iterator[Piece | None]) -> Generator[Piece, None, None]:
    for piece in pieces:
        if piece is None:
            return
        yield piece


def _hashed(chunks: Iterator[bytes], update: Callable[[bytes], object]) -> Iterator[bytes]:
    for chunk in chunks:
        update(chunk)
        yield chunk
