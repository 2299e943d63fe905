"""An instance, as a record: no machine runs behind it yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class MetadataOptions:
    """How the instance's metadata service is to answer, with EC2's defaults."""

    http_tokens: str = "optional"
    http_put_response_hop_limit: int = 1
    http_endpoint: str = "enabled"
    instance_metadata_tags: str = "disabled"


@dataclass(frozen=True, kw_only=True)
class Instance(Record):
    """An instance's record.

    `goal` is where its latest transition leads and `since` when that began, in seconds since the epoch: the state is
    computed from these and the clock, so that no timer has to survive a crash. Which volumes are attached to it is
    written in the records of the volumes, and there alone. A terminated instance stays as a tombstone.
    """

    instance_id: str
    account: str
    region: str
    zone: str
    reservation_id: str
    launch_index: int = 0
    creation_time: float  # of its reservation
    launch_time: float  # of its latest start
    image_id: str
    instance_type: str
    architecture: str
    virtualization_type: str
    root_device_name: str
    goal: Literal["running", "stopped", "terminated"] = "running"
    since: float
    reason: str = ""  # of the latest transition, in EC2's words
    boot_mode: str | None = None
    ena_support: bool = False
    sriov_net_support: str | None = None
    tpm_support: str | None = None
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    key_name: str | None = None
    client_token: str | None = None
    user_data: str | None = None  # base64, as it came
    instance_profile_arn: str | None = None
    tenancy: str = "default"
    monitored: bool = False
    ebs_optimized: bool = False
    disable_api_termination: bool = False
    disable_api_stop: bool = False
    shutdown_behavior: str = "stop"
    metadata_options: MetadataOptions = field(default_factory=MetadataOptions)
    tags: Mapping[str, str] = field(default_factory=dict)
    launch_volumes: tuple[str, ...] = ()  # made with it: it is pending as long as one of them is being created

    @property
    def key(self) -> str:
        """The instance's id."""
        return self.instance_id
