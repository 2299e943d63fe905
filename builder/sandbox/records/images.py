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
    virtual_name: str | None = None
    no_device: bool = False

    @property
    def is_ebs(self) -> bool:
        """Whether a volume is behind it (not an instance store or a suppressed device)."""
        return self.virtual_name is None and not self.no_device


@dataclass(frozen=True, kw_only=True)
class Image(Record):
    """An image's record. A deregistered image stays as a tombstone: EC2 tells "gone" from "never was"."""

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
    failure: str | None = None  # why it will never be available

    @property
    def key(self) -> str:
        """The image's id."""
        return self.image_id
