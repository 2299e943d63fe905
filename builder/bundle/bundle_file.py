"""An image file as a bundle in a directory, for people without a recipe.

Write order: the parts are made in a hidden directory beside their final places (`.emi-bundle-*`), made durable, given
their names, and the manifest gets its name last of all. A crash leaves at most that hidden directory, which the next
call there removes, and parts without a manifest, which nobody takes for a bundle. Nothing that is there already is
replaced.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from builder import durable
from builder.bundle import keys, manifest, stream
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.folder import is_part
from builder.bundle.records import Bundler, ContentKey, Manifest, Mapping, Part, Shape, Stream
from builder.bundle.records import ImageType as Type
from builder.errors import InputError
from builder.image.convert import checked
from builder.image.reader import open_image
from builder.image.stream import ImageReader
from builder.image.write import content_digest
from builder.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose bundle it is (12 digits), who signs and opens it (None: nobody), and which cloud reads it."""

    account: str
    cloud: Certificate
    user: Certificate | None = None
    private_key: PrivateKey | None = None


@dataclass(frozen=True, kw_only=True)
class Said:
    """What is said of the image beyond its bytes; all but `format`, of its file, stands in the manifest."""

    format: Literal["raw", "qcow2"] | None = None  # None: as its first bytes tell
    architecture: str = "x86_64"
    type: Type = "machine"
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    mappings: tuple[Mapping, ...] = ()
    product_codes: tuple[str, ...] = ()


def bundle_file(
    image: Path,
    directory: Path,
    shape: Shape,
    owner: Owner,
    said: Said,
    *,
    reproducible: bool = False,
    progress: Progress = SILENT,
) -> tuple[Path, Manifest]:
    """Write `shape.name`.manifest.xml and its parts into `directory`; return the manifest's path and what it says.

    A machine image is raw or qcow2, its bytes are those of the disk; kernels and ramdisks are taken as they are. With
    `reproducible` the same image, shape and owner give the same parts (see keys.derived). Raises InputError for what is
    no image or is there already, UsageError for a certificate and a key that do not belong together or a directory
    that cannot be written, DiskFull and HostError.
    """
    if owner.user and owner.private_key:
        owner.user.require(owner.private_key)
    target = directory / f"{shape.name}.manifest.xml"
    _require_free(directory, target)
    with durable.scratch_in(directory, ".emi-bundle-") as place, _opened(image, said) as reader:
        key = derived_key(content_digest(reader), shape, owner) if reproducible else ContentKey.fresh()
        made = stream.write(reader, place, shape, key, progress=progress)
        says = manifest_of(made, shape, owner, said, key)
        durable.write_file(place / target.name, manifest.write(says, owner.private_key))
        for file in (*(part.filename for part in made.parts), target.name):  # the manifest last: the commit point
            durable.fsync_file(place / file)
            _name(place / file, directory / file)
    durable.fsync_directory(directory)
    return target, says


def _opened(image: Path, said: Said) -> ImageReader:
    if not image.is_file():
        raise InputError(f"{image} is no regular file" if image.exists() else f"{image}: there is no such file")
    return open_image(image, checked(image, said.format).format if said.type == "machine" else "raw")


def derived_key(content: str, shape: Shape, owner: Owner) -> ContentKey:
    """Return the key of a reproducible bundle of an image with this content digest (`blocks:HEX`)."""
    certificates = [found for found in (owner.user, owner.cloud) if found]
    return keys.derived(content.encode(), certificates=certificates, shape=shape, secret=owner.private_key)


def manifest_of(made: Stream, shape: Shape, owner: Owner, said: Said, key: ContentKey) -> Manifest:
    """Return what the manifest of a bundle that was just made says, not signed yet."""
    says = Manifest(
        bundler=Bundler(name="emi", version=version("emi-pipelines"), release="0"),
        architecture=said.architecture,
        mappings=said.mappings,
        product_codes=said.product_codes,
        kernel_id=said.kernel_id,
        ramdisk_id=said.ramdisk_id,
        name=shape.name,
        user=owner.account,
        type=said.type,
        tar_sha1=made.tar_sha1,
        size=made.size,
        bundled_size=made.bundled_size,
        for_cloud=keys.encrypt(key, owner.cloud),
        parts=tuple(Part(filename=part.filename, sha1=part.sha1) for part in made.parts),
    )
    return replace(says, for_user=keys.encrypt(key, owner.user)) if owner.user else says


def _require_free(directory: Path, target: Path) -> None:
    """Raise InputError, before the hours of work and with nothing placed yet, where a manifest or part lies already."""
    stem = target.name.removesuffix("manifest.xml")
    there = {target.name} if os.path.lexists(target) else set()
    with suppress(OSError):  # a directory that cannot be read is told of when it cannot be written
        there |= {found.name for found in directory.iterdir() if found.name.startswith(stem) and is_part(found.name)}
    if there:
        raise _taken(directory / min(there))


def _name(made: Path, target: Path) -> None:
    """Give the file its name, unless there is one of that name."""
    try:
        os.link(made, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:  # a filesystem without hard links, where nothing but a rename is left
        if os.path.lexists(target):
            raise _taken(target) from None
        made.rename(target)


def _taken(target: Path) -> InputError:
    return InputError(f"{target} is there already", hint="Remove that bundle, or name another directory or prefix.")
