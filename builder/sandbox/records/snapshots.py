"""A snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.sandbox.records.base import Record

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Snapshot(Record):
    """A snapshot's record; its bytes are a Disk (disks.py) of the same id.

    `lineage` names what it descends from: its first parent (itself without one) or the volume that all of them were
    taken of. `sealed_time` is when its bytes were whole and nobody could put more, in seconds since the epoch: when
    CompleteSnapshot was accepted, or our own work was done. Its state is computed from these and the clock, so that no
    timer has to survive a crash. With `taken` its bytes are there from the first moment, and as long as it is not
    sealed the record is the order to list their blocks.
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
    taken: bool = False  # of a volume, an image or another snapshot, not put block by block
    failure: str | None = None
    volume_id: str | None = None
    encrypted: bool = False
    kms_key_id: str | None = None
    create_volume_permissions: tuple[str, ...] = ()  # account ids, and `all` for everybody
    completion_minutes: int | None = None  # of a time-based copy

    @property
    def key(self) -> str:
        """The snapshot's id."""
        return self.snapshot_id
