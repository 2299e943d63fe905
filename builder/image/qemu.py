"""qemu-img for the formats that we do not read ourselves; every format and every backing is stated, none is probed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import proc
from builder.errors import DiskFull, ToolFailed
from builder.image.identity import Format

_MEMORY = 4 << 30  # bytes of address space: more than qemu-img needs, less than a hostile header may ask for
_SLACK = 16 << 20  # bytes that a raw target may be larger than the disk it holds


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image file, its format, and the image below it when it is an overlay of ours.

    With a `window` (offset and size, in bytes) it is that part of the file's disk.
    """

    path: Path
    format: Format
    backing: Source | None = None
    window: tuple[int, int] | None = None

    def node(self) -> dict[str, Any]:
        """Return qemu's description of this image, in which no header can name another file."""
        whole = {
            "driver": self.format,
            "file": {"driver": "file", "filename": str(self.path.absolute())},
            "backing": None if self.backing is None else self.backing.node(),
        }
        if self.window is None:
            return whole
        return {"driver": "raw", "offset": self.window[0], "size": self.window[1], "file": whole}


def to_raw(source: Source, target: Path, *, virtual_size: int | None = None) -> None:
    """Write the image as a sparse raw file; it cannot grow beyond `virtual_size` bytes.

    Leaves an unfinished `target` behind when it raises DiskFull or ToolFailed (a damaged image).
    """
    limit = [] if virtual_size is None else [f"--fsize={virtual_size + _SLACK}"]
    _convert(source, target, ["-W", "-m", "16", "-S", "64k", "-O", "raw"], limit)


def to_qcow2(source: Source, target: Path, *, compress: bool) -> None:
    """Write the image as a qcow2 (v3, zlib) without backing; the same image gives the same bytes.

    Leaves an unfinished `target` behind when it raises DiskFull or ToolFailed.
    """
    # Without -W the clusters are laid down in order, so that the file's digest says whether anything changed.
    _convert(source, target, ["-S", "64k", *(["-c"] if compress else []), "-O", "qcow2", "-o", "compat=1.1"], [])


def _convert(source: Source, target: Path, options: list[str], limits: list[str]) -> None:
    image = f"json:{json.dumps(source.node())}"
    program = proc.find("qemu-img")
    try:
        proc.run(["prlimit", f"--as={_MEMORY}", *limits, "--", program, "convert", *options, image, target])
    except ToolFailed as failed:
        if "No space left" in failed.message:
            raise DiskFull(f"no space left for {target}") from failed
        raise
