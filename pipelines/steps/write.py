"""The step kind `write`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from builder.digest import file_sha256
from builder.errors import DeviceAbsent, UsageError
from builder.fetch import Web, published
from builder.remote import abilities
from builder.remote.command import Shell
from builder.remote.devices import Wanted, find
from builder.remote.fetch import Source, fetch_and_write
from builder.remote.lanes import CONNECTIONS
from builder.remote.write import Written, write
from builder.units import format_size
from builder.verify import Keyring, parse_checksum
from pipelines.artifact import File, ImageFile, Volume
from pipelines.step import Inputs, LocalStep, Options, Outside, Reference, Work

Compression = Literal["none", "gz", "xz", "bz2", "zst"]
_APPEARS = 60  # seconds after a new start of the helper that the device may take to appear


class WriteOptions(Options):
    """What is written into the volume: an image from here, or one that the helper downloads itself."""

    image: Annotated[str | None, Reference((ImageFile, File))] = Field(
        default=None, description="the `id` of the step whose image is sent"
    )
    url: str | None = Field(
        default=None,
        description="instead of `image`: where the helper downloads an image, http or https; its bytes never pass "
        "through this machine. A mirror (`--mirror`) must be one that the helper reaches",
    )
    checksum: str | None = Field(
        default=None,
        description="of what lies at `url`, which needs one: `sha256:HEX`, `sha512:HEX`, or the URL of a checksum file "
        "(SHA256SUMS, …), which is read from here",
    )
    signature: str | None = Field(default=None, description="URL of an OpenPGP signature of that checksum file")
    keyring: str | None = Field(
        default=None,
        description="the publisher's public keys, a file in the recipe's folder; without `signature`, the checksum "
        "file itself must be clearsigned",
    )
    format: Literal["raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc"] | None = Field(
        default=None, description="what the image at `url` is, in qemu-img's words; it is never guessed"
    )
    compression: Compression | None = Field(
        default=None, description="what it is packed with: `none`, or by default as the end of `url` says"
    )
    scratch: str = Field(
        default="/var/tmp",  # noqa: S108 - there, where builder/remote/fetch.py makes the name safe
        description="a directory of the helper with room for the download and the image's data",
    )
    connections: int = Field(
        default=CONNECTIONS, ge=1, le=16, exclude=True, description="how many of them send at the same time"
    )


class Write(LocalStep[WriteOptions]):
    """Write an image into a volume that is attached to a helper, and prove that it is there: the `dd`.

    From here: only the image's data go over SSH, compressed with zstd where the helper has it, over several
    connections; what the volume holds already is known by its digests and not sent again, so that a cut or killed write
    goes on where it was. With `url` the helper downloads the image itself, checks it, converts it (qemu-img) and copies
    it.

    Either way it ends with fsync, the helper's kernel forgets what it keeps of the device, and all of it is read back:
    a digest that differs is an error. The device is found by the volume's serial, each time the helper was started,
    never by a letter. A device that is in use, or too small, is refused. What lies beyond the image stays as it is.
    The helper needs POSIX sh, dd and sha256sum; Python 3.6, zstd and qemu-img (only for `url`) make it faster, or
    possible. Where SSH's user is not root, sudo must ask for no password.
    """

    options = WriteOptions
    accepts = (Volume,)
    returns = Volume

    def check(self, options: WriteOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        if options.image is not None:
            of_url = ("url", "checksum", "signature", "keyring", "format", "compression", "scratch")
            return [f"`{name}` is not for `image`" for name in of_url if options.given(name)]
        if options.url is None:
            return ["give `image` (the id of a step here) or `url` (the helper downloads it)"]
        return _problems_of_url(options, options.url)

    def pin(self, options: WriteOptions, outside: Outside) -> Mapping[str, Any]:
        """Return the checksum of what the helper is to download."""
        if options.url is None:
            return {}
        pins: dict[str, Any] = {}
        keyring = None
        if options.keyring:
            path = (outside.recipe_directory / options.keyring).resolve()
            if not path.is_relative_to(outside.recipe_directory.resolve()):
                raise UsageError(f"keyring {options.keyring!r} leads out of the recipe's folder")
            keyring = Keyring(path)
            pins["keyring"] = file_sha256(path)
        web = Web(mirrors=outside.mirrors)
        found = published.checksum(web, options.url, options.checksum, signature=options.signature, keyring=keyring)
        return {**pins, "checksum": str(found)}

    def build(self, options: WriteOptions, inputs: Inputs, work: Work) -> Volume:
        """Make the volume equal to the image, and return it with its content."""
        volume = inputs.source
        assert isinstance(volume, Volume)
        if volume.helper is None:
            raise UsageError(
                f"volume {volume.volume_id} is attached to no helper", hint="Give the `volume` step a `helper`."
            )
        with work.remote(volume.helper) as shell:
            place = _finder(shell, volume)
            image = inputs.named.get("image")
            if isinstance(image, File | ImageFile):
                done = _sent(options, image, shell, place, work)
            else:
                done = _fetched(options, shell, place, work)
        work.progress.note(
            f"{format_size(done.written)} of {format_size(done.size)} written, {format_size(done.sent)} sent, all of "
            f"it read back from the device of {volume.volume_id}"
        )
        return volume.model_copy(update={"content": done.digest, "blocks": done.blocks, "content_size": done.size})


def _problems_of_url(options: WriteOptions, url: str) -> list[str]:
    problems = published.problems([url, options.signature], options.checksum)
    if not url.startswith(("http://", "https://")):
        problems.append("`url` is read by the helper, which has http and https only")
    if options.checksum is None:
        problems.append("`url` needs a `checksum`: nothing else proves what the helper has got")
    if options.format is None:
        problems.append("`url` needs a `format`: what the image is must not be guessed")
    if (options.signature or options.keyring) and not published.is_url(options.checksum):
        problems.append("`signature` and `keyring` are for a checksum file: give its URL as `checksum`")
    if options.signature and not options.keyring:
        problems.append("signature needs a keyring: the file with the publisher's public keys")
    if options.keyring and (options.keyring.startswith("/") or ".." in PurePosixPath(options.keyring).parts):
        problems.append(f"keyring {options.keyring!r} is not a path inside the recipe's folder")
    if options.given("connections"):
        problems.append("`connections` is not for `url`: the helper downloads, and nothing is sent")
    if not options.scratch.startswith("/"):
        problems.append("`scratch` is not an absolute path")
    return problems


def _finder(shell: Shell, volume: Volume) -> Callable[[], str]:
    """Return what finds the volume's device each time it is asked; without a serial, its name holds for one boot."""
    wanted = Wanted(volume_id=volume.volume_id, size=volume.size << 30)

    def place() -> str:
        able = abilities.ask(shell)
        same = bool(volume.boot) and able.boot_id == volume.boot
        try:
            return find(shell, able, wanted, patience=0 if same else _APPEARS).path
        except DeviceAbsent:
            if not same or not volume.device:
                raise
            return volume.device

    return place


def _sent(
    options: WriteOptions, image: File | ImageFile, shell: Shell, place: Callable[[], str], work: Work
) -> Written:
    with work.store.open_image(image) as reader:
        return write(
            reader,
            shell,
            place,
            expected=_expected(image),
            connections=options.connections,
            progress=work.progress,
        )


def _expected(image: File | ImageFile) -> str | None:
    """Return the digest of the content, where the file's name is one: that of a whole raw disk."""
    whole = isinstance(image, ImageFile) and image.format == "raw" and image.window is None
    return image.digest if whole and image.digest.startswith("blocks:") else None


def _fetched(options: WriteOptions, shell: Shell, place: Callable[[], str], work: Work) -> Written:
    assert options.url is not None
    assert options.format is not None
    url = Web(mirrors=work.outside.mirrors).address(options.url).actual
    if not url.startswith(("http://", "https://")):
        raise UsageError(
            f"{options.url} is to be read from {url}, which the helper cannot reach",
            hint="Name a mirror that has http or https, or download it here and give `image`.",
        )
    source = Source(
        url=url,
        checksum=parse_checksum(work.pins["checksum"]),
        format=options.format,
        compression=_compression(options),
    )
    return fetch_and_write(source, shell, place, scratch=options.scratch.rstrip("/"), progress=work.progress)


def _compression(options: WriteOptions) -> Literal["", "gz", "xz", "bz2", "zst"]:
    suffix = options.compression or PurePosixPath(options.url or "").suffix.removeprefix(".")
    match suffix:
        case "gz" | "xz" | "bz2" | "zst":
            return suffix
        case _:
            return ""
