"""What has happened in a run, for its report and its summary."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.events import StepFinished
from pipelines.leases import Record
from pipelines.plan import Standing


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended, for the summary."""

    run: str
    outputs: Mapping[str, Any]
    steps: Sequence[StepFinished]
    leases: Sequence[Record]
    calls: Mapping[str, int]
    report: Path
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Course:
    """What has happened in a run so far."""

    started: float = field(default_factory=time.monotonic)
    steps: list[StepFinished] = field(default_factory=list)
    leases: dict[str, Record] = field(default_factory=dict)  # by id
    results: dict[str, Standing] = field(default_factory=dict)  # likewise

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.monotonic() - self.started

    def left(self) -> str:
        """Return, a line each and each after a line break, what was leased and is not given back, and why."""
        return "".join(f"\n{lease.resource} {lease.text}" for lease in self.leases.values() if lease.text)
