"""What the verbs that only look do: status, steps, schema, doctor."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

from builder.errors import HostError, UsageError
from pipelines import docs, kinds, locks, ui
from pipelines import doctor as doctor_checks
from pipelines import schema as recipe_schema
from pipelines.home import Home, home
from pipelines.journal import Journal, Run


def status(run: str | None, *, as_json: bool) -> None:
    """Show runs."""
    where = home().make()
    journal = Journal(where.journal)
    if run:
        found = journal.run(run)
        if found is None:
            raise UsageError(f"no run {run}", hint="`emi status` lists the runs.")
        _show_run(_as_it_is(found, where), where.runs / run / "report.json", as_json=as_json)
        return
    runs = [_as_it_is(one, where) for one in journal.runs()]
    if as_json:
        ui.say_json([asdict(one) for one in runs])
        return
    if not runs:
        ui.say("No runs yet. Try: emi run recipes/debian-12.yaml")
        return
    ui.table(("run", "recipe", "target", "status", "error"), [_run_row(one) for one in runs])


def _as_it_is(run: Run, where: Home) -> Run:
    """Return the run without the last words of a process that was killed: that it is running."""
    if run.status != "running" or locks.is_held(where.recipe_lock(run.recipe, run.target)):
        return run
    return replace(run, status="interrupted", error=f"its process was killed; `emi resume {run.run}` carries on")


def _show_run(run: Run, report: Path, *, as_json: bool) -> None:
    if as_json:
        ui.say_json(json.loads(report.read_text()) if report.is_file() else asdict(run))
        return
    ui.say(f"run {run.run}: {run.recipe} on {run.target}, {run.status}")
    ui.say(f"  began {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(run.started))}")
    if run.error:
        ui.say(f"  error: {run.error}")
    if not report.is_file():
        ui.say("  no report yet" if run.status == "running" else "  no report")
        return
    told = json.loads(report.read_text())
    for step in told["steps"]:
        ui.say(f"  {step['step']:<24} {step['how']:<8} {step['seconds']:8.1f} s  {ui.summary_of(step['result'])}")
    for lease in told.get("leases", ()):  # reports of old have none
        ui.say(
            f"  {lease['step']:<24} {lease['how']:<8} {lease['seconds']:8.1f} s  {lease['resource']}, {lease['end']}"
        )
    ui.say(f"  report: {report}")


def _run_row(run: Run) -> tuple[str, ...]:
    return run.run, run.recipe, run.target, run.status, (run.error or "").partition("\n")[0]


def version() -> None:
    """Print which emi this is."""
    ui.say(f"emi {metadata.version('emi-pipelines')}")


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
