"""One image becomes a raw or a qcow2 file of its own, sparse, whatever it was and whatever lay below it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from builder.image import qemu
from builder.image.identify import identify
from builder.image.identity import Format, Identity, require_safe
from builder.image.qcow2_header import HEAD, read_header
from builder.image.reader import is_native, open_image, require_format
from builder.image.stream import ImageReader
from builder.image.write import write_sparse
from builder.progress import SILENT, Progress

TargetFormat = Literal["raw", "qcow2"]


def convert(
    source: Path,
    target: Path,
    *,
    to: TargetFormat = "raw",
    compress: bool = False,
    from_format: Format | None = None,
    progress: Progress = SILENT,
) -> int:
    """Write the image at `source` to `target` as `to` and return its virtual size in bytes.

    The format of `source` is established here; it is refused when it is not `from_format` or is not safe to open.
    `compress` deflates the clusters of a qcow2. Leaves an unfinished `target` behind when it raises FormatRefused,
    DiskFull or, from qemu, ToolFailed.
    """
    identity = checked(source, from_format)
    return convert_established(identity, target, to=to, compress=compress, progress=progress)


def checked(source: Path, from_format: Format | None, *, name: str | None = None) -> Identity:
    """Return what `source` is; errors call it `name`.

    Raises FormatRefused when it is not `from_format`, is no image, or is not safe to open.
    """
    found = identify(source)
    shown = found if name is None else replace(found, path=Path(name))
    require_format(shown, from_format)
    if not (from_format == "raw" and found.unknown):
        require_safe(shown)
        return found
    # The recipe's word is taken for bytes that nothing is known about: read as a raw disk they can do no harm.
    return replace(found, format="raw", noun="raw data", virtual_size=found.file_size)


def convert_established(
    identity: Identity, target: Path, *, to: TargetFormat, compress: bool = False, progress: Progress = SILENT
) -> int:
    """Do as `convert` with a file that `checked` has returned the identity of."""
    assert identity.format is not None
    chain = qemu.Source(path=identity.path, format=identity.format)
    if to == "qcow2":
        return to_qcow2(chain, target, compress=compress, progress=progress)
    if is_native(identity):
        with open_image(identity.path, identity.format) as reader:
            return to_raw(reader, target, progress=progress)
    progress.note(f"qemu-img converts {identity.noun}")
    qemu.to_raw(chain, target, virtual_size=identity.virtual_size)
    return target.stat().st_size


def to_raw(reader: ImageReader, target: Path, *, progress: Progress = SILENT) -> int:
    """Write an open image, with all that lies below it, to the raw file `target` and return its size in bytes."""
    progress.total(sum(extent.length for extent in reader.extents()))
    write_sparse(reader, target, progress=progress)
    return reader.virtual_size


def to_qcow2(source: qemu.Source, target: Path, *, compress: bool, progress: Progress = SILENT) -> int:
    """Write an image, with what it states to lie below it, to the qcow2 file `target` and return its virtual size.

    The caller vouches for the formats in `source`: qemu opens these files, and no other.
    """
    progress.note("qemu-img writes the qcow2")
    qemu.to_qcow2(source, target, compress=compress)
    with open(target, "rb") as file:
        return read_header(file.read(HEAD)).virtual_size
