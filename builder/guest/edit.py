"""Guest steps on one image: one launch, one copy-on-write layer, each step decided on what those before it left.

The write order: the layer is created in scratch, edited, unmounted, flushed, unplugged and closed; then this returns,
and the caller seals it. A crash before that leaves scratch only; the image below is never written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.guest import overlay
from builder.guest.facts import Edit, GuestFacts, SetLabel, Unchanged, WriteFile
from builder.guest.guest import Guest
from builder.guest.overlay import Layer
from builder.guest.session import Session
from builder.progress import SILENT, Progress

Decide = Callable[[GuestFacts], Sequence[Edit] | Unchanged]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One guest step: what it decides by, and the files it wants to see."""

    decide: Decide
    reads: tuple[str, ...] = ("/etc/fstab",)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one guest step did: its edits, or why it made none."""

    edits: tuple[Edit, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        return "; ".join(map(_described, self.edits)) if self.edits else f"unchanged: {self.why}"


def edit_image(
    base: Layer,
    target: Path,
    plans: Sequence[Plan],
    *,
    backing_name: str,
    progress: Progress = SILENT,
    session: Session | None = None,
) -> list[Outcome]:
    """Run guest steps on the image `base` and return an outcome for each; `target` becomes a qcow2 over it.

    `backing_name` goes into its header (see `overlay.create`). When no step changed anything, there is no `target`
    and the caller hands on `base`. A `session` that was launched ahead is used, and ended in any case: its appliance
    has seen an untrusted image. Raises GuestError, FormatRefused, DiskFull, HostError; then `target` is gone too.
    """
    with session or Session() as appliance:
        try:
            layer = overlay.create(base, target, backing_name=backing_name)
            progress.note("waiting for the appliance")
            progress.note(f"appliance launched in {appliance.launched():.1f} s")
            appliance.attach(layer)
            guest = Guest(appliance)
            outcomes = [_run(guest, plan) for plan in plans]
            changed = any(outcome.edits for outcome in outcomes)
            if changed:
                guest.trim()
                appliance.detach()
            else:
                target.unlink()
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    return outcomes


def _run(guest: Guest, plan: Plan) -> Outcome:
    decided = plan.decide(guest.facts(plan.reads))
    if isinstance(decided, Unchanged):
        return Outcome(why=decided.why)
    for edit in decided:
        guest.apply(edit)
    return Outcome(edits=tuple(decided), why="" if decided else "nothing to do")


def _described(edit: Edit) -> str:
    match edit:
        case WriteFile():
            return edit.why or f"wrote {edit.path}"
        case SetLabel():
            return edit.why or f"labelled {edit.device} {edit.label}"
