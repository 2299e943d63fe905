"""What `emi bundle` does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from builder.bundle.bundle_file import Owner, Said, bundle_file
from builder.bundle.deflate import Compression
from builder.bundle.records import ImageType, Shape, is_id_of
from builder.bundle.records import Mapping as Device
from builder.errors import UsageError
from builder.units import format_size, parse_size
from pipelines import ui
from pipelines.kinds import load
from pipelines.verbs.bundles import watched
from pipelines.verbs.identity import Who

_ITSELF = ("true", "yes")  # euca2ools' way to say that the file is a kernel or a ramdisk itself
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def bundle(
    image: Path,
    destination: Path,
    *,
    said: Mapping[str, Any],
    shape: Mapping[str, Any],
    reproducible: bool,
    identity: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Make a bundle of an image file in a directory; `said` are arguments of `described`, `shape` of a Shape."""
    who, told = Who(**identity), described(**said)
    made_as = _shape(shape["name"] or _UNFIT.sub("-", image.name), shape["part_size"], shape["compression"])
    _require_good(made_as, told)
    owner = Owner(
        account=who.need_account(),
        cloud=who.need_cloud_certificate(),
        user=who.certificate(),
        private_key=who.private_key(),
    )
    progress = watched("bundle", as_json=as_json)
    path, says = bundle_file(image, destination, made_as, owner, told, reproducible=reproducible, progress=progress)
    if owner.private_key is None:
        ui.warn("No private key is given: the manifest is unsigned, which only Eucalyptus from 4.2 takes.")
    if as_json:
        ui.say_json({"manifest": str(path), "parts": [part.filename for part in says.parts], "size": says.size})
        return
    ui.say(f"{path}: {says.type}, {says.architecture}, account {says.user}")
    ui.say(f"  {len(says.parts)} parts of {format_size(says.bundled_size)} in all, {format_size(says.size)} inside")


def _shape(name: str, part_size: str, compression: Compression) -> Shape:
    return Shape(name=name, part_size=size("--part-size", part_size), compression=compression)


def size(option: str, said: str) -> int:
    """Return the bytes that an option says. Raises UsageError."""
    try:
        return parse_size(said)
    except ValueError as error:
        raise UsageError(f"{option}: {error}", hint=f"For example: {option} 10MiB") from error


def _require_good(shape: Shape, told: Said) -> None:
    """Raise UsageError for all that the step `bundle` would refuse in a recipe: names, mappings, product codes."""
    step = load("bundle")
    options = step.options.model_validate(
        {
            "name": shape.name,
            "part_size": shape.part_size,
            "type": told.type,
            "kernel_id": told.kernel_id,
            "ramdisk_id": told.ramdisk_id,
            "block_device_mappings": {one.virtual: one.device for one in told.mappings},
            "product_codes": told.product_codes,
        }
    )
    if wrong := step.check(options):
        raise UsageError("; ".join(wrong), hint="Correct the options; `emi bundle --help` lists them.")


def described(
    *,
    architecture: str,
    disk_format: Literal["raw", "qcow2"] | None,
    kind: ImageType,
    boots: Mapping[str, str | None],
    mappings: Sequence[str],
    product_codes: Sequence[str],
) -> Said:
    """Return what options say of the image; `boots` has `kernel` and `ramdisk`. Raises UsageError."""
    for role, value in boots.items():
        if value is not None and value not in _ITSELF and not is_id_of(role, value):
            raise UsageError(f"--{role} {value}: no {role}'s id, such as e{role[0]}i-1a2b3c4d, nor `true`")
    ids = {role: value for role, value in boots.items() if value is not None and value not in _ITSELF}
    if all(value in _ITSELF for value in boots.values()):
        raise UsageError("--kernel true and --ramdisk true: the file is one of both")
    type_: ImageType = "kernel" if boots["kernel"] in _ITSELF else "ramdisk" if boots["ramdisk"] in _ITSELF else kind
    if type_ != "machine" and ids:
        raise UsageError(f"a {type_} boots with nothing else", hint="Leave the ids of kernel and ramdisk out.")
    return Said(
        format=disk_format,
        architecture=architecture,
        type=type_,
        kernel_id=ids.get("kernel"),
        ramdisk_id=ids.get("ramdisk"),
        mappings=tuple(Device(virtual=virtual, device=device) for virtual, device in devices(mappings).items()),
        product_codes=tuple(product_codes),
    )


def devices(mappings: Sequence[str]) -> dict[str, str]:
    """Return what VIRTUAL=DEVICE say, by virtual name; devices without /dev/, as manifests have them."""
    found = {}
    for text in mappings:
        virtual, equals, device = text.partition("=")
        if not (equals and virtual and device):
            raise UsageError(f"-B {text}: not VIRTUAL=DEVICE", hint="For example: -B ephemeral0=sdb")
        found[virtual] = device.removeprefix("/dev/")
    return found
