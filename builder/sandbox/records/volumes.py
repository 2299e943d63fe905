"""A volume, what it is attached to, and what an account has set for its volumes and snapshots in a region."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """To which instance a volume belongs, from `attach_time` until `settle` seconds after `detach_time`.

    A machine behind the instance makes both of them last until it has the volume, and no longer has it. `forced` says
    that it is to be taken away whatever the guest does.
    """

    instance_id: str
    device: str
    attach_time: float
    delete_on_termination: bool = False
    detach_time: float | None = None
    forced: bool = False


@dataclass(frozen=True, kw_only=True)
class Volume(Record):
    """A volume's record; its bytes are the raw sparse file `volumes/ID/data`.

    `ready_time` is when its bytes were whole, None while they are still moved from its snapshot: the record of such a
    volume is the order to move them. `lineage` is that of the snapshot it came from, else its own id. A deleted volume
    stays as a tombstone until the next start. Its state is computed from these times and the clock.
    """

    volume_id: str
    account: str
    region: str
    zone: str
    size: int  # GiB
    volume_type: str
    create_time: float
    lineage: str
    snapshot_id: str | None = None
    iops: int | None = None
    throughput: int | None = None
    initialization_rate: int | None = None  # MiB/s
    encrypted: bool = False
    kms_key_id: str | None = None
    multi_attach_enabled: bool = False
    auto_enable_io: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    ready_time: float | None = None
    failure: str | None = None
    delete_time: float | None = None
    attachment: Attachment | None = None

    @property
    def key(self) -> str:
        """The volume's id."""
        return self.volume_id


@dataclass(frozen=True, kw_only=True)
class EbsSettings(Record):
    """What an account has set for EBS in one region, with EC2's defaults."""

    account: str
    region: str
    encryption_by_default: bool = False
    default_kms_key_id: str | None = None
    snapshot_block_public_access: str = "unblocked"

    @property
    def key(self) -> str:
        """The account and the region."""
        return ebs_settings_key(self.account, self.region)


def ebs_settings_key(account: str, region: str) -> str:
    """Return the key under which the settings of an account in a region are kept."""
    return json.dumps([account, region])
