"""What the metadata service tells one instance, as values, and as the tree of paths that EC2 makes of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

Tree = Mapping[str, "Tree | str | bytes"]  # a directory, or what a path answers with
VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    "latest",
)


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
    local_ipv4: str = ""  # "": the machine's address
    public_ipv4: str = ""
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

    @property
    def full_hostname(self) -> str:
        """The instance's name, with EC2's domain when none is given."""
        return self.hostname or f"ip-{self.local_ipv4.replace('.', '-')}.ec2.internal"

    @property
    def short_hostname(self) -> str:
        """Its name without the domain, as DHCP tells it."""
        return self.full_hostname.partition(".")[0]


def mac_of(instance_id: str) -> str:
    """Return the address of the machine's only network card: locally administered, the same at each start."""
    digits = hashlib.sha256(instance_id.encode()).hexdigest()
    return ":".join(["06", *(digits[at : at + 2] for at in range(0, 10, 2))])


def tree(facts: Metadata) -> Tree:
    """Return everything below a version; "Instance metadata categories" in the EC2 guide names the paths.

    Those of AWS alone (network, tags, dynamic) are left out where there is no IMDSv2: Eucalyptus has none of them.
    """
    data = _common(facts)
    if facts.tokens:
        data |= _aws(facts)
    below: dict[str, Tree | str | bytes] = {"meta-data": data}
    if facts.user_data is not None:
        below["user-data"] = facts.user_data
    if facts.tokens:
        below["dynamic"] = {"instance-identity": {"document": _document(facts)}}
    return below


def _common(facts: Metadata) -> dict[str, Tree | str | bytes]:
    data: dict[str, Tree | str | bytes] = {
        "ami-id": facts.image_id,
        "ami-launch-index": str(facts.launch_index),
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": dict(facts.mappings),
        "hostname": facts.full_hostname,
        "instance-id": facts.instance_id,
        "instance-type": facts.instance_type,
        "local-hostname": facts.full_hostname,
        "local-ipv4": facts.local_ipv4,
        "placement": {"availability-zone": facts.zone},
        "public-hostname": facts.full_hostname,
        "public-ipv4": facts.public_ipv4,
        "reservation-id": facts.reservation_id,
        "security-groups": "\n".join(facts.security_groups),
    }
    if facts.public_keys:
        data["public-keys"] = {str(at): {"openssh-key": line + "\n"} for at, (_, line) in enumerate(facts.public_keys)}
    optional = {"kernel-id": facts.kernel_id, "ramdisk-id": facts.ramdisk_id}
    return data | {name: value for name, value in optional.items() if value is not None}


def _aws(facts: Metadata) -> dict[str, Tree | str | bytes]:
    mac = mac_of(facts.instance_id)
    card = {
        "device-number": "0",
        "interface-id": f"eni-{facts.instance_id.removeprefix('i-')}",
        "local-hostname": facts.full_hostname,
        "local-ipv4s": facts.local_ipv4,
        "mac": mac,
        "owner-id": facts.account,
        "public-ipv4s": facts.public_ipv4,
        "security-groups": "\n".join(facts.security_groups),
    }
    told: dict[str, Tree | str | bytes] = {
        "instance-action": "none",
        "instance-life-cycle": "on-demand",
        "mac": mac,
        "network": {"interfaces": {"macs": {mac: card}}},
        "placement": {"availability-zone": facts.zone, "region": facts.region},
        "profile": facts.profile,
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "system": "nitro",
    }
    if facts.tags is not None:
        told["tags"] = {"instance": dict(facts.tags)}
    return told


def _document(facts: Metadata) -> str:
    launched = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(facts.launch_time))
    return json.dumps(
        {
            "accountId": facts.account,
            "architecture": facts.architecture,
            "availabilityZone": facts.zone,
            "imageId": facts.image_id,
            "instanceId": facts.instance_id,
            "instanceType": facts.instance_type,
            "kernelId": facts.kernel_id,
            "pendingTime": launched,
            "privateIp": facts.local_ipv4,
            "ramdiskId": facts.ramdisk_id,
            "region": facts.region,
            "version": "2017-09-30",
        },
        indent=2,
    )
