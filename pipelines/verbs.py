"""What each verb of the command line does. Imported when a verb runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builder.errors import EmiError, HostError, UsageError
from builder.image import inspect as image_inspect
from builder.sandbox import lifecycle
from builder.units import format_size
from pipelines import docs, kinds, ui
from pipelines import doctor as doctor_checks
from pipelines import schema as recipe_schema
from pipelines.events import RunFinished, Watcher
from pipelines.home import home
from pipelines.journal import Journal, Run
from pipelines.plan import Prospect, Surveyor
from pipelines.recipe import Recipe, load, render
from pipelines.run import Calls, Outcome, Request, Runner, describe, pin
from pipelines.step import Outside
from pipelines.store import FileStore
from pipelines.targets import choose, open_target


def complain(error: EmiError) -> None:
    """Show an error and what to do next."""
    ui.complain(error)


def validate(path: Path, variables: Sequence[str]) -> None:
    """Check a recipe. Raises RecipeError with all its problems."""
    recipe = _load(path, _pairs(variables, "--var"))
    ui.say(f"{path}: recipe `{recipe.name}` is valid: {len(recipe.steps)} steps, {len(recipe.outputs)} outputs")


def plan(path: Path, variables: Sequence[str], mirrors: Sequence[str], cloud: str | None, *, as_json: bool) -> None:
    """Show what a run would do."""
    chosen = variables_of(variables)
    recipe = _load(path, chosen)
    where = home().make()
    store = FileStore(where.objects)
    journal = Journal(where.journal)
    outside = Outside(
        recipe_directory=path.absolute().parent, cache=where.cache, mirrors=_mirrors(mirrors), store=store
    )
    target = open_target(choose(cloud), where)
    prospects = Surveyor(recipe=recipe, target=target, journal=journal, store=store).survey(pin(recipe, outside))
    if as_json:
        ui.say_json([_prospect(prospect) for prospect in prospects])
        return
    rows = [
        (
            prospect.node.title,
            prospect.verdict,
            prospect.why,
            format_size(prospect.expected) if prospect.expected and prospect.verdict != "done" else "",
            ", ".join(sorted({str(call) for call in prospect.calls})) if prospect.verdict != "done" else "",
        )
        for prospect in prospects
    ]
    ui.table(("step", "verdict", "why", "bytes", "cloud calls"), rows)
    if all(prospect.verdict == "done" for prospect in prospects):
        ui.say("Nothing to do: a run would make no mutating call.")


def run(
    path: Path, variables: Sequence[str], mirrors: Sequence[str], cloud: str | None, *, wait: bool, as_json: bool
) -> None:
    """Run a recipe and print its summary."""
    with _watched(as_json) as watch:
        request = Request(
            recipe=path, variables=variables_of(variables), cloud=choose(cloud), mirrors=_mirrors(mirrors)
        )
        _run(request, watch, wait=wait, as_json=as_json)


def resume(run: str | None, *, wait: bool, as_json: bool) -> None:
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
        _run(Request.of_run(found), watch, wait=wait, as_json=as_json)


def _run(request: Request, watch: Watcher, *, wait: bool, as_json: bool) -> None:
    recipe = _load(request.recipe, request.variables)
    where = home().make()
    calls = Calls()
    runner = Runner(
        home=where,
        journal=Journal(where.journal),
        store=FileStore(where.objects),
        recipe=recipe,
        request=request,
        target=open_target(request.cloud, where, on_call=calls),
        calls=calls,
        watch=watch,
        epoch=_epoch(),
    )
    outcome = runner.run(wait=wait)
    if not as_json:
        _summarise(outcome, calls)


def _summarise(outcome: Outcome, calls: Calls) -> None:
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
        took = "unchanged" if step.how == "done" else f"{step.seconds:8.1f} s  {step.how}"
        ui.say(f"  {step.step:<24} {took}")
    ui.say(f"report: {outcome.report}")
    ui.say(
        f"next:   emi status {outcome.run}   emi sandbox status   emi plan RECIPE (shows that nothing is left to do)"
    )


def status(run: str | None, *, as_json: bool) -> None:
    """Show runs."""
    where = home().make()
    journal = Journal(where.journal)
    if run:
        found = journal.run(run)
        if found is None:
            raise UsageError(f"no run {run}", hint="`emi status` lists the runs.")
        _show_run(found, where.runs / run / "report.json", as_json=as_json)
        return
    runs = journal.runs()
    if as_json:
        ui.say_json([asdict(one) for one in runs])
        return
    if not runs:
        ui.say("No runs yet. Try: emi run recipes/debian-12.yaml")
        return
    ui.table(("run", "recipe", "target", "status", "error"), [_run_row(one) for one in runs])


def _show_run(run: Run, report: Path, *, as_json: bool) -> None:
    if as_json:
        ui.say_json(json.loads(report.read_text()) if report.is_file() else asdict(run))
        return
    ui.say(f"run {run.run}: {run.recipe} on {run.target}, {run.status}")
    ui.say(f"  began {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(run.started))}")
    if run.error:
        ui.say(f"  error: {run.error}")
    if not report.is_file():
        ui.say(f"  no report: the process was killed; `emi resume {run.run}` carries on")
        return
    for step in json.loads(report.read_text())["steps"]:
        ui.say(f"  {step['step']:<24} {step['how']:<8} {step['seconds']:8.1f} s  {ui.summary_of(step['result'])}")
    ui.say(f"  report: {report}")


def _run_row(run: Run) -> tuple[str, ...]:
    return run.run, run.recipe, run.target, run.status, (run.error or "").partition("\n")[0]


def steps(kind: str | None) -> None:
    """Print the reference of one step kind, or a line for each."""
    if kind is None:
        ui.table(("kind", "what it does"), [(name, docs.summary(name)) for name in kinds.kinds()])
        return
    if kind not in kinds.kinds():
        raise UsageError(f"no step kind `{kind}`", hint=f"There are: {', '.join(kinds.kinds())}.")
    ui.say(docs.step_reference(kind))


def schema() -> None:
    """Print the recipes' JSON Schema."""
    ui.say_json(recipe_schema.schema())


def doctor(cloud: str | None, *, quick: bool, as_json: bool) -> None:
    """Check this machine. Raises HostError when something needed is missing."""
    checks = []
    for check in doctor_checks.doctor(home().make(), cloud=cloud, quick=quick):
        checks.append(check)
        if not as_json:
            ui.say(f"{'ok     ' if check.ok else check.severity:<8} {check.name}: {check.found}")
            if check.fix:
                ui.say(f"         fix: {check.fix}")
    if as_json:
        ui.say_json([asdict(check) for check in checks])
    if not doctor_checks.healthy(checks):
        failed = ", ".join(check.name for check in checks if not check.ok and check.severity == "needed")
        raise HostError(f"this machine lacks: {failed}", hint="Each failed check above names its fix.")


def inspect(image: Path, *, as_json: bool) -> None:
    """Show what is in an image."""
    facts = image_inspect.inspect(image)
    if as_json:
        ui.say_json(asdict(facts))
        return
    ui.say(image_inspect.describe(facts))


def sandbox_start(*, as_json: bool) -> None:
    """Start the embedded cloud."""
    endpoint = lifecycle.start(home().make().sandbox)
    if as_json:
        ui.say_json({**asdict(endpoint), "directory": str(endpoint.directory), "ca_file": str(endpoint.ca_file or "")})
        return
    ui.say(f"The sandbox runs at {endpoint.url} (process {endpoint.pid}), region {endpoint.region}.")
    ui.say(f"Its state is in {endpoint.directory}. To point other tools at it:")
    ui.say(f"  export AWS_ENDPOINT_URL={endpoint.url} AWS_DEFAULT_REGION={endpoint.region}")
    ui.say(f"  export AWS_ACCESS_KEY_ID={endpoint.access_key} AWS_SECRET_ACCESS_KEY={endpoint.secret_key}")


def sandbox_stop() -> None:
    """Stop the embedded cloud."""
    ui.say("The sandbox is stopped." if lifecycle.stop(home().sandbox) else "The sandbox was not running.")


def sandbox_status(*, as_json: bool) -> None:
    """Show what the embedded cloud holds."""
    found = lifecycle.status(home().sandbox)
    if as_json:
        ui.say_json(
            None if found is None else {"url": found.endpoint.url, "images": found.images, "snapshots": found.snapshots}
        )
    elif found is None:
        ui.say("The sandbox is not running. `emi sandbox start` starts it; a run does so by itself.")
    else:
        ui.say(f"The sandbox runs at {found.endpoint.url}: {found.images} images, {found.snapshots} snapshots.")


def store_prune() -> None:
    """Remove files that nothing needs."""
    where = home().make()
    journal, store = Journal(where.journal), FileStore(where.objects)
    done = store.prune(journal.kept_digests(), sealed_before=journal.oldest_running())
    ui.say(f"removed {done.removed} files, {format_size(done.freed)} freed")
    ui.say(f"kept {done.kept} files, {format_size(done.kept_size)}")


def store_status() -> None:
    """Show the store's size."""
    where = home().make()
    paths = list(where.objects.glob("*/*"))
    size = sum(path.stat().st_blocks * 512 for path in paths)
    ui.say(f"{len(paths)} files, {format_size(size)} in {where.objects}")


@contextmanager
def _watched(as_json: bool) -> Iterator[Watcher]:  # noqa: FBT001 - private
    """A watcher that has always heard the run's last word when the block ends, also when nothing could start."""
    watch = ui.watcher(as_json=as_json)
    ended = False

    def hear(event: Any) -> None:
        nonlocal ended
        ended = ended or isinstance(event, RunFinished)
        watch(event)

    try:
        yield hear
    except EmiError as error:
        if not ended:
            watch(RunFinished(run="", status="failed", outputs={}, mutations=0, report="", error=describe(error)))
        raise


def _load(path: Path, variables: Mapping[str, str]) -> Recipe:
    recipe = load(path, variables)
    if recipe.warnings:
        ui.warn(render(recipe.warnings))
    return recipe


def variables_of(pairs: Sequence[str]) -> dict[str, str]:
    """Return the variables set on the command line. Raises UsageError."""
    return _pairs(pairs, "--var")


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
