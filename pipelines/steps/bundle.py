"""The step kind `bundle`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from pydantic import Field

from builder import durable, pool
from builder.bundle import manifest, stream
from builder.bundle.bundle_file import Owner, Said, derived_key, manifest_of
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.limits import LARGEST_IMAGE_EC2, PART_SIZE
from builder.bundle.records import ContentKey, Manifest, Shape, WrittenPart, is_id_of
from builder.bundle.records import Mapping as DeviceMapping
from builder.crashpoint import reach
from builder.errors import InputError, UsageError
from builder.image.reader import open_image
from builder.image.stream import ImageReader
from builder.image.write import content_digest
from builder.units import format_size
from pipelines.artifact import Bundle, File, ImageFile
from pipelines.step import Foreseen, ForeseenBundle, Inputs, LocalStep, Options, Outside, Work
from pipelines.values import Size

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_ACCOUNT = re.compile(r"[0-9]{4}-?[0-9]{4}-?[0-9]{4}")
_VIRTUAL = re.compile(r"ami|root|swap|ephemeral[0-9]{1,2}")
_DEVICE = re.compile(r"[A-Za-z0-9/]{1,32}")
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")  # what no reader of a manifest has to unescape
_SMALLEST_PART, _LARGEST_PART = 64 << 10, 5 << 30  # bytes; what one PutObject takes at most
# Eucalyptus tells what a manifest registers by the beginning of its name, machine manifests too (ImageManager.java).
_MISREAD = {"vmlinuz": "a kernel", "initrd": "a ramdisk"}
_KEY = "content-key"


class BundleOptions(Options):
    """What the manifest says of the image, and how its parts are made."""

    name: str = Field(description="what the manifest and the parts are named after: letters, digits, `.`, `_` and `-`")
    architecture: Literal["x86_64", "i386", "arm64"] = Field(default="x86_64", description="of the kernel in the image")
    type: Literal["machine", "kernel", "ramdisk"] = Field(default="machine", description="what it is registered as")
    kernel_id: str | None = Field(default=None, description="the kernel it boots with, `eki-…` or `aki-…`")
    ramdisk_id: str | None = Field(default=None, description="the ramdisk it boots with, `eri-…` or `ari-…`")
    block_device_mappings: dict[str, str] = Field(
        default_factory=dict, description="`ami`, `root`, `swap` or `ephemeralN`: the device's name; `ami: sda1`"
    )
    product_codes: tuple[str, ...] = Field(default=(), description="product codes that instances carry")
    part_size: Size = Field(default=PART_SIZE, description="bytes of every part but the last; all tools make 10 MiB")
    compression: Literal["fast", "small"] = Field(
        default="fast", description="`fast` for near clouds, `small` where the line to the cloud is slow"
    )
    reproducible: bool = Field(
        default=False,
        description="derive the key, so that the same image and certificates give the same parts to the byte; whoever"
        " sees two such bundles can tell that they are the same",
    )
    max_size: Size | None = Field(
        default=None, description="the most that the image may measure; the cloud's own limit when left out"
    )
    account: str | None = Field(default=None, description="whose bundle it is, 12 digits; the cloud's account if not")
    user_certificate: str | None = Field(
        default=None,
        description="the account's X.509 certificate: a file in the recipe's folder, in place of the configured one",
    )
    private_key: str | None = Field(default=None, description="the private key that belongs to it and signs, likewise")
    cloud_certificate: str | None = Field(
        default=None, description="the certificate of the cloud that shall read the bundle, likewise"
    )


class BundleStep(LocalStep[BundleOptions]):
    """Make an instance-store bundle: encrypted parts, and a signed manifest that says what they are.

    The image is read as it is needed: a part of a disk, a layer over it or a qcow2 is not copied first, holes are not
    read. The key is drawn at random and can be opened by the account's private key and by the cloud. A part is handed
    to a directly following `upload` as soon as it is whole. After a crash the same key is used again, so that parts
    that were sent need not be sent twice.
    """

    options = BundleOptions
    accepts = (ImageFile, File)
    returns = Bundle
    continues = True

    def check(self, options: BundleOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        return [*_name_problems(options), *_word_problems(options), *_file_problems(options)]

    def foresee(self, options: BundleOptions, source: Foreseen) -> Foreseen:
        """Return all that the manifest will say and `register` asks for."""
        return Foreseen(
            bundle=ForeseenBundle(
                name=options.name,
                type=options.type,
                architecture=options.architecture,
                kernel=options.kernel_id is not None,
                ramdisk=options.ramdisk_id is not None,
            )
        )

    def pin(self, options: BundleOptions, outside: Outside) -> Mapping[str, Any]:
        """Return whose bundle it is: the account, and the certificates' SHA-256; the cloud may be asked for its own."""
        return _pins(_owner(options, outside))

    def build(self, options: BundleOptions, inputs: Inputs, work: Work) -> Bundle:
        """Make the parts and seal each as it is whole, then the manifest."""
        owner = _owner(options, work.outside)
        if _pins(owner) != work.pins:
            raise UsageError(
                "the account or a certificate for bundles changed after this run began",
                hint="Run again: the bundle will be made for what is configured now.",
            )
        source = inputs.source
        assert isinstance(source, ImageFile | File)
        place = work.scratch / "parts"
        if place.exists():
            shutil.rmtree(place)
        place.mkdir()
        with _opened(options, source, work) as reader, _Sealing(options.name, work) as sealing:
            _require_size(options, source, reader, work)
            key = _content_key(options, source, reader, owner, work)
            made = stream.write(reader, place, _shape(options), key, done=sealing.take, progress=work.progress)
            parts = sealing.parts()
        says = manifest_of(made, _shape(options), owner, _said(options), key)
        return Bundle(
            manifest=_sealed_manifest(says, owner, work),
            parts=parts,
            type=options.type,
            architecture=options.architecture,
            size=made.size,
        )


def _owner(options: BundleOptions, outside: Outside) -> Owner:
    """Return what the options say, and what they do not say as the run's cloud has it. Raises UsageError."""
    given = (options.account, options.user_certificate, options.private_key, options.cloud_certificate)
    configured = None if all(given) else outside.site(None).bundling()

    def read(name: str | None, found: bytes | None) -> bytes | None:
        return _read(name, outside) if name else found

    user = read(options.user_certificate, configured.user_certificate if configured else None)
    private_key = read(options.private_key, configured.private_key if configured else None)
    cloud = read(options.cloud_certificate, configured.cloud_certificate if configured else None)
    account = options.account or (configured.account if configured else "")
    assert cloud is not None
    owner = Owner(
        account=account.replace("-", ""),
        cloud=Certificate.load(cloud, options.cloud_certificate or "the cloud's certificate"),
        user=Certificate.load(user, options.user_certificate or "the account's certificate") if user else None,
        private_key=PrivateKey.load(private_key, options.private_key or "the account's key") if private_key else None,
    )
    if owner.user and owner.private_key:
        owner.user.require(owner.private_key)
    return owner


def _pins(owner: Owner) -> dict[str, Any]:
    """Return what the key of the step holds of whose bundle it is."""
    return {
        "account": owner.account,
        "cloud_certificate": owner.cloud.sha256,
        "user_certificate": owner.user.sha256 if owner.user else None,
        "signed": owner.private_key is not None,
    }


class _Sealing:
    """Seals parts in a thread of their own, so that the disk is not waited for, and hands them on early."""

    def __init__(self, name: str, work: Work) -> None:
        self._manifest, self._work = f"{name}.manifest.xml", work
        self._worker = pool.Worker()
        self._sealed: list[pool.Pending[File]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.end()

    def take(self, part: WrittenPart, path: Path) -> None:
        """Have a part sealed that is whole; returns at once."""
        self._sealed.append(self._worker.begin(lambda: self._seal(part, path)))

    def parts(self) -> tuple[File, ...]:
        """Return all parts, sealed."""
        return tuple(pending.result() for pending in self._sealed)

    def _seal(self, part: WrittenPart, path: Path) -> File:
        file = self._work.store.seal_part(path, name=part.filename, sha1=part.sha1)
        reach("bundle.part-sealed")
        self._work.early(self._manifest, file)
        return file


def _opened(options: BundleOptions, source: ImageFile | File, work: Work) -> ImageReader:
    if options.type != "machine" and isinstance(source, File):
        return open_image(work.store.path(source), "raw")  # a kernel is no disk image, whatever it begins with
    return work.store.open_image(source)


def _require_size(options: BundleOptions, source: ImageFile | File, reader: ImageReader, work: Work) -> None:
    size = reader.virtual_size
    largest = options.max_size or work.outside.site(None).cloud.capabilities.largest_bundle
    what = source.name if isinstance(source, File) else "the image"
    if size > largest:
        raise InputError(
            f"{what} measures {format_size(size)}; the instance store takes at most {format_size(largest)}",
            hint="A `resize` step makes it smaller; `max_size` raises the limit, for a cloud whose own was raised.",
        )
    if size > LARGEST_IMAGE_EC2:
        work.progress.note(f"{format_size(size)} are more than EC2 takes ({format_size(LARGEST_IMAGE_EC2)})")
    if options.type == "machine" and options.name.lower().startswith("windows"):
        work.progress.note(f"Eucalyptus registers {options.name} as a Windows image, for what its name begins with")


def _content_key(
    options: BundleOptions, source: ImageFile | File, reader: ImageReader, owner: Owner, work: Work
) -> ContentKey:
    """Return the key of this execution: derived, or drawn once and kept in scratch until the bundle is finished."""
    if options.reproducible:
        known = isinstance(source, ImageFile) and source.format == "raw" and source.window is None
        return derived_key(source.digest if known else content_digest(reader), _shape(options), owner)
    path = work.scratch / _KEY
    if path.exists():
        kept = path.read_bytes()
        return ContentKey(key=kept[:16], iv=kept[16:])
    drawn = ContentKey.fresh()
    durable.write_file(path, drawn.key + drawn.iv, private=True)
    reach("bundle.key-drawn")
    return drawn


def _shape(options: BundleOptions) -> Shape:
    return Shape(name=options.name, part_size=options.part_size, compression=options.compression)


def _said(options: BundleOptions) -> Said:
    return Said(
        architecture=options.architecture,
        type=options.type,
        kernel_id=options.kernel_id,
        ramdisk_id=options.ramdisk_id,
        mappings=tuple(
            DeviceMapping(virtual=virtual, device=device) for virtual, device in options.block_device_mappings.items()
        ),
        product_codes=options.product_codes,
    )


def _sealed_manifest(unsigned: Manifest, owner: Owner, work: Work) -> File:
    if owner.private_key is None:
        work.progress.note(
            "no private key is configured: the manifest is unsigned, which only Eucalyptus from 4.2 takes"
        )
    name = f"{unsigned.name}.manifest.xml"
    path = work.scratch / name
    durable.write_file(path, manifest.write(unsigned, owner.private_key))
    return work.store.seal_file(path, name=name)


def _read(name: str, outside: Outside) -> bytes:
    folder = outside.recipe_directory.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise UsageError(f"{name} leads out of the recipe's folder {folder}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _name_problems(options: BundleOptions) -> list[str]:
    if not _NAME.fullmatch(options.name):
        return [f"{options.name!r} cannot name a bundle: up to 200 letters, digits, `.`, `_` and `-`"]
    begins = next((word for word in _MISREAD if options.name.lower().startswith(word)), None)
    if options.type == "machine" and begins:
        return [
            f"{options.name!r} begins with {begins}: Eucalyptus would register the machine image as {_MISREAD[begins]}"
        ]
    return []


def _word_problems(options: BundleOptions) -> list[str]:
    wrong = [
        f"{virtual!r}: {device!r} is no mapping; virtual names are ami, root, swap and ephemeralN, devices like sda1"
        for virtual, device in options.block_device_mappings.items()
        if not _VIRTUAL.fullmatch(virtual) or not _DEVICE.fullmatch(device)
    ]
    wrong += [f"{code!r} cannot be a product code" for code in options.product_codes if not _PLAIN.fullmatch(code)]
    for word in ("kernel_id", "ramdisk_id"):
        id_ = getattr(options, word)
        if id_ is not None and options.type != "machine":
            wrong.append(f"a {options.type} boots with nothing else: leave `{word}` out")
        elif id_ is not None and not is_id_of(word, id_):
            wrong.append(f"{id_!r} is no {word.removesuffix('_id')}'s id, such as e{word[0]}i-1a2b3c4d")
    if not _SMALLEST_PART <= options.part_size <= _LARGEST_PART:
        wrong.append(f"`part_size` is 64 KiB to 5 GiB, not {format_size(options.part_size)}")
    if options.account is not None and not _ACCOUNT.fullmatch(options.account):
        wrong.append(f"{options.account!r} is no account: it has 12 digits")
    return wrong


def _file_problems(options: BundleOptions) -> list[str]:
    wrong = []
    for word in ("user_certificate", "private_key", "cloud_certificate"):
        name = getattr(options, word)
        if name is not None and (not name or name.startswith("/") or ".." in PurePosixPath(name).parts):
            wrong.append(f"`{word}` {name!r} is not a path inside the recipe's folder")
    if (options.user_certificate is None) != (options.private_key is None):
        wrong.append("`user_certificate` and `private_key` belong together: give both or neither")
    return wrong
