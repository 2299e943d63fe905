"""What emi asks of a cloud, and the records that come back. No boto3, no cloud's name.

Each implementation (aws.py, eucalyptus.py) raises only errors of builder/errors.py, retries what may be retried, and
reports every call it makes through `on_call`, so that a plan can be held against what was done. What it cannot do it
says beforehand, as `Capabilities`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from builder.cloud.access import Access
from builder.cloud.claims import Claim
from builder.cloud.instances import Instances
from builder.cloud.volumes import Volumes
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.cloud.holdings import Holding
    from builder.cloud.s3 import S3


@dataclass(frozen=True)
class Call:
    """One kind of API call, as plans announce and audits count it: `ebs:PutSnapshotBlock`."""

    service: str
    action: str

    def __str__(self) -> str:
        return f"{self.service}:{self.action}"


@dataclass(frozen=True, kw_only=True)
class Lack:
    """Why a cloud cannot do a call, and what to do instead: a sentence each, for a user."""

    why: str
    instead: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which names are allowed: the pattern that a whole name matches, and the same in words."""

    pattern: str
    words: str

    def admits(self, name: str) -> bool:
        """Say whether the name is allowed."""
        return re.fullmatch(self.pattern, name) is not None


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a cloud can do and how it wants to be asked, as values that cost no call. Steps ask these, never its name.

    `lacks` holds the calls that it refuses, or answers with success and does not do; what is not in it, it does.
    `tags_at_once` are the calls that set tags as they create; after all others tags are set by a call of their own, and
    a crash between is made good by what is adopted.
    `client_tokens` are those that take the claim's token, so that the same call twice makes one thing; after a lost
    answer of the others what they made is looked for by its tag first.
    `register_fields` are the parameters of RegisterImage that it takes, in EC2's words.
    `root_device` is what to call the root volume, `device_name` and `image_name` what it lets these be called.
    `bucket_root`: it looks for a bundle's parts at the root of the bucket, whatever stands before the manifest's name.
    `bundle_acl` is the canned ACL that lets it read a bundle; `largest_bundle` is of the image inside, in bytes.
    An image in the instance store: may its mapping hold EBS volumes (`ebs_in_bundles`), how many ephemeral ones at most
    (None: as many as there are), which fields must it or its manifest have to be paravirtual (`paravirtual_needs`), and
    why kernels and ramdisks are not registered by anybody, if they are not (`kernels`).
    Of machines: the parameters of CreateVolume beside size and zone (`volume_fields`), the kinds of key that
    ImportKeyPair takes (`key_kinds`), whether an instance can be told to serve IMDSv2 only (`metadata_options`),
    whether its console is shown as it is now (`latest_console`), and the type to launch where none is named, by
    architecture (`instance_types`; none: the cloud's own default).
    """

    lacks: Mapping[Call, Lack] = field(default_factory=dict)
    tags_at_once: frozenset[Call]
    register_fields: frozenset[str]
    architectures: frozenset[str]
    image_name: Rule
    device_name: Rule
    root_device: str
    bucket_root: bool = False
    bundle_acl: str = "aws-exec-read"
    largest_bundle: int
    ebs_in_bundles: bool = True
    most_ephemeral: int | None = None
    paravirtual_needs: frozenset[str] = frozenset()
    kernels: Lack | None = None
    client_tokens: frozenset[Call] = frozenset()
    volume_fields: frozenset[str] = frozenset({"VolumeType"})
    key_kinds: frozenset[Literal["rsa", "ed25519"]] = frozenset({"rsa"})
    metadata_options: bool = False
    latest_console: bool = False
    instance_types: Mapping[str, str] = field(default_factory=dict)

    @property
    def ebs_direct(self) -> bool:
        """Whether it has the EBS direct APIs, by which a snapshot is written without an instance."""
        return Call("ebs", "StartSnapshot") not in self.lacks

    @property
    def tag_on_register(self) -> bool:
        """Whether an image has its tags from the moment when it is there."""
        return Call("ec2", "RegisterImage") in self.tags_at_once

    def require(self, *calls: Call) -> None:
        """Raise UsageError for the first of the calls that it cannot do: why, and what to do instead."""
        for call in calls:
            if lack := self.lacks.get(call):
                raise UsageError(f"this cloud cannot do {call}: {lack.why}", hint=lack.instead)


@dataclass(frozen=True, kw_only=True)
class SnapshotRecord:
    """A snapshot as the cloud describes it; `status` is pending, completed or error; `volume_size` in GiB."""

    snapshot_id: str
    status: str
    volume_size: int
    status_message: str = ""  # why, when the status is error
    progress: str = ""
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BlockDevice:
    """One entry of a block device mapping; `volume_size` in GiB (None: the snapshot's)."""

    device_name: str
    snapshot_id: str | None = None
    volume_size: int | None = None
    volume_type: str | None = None
    delete_on_termination: bool = True
    virtual_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """What RegisterImage is asked for: EC2's own words for each field; None leaves it to the cloud.

    With `image_location` (BUCKET/KEY of a manifest) it is an instance-store image: then its root device is the
    bundle's, `root_device_name` None, and `block_devices` are ephemeral ones. `platform` is `windows` or None.
    """

    name: str
    description: str = ""
    image_location: str | None = None
    architecture: str | None = "x86_64"
    root_device_name: str | None = "/dev/xvda"
    virtualization_type: str | None = "hvm"
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    platform: str | None = None
    boot_mode: str | None = None
    ena_support: bool | None = True
    sriov_net_support: str | None = None
    imds_support: str | None = None
    tpm_support: str | None = None
    block_devices: Sequence[BlockDevice] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """An image as the cloud describes it; `state` is pending, available, failed, …

    `image_type` is machine, kernel or ramdisk; `root_device_type` ebs or instance-store; `image_location` BUCKET/KEY of
    the manifest where it is instance-store, else OWNER/NAME; `platform` windows, or linux or "" for all others.
    """

    image_id: str
    name: str
    state: str
    owner_id: str = ""
    state_reason: str = ""
    architecture: str = ""
    root_device_name: str = ""
    root_device_type: str = ""
    virtualization_type: str = ""
    image_location: str = ""
    image_type: str = "machine"
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    platform: str = ""
    boot_mode: str | None = None
    snapshot_ids: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BlockRef:
    """A block of a snapshot that holds data: its index (of 512 KiB) and the token that reads it."""

    index: int
    token: str


class Cloud(Volumes, Instances, Access, Protocol):
    """One account in one region of one cloud; what is asked about machines is in the protocols that it extends."""

    @property
    def region(self) -> str:
        """The region's name."""

    @property
    def capabilities(self) -> Capabilities:
        """What this cloud can do. Nothing is asked of it."""

    @property
    def s3(self) -> S3:
        """Its object store, with the same credentials. Nothing is connected before the first call."""

    def url(self, service: str) -> str:
        """Return where a service (botocore's name: ec2, s3) answers. Nothing is asked of it."""

    def account(self) -> str:
        """Return the account id of the credentials (asked once, then remembered)."""

    # What is there, whoever made it
    def holdings(self, kind: str) -> Sequence[Holding]:
        """Return what the account has of a type (a name of holdings.KINDS), without what is about to be gone.

        Of types that may be asked for so (`Kind.filtered`) only what carries a tag named as a claim's.
        """

    def drop(self, holding: Holding) -> None:
        """Remove it; fine when it is gone already. Raises CloudConflict when something uses it."""

    # Snapshots, by EC2
    def find_snapshots(self, claim: Claim) -> Sequence[SnapshotRecord]:
        """Return our own snapshots that carry the claim's tag, whatever their status."""

    def describe_snapshot(self, snapshot_id: str) -> SnapshotRecord | None:
        """Return the snapshot, or None when the cloud says it does not exist."""

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete it; fine when it is gone already. Raises CloudConflict when an image uses it."""

    # Snapshots, by the EBS direct APIs
    def start_snapshot(
        self, claim: Claim, *, volume_size: int, description: str, tags: Mapping[str, str], parent: str | None
    ) -> SnapshotRecord:
        """Start a snapshot of `volume_size` GiB under the claim's token: the same call twice makes one snapshot."""

    def put_block(self, snapshot_id: str, index: int, data: bytes, sha256: bytes) -> None:
        """Put 512 KiB at block `index`; return when the cloud has accepted and acknowledged its checksum."""

    def complete_snapshot(self, snapshot_id: str, *, changed_blocks: int, checksum: bytes | None) -> None:
        """Seal it: `checksum` is the SHA-256 over the blocks' SHA-256s in order (LINEAR), for full snapshots."""

    def list_blocks(self, snapshot_id: str) -> Iterator[BlockRef]:
        """Yield every block that holds data, ascending."""

    def get_block(self, snapshot_id: str, block: BlockRef) -> bytes:
        """Return the block's 512 KiB, its checksum verified."""

    # Images
    def find_images(self, claim: Claim) -> Sequence[ImageRecord]:
        """Return our own images that carry the claim's tag."""

    def image_by_name(self, name: str) -> ImageRecord | None:
        """Return our account's image of that name, or None."""

    def describe_image(self, image_id: str) -> ImageRecord | None:
        """Return the image, or None when the cloud says it does not exist."""

    def images_of(self, owner: str, image_type: str) -> Sequence[ImageRecord]:
        """Return the images of an account (an id, or EC2's words `amazon`, `self`) of a type that we may use."""

    def register_image(self, claim: Claim, spec: ImageSpec) -> str:
        """Register and return the image id; the claim's tag is set in the call itself.

        A taken name is an adoption when that image carries the claim; else raises CloudConflict naming the image.
        """

    def deregister_image(self, image_id: str) -> None:
        """Deregister it; fine when it is gone already."""
