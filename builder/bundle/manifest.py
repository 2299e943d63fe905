"""The manifest of a bundle, as text: `read` takes any dialect that was ever written, `write` writes one that all read.

The one is EC2's version 2007-10-10 on a single line, with single-quoted attributes and no attribute on
`<machine_configuration>` and `<image>`: so is the signed text the same for verifiers that take it as it stands and for
those that parse and write it again first. `<type>` follows `<user>` directly, which EC2 needs. It also refuses
manifests without the user's fields or a signature, so for want of a key they are written empty and as `UNSIGNED`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from builder.bundle import signature
from builder.bundle.certificates import PrivateKey
from builder.bundle.limits import LARGEST_MANIFEST
from builder.bundle.reading import read
from builder.bundle.records import Encrypted, Manifest, Mapping
from builder.errors import UsageError

__all__ = ["as_written", "read", "write"]

VERSION = "2007-10-10"
_CIPHER = " algorithm='AES-128-CBC'"
_DIGEST = " algorithm='SHA1'"
_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
_PLAIN = re.compile(r"[ !#-%(-;=?-~]*\Z")  # ASCII that is written as itself in XML: no & < > " '


def write(manifest: Manifest, sign_with: PrivateKey | None, *, names_as_they_are: bool = False) -> bytes:
    """Return the manifest as bytes, signed with `sign_with` or `UNSIGNED`; the same bytes for the same input.

    Its `version` and `signature` are not looked at: the version is always 2007-10-10, the signature made anew. Mappings
    are sorted by their virtual names; kernels and ramdisks carry `true` as their own id, which Eucalyptus wants.
    Raises UsageError for a name with other characters than `A-Za-z0-9._-`, as clouds, tools and shells treat those
    differently. `names_as_they_are` lets others pass, for bundles that have them already; what XML would escape is
    refused always, as verifiers do not agree on it; so is a manifest of more than 5 MiB, which no cloud reads.
    """
    _check_words(manifest, _PLAIN if names_as_they_are else _NAME)
    manifest = as_written(manifest)
    body = (
        _element("version", VERSION)
        + _element("bundler", *_bundler(manifest))
        + _element("machine_configuration", *_machine_configuration(manifest))
        + _element("image", *_image(manifest))
    )
    signed = signature.sign(body, sign_with) if sign_with else signature.UNSIGNED
    text = f"<?xml version='1.0'?><manifest>{body}{_element('signature', signed)}</manifest>"
    if len(text) > LARGEST_MANIFEST:
        raise UsageError(
            f"the manifest of {manifest.name} with {len(manifest.parts)} parts would have {len(text)} bytes; "
            f"clouds read {LARGEST_MANIFEST}",
            hint="Give the bundle larger parts.",
        )
    return text.encode("ascii")


def as_written(manifest: Manifest) -> Manifest:
    """Return what `read` says of it once it is written, but for the signature."""
    mappings = tuple(sorted(manifest.mappings, key=lambda mapping: mapping.virtual))
    manifest = replace(manifest, version=VERSION, mappings=mappings)
    match manifest.type:
        case "kernel":
            return replace(manifest, kernel_id="true")
        case "ramdisk":
            return replace(manifest, ramdisk_id="true")
        case "machine":
            return manifest


def _element(name: str, *inside: str, attributes: str = "") -> str:
    content = "".join(inside)
    return f"<{name}{attributes}>{content}</{name}>" if content else f"<{name}{attributes}/>"


def _bundler(manifest: Manifest) -> list[str]:
    bundler = manifest.bundler
    words = (("name", bundler.name), ("version", bundler.version), ("release", bundler.release))
    return [_element(name, value) for name, value in words]


def _machine_configuration(manifest: Manifest) -> list[str]:
    elements = [_element("architecture", manifest.architecture)]
    if manifest.mappings:
        elements.append(_element("block_device_mapping", *map(_mapping, manifest.mappings)))
    if manifest.product_codes:
        codes = (_element("product_code", code) for code in manifest.product_codes)
        elements.append(_element("product_codes", *codes))
    if manifest.kernel_id:
        elements.append(_element("kernel_id", manifest.kernel_id))
    if manifest.ramdisk_id:
        elements.append(_element("ramdisk_id", manifest.ramdisk_id))
    return elements


def _mapping(mapping: Mapping) -> str:
    return _element("mapping", _element("virtual", mapping.virtual), _element("device", mapping.device))


def _image(manifest: Manifest) -> list[str]:
    elements = [_element("name", manifest.name), _element("user", manifest.user), _element("type", manifest.type)]
    if manifest.kernel_name:
        elements.append(_element("kernel_name", manifest.kernel_name))
    if manifest.ancestry:
        ancestors = (_element("ancestor_ami_id", ancestor) for ancestor in manifest.ancestry)
        elements.append(_element("ancestry", *ancestors))
    elements.append(_element("digest", manifest.tar_sha1, attributes=_DIGEST))
    elements.append(_element("size", str(manifest.size)))
    elements.append(_element("bundled_size", str(manifest.bundled_size)))
    return elements + _keys(manifest.for_cloud, manifest.for_user) + [_parts(manifest)]


def _keys(cloud: Encrypted, user: Encrypted) -> list[str]:
    return [
        _element("ec2_encrypted_key", cloud.key, attributes=_CIPHER),
        _element("user_encrypted_key", user.key, attributes=_CIPHER),
        _element("ec2_encrypted_iv", cloud.iv),
        _element("user_encrypted_iv", user.iv),
    ]


def _parts(manifest: Manifest) -> str:
    parts = (
        _element(
            "part",
            _element("filename", part.filename),
            _element("digest", part.sha1, attributes=_DIGEST),
            attributes=f" index='{index}'",
        )
        for index, part in enumerate(manifest.parts)
    )
    return _element("parts", *parts, attributes=f" count='{len(manifest.parts)}'")


def _check_words(manifest: Manifest, name: re.Pattern[str]) -> None:
    if not manifest.parts:
        raise UsageError(f"the bundle {manifest.name} has no parts; nothing can be registered from it")
    names = [("name", manifest.name), *((f"part {index}", part.filename) for index, part in enumerate(manifest.parts))]
    for what, value in names:
        if not name.match(value):
            raise UsageError(
                f"the bundle's {what} {value!r} is empty or has characters that not every cloud and tool reads alike",
                hint="Use letters, digits, dots, underscores and hyphens of ASCII.",
            )
    bundler = manifest.bundler
    words = [
        ("user", manifest.user),
        ("architecture", manifest.architecture),
        ("kernel_id", manifest.kernel_id or ""),
        ("ramdisk_id", manifest.ramdisk_id or ""),
        ("kernel_name", manifest.kernel_name or ""),
        *(("bundler", word) for word in (bundler.name, bundler.version, bundler.release)),
        *(("product code", code) for code in manifest.product_codes),
        *(("ancestor", ancestor) for ancestor in manifest.ancestry),
        *(("mapping", word) for mapping in manifest.mappings for word in (mapping.virtual, mapping.device)),
    ]
    for what, value in words:
        if not _PLAIN.match(value):
            raise UsageError(f"the bundle's {what} {value!r} has characters that XML escapes or ASCII lacks")
