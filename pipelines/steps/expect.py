"""The step kind `expect`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from builder.errors import InputError
from builder.image.inspect import Volume, look_inside
from builder.image.partitions import PartitionTable
from builder.units import format_size
from pipelines.artifact import File, ImageFile
from pipelines.step import Inputs, LocalStep, Options, Work
from pipelines.values import Size

Firmware = Literal["bios", "uefi"]
# The partition that each firmware's GRUB needs on a GPT disk, by its type (UEFI Specification 2.10, 5.3; GRUB manual).
_NEEDED: dict[Firmware, str] = {
    "bios": "21686148-6449-6e6f-744e-656564454649",
    "uefi": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
}


class ExpectOptions(Options):
    """What must be true of the image; what is left out is not looked at."""

    table: Literal["gpt", "mbr", "none"] | None = Field(default=None, description="its partition table")
    labels: tuple[str, ...] = Field(default=(), description="filesystems with these labels are on it")
    boots: tuple[Firmware, ...] = Field(default=(), description="a GPT disk has the partition that this firmware needs")
    max_size: Size | None = Field(default=None, description="the disk, as a guest sees it, is at most this large")


class ExpectStep(LocalStep[ExpectOptions]):
    """Hold an image to what the recipe expects of it, before anything is spent on it.

    The image is handed on as it is. All that is wrong is said at once, with what was found instead.
    """

    options = ExpectOptions
    accepts = (ImageFile, File)
    returns = ImageFile
    hands_on = True

    def build(self, options: ExpectOptions, inputs: Inputs, work: Work) -> ImageFile:
        """Look at the image's tables and superblocks, some kilobytes in all."""
        assert isinstance(inputs.source, File | ImageFile)
        image = work.store.image(inputs.source)
        with work.store.open_image(image) as reader:
            table, volumes = look_inside(reader)
        wrong = [*_table(options, table), *_labels(options, volumes), *_boots(options, table)]
        if options.max_size is not None and image.virtual_size > options.max_size:
            wrong.append(f"a disk of at most {format_size(options.max_size)}; it is {format_size(image.virtual_size)}")
        if wrong:
            raise InputError("the image is not as expected:\n" + "\n".join(f"  expected {line}" for line in wrong))
        work.progress.note("as expected")
        return image


def _table(options: ExpectOptions, table: PartitionTable | None) -> list[str]:
    found = "none" if table is None else table.kind
    return [f"partition table {options.table}; it has {found}"] if options.table not in (None, found) else []


def _labels(options: ExpectOptions, volumes: tuple[Volume, ...]) -> list[str]:
    found = sorted(volume.filesystem.label for volume in volumes if volume.filesystem.label)
    there = ", ".join(found) or "none"
    return [f"a filesystem labelled {label}; its labels: {there}" for label in options.labels if label not in found]


def _boots(options: ExpectOptions, table: PartitionTable | None) -> list[str]:
    types = {partition.type for partition in table.partitions} if table else set()
    words = {"bios": "BIOS boot", "uefi": "EFI system"}
    return [f"a partition of type {words[one]} to boot by {one}" for one in options.boots if _NEEDED[one] not in types]
