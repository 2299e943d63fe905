"""A copy-on-write layer over an image: the edits go there, and the image below is never written.

What is below an image is always said by us. qemu is told every file and its format (`node`), so that a name in a
header is never followed, and an image that names a file we did not state is refused before it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import proc
from builder.errors import FormatRefused
from builder.image.identify import identify, require_safe


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An image file, its format (raw or qcow2), and the layer that its missing clusters are read from, if any."""

    path: Path
    format: str
    beneath: Layer | None = None


def create(base: Layer, target: Path, *, backing_name: str) -> Layer:
    """Create an empty qcow2 over `base` at `target` and return it as a layer.

    `backing_name` is written into its header as the name of what lies below: the name that holds where the file will
    live, not where it is made (stored objects are siblings: `../cd/HEX`). Nothing opens that name here. Raises
    FormatRefused when a layer is not what it is said to be, or names a file that was not stated.
    """
    size = _virtual_size(base)
    words: list[str | Path] = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", base.format, "-b", backing_name]
    proc.run([*words, target, str(size)])
    return Layer(path=target, format="qcow2", beneath=base)


def node(layer: Layer) -> dict[str, Any]:
    """Return the layer as qemu's block driver options (`blockdev-add`), with everything stated and nothing probed."""
    # no-flush: the sealer fsyncs the finished file once; nothing of it is kept if we or the host die before that.
    cache = {"direct": False, "no-flush": True}
    opened: dict[str, Any] = {
        "driver": layer.format,
        "file": {"driver": "file", "filename": str(layer.path.absolute()), "cache": cache},
    }
    if layer.format == "qcow2":
        opened["backing"] = node(layer.beneath) | {"read-only": True} if layer.beneath else None
    return opened


def _virtual_size(base: Layer) -> int:
    if base.format == "raw":
        return base.path.stat().st_size
    identity = identify(base.path)
    require_safe(identity, backing_given=base.beneath is not None)
    if identity.format != base.format or identity.virtual_size is None:
        raise FormatRefused(f"{base.path} is {identity.noun}, and it was said to be {base.format}")
    if base.beneath is not None:
        _virtual_size(base.beneath)
    return identity.virtual_size
