"""An image and its block device mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class BlockDevice:
    """One entry of an image's block device mapping, with EC2's defaults filled in."""

    device_name: str
    snapshot_id: str | None = None
    volume_size: int | None = None
    volume_type: str | None = None
    delete_on_termination: bool = True
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool = False
    virtual_name: str | None = None
    no_device: bool = False

    @property
    def is_ebs(self) -> bool:
        """Whether a volume is behind it (not an instance store or a suppressed device)."""
        return self.virtual_name is None and not self.no_device


@dataclass(frozen=True, kw_only=True)
class Image(Record):
    """An image's record. A deregistered image stays as a tombstone: EC2 tells "gone" from "never was".

    Its state is computed from this, from the states of its snapshots and from the clock. Times are in seconds since the
    epoch.
    """

    image_id: str
    account: str
    region: str
    name: str
    creation_time: float
    description: str = ""
    architecture: str
    virtualization_type: str
    root_device_name: str
    block_devices: tuple[BlockDevice, ...] = ()
    boot_mode: str | None = None
    ena_support: bool = False
    sriov_net_support: str | None = None
    imds_support: str | None = None
    tpm_support: str | None = None
    uefi_data: str | None = None
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    deregistered: bool = False
    disabled: bool = False
    launch_permissions: tuple[str, ...] = ()  # account ids, and `all` for everybody
    deprecation_time: float | None = None  # as its owner set it
    protected: bool = False  # from DeregisterImage
    cooldown: bool = False  # whether the protection outlives its end by a day
    protected_until: float | None = None  # the end of that day
    source_image_id: str | None = None  # CopyImage's
    source_image_region: str | None = None
    source_instance_id: str | None = None  # CreateImage's
    last_launched_time: float | None = None
    failure: str | None = None  # why it will never be available
    image_location: str | None = None  # of an instance-store image: its manifest, as BUCKET/KEY
    image_type: str = "machine"  # or kernel, ramdisk
    platform: str | None = None  # windows; Eucalyptus has `linux` too
    unopened: bool = False  # whether its bundle is still to be opened (ec2/bundle_look.py)

    @property
    def root_device_type(self) -> str:
        """ebs or instance-store."""
        return "ebs" if self.image_location is None else "instance-store"

    @property
    def key(self) -> str:
        """The image's id."""
        return self.image_id
