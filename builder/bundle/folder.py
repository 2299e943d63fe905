"""A bundle whose parts lie as files in one directory, beside their manifest or not."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from builder.bundle.joined import OpenPart
from builder.bundle.records import Manifest
from builder.errors import BundleRefused

_PART = re.compile(r"(.+)\.part\.\d+")


def parts_in(directory: Path, manifest: Manifest, *, alone: bool = True) -> OpenPart:
    """Return what opens the manifest's parts in `directory`, for `unbundle` and `inspect`.

    What it returns raises OSError for a part that is no regular file. With `alone` BundleRefused is raised when files
    lie there that are named like parts of this bundle and are none of it.
    """
    if alone and (found := surplus(directory, manifest)):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise BundleRefused(
            f"{directory / found[0]}{more} is named like a part of {manifest.name}, and the manifest does not list it",
            hint="Parts of two bundles of the same name are mixed, or the manifest is too short: sort them out first.",
        )

    def open_part(index: int) -> BinaryIO:
        return _open_regular(directory / manifest.parts[index].filename)

    return open_part


def is_part(name: str) -> bool:
    """Say whether the file's name is one that bundling tools give to parts."""
    return _PART.fullmatch(name) is not None


def surplus(directory: Path, manifest: Manifest) -> list[str]:
    """Return, sorted, the names of files that are called like the manifest's parts and not listed by it."""
    listed = {part.filename for part in manifest.parts}
    prefixes = {found[1] for name in listed if (found := _PART.fullmatch(name))}
    if not directory.is_dir():
        return []
    named = {entry.name: _PART.fullmatch(entry.name) for entry in directory.iterdir()}
    return sorted(name for name, found in named.items() if found and found[1] in prefixes and name not in listed)


def _open_regular(path: Path) -> BinaryIO:
    """Open a file that may be anything; a pipe is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return os.fdopen(descriptor, "rb", buffering=0)
