"""One image becomes a raw or a qcow2 file of its own, sparse, whatever it was and whatever lay below it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from builder.image import qemu
from builder.image.identify import identify
from builder.image.identity import Format, Identity, require_safe
from builder.image.reader import established, is_native, open_image, require_format
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
    assert identity.format is not None
    chain = qemu.Source(path=source, format=identity.format)
    if to == "qcow2":
        size = _virtual_size(identity)
        return to_qcow2(chain, target, virtual_size=size, compress=compress, progress=progress)
    if is_native(identity):
        with open_image(source, identity.format) as reader:
            return to_raw(reader, target, progress=progress)
    progress.note(f"qemu-img converts {identity.noun}")
    qemu.to_raw(chain, target, virtual_size=identity.virtual_size)
    return target.stat().st_size


def checked(source: Path, from_format: Format | None) -> Identity:
    """Return what `source` is. Raises FormatRefused when it is not `from_format` or is not safe to open."""
    identity = identify(source)
    require_format(identity, from_format)
    identity = established(identity, from_format)
    require_safe(identity)
    return identity


def _virtual_size(identity: Identity) -> int:
    assert identity.virtual_size is not None
    return identity.virtual_size


def to_raw(reader: ImageReader, target: Path, *, progress: Progress = SILENT) -> int:
    """Write an open image, with all that lies below it, to the raw file `target` and return its size in bytes."""
    progress.total(sum(extent.length for extent in reader.extents()))
    write_sparse(reader, target, progress=progress)
    return reader.virtual_size


def to_qcow2(
    source: qemu.Source, target: Path, *, virtual_size: int, compress: bool, progress: Progress = SILENT
) -> int:
    """Write an image, with what it states to lie below it, to the qcow2 file `target` and return its virtual size.

    The caller vouches for the formats in `source`: they are what qemu opens, and nothing else is.
    """
    progress.note("qemu-img writes the qcow2")
    qemu.to_qcow2(source, target, compress=compress)
    return virtual_size
