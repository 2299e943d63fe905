"""A snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.sandbox.records.base import Record

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Snapshot(Record):
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

    @property
    def key(self) -> str:
        """The snapshot's id."""
        return self.snapshot_id
