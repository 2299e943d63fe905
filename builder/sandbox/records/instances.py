"""An instance, as a record; what runs behind it is known to the running server alone."""

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

    `driver` is what runs its machine, as of its latest transition; with one, its goal is reached at `arrived` and not
    before, whatever the clock says: None is the order to bring it there.
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
    why: str = ""  # its StateReason where that does not follow from the goal: `CODE: words`
    driver: str = "none"
    arrived: float | None = None
    forced: bool = False  # to stop it means to cut its power
    address: str | None = None  # of its machine, the latest one
    boot_mode: str | None = None
    ena_support: bool = False
    sriov_net_support: str | None = None
    tpm_support: str | None = None
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    key_name: str | None = None
    public_key: str | None = None  # the key pair's, as it was at the launch
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
    security_groups: tuple[str, ...] = ()  # their ids
    vpc_id: str | None = None
    subnet_id: str | None = None
    launch_volumes: tuple[str, ...] = ()  # made with it: it is pending as long as one of them is being created

    @property
    def key(self) -> str:
        """The instance's id."""
        return self.instance_id
