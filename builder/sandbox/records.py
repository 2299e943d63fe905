"""What the sandbox remembers about each resource: plain values, as they lie in the state file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot's record; its bytes are a Disk (disks.py) of the same id.

    `lineage` is the id of the first snapshot it descends from (its own when it has no parent). `sealed_time` is when
    CompleteSnapshot was accepted, in seconds since the epoch. Its state is computed from these and the clock, so that
    no timer has to survive a crash.
    """

    snapshot_id: str
    account: str
    region: str
    volume_size: int  # GiB
    start_time: float
    lineage: str
    parent_id: str | None = None
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    timeout: int = 60  # minutes without a put until it is cancelled; StartSnapshot's default
    sealed_time: float | None = None


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
class Image:
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
    block_devices: Sequence[BlockDevice] = ()
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


@dataclass(frozen=True, kw_only=True)
class ClientToken:
    """What a client token was used for; it outlives the resource it made."""

    account: str
    region: str
    action: str
    token: str
    request: str  # canonical JSON of the parameters
    answer: str  # JSON of the first answer

    @property
    def key(self) -> str:
        """The token within its account, region and action."""
        return token_key(self.account, self.region, self.action, self.token)


def token_key(account: str, region: str, action: str, token: str) -> str:
    """Return the key under which a client token is remembered."""
    return json.dumps([account, region, action, token])


Record = Snapshot | Image | ClientToken


def key_of(record: Record) -> str:
    """Return the record's name within its kind."""
    match record:
        case Snapshot():
            return record.snapshot_id
        case Image():
            return record.image_id
        case ClientToken():
            return record.key


def to_json(record: Record) -> str:
    """Return the record as JSON text."""
    return json.dumps(dataclasses.asdict(record))


def from_json(kind: str, text: str) -> Record:
    """Return the record of class name `kind` that `to_json` wrote."""
    values: dict[str, Any] = json.loads(text)
    match kind:
        case "Snapshot":
            return Snapshot(**values)
        case "Image":
            values["block_devices"] = tuple(BlockDevice(**device) for device in values["block_devices"])
            return Image(**values)
        case "ClientToken":
            return ClientToken(**values)
        case _:
            raise ValueError(f"a record of unknown kind {kind!r}: was this directory written by a newer emi?")
