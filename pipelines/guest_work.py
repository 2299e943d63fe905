"""What a group of guest steps does: one appliance launch, an overlay over the image, and what was copied out of it.

A module of its own because most of `builder/guest` is imported here: a run in which no guest step runs does without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.guest.edit import Outcome, edit_image
from builder.guest.edit import Plan as GuestPlan
from builder.guest.guest import Exchange
from builder.guest.session import Session
from builder.progress import Progress
from pipelines.artifact import ImageFile
from pipelines.recipe import StepItem
from pipelines.step import GuestStep, Store


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where a group works: a scratch of its own, empty; `sources` is the directory that recipes copy files in from."""

    scratch: Path
    sources: Path
    cache: Path
    store: Store
    pins: Mapping[str, Any]
    progress: Progress


def launch(items: Sequence[StepItem], cache: Path) -> Session:
    """Return a session whose appliance begins to launch, with the network that the steps want."""
    return Session(cache=cache, network=wants_network(items))


def wants_network(items: Sequence[StepItem]) -> bool:
    """Say whether a command of any of the steps may need the network."""
    return any(map(_network, items))


def edit(items: Sequence[StepItem], base: ImageFile, bench: Bench, session: Session | None) -> ImageFile:
    """Return the image with the steps' edits, sealed into the store; `base` itself when there was nothing to do.

    Takes the session over; launches one when there is none. Raises GuestError and HostError; the input is untouched.
    """
    store = bench.store
    target, exports = bench.scratch / "overlay.qcow2", bench.scratch / "exports"
    exports.mkdir()
    outcomes = edit_image(
        store.layer(base),
        target,
        [_plan_of(item, bench.pins) for item in items],
        backing_name=store.backing_name(base.digest),
        exchange=Exchange(sources=bench.sources, exports=exports),
        progress=bench.progress,
        session=session or launch(items, bench.cache),
    )
    _tell(items, outcomes, bench.progress)
    image = store.seal_layer(target, base) if target.exists() else base
    beside = {path.name: store.seal_file(path, name=path.name) for path in sorted(exports.iterdir())}
    # A kernel that comes without a ramdisk must not be left with that of the kernel before it.
    kept = {} if beside else {"kernel": base.kernel, "ramdisk": base.ramdisk}
    return image.model_copy(update={"kernel": None, "ramdisk": None, **kept, **beside})


def _plan_of(item: StepItem, pins: Mapping[str, Any]) -> GuestPlan:
    step, pinned = item.step, pins.get(item.id) or {}
    assert isinstance(step, GuestStep)
    return GuestPlan(decide=lambda facts: step.edits(item.options, facts, pinned), network=_network(item))


def _network(item: StepItem) -> bool:
    return isinstance(item.step, GuestStep) and item.step.network(item.options)


def _tell(items: Sequence[StepItem], outcomes: Sequence[Outcome], progress: Progress) -> None:
    for item, outcome in zip(items, outcomes, strict=True):
        progress.note(f"{item.id}: {outcome}" if len(items) > 1 else str(outcome))
        for line in outcome.output.splitlines():
            progress.note(f"  {line}")
