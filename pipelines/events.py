"""What a run tells whoever watches it: values, rendered by ui.py and nobody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from builder.image.identity import printable
from pipelines.artifact import AnyArtifact


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """A run begins, or goes on after a crash (`resumed`)."""

    run: str
    recipe: str
    target: str
    steps: Sequence[str]
    resumed: bool


@dataclass(frozen=True, kw_only=True)
class StepStarted:
    """A step begins; `why` says why it must run."""

    step: str
    kind: str
    why: str


@dataclass(frozen=True, kw_only=True)
class StepTotal:
    """The step will move `count` bytes."""

    step: str
    count: int


@dataclass(frozen=True, kw_only=True)
class StepAdvanced:
    """The step moved `count` more bytes."""

    step: str
    count: int


@dataclass(frozen=True, kw_only=True)
class StepNote:
    """What the step does now, or why it had nothing to do."""

    step: str
    text: str


@dataclass(frozen=True, kw_only=True)
class StepFinished:
    """A step has its result. `how` is done (found finished), ran or adopted; `seconds` is wall time."""

    step: str
    kind: str
    how: str
    seconds: float
    result: AnyArtifact


@dataclass(frozen=True, kw_only=True)
class LeaseAcquired:
    """A lease can be used. `how` is ran (acquired) or adopted; `seconds` is wall time."""

    step: str
    kind: str
    how: str
    seconds: float
    result: AnyArtifact


@dataclass(frozen=True, kw_only=True)
class LeaseReleased:
    """A lease has been given back: what it held is gone, or is as it was found."""

    step: str
    kind: str
    resource: str


@dataclass(frozen=True, kw_only=True)
class LeaseKept:
    """A lease is not given back; `text` says why, how to get at it and how to remove it."""

    step: str
    kind: str
    resource: str
    text: str


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The run's last word. `error` is None when `status` is ok."""

    run: str
    status: str
    outputs: Mapping[str, Any]
    mutations: int
    report: str
    error: Mapping[str, Any] | None = None


LeaseEvent = LeaseAcquired | LeaseReleased | LeaseKept
Event = RunStarted | StepStarted | StepTotal | StepAdvanced | StepNote | StepFinished | LeaseEvent | RunFinished


class Watcher(Protocol):
    """Receives every event of a run; called from any thread."""

    def __call__(self, event: Event) -> None:
        """Take the event."""


@dataclass(frozen=True)
class StepProgress:
    """A builder.progress.Progress that becomes events of one step."""

    step: str
    watch: Watcher

    def total(self, count: int) -> None:
        """Announce the total."""
        self.watch(StepTotal(step=self.step, count=count))

    def advance(self, count: int) -> None:
        """Announce an advance."""
        self.watch(StepAdvanced(step=self.step, count=count))

    def note(self, text: str) -> None:
        """Announce a note, on one line: it may quote names of a guest, which can hold anything."""
        line = " ".join(text.expandtabs().splitlines())
        self.watch(StepNote(step=self.step, text=printable(line)))
