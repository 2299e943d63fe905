"""The `decompress` step."""

from __future__ import annotations

from pydantic import Field

from builder.errors import FormatRefused
from builder.unpack import DEFAULT_MAX_SIZE, Packing, packing, unpack
from pipelines.artifact import File
from pipelines.step import Inputs, LocalStep, Options, Work
from pipelines.values import Size


class DecompressOptions(Options):
    """Which file comes out, and how large it may be."""

    member: str | None = Field(
        default=None,
        description="one file of a tar or zip archive, by name or pattern (`*.raw`); needless if it holds only one",
    )
    max_size: Size = Field(
        default=DEFAULT_MAX_SIZE, description="the most that may come out, zeros included; larger is refused as a bomb"
    )
    format: Packing | None = Field(default=None, description="refuse a file that is not packed like this")


class Decompress(LocalStep[DecompressOptions]):
    """Unpack xz, gz, bz2 or zst, or take one file out of a tar or zip archive.

    The packing is told by the file's first bytes, never by its name; a compressed tar archive is opened in one go. Runs
    of zeros become holes. What is damaged, cut off, has bytes behind its end, or is a link or a device is refused.
    """

    options = DecompressOptions
    accepts = (File,)
    returns = File

    def build(self, options: DecompressOptions, inputs: Inputs, work: Work) -> File:
        """Unpack the file that the step before it made."""
        file = inputs.source
        assert isinstance(file, File)
        source = work.store.path(file)
        if options.format and (found := packing(source)) and found != options.format:
            raise FormatRefused(
                f"{file.name} is packed with {found}, not {options.format}",
                hint=f"Write `format: {found}`, or leave it out.",
            )
        done = unpack(
            source,
            work.scratch / "unpacked",
            name=file.name,
            member=options.member,
            max_size=options.max_size,
            progress=work.progress,
        )
        return work.store.seal_file(done.path, name=done.name)
