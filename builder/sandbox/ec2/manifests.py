"""A bundle's manifest as a cloud reads it from its bucket: as whoever `aws-exec-read` stands for.

Nothing of `builder.bundle` reads here: what that writes is for others to read, and these stand in for them. Sources:
ImageManifests of Eucalyptus, and what euca2ools and ec2-ami-tools write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET

from builder.sandbox.cloud import Cloud

LARGEST = 5 << 20  # bytes; Eucalyptus' maxmanifestsizebytes, taken for both clouds
_PIECE = 1 << 20
_TRUE = {"true", "yes"}  # of kernel_id and ramdisk_id: the bundle is one itself
_PREFIXES = {"kernel": "vmlinuz", "ramdisk": "initrd"}  # of manifests' names


class Unreadable(Exception):
    """The manifest is not there, not ours to read, too large, or no manifest; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a manifest lies; `location` is as DescribeImages shows it."""

    bucket: str
    key: str

    @property
    def location(self) -> str:
        """The bucket and the key."""
        return f"{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The manifest's file name."""
        return PurePosixPath(self.key).name

    def part(self, filename: str, *, at_root: bool) -> str:
        """Return the key of a part: beside the manifest, or at the bucket's root."""
        prefix, slash, _ = self.key.rpartition("/")
        return filename if at_root else f"{prefix}{slash}{filename}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part as the manifest has it."""

    index: int
    filename: str
    sha1: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a manifest says, as text; None for what is absent."""

    architecture: str | None
    kernel_id: str | None
    ramdisk_id: str | None
    type: str | None
    user: str | None
    tar_sha1: str | None
    size: int
    bundled_size: int
    encrypted_key: str | None
    encrypted_iv: str | None
    user_encrypted_key: str | None
    user_encrypted_iv: str | None
    signature: str | None
    mappings: Mapping[str, str]
    parts: tuple[Part, ...]
    data: bytes

    def kind(self, name: str) -> str:
        """Return machine, kernel or ramdisk; a manifest whose file is named as a kernel's is one, whatever it says."""
        stated = {"kernel": self.kernel_id, "ramdisk": self.ramdisk_id}
        for kind, prefix in _PREFIXES.items():
            if self.type == kind or stated[kind] in _TRUE or name.startswith(prefix):
                return kind
        return "machine"

    @staticmethod
    def kind_by_name(name: str) -> str:
        """Return what the name of a manifest's file alone says."""
        return next((kind for kind, prefix in _PREFIXES.items() if name.startswith(prefix)), "machine")


def place(location: str) -> Place | None:
    """Return what an ImageLocation means, or None when it means nothing: leading slashes are dropped."""
    bucket, slash, key = location.lstrip("/").partition("/")
    return Place(bucket=bucket, key=key) if slash and key and len(bucket) >= 2 else None


def fetch(cloud: Cloud, where: Place) -> bytes:
    """Return the manifest's bytes, read with what `aws-exec-read` may. Raises Unreadable."""
    assert cloud.objects is not None
    if not cloud.objects.bundle_may_be_read(where.bucket, where.key):
        raise Unreadable("it is not there, or not readable for aws-exec-read")
    try:
        with cloud.objects.opened(where.bucket, where.key) as found:
            if found.size > LARGEST:
                raise Unreadable(f"it has {found.size} bytes, more than {LARGEST}")
            return b"".join(found.pieces(_PIECE))
    except FileNotFoundError:
        raise Unreadable("it is gone") from None


def read(data: bytes) -> Facts:
    """Return what a manifest says. Raises Unreadable when it is no XML or has no such elements."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise Unreadable("it declares a document type")
    try:
        root = ET.fromstring(data)  # noqa: S314 - at most 5 MiB, and nothing is declared that could expand
    except (ET.ParseError, ValueError, LookupError) as error:
        raise Unreadable(f"it is no XML: {error}") from error
    if root.tag != "manifest":
        raise Unreadable(f"its root is {root.tag}")
    machine, image = "machine_configuration/", "image/"
    return Facts(
        architecture=root.findtext(machine + "architecture"),
        kernel_id=root.findtext(machine + "kernel_id"),
        ramdisk_id=root.findtext(machine + "ramdisk_id"),
        type=root.findtext(image + "type"),
        user=root.findtext(".//user"),
        tar_sha1=root.findtext(image + "digest"),
        size=_number(root, image + "size"),
        bundled_size=_number(root, image + "bundled_size"),
        encrypted_key=root.findtext(".//ec2_encrypted_key"),
        encrypted_iv=root.findtext(".//ec2_encrypted_iv"),
        user_encrypted_key=root.findtext(".//user_encrypted_key"),
        user_encrypted_iv=root.findtext(".//user_encrypted_iv"),
        signature=root.findtext("signature"),
        mappings={
            one.findtext("virtual") or "": one.findtext("device") or ""
            for one in root.iterfind(machine + "block_device_mapping/mapping")
        },
        parts=_parts(root),
        data=data,
    )


def _number(root: ET.Element, path: str) -> int:
    text = root.findtext(path) or ""
    if not (text.isascii() and text.isdecimal()):
        raise Unreadable(f"{path} is no number: {text!r}")
    return int(text)


def _parts(root: ET.Element) -> tuple[Part, ...]:
    """Return the parts in the order of their index, which must be complete."""
    holder = root.find("image/parts")
    found = []
    for one in holder.iterfind("part") if holder is not None else ():
        index, filename, sha1 = one.get("index", ""), one.findtext("filename"), one.findtext("digest")
        if not (index.isascii() and index.isdecimal()) or not filename or not sha1:
            raise Unreadable("a part has no index, filename or digest")
        found.append(Part(index=int(index), filename=filename, sha1=sha1.lower()))
    found.sort(key=lambda one: one.index)
    stated = holder.get("count") if holder is not None else None
    if not found or [one.index for one in found] != list(range(len(found))) or stated not in (None, str(len(found))):
        raise Unreadable("its parts are not numbered from 0 to their count")
    return tuple(found)
