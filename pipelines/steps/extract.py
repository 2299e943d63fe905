"""The step kind `extract`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from pydantic import Field

from builder.guest.extract import Extracted, extract
from builder.image.extract import Wanted
from builder.units import format_size
from pipelines.artifact import File, ImageFile
from pipelines.step import Inputs, LocalStep, Options, Work


class ExtractOptions(Options):
    """Which part of the disk."""

    partition: int | None = Field(default=None, ge=1, description="the number of the partition")
    root: bool = Field(
        default=False, description="the root filesystem, wherever it is: on a partition, a logical volume, a subvolume"
    )
    label: str | None = Field(default=None, description="the label of a filesystem, or the name of a GPT partition")
    type: str | None = Field(
        default=None,
        description="the only partition of this type: a GUID, a byte as in `0x83`, or what either is called, as "
        "`EFI system`",
    )
    volume: str | None = Field(default=None, description="a logical volume of LVM: GROUP/NAME")
    subvolume: str | None = Field(
        default=None,
        description="a btrfs subvolume, to be what is mounted when none is named; on the only btrfs, or on the one "
        "that `partition`, `label`, `type` or `volume` says",
    )

    def wanted(self) -> Wanted:
        """Return them as a choice."""
        return Wanted(**self.model_dump())


class Extract(LocalStep[ExtractOptions]):
    """Take one part of a disk as an image of its own: a partition, the root filesystem, a logical volume.

    A partition is not copied: the steps after this one read, edit and send that part of the disk's file. `convert`
    writes it to a file of its own. `root: true` looks inside every filesystem, in the appliance, and takes the one that
    is a root; none or several is an error that says what was seen. A root in a btrfs subvolume becomes the default
    subvolume of its filesystem, of which nothing else is changed. A partition by number, label or type costs no launch
    of the appliance; `root`, volumes and subvolumes may. MBR with logical partitions, GPT with sectors of 512 and 4096
    bytes, hybrid tables (read as GPT), LVM, and disks without a table, which are handed on as they are.
    """

    options = ExtractOptions
    accepts = (ImageFile, File)
    returns = ImageFile

    def check(self, options: ExtractOptions) -> Sequence[str]:
        """Return what is wrong with the choice."""
        return options.wanted().problems()

    def build(self, options: ExtractOptions, inputs: Inputs, work: Work) -> ImageFile:
        """Find the part; write a file only where the disk does not have it in one piece."""
        assert isinstance(inputs.source, File | ImageFile)
        image = work.store.image(inputs.source)
        found = self._found(image, options.wanted(), work)
        work.progress.note(f"{found.title}: {format_size(found.size)} at byte {image.offset + found.offset}")
        if found.file is not None:
            made = work.store.seal_image(found.file, format="raw", virtual_size=found.size)
        elif found.layer is not None:
            made = work.store.seal_layer(found.layer, image).part(found.offset, found.size)
        else:
            made = image.part(found.offset, found.size)
        return made.model_copy(update={"kernel": image.kernel, "ramdisk": image.ramdisk})

    def _found(self, image: ImageFile, wanted: Wanted, work: Work) -> Extracted:
        with work.appliance(image) if wanted.inside else nullcontext() as session:
            return extract(
                work.store.layer(image),
                wanted,
                work.scratch,
                backing_name=work.store.backing_name(image.digest),
                session=session,
                cache=work.outside.cache,
                progress=work.progress,
            )
