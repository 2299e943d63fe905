"""A part of a disk image as a new raw file, for people without a recipe.

Write order: the file is made in a hidden directory beside its final place, fsynced, given its name, and the directory
fsynced. A crash leaves at most that hidden directory (`.emi-extract-*`), which the next call there removes, never a
half file under the name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from builder import durable
from builder.errors import InputError
from builder.guest import overlay
from builder.guest.extract import Extracted, extract
from builder.guest.overlay import Layer
from builder.image.convert import checked, convert_established
from builder.image.extract import Wanted
from builder.image.reader import is_native
from builder.image.write import write_sparse
from builder.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written: what it is for people, its size, and what it takes on the disk; in bytes."""

    title: str
    size: int
    disk_size: int


def extract_file(
    image: Path, wanted: Wanted, target: Path, *, cache: Path | None = None, progress: Progress = SILENT
) -> Written:
    """Write the part of `image` that is wanted to `target`, a sparse raw file that must not exist yet.

    Only data is read; where the filesystem can share blocks, nothing is copied. An image in a format that our readers
    do not know is converted beside the target first. `cache` remembers what acceleration was proven. Raises UsageError
    when `target` cannot be made, InputError (no image, no such part), GuestError, DiskFull and HostError.
    """
    if os.path.lexists(target):
        raise _taken(target)
    with durable.scratch_in(target.parent, ".emi-extract-") as place:
        base = _base(image, place, progress)
        found = extract(base, wanted, place, cache=cache, progress=progress)
        made = _file(base, found, place, progress)
        durable.fsync_file(made)
        _name(made, target)
    durable.fsync_directory(target.parent)
    return Written(title=found.title, size=found.size, disk_size=target.stat().st_blocks * 512)


def _base(image: Path, scratch: Path, progress: Progress) -> Layer:
    identity = checked(image, None)
    if identity.format == "raw" or (identity.format == "qcow2" and is_native(identity)):
        return Layer(path=image, format=identity.format)
    whole = scratch / "whole.raw"
    convert_established(identity, whole, to="raw", progress=progress)
    return Layer(path=whole, format="raw")


def _file(base: Layer, found: Extracted, scratch: Path, progress: Progress) -> Path:
    if found.file is not None:
        return found.file
    window = (found.offset, found.size)
    source = Layer(path=base.path, format=base.format, window=window)
    if found.layer is not None:
        source = Layer(path=found.layer, format="qcow2", beneath=base, window=window)
    made = scratch / "part.raw"
    with overlay.open_layer(source) as reader:
        progress.total(sum(extent.length for extent in reader.extents()))
        write_sparse(reader, made, progress=progress)
    return made


def _name(made: Path, target: Path) -> None:
    """Give the file its name, unless somebody else took it meanwhile."""
    try:
        os.link(made, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:  # a filesystem without hard links, where nothing but a rename is left
        if os.path.lexists(target):
            raise _taken(target) from None
        made.rename(target)


def _taken(target: Path) -> InputError:
    return InputError(f"{target} is there already", hint="Remove it, or name another file.")
