"""The table of faults, and what of its doing outlives the call."""

from __future__ import annotations

from dataclasses import dataclass

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class FaultTable(Record):
    """All faults in force: one record, replaced as a whole. `faults` is their JSON."""

    table_id: str
    faults: str

    @property
    def key(self) -> str:
        """There is one."""
        return "faults"


@dataclass(frozen=True, kw_only=True)
class Stuck(Record):
    """A resource that a fault keeps as it began, for as long as the table is in force."""

    resource: str  # its id

    @property
    def key(self) -> str:
        """The resource's id."""
        return self.resource
