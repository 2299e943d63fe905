"""What the verbs on recipes do: validate, plan, run, resume."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder.errors import EmiError, Interrupted, UsageError
from builder.units import format_size
from pipelines import ui
from pipelines.artifact import Snapshot
from pipelines.course import Outcome
from pipelines.events import RunFinished, StepProgress, Watcher
from pipelines.home import home
from pipelines.journal import Journal
from pipelines.plan import Prospect
from pipelines.recipe import Recipe, load, render
from pipelines.request import Request
from pipelines.run import Calls, Runner, defect, describe
from pipelines.store import FileStore
from pipelines.targets import SANDBOX, choose, open_target

_IDLE = ("done", "not needed")  # verdicts of what a run does nothing about


def validate(path: Path, variables: Sequence[str]) -> None:
    """Check a recipe. Raises RecipeError with all its problems."""
    recipe = _load(path, _pairs(variables, "--var"))
    ui.say(f"{path}: recipe `{recipe.name}` is valid: {len(recipe.steps)} steps, {len(recipe.outputs)} outputs")


def plan(path: Path, variables: Sequence[str], mirrors: Sequence[str], cloud: str | None, *, as_json: bool) -> None:
    """Show what a run would do."""
    prospects = _runner(_request(path, variables, mirrors, cloud), Calls(), watch=lambda _: None).plan()
    if as_json:
        ui.say_json([_prospect(prospect) for prospect in prospects])
        return
    rows = [
        (
            prospect.node.title,
            prospect.verdict,
            prospect.why,
            format_size(prospect.expected) if prospect.expected and prospect.verdict not in _IDLE else "",
            ", ".join(sorted({str(call) for call in prospect.calls})) if prospect.verdict not in _IDLE else "",
        )
        for prospect in prospects
    ]
    ui.table(("step", "verdict", "why", "bytes", "cloud calls"), rows)
    if all(prospect.verdict in _IDLE for prospect in prospects):
        ui.say("Nothing to do: a run would make no mutating call.")


def run(
    path: Path,
    variables: Sequence[str],
    mirrors: Sequence[str],
    cloud: str | None,
    *,
    wait: bool,
    keep_helper: bool = False,
    as_json: bool,
) -> None:
    """Run a recipe and print its summary."""
    with _watched(as_json) as watch:
        request = _request(path, variables, mirrors, cloud)
        _run(request, watch, wait=wait, keep_helper=keep_helper, as_json=as_json)


def resume(run: str | None, *, wait: bool, keep_helper: bool, as_json: bool) -> None:
    """Carry on with an unfinished run."""
    with _watched(as_json) as watch:
        where = home().make()
        journal = Journal(where.journal)
        found = journal.run(run) if run else next((r for r in journal.runs() if r.status != "ok"), None)
        if found is None:
            raise UsageError(
                f"no run {run}" if run else "no unfinished run to resume", hint="`emi status` lists the runs."
            )
        if found.status == "ok":
            raise UsageError(f"run {found.run} is finished", hint=f"`emi status {found.run}` shows its results.")
        request = Request.of_run(found)
        _run(request, watch, wait=wait, keep_helper=keep_helper, as_json=as_json, target=found.target)


def _run(
    request: Request, watch: Watcher, *, wait: bool, keep_helper: bool, as_json: bool, target: str | None = None
) -> None:
    calls = Calls()
    runner = _runner(request, calls, watch, keep_helper=keep_helper)
    if target not in (None, runner.target.identity):
        raise UsageError(
            f"the run worked on {target}; `{request.cloud}` is {runner.target.identity} now",
            hint="Set the same credentials and region as then.",
        )
    outcome = runner.run(wait=wait)
    if not as_json:
        _summarise(outcome, calls, recipe=request.recipe, cloud=request.cloud)


def _request(path: Path, variables: Sequence[str], mirrors: Sequence[str], cloud: str | None) -> Request:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UsageError(
            f"{path} is no regular file: `emi resume` could not read it again",
            hint="Write the recipe to a file first; `emi validate` takes a pipe as well.",
        )
    return Request(recipe=path, variables=_pairs(variables, "--var"), cloud=choose(cloud), mirrors=_mirrors(mirrors))


def _runner(request: Request, calls: Calls, watch: Watcher, *, keep_helper: bool = False) -> Runner:
    recipe = _load(request.recipe, request.variables)
    where = home().make()
    return Runner(
        home=where,
        journal=Journal(where.journal),
        store=FileStore(where.objects),
        recipe=recipe,
        request=request,
        target=open_target(request.cloud, where, on_call=calls, progress=StepProgress("cloud", watch)),
        calls=calls,
        watch=watch,
        epoch=_epoch(),
        keep_helper=keep_helper,
    )


def _summarise(outcome: Outcome, calls: Calls, *, recipe: Path, cloud: str) -> None:
    ui.say()
    if not calls.mutations() and all(step.how == "done" for step in outcome.steps):
        ui.say("Nothing to do: every step is unchanged, no mutating call was made.")
    for name, value in outcome.outputs.items():
        if isinstance(value, Mapping):
            for field, inner in value.items():
                if inner not in (None, [], ()):
                    ui.say(f"{name}.{field}: {inner}")
        else:
            ui.say(f"{name}: {value}")
    for step in outcome.steps:
        if isinstance(step.result, Snapshot):
            proof = f"read back from {step.result.snapshot_id} and equal" if step.result.verified else "not read back"
            ui.say(f"proven: {step.result.content}" if step.result.verified else f"digest: {step.result.content}")
            ui.say(f"        {step.result.blocks} blocks of 512 KiB, {proof}")
    for step in outcome.steps:
        took = "unchanged" if step.how == "done" else f"{step.seconds:8.1f} s  {step.how}"
        ui.say(f"  {step.step:<24} {took}")
    _summarise_leases(outcome)
    ui.say(f"report: {outcome.report}")
    ui.say(f"next:   emi status {outcome.run}   what this run did, again")
    ui.say(f"        emi plan {recipe}   shows that nothing is left to do")
    if cloud == SANDBOX:
        ui.say("        emi sandbox status   what the embedded cloud holds now; emi sandbox stop ends it")


def _summarise_leases(outcome: Outcome) -> None:
    for lease in outcome.leases:
        took = f"{lease.seconds:8.1f} s  {lease.how}, then {lease.end}" if lease.result else lease.end
        ui.say(f"  {lease.step:<24} {took}")
        if lease.end == "kept":
            ui.say(f"{lease.resource} {lease.text}")


@contextmanager
def _watched(as_json: bool) -> Iterator[Watcher]:  # noqa: FBT001 - private
    """A watcher that has always heard the run's last word when the block ends, also when nothing could start."""
    watch = ui.watcher(as_json=as_json)
    ended = False

    def hear(event: Any) -> None:
        nonlocal ended
        ended = ended or isinstance(event, RunFinished)
        watch(event)

    def end(error: EmiError) -> None:
        if not ended:
            watch(RunFinished(run="", status="failed", outputs={}, mutations=0, report="", error=describe(error)))

    try:
        yield hear
    except KeyboardInterrupt:
        error = Interrupted("interrupted", hint="The same command again carries on.")
        end(error)
        raise error from None
    except EmiError as error:
        end(error)
        raise
    except Exception as error:
        end(defect(error))
        raise


def _load(path: Path, variables: Mapping[str, str]) -> Recipe:
    recipe = load(path, variables)
    if recipe.warnings:
        ui.warn(render(recipe.warnings))
    return recipe


def _mirrors(pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    # A URL prefix may hold `=`; the replacement begins with a scheme, which says where to split.
    found = []
    for pair in pairs:
        for scheme in ("=http://", "=https://", "=file:"):
            prefix, at, rest = pair.rpartition(scheme)
            if at and prefix:
                found.append((prefix, f"{scheme[1:]}{rest}"))
                break
        else:
            raise UsageError(
                f"--mirror {pair}: not PREFIX=URL", hint="--mirror https://cloud.example/=http://127.0.0.1:8000/"
            )
    return tuple(found)


def _pairs(pairs: Sequence[str], flag: str) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"{flag} {pair}: not NAME=VALUE", hint=f"For example: {flag} version=3")
        found[name] = value
    return found


def _epoch() -> int | None:
    value = os.environ.get("SOURCE_DATE_EPOCH")
    if value is None:
        return None
    if not value.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH={value}: not a number of seconds")
    return int(value)


def _prospect(prospect: Prospect) -> dict[str, Any]:
    return {
        "step": prospect.node.title,
        "kind": prospect.node.kind,
        "verdict": prospect.verdict,
        "why": prospect.why,
        "expected": prospect.expected,
        "calls": sorted({str(call) for call in prospect.calls}),
        "key": prospect.key,
    }
