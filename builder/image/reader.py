"""Open any image as a stream of data extents: raw and qcow2 by our own readers, the rest through qemu."""

from __future__ import annotations

import tempfile
from pathlib import Path

from builder.errors import FormatRefused, HostError
from builder.image import qemu
from builder.image.identify import identify
from builder.image.identity import Format, Identity, require_safe
from builder.image.memory import keep_freed_memory
from builder.image.qcow2 import Qcow2Reader
from builder.image.qcow2_header import HEAD, read_header
from builder.image.raw import RawReader, window
from builder.image.stream import ImageReader

__all__ = ["open_image", "window"]


def open_image(
    path: Path,
    format: Format | None = None,  # noqa: A002 - the word of qemu and of recipes
    backing: ImageReader | None = None,
    *,
    scratch: Path | None = None,
) -> ImageReader:
    """Open the image at `path`; it is refused when it is not what `format` says, or is not safe to open.

    With format "raw" the bytes are taken as they are: a disk may hold anything, the header of another format included.
    An overlay is opened only with `backing`, the image below it, which is closed with it (or at once, when the overlay
    is refused); the file that its header names is never looked at. What our readers do not know is converted by qemu
    to a raw file in `scratch`, unlinked as soon as it is open, so that a crash leaves at most `emi-*.raw` there.
    Raises FormatRefused, InputError, and from qemu DiskFull and ToolFailed.
    """
    keep_freed_memory()
    if backing is not None:
        return _open_overlay(path, format, backing)
    if format == "raw":
        return RawReader(path)
    identity = identify(path)
    require_format(identity, format)
    require_safe(identity)
    if identity.format == "raw":
        return RawReader(path)
    return Qcow2Reader(path) if is_native(identity) else _open_through_qemu(identity, scratch)


def _open_overlay(path: Path, claimed: Format | None, backing: ImageReader) -> ImageReader:
    try:
        identity = identify(path)
        require_format(identity, claimed)
        require_safe(identity, backing_given=True)
        require_format(identity, "qcow2")  # the only overlays there are
        return Qcow2Reader(path, backing)
    except BaseException:
        backing.close()
        raise


def require_format(identity: Identity, claimed: Format | None) -> None:
    """Return if the file is of the format it is claimed to be (None: any). Raises FormatRefused naming both."""
    if claimed is None or identity.format == claimed or (claimed == "raw" and identity.unknown):
        return
    raise FormatRefused(f"{identity.path} should be {claimed} but is {identity.noun}", hint=identity.advice)


def is_native(identity: Identity) -> bool:
    """Say whether our own readers read this image, without qemu."""
    if identity.format != "qcow2":
        return identity.format == "raw"
    with open(identity.path, "rb") as file:
        return not read_header(file.read(HEAD)).extended_l2


def _open_through_qemu(identity: Identity, scratch: Path | None) -> ImageReader:
    assert identity.format is not None
    if scratch is None:
        raise HostError(
            f"{identity.path} is {identity.noun}, which has to be converted before it can be read",
            hint="Add a `convert` step before this one.",
        )
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="emi-", suffix=".raw") as target:
        source = qemu.Source(path=identity.path, format=identity.format)
        qemu.to_raw(source, Path(target.name), virtual_size=identity.virtual_size)
        return RawReader(Path(target.name))
