"""Guest steps on one image: one launch, one copy-on-write layer, each step decided on what those before it left.

The write order: the layer is created in scratch, edited, unmounted, flushed, unplugged and closed; then this returns,
and the caller seals it. A crash before that leaves scratch only; the image below is never written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.crashpoint import reach
from builder.guest import overlay, sparsify
from builder.guest.edits import Command, CopyOut, Edit, GiveBack, Unchanged
from builder.guest.facts import GuestFacts
from builder.guest.guest import NO_EXCHANGE, Exchange, Guest
from builder.guest.overlay import Layer
from builder.guest.session import Session
from builder.progress import SILENT, Progress

Decide = Callable[[GuestFacts], Sequence[Edit] | Unchanged]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One guest step: how it decides, and whether commands it may decide on need the network."""

    decide: Decide
    network: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one guest step did: its edits, or why it made none."""

    edits: tuple[Edit, ...] = ()
    why: str = ""
    output: str = ""  # of its commands, where it is to be shown

    def __str__(self) -> str:
        return "; ".join(map(str, self.edits)) if self.edits else f"unchanged: {self.why}"


def edit_image(
    base: Layer,
    target: Path,
    plans: Sequence[Plan],
    *,
    backing_name: str,
    exchange: Exchange = NO_EXCHANGE,
    progress: Progress = SILENT,
    session: Session | None = None,
) -> list[Outcome]:
    """Run guest steps on the image `base` and return an outcome for each; `target` becomes a qcow2 over it.

    `backing_name` goes into its header (see `overlay.create`). When no step changed anything, there is no `target`
    and the caller hands on `base`. `exchange` says where files to copy in are, and where those copied out go. A
    `session` that was launched ahead is used, and ended in any case: its appliance has seen an untrusted image; one
    without the network that the plans need is replaced. Raises GuestError, FormatRefused, InputError, DiskFull,
    HostError; then `target` is gone too. Killed at any moment, it leaves `base` as it was, at most a `target` that
    nobody has sealed, and an appliance that ends by itself within seconds.
    """
    with _session(plans, session) as appliance:
        try:
            layer = overlay.create(base, target, backing_name=backing_name)
            progress.note("waiting for the appliance")
            progress.note(f"appliance launched in {appliance.launched():.1f} s")
            reach("guest.launched")
            appliance.attach(layer)
            reach("guest.attached")
            guest = Guest(appliance, exchange)
            outcomes = [_run(guest, plan, progress) for plan in plans]
            if any(_changes(outcome) for outcome in outcomes):
                guest.trim()
                reach("guest.trimmed")
                appliance.detach()
                reach("guest.detached")
            else:
                target.unlink()
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    return outcomes


def _session(plans: Sequence[Plan], session: Session | None) -> Session:
    network = any(plan.network for plan in plans)
    if session is not None and session.network != network:
        session.close()
        session = None
    return session or Session(network=network)


def _run(guest: Guest, plan: Plan, progress: Progress) -> Outcome:
    decided = plan.decide(guest)
    if isinstance(decided, Unchanged):
        return Outcome(why=decided.why)
    reach("guest.decided")
    made, shown, idle = [], [], "nothing to do"
    for edit in decided:
        if isinstance(edit, Command):
            progress.note(f"{edit.why} (at most {edit.limit:g} s)")
        output = guest.apply(edit)
        reach("guest.edited")
        if isinstance(edit, GiveBack) and output.startswith(sparsify.NOTHING):
            idle = output  # which shows only when it was tried
            continue
        made.append(edit)
        if output and (not isinstance(edit, Command) or edit.shown):
            shown.append(output)
    return Outcome(edits=tuple(made), why="" if made else idle, output="\n".join(shown))


def _changes(outcome: Outcome) -> bool:
    return any(not isinstance(edit, CopyOut) for edit in outcome.edits)
