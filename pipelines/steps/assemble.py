"""The step kind `assemble`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from builder import proc
from builder.bootable import loader
from builder.bootable.assemble import Boot, Table, Wanted, assemble, layout, require_label, require_root
from builder.bootable.loader import Firmware
from builder.bootable.menu import Links
from builder.guest import own_kernel
from builder.image.filesystems import Filesystem
from builder.units import format_size
from pipelines.artifact import File, ImageFile
from pipelines.step import Inputs, LocalStep, Options, Outside, Reference, Work
from pipelines.values import Size

_TOOLS = ("mkfs.vfat", "mmd", "mcopy")

Console = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]+[0-9]*(,[0-9]+[a-z0-9]*)?$")]

# What GRUB's script takes as it is: no quotes, variables, wildcards or separators.
Arguments = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.,:=/+@%^~! -]*$")]


class AssembleOptions(Options):
    """What disk to make around the root, and what it boots."""

    table: Table = Field(default="gpt", description="the partition table: `gpt`, or `mbr` for old firmware and tools")
    firmware: tuple[Firmware, ...] = Field(
        default=("bios", "uefi"), min_length=1, description="what boots it: `bios`, `uefi` or both"
    )
    size: Size | None = Field(
        default=None,
        description="of the disk, in whole MiB; what fits when left out. The root's partition takes all that is left; "
        "its filesystem keeps its size until the guest grows it",
    )
    kernel: Annotated[str | None, Reference(File)] = Field(
        default=None, description="the kernel to boot; the one that is beside the image or in it when left out"
    )
    ramdisk: Annotated[str | None, Reference(File)] = Field(default=None, description="the initramfs of that kernel")
    cmdline: Arguments = Field(
        default="", description="added to the kernel's command line, which has root=, ro and the consoles"
    )
    console: tuple[Console, ...] = Field(
        default=("tty0", "ttyS0,115200"),
        description="consoles of the kernel, the last is /dev/console; the boot menu is shown on the first serial one",
    )


class Assemble(LocalStep[AssembleOptions]):
    """Make a bootable disk around the image of a root filesystem.

    A paravirtual or instance-store root, or what `extract` took out of a disk, becomes a disk that boots by BIOS and by
    UEFI, on x86-64. The root is the last partition, number 1, copied byte for byte; before it lies a boot partition
    (FAT32, an ESP with UEFI) with all that booting needs: GRUB of this machine, a menu, the kernel and its initramfs.
    Nothing of it is asked of the root, which may be too old to know GRUB 2. The kernel is what `kernel` and `ramdisk`
    name; else those that a `kernel` step copied out of the image; else the newest in the root itself, found in the
    appliance: then the menu boots the guest's own newest kernel by its links (`/vmlinuz` and `/initrd.img`), where it
    has such, so that a later upgrade counts. The kernel is told its root by label.

    Refused, before anything is written: an image of a disk, or of no filesystem; no kernel, or one that cannot boot by
    itself; a root without a label. Whether its initramfs and fstab fit the new machine is `lint`'s affair.
    """

    options = AssembleOptions
    accepts = (ImageFile, File)
    returns = ImageFile

    def check(self, options: AssembleOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = []
        if options.ramdisk is not None and options.kernel is None:
            problems.append("`ramdisk` is that of a kernel: give `kernel` as well")
        if options.size is not None and options.size % (1 << 20):
            problems.append("size must be whole MiB")
        if len(set(options.firmware)) < len(options.firmware):
            problems.append("`firmware` names one kind twice")
        if any(word.startswith(("root=", "console=")) for word in options.cmdline.split()):
            problems.append("`cmdline` has root= or console= of its own: the step says both (`console` for the latter)")
        return problems

    def pin(self, options: AssembleOptions, outside: Outside) -> Mapping[str, Any]:
        """Return a digest of the boot loader that this machine has."""
        for tool in (*_TOOLS, "sgdisk" if options.table == "gpt" else "sfdisk"):
            proc.find(tool)
        return {"grub": loader.require(options.firmware)}

    def build(self, options: AssembleOptions, inputs: Inputs, work: Work) -> ImageFile:
        """Find the kernel, write the disk, seal it."""
        assert isinstance(inputs.source, File | ImageFile)
        source = work.store.image(inputs.source)
        wanted = Wanted(
            table=options.table,
            firmware=options.firmware,
            consoles=options.console,
            arguments=" ".join(options.cmdline.split()),
            size=options.size,
        )
        with work.store.open_image(source) as reader:
            found = require_root(reader)
            layout(reader.virtual_size, 0, wanted)  # too small for the root alone: refused before the appliance starts
            boot, named = _given(source, inputs, work) or _inside(source, found, work)
            target = work.scratch / "disk.raw"
            size = assemble(
                reader, boot, wanted, target, seed=f"{source.model_dump_json()} {named}", scratch=work.scratch,
                progress=work.progress,
            )  # fmt: skip
        work.progress.note(f"{options.table} disk of {format_size(size)} around {found.type} {found.label}")
        return work.store.seal_image(target, format="raw", virtual_size=size)


def _given(source: ImageFile, inputs: Inputs, work: Work) -> tuple[Boot, str] | None:
    """Return the kernel that is named, or is beside the image, and its name by content."""
    beside = {"kernel": source.kernel, "ramdisk": source.ramdisk}
    given = inputs.named if "kernel" in inputs.named else beside
    kernel, ramdisk = given.get("kernel"), given.get("ramdisk")
    if not isinstance(kernel, File):
        return None
    if not isinstance(ramdisk, File):
        return Boot(kernel=work.store.path(kernel), ramdisk=None), kernel.digest
    boot = Boot(kernel=work.store.path(kernel), ramdisk=work.store.path(ramdisk))
    return boot, f"{kernel.digest} {ramdisk.digest}"


def _inside(source: ImageFile, found: Filesystem, work: Work) -> tuple[Boot, str]:
    """Return the newest kernel in the root, and its version: which it is follows from the root's content."""
    require_label(found)
    inside = own_kernel.take(work.store.layer(source), work.scratch, cache=work.outside.cache, progress=work.progress)
    links = Links(kernel=inside.links[0], ramdisk=inside.links[1]) if inside.links else None
    return Boot(kernel=inside.kernel, ramdisk=inside.ramdisk, links=links), inside.version
