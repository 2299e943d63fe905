"""What the metadata service tells one instance, as values, and as the tree of paths that EC2 makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The facts of one instance. `mappings` are EC2's `block-device-mapping` (`ami`, `root`, `ebs1` -> device name)."""

    instance_id: str
    image_id: str
    instance_type: str
    account: str
    region: str
    zone: str
    reservation_id: str
    launch_time: float  # seconds since the epoch
    local_ipv4: str  # 127.x.y.z, as DescribeInstances says it
    public_ipv4: str
    launch_index: int = 0
    architecture: str = "x86_64"
    hostname: str = ""  # "": made of the local address, as ip-127-77-1-2
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    profile: str = "default-hvm"
    public_keys: tuple[tuple[str, str], ...] = ()  # name of the key pair, line of authorized_keys
    security_groups: tuple[str, ...] = ("default",)
    mappings: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] | None = None  # None: the instance has not enabled them
    user_data: bytes | None = None
    endpoint: bool = True  # False: every request is refused
    tokens: bool = True  # the service knows IMDSv2 (Eucalyptus' does not)
    tokens_required: bool = False
