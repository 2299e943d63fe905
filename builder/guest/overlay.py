"""A copy-on-write layer over an image: the edits go there, and the image below is never written.

A layer over a part of a disk covers the whole disk, and the part is a window on the layer: so what its header names is
a plain file, which any tool can open, and a chain has no other window than the one at its top.

What is below an image is always said by us. qemu is told every file and its format (`node`), so that a name in a
header is never followed, and an image that names a file we did not state is refused before it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from builder import proc
from builder.errors import FormatRefused, HostError
from builder.image.identify import identify, require_safe
from builder.image.partitions import read_partitions
from builder.image.reader import open_image, window
from builder.image.stream import ImageReader


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An image file, its format (raw or qcow2), and the layer that its missing clusters are read from, if any.

    With a `window` (offset and size, in bytes) it is that part of the file's disk. `sector_size` is what the partition
    table counts in, which the machine that opens it must count in as well.
    """

    path: Path
    format: Literal["raw", "qcow2"]
    beneath: Layer | None = None
    window: tuple[int, int] | None = None
    sector_size: int = 512


def create(base: Layer, target: Path, *, backing_name: str) -> Layer:
    """Create an empty qcow2 over `base` at `target` and return it as a layer.

    `backing_name` is written into its header as the name of what lies below: the name that holds where the file will
    live, not where it is made (stored objects are siblings: `../cd/HEX`). Nothing opens that name here. Over a part of
    a disk the layer is the same part of it. Raises FormatRefused when a layer is not what it is said to be, or names a
    file that was not stated.
    """
    size = _virtual_size(base)
    sector_size = _sector_size(base)
    words: list[str | Path] = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", base.format, "-b", backing_name]
    proc.run([*words, target, str(size)])
    beneath = replace(base, window=None)
    return Layer(path=target, format="qcow2", beneath=beneath, window=base.window, sector_size=sector_size)


def open_layer(layer: Layer) -> ImageReader:
    """Open the bytes of a layer, with all that lies below it, for our own reading. Raises FormatRefused."""
    backing = open_layer(layer.beneath) if layer.beneath else None
    reader = open_image(layer.path, layer.format, backing=backing)
    return window(reader, *layer.window, owned=True) if layer.window else reader


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
    if layer.window is None:
        return opened
    return {"driver": "raw", "offset": layer.window[0], "size": layer.window[1], "file": opened}


def _sector_size(base: Layer) -> int:
    try:
        with open_layer(base) as reader:
            table = read_partitions(reader)
    except HostError:  # a qcow2 that only qemu reads
        return 512
    return table.sector_size if table else 512


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
