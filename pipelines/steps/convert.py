"""`convert`: an image in any of the usual formats becomes raw or qcow2."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from builder.errors import FormatRefused
from builder.image import qemu
from builder.image.convert import checked, convert_established, to_qcow2, to_raw
from builder.image.identity import Format, Identity
from builder.image.reader import is_native
from pipelines.artifact import File, ImageFile, ImageFormat
from pipelines.step import Inputs, LocalStep, Options, Store, Work


class ConvertOptions(Options):
    """What to make, and what the recipe says the input is."""

    format: ImageFormat = Field(default="raw", description="what to make: `raw` (sparse) or `qcow2`")
    compress: bool = Field(default=False, description="deflate the clusters of a qcow2: smaller, slower to write")
    from_format: Format | None = Field(
        default=None,
        description="what the input is: raw, qcow2, vmdk, vdi, vhdx or vpc (VHD); anything else is refused. "
        "Established from its header when left out",
    )


class ConvertStep(LocalStep[ConvertOptions]):
    """Convert a disk image (qcow2, VMDK, VDI, VHDX, VHD, raw) to a sparse raw or a qcow2 image.

    The input's format is established from its own header and stated to every tool, never probed by one. Refused by
    name: a file that is no disk image (an archive, a compressed file, an error page), an image that would read other
    files (a backing file, an external data file, a parent), encryption, absurd or damaged headers. An image that
    already is what is asked for is taken as it is; a part of a disk, as `extract` hands it on, gets a file of its own.
    """

    options = ConvertOptions
    accepts = (File, ImageFile)
    returns = ImageFile

    def check(self, options: ConvertOptions) -> Sequence[str]:
        """Refuse `compress` where nothing can be compressed."""
        if options.compress and options.format != "qcow2":
            return ("`compress` needs `format: qcow2`: a raw image is never compressed",)
        return ()

    def build(self, options: ConvertOptions, inputs: Inputs, work: Work) -> ImageFile:
        """Make the image, or take the input when it is one already."""
        target = work.scratch / f"image.{options.format}"
        target.unlink(missing_ok=True)  # what a killed execution left
        if isinstance(inputs.source, ImageFile):
            return _from_image(options, inputs.source, target, work)
        assert isinstance(inputs.source, File)
        source = inputs.source
        identity = checked(work.store.path(source), options.from_format, name=source.name)
        if _is_already(options, identity):
            if options.format == "raw" and source.digest.startswith("blocks:"):  # named by its content already
                work.progress.note(f"{source.name} is {identity.noun} already")
                return ImageFile(digest=source.digest, format=options.format, virtual_size=source.size)
            if _linked(identity.path, target):
                work.progress.note(f"{source.name} is {identity.noun} already; it is taken as it is")
                assert identity.virtual_size is not None
                return work.store.seal_image(target, format=options.format, virtual_size=identity.virtual_size)
        size = convert_established(
            identity, target, to=options.format, compress=options.compress, progress=work.progress
        )
        return work.store.seal_image(target, format=options.format, virtual_size=size)


def _from_image(options: ConvertOptions, source: ImageFile, target: Path, work: Work) -> ImageFile:
    if options.from_format not in (None, source.format):
        raise FormatRefused(
            f"the image should be {options.from_format} but is {source.format}",
            hint="Correct `from_format`, or leave it out.",
        )
    alone = source.backing is None and source.window is None
    if source.format == options.format and alone and not options.compress:
        work.progress.note(f"it is {source.format} already")
        return source
    if options.format == "qcow2":
        size = to_qcow2(_chain(source, work.store), target, compress=options.compress, progress=work.progress)
    else:
        with work.store.open_image(source) as reader:
            size = to_raw(reader, target, progress=work.progress)
    return work.store.seal_image(target, format=options.format, virtual_size=size)


def _chain(image: ImageFile, store: Store) -> qemu.Source:
    backing = None if image.backing is None else _chain(image.backing, store)
    window = (image.offset, image.virtual_size) if image.window else None
    return qemu.Source(path=store.path(image), format=image.format, backing=backing, window=window)


def _is_already(options: ConvertOptions, identity: Identity) -> bool:
    """Say whether the file can be the result: of the format, read by us, and sparse where that is promised."""
    if options.compress or identity.format != options.format or not is_native(identity):
        return False
    # A raw file without any hole is copied: its zeros would be read again by every later step.
    return options.format == "qcow2" or identity.path.stat().st_blocks * 512 < identity.file_size


def _linked(source: Path, target: Path) -> bool:
    """Give the store's file a second name, under which it is sealed; say whether the filesystem can.

    Both names are of one file that nobody changes, so that pruning either leaves the other whole.
    """
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without hard links
        return False
    return True
