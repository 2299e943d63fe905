"""The step kind `capture`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from builder.capture import image
from builder.guest.sysprep import Operation
from pipelines.artifact import Helper, ImageFile
from pipelines.step import Inputs, LocalStep, Options, Outside, Work
from pipelines.values import Size


class CaptureOptions(Options):
    """What of the machine becomes the image."""

    path: str = Field(default="/", description="where the filesystem is mounted there")
    also: tuple[str, ...] = Field(
        default=(), description="mount points of other filesystems whose files belong to it: `/boot`"
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="what is left out, as absolute patterns with `*` and `?` within a level: `/srv/cache/*`"
    )
    keep: tuple[Operation, ...] = Field(default=(), description="operations of the default cleaning that are not done")
    lock_passwords: bool = Field(default=False, description="take the hashes of passwords out of /etc/shadow")
    size: Size | None = Field(default=None, description="of the image; by default that of the filesystem's device")
    again: bool = Field(
        default=True,
        description="capture anew in each run, for a machine changes; `false`: an unchanged recipe keeps its image",
    )

    def wanted(self) -> image.Wanted:
        """Return them as a wish."""
        return image.Wanted(**self.model_dump(exclude={"again"}))


class Capture(LocalStep[CaptureOptions]):
    """Make an image of a running machine's root filesystem, as ec2-bundle-vol and euca-bundle-vol do.

    Files are copied, not blocks: into a new ext4 filesystem that has the label and the UUID of the machine's own, so
    that its fstab, its boot loader's menu and its initramfs find it. Owners, modes, times, hard links, extended
    attributes, ACLs, sparse files, pipes and device nodes stay. Nothing is written on the machine and nothing of it is
    stopped: a file that changes while it is read is told, and databases are better stopped, or left out.

    Not in the image: whatever is mounted below (pseudo filesystems, other disks; `also` brings some in), /tmp,
    /var/tmp, /run, /dev, swap files, `exclude`; and what only that machine may have, which is what `sysprep` removes by
    default and every `.ssh`: host keys (where something makes others at boot), authorized keys, histories, cloud-init's
    state, logs, machine-id. Entries of /etc/fstab whose filesystems are not in the image are commented out, and `/`
    becomes ext4 there. The names of those operations, for `keep`, are those of `sysprep`.

    The result is an image of a filesystem, without a partition table: `bundle` takes it, and `assemble` makes a disk of
    it. The machine needs GNU tar, mount and unshare (util-linux), and root's rights.
    """

    options = CaptureOptions
    accepts = (Helper,)
    returns = ImageFile
    helper_matters = True

    def check(self, options: CaptureOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = [f"`keep`: {name} is not done by default" for name in options.keep if name not in image.CLEANED]
        return [*problems, *image.problems(options.wanted())]

    def pin(self, options: CaptureOptions, outside: Outside) -> Mapping[str, Any]:
        """Return when it is taken: each run takes its own, a resumed one that of the run it goes on with."""
        return {"taken": int(time.time())} if options.again else {}

    def build(self, options: CaptureOptions, inputs: Inputs, work: Work) -> ImageFile:
        """Copy the files, clean them, write the filesystem, seal it."""
        helper = inputs.source
        assert isinstance(helper, Helper)
        target, scratch = work.scratch / "root.raw", work.scratch / "files"
        scratch.mkdir()
        now = work.pins.get("taken", int(time.time())) if work.epoch is None else work.epoch
        with work.remote(helper) as shell:
            size = image.capture(options.wanted(), shell, target, now=now, scratch=scratch, progress=work.progress)
        return work.store.seal_image(target, format="raw", virtual_size=size)
