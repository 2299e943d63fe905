"""From a System to its disk image, in three parts: install, make it an image's tree, write the disk."""

from __future__ import annotations

from pathlib import Path

from builder.bootstrap import disk
from builder.bootstrap.install import Supply, check_host, install, remove
from builder.bootstrap.system import System, finish
from builder.progress import SILENT, Progress
from builder.units import format_size


def build(system: System, supply: Supply, target: Path, *, scratch: Path, progress: Progress = SILENT) -> None:
    """Make a bootable raw image of `system` at `target`, a sparse file.

    The same system from the same state of its archive gives the same bytes, for root and for others. `scratch` is a
    directory for the work, emptied before and after. Raises ToolMissing and HostError
    before anything is downloaded, later UsageError (it does not fit), ToolFailed, DiskFull. A crash leaves files in
    `scratch` and perhaps an unfinished `target`, and no process and no mount.
    """
    check_host()
    remove(scratch)
    scratch.mkdir(parents=True)
    tree = install(system, supply, scratch=scratch, progress=progress)
    finish(system, tree)
    packages = (tree.read("var/lib/dpkg/status") or b"").count(b"\nStatus: install ok installed")
    data = format_size(sum(node.size for node in tree))
    progress.note(f"writing the disk: {packages} packages, {len(tree)} files, {data}")
    disk.write(system, tree, target, scratch=scratch)
    remove(scratch)
