"""Realise a plan: each node once, each word durable before the next thing happens, resumable at any moment.

Resuming is one match on the journal's last word for a key (`_claim_of` in realise.py); a run that was cut is continued
by `emi run` of the same recipe as well as by `emi resume`, with what it had pinned.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder import durable, pool
from builder.cloud.api import Call
from builder.cloud.claims import Claim
from builder.errors import EmiError, HostError, InputError, InternalError, Interrupted
from pipelines import locks
from pipelines.course import Course, Outcome
from pipelines.early import Early
from pipelines.events import RunFinished, RunStarted, StepFinished, StepProgress, StepStarted, Watcher
from pipelines.home import Home
from pipelines.journal import Journal, Run, Status
from pipelines.leases import Leases
from pipelines.plan import Node, Promised, Prospect, arrange, by_id, foresee
from pipelines.realise import Ahead, Realiser
from pipelines.recipe import Recipe, StepItem
from pipelines.request import Request
from pipelines.step import GuestStep, Outside
from pipelines.store import FileStore
from pipelines.survey import Surveyor
from pipelines.targets import Target, choose, open_target
from pipelines.ties import needs

READ_ONLY = ("Describe", "Get", "Head", "List")  # how EC2, EBS and S3 name the calls that change nothing


class Calls:
    """Counts the calls that a target makes."""

    def __init__(self) -> None:
        self.made = pool.Tally()

    def __call__(self, call: Call) -> None:
        """Count one call."""
        self.made.count(str(call))

    def mutations(self) -> int:
        """Return how many of them may have changed something."""
        return sum(count for name, count in self.made.items() if not name.partition(":")[2].startswith(READ_ONLY))


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs one recipe against one target."""

    home: Home
    journal: Journal
    store: FileStore
    recipe: Recipe
    request: Request
    target: Target
    calls: Calls
    watch: Watcher
    epoch: int | None = None
    keep_helper: bool = False

    def lock(self, *, wait: bool) -> AbstractContextManager[Callable[[str], None]]:
        """Hold this recipe on this target; a second run waits, or is refused by name of the holder (BusyError)."""
        path = self.home.recipe_lock(self.recipe.name, self.target.identity)
        tell = StepProgress(self.recipe.name, self.watch).note
        return locks.hold(path, what=f"recipe `{self.recipe.name}`", wait=wait, tell=tell)

    def unfinished(self) -> Run | None:
        """Return the newest run that asked for the same of this recipe and target, if it did not finish."""
        asked = self.request.to_json()
        runs = self.journal.runs(recipe=self.recipe.name, limit=1000)
        same = (run for run in runs if run.target == self.target.identity and run.request == asked)
        newest = next(same, None)
        return newest if newest and newest.status != "ok" else None

    def run(self, *, wait: bool = False) -> Outcome:
        """Bring the recipe to its end. Raises BusyError before, and any other EmiError after recording it."""
        with _under(self.home.root), self.lock(wait=wait) as sign:
            return self._run(sign)

    def plan(self) -> tuple[Prospect, ...]:
        """Return what `run` would do with each node now, and raise what it would refuse first; changes nothing."""
        prospects = self._surveyor().survey(self._pinned(self.unfinished()))
        self._preflight(prospects)
        return prospects

    def _surveyor(self) -> Surveyor:
        return Surveyor(recipe=self.recipe, target=self.target, journal=self.journal, store=self.store)

    def _run(self, sign: Callable[[str], None]) -> Outcome:
        course = Course()
        before = self.unfinished()
        run = before.run if before else _new_run_id(self.recipe.name)
        if before:
            self.journal.reopen(run)
            self._report(run).unlink(missing_ok=True)  # it told of an earlier attempt
        else:
            self.journal.begin(
                run, recipe=self.recipe.name, target=self.target.identity, request=self.request.to_json()
            )
        sign(run)
        titles = [node.title for node in arrange(self.recipe)]
        self.watch(
            RunStarted(
                run=run, recipe=self.recipe.name, target=self.target.name, steps=titles, resumed=before is not None
            )
        )
        try:
            with _under(self.home.root):
                pins = self._pins(run, before)
                self._realise(run, pins, course)
            outputs = self._outputs(course)
        except KeyboardInterrupt:
            error = Interrupted(
                f"interrupted; {self._left(run, course)}", hint=f"`emi resume {run}` carries on from here."
            )
            self._end(run, course, error=error)
            raise error from None
        except BrokenPipeError:  # `| head` has seen enough
            self._end(run, course, error=Interrupted("whoever read the output is gone"))
            raise
        except EmiError as error:
            error.message += course.left()
            self._end(run, course, error=error)
            raise
        except Exception as error:
            found = defect(error)
            found.message += course.left()
            self._end(run, course, error=found)
            raise
        report = self._end(run, course, outputs=outputs)
        return Outcome(
            run=run,
            outputs=outputs,
            steps=course.steps,
            leases=list(course.leases.values()),
            calls=dict(self.calls.made),
            report=report,
            seconds=course.seconds,
        )

    def outside(self) -> Outside:
        """Return how steps look at the world."""
        return Outside(
            recipe_directory=self.request.recipe.resolve().parent,
            cache=self.home.cache,
            mirrors=self.request.mirrors,
            store=self.store,
            epoch=self.epoch,
            site=self._site,
        )

    def _site(self, name: str | None) -> Target:
        return self.target if name is None else self._opened(name)

    def _opened(self, name: str) -> Target:
        return open_target(choose(name), self.home, on_call=self.calls, progress=StepProgress("cloud", self.watch))

    def _pins(self, run: str, before: Run | None) -> Mapping[str, Any]:
        pins = self._pinned(before)
        self.journal.pin(run, pins)
        return pins

    def _pinned(self, before: Run | None) -> Mapping[str, Any]:
        """Return what an unfinished run had pinned, and from now what it had not."""
        pins = dict(before.pins or {}) if before else {}
        return pins | pin([item for item in self.recipe.steps if item.id not in pins], self.outside())

    def _unpin(self, run: str, node: Node, pins: Mapping[str, Any]) -> None:
        """Forget what led to a refused input: its publisher may correct it, and the next attempt must see that.

        Not once a cloud step has begun with it: what it began is only found again by the same pins.
        """
        if node.cloud_step and self.journal.has_effect(run):
            return
        led_here = {item.id for item in node.items}
        for item in reversed(self.recipe.steps):
            if item.id in led_here:
                led_here.update(needs(item))
        self.journal.pin(run, {step: pinned for step, pinned in pins.items() if step not in led_here})

    def _realise(self, run: str, pins: Mapping[str, Any], course: Course) -> None:
        surveyor = self._surveyor()
        prospects = surveyor.survey(pins)
        leases = Leases(
            surveyor=surveyor,
            home=self.home,
            outside=self.outside(),
            pins=pins,
            run=run,
            epoch=self.epoch,
            watch=self.watch,
            keep=self.keep_helper,
            results=course.results,
            records=course.leases,
        )
        sending = Early(recipe=self.recipe, target=self.target, journal=self.journal, run=run)
        with leases:
            self._preflight(prospects)
            with Ahead(_first_guest_node(prospects), cache=self.home.cache) as ahead, sending as early:
                nodes = {node.id: node for node in arrange(self.recipe)}
                realiser = Realiser(
                    surveyor=surveyor,
                    home=self.home,
                    outside=self.outside(),
                    pins=pins,
                    run=run,
                    epoch=self.epoch,
                    ahead=ahead,
                    early=early,
                    leases=leases,
                    surveyed={prospect.key: prospect for prospect in prospects if prospect.key},
                    results=course.results,
                    again=lambda id_: self._one(nodes[id_], realiser, course, wanted=True),
                )
                for node in nodes.values():
                    if node.lease:
                        course.results[node.id] = surveyor.promise(node, pins)
                        continue
                    try:
                        self._one(node, realiser, course)
                    except InputError:
                        self._unpin(run, node, pins)
                        raise

    def _preflight(self, prospects: Sequence[Prospect]) -> None:
        """Let every cloud step that will run refuse now what it would refuse later, before anything is spent."""
        # A source or a cloud step with a new key makes something new, and what finished before is not for those after
        # it. A step between may hand its input on as it was (an edit that finds nothing to do): the same keys again.
        new = any(
            prospect.key and self.journal.last(prospect.key) is None
            for prospect in prospects
            if not prospect.node.lease and (prospect.node.source is None or prospect.node.cloud_step)
        )
        finished = self.journal.finished_claims() if new else frozenset()
        before = foresee(prospects)
        for prospect in prospects:
            node = prospect.node
            if node.cloud_step and prospect.verdict == "will run":
                options, may_be = node.items[0].options, _may_be(prospect, finished)
                self.target.cloud.capabilities.require(*prospect.calls)
                node.cloud_step.preflight(options, self.target.cloud, may_be, before[node.id])
            if node.lease and prospect.verdict == "will lease":
                self.target.cloud.capabilities.require(*node.lease.calls(node.items[0].options))
                node.lease.preflight(node.items[0].options, self.target.cloud, before[node.id])

    def _one(self, node: Node, realiser: Realiser, course: Course, *, wanted: bool = False) -> None:
        """Bring one node to its result; `wanted`: it had one, which has passed."""
        started = time.monotonic()

        def announce(prospect: Prospect) -> None:
            if prospect.result is None:
                self.watch(StepStarted(step=node.title, kind=node.kind, why=prospect.why))

        how, result = realiser.realise(node, StepProgress(node.title, self.watch), announce, wanted=wanted)
        finished = StepFinished(
            step=node.title, kind=node.kind, how=how, seconds=time.monotonic() - started, result=result
        )
        self.watch(finished)
        course.steps[:] = [step for step in course.steps if step.step != node.title] + [finished]
        course.results.update(by_id(node, result))
        realiser.leases.passed(node)

    def _outputs(self, course: Course) -> dict[str, Any]:
        outputs: dict[str, Any] = {}
        for name, output in self.recipe.outputs.items():
            result = course.results[output.step]
            assert not isinstance(result, Promised), f"the output {name} is a lease"
            values = result.model_dump(mode="json")
            outputs[name] = values[output.field] if output.field else values
        return outputs

    def _report(self, run: str) -> Path:
        return self.home.runs / run / "report.json"

    def _left(self, run: str, course: Course) -> str:
        done = ", ".join(step.step for step in course.steps) or "nothing"
        told = {lease.resource for lease in course.leases.values() if lease.text}
        begun = "".join(f"begun in the cloud: {id_}; " for id_ in self.journal.begun(run) if id_ not in told)
        return f"finished and kept: {done}; {begun}other begun work lies in {self.home.scratch}{course.left()}"

    def _end(
        self,
        run: str,
        course: Course,
        *,
        outputs: Mapping[str, Any] | None = None,
        error: EmiError | None = None,
    ) -> Path:
        status: Status = "ok" if error is None else "interrupted" if isinstance(error, Interrupted) else "failed"
        described = None if error is None else describe(error)
        report = self._report(run)
        report.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "run": run,
            "recipe": self.request.to_json(),
            "target": self.target.identity,
            "status": status,
            "seconds": round(course.seconds, 3),
            "outputs": outputs or {},
            "steps": [
                {"step": step.step, "kind": step.kind, "how": step.how, "seconds": round(step.seconds, 3),
                 "result": step.result.model_dump(mode="json")}
                for step in course.steps
            ],
            "leases": [
                {**asdict(lease), "seconds": round(lease.seconds, 3),
                 "result": lease.result.model_dump(mode="json") if lease.result else None}
                for lease in course.leases.values()
            ],
            "calls": dict(sorted(self.calls.made.items())),
            "error": described,
        }  # fmt: skip
        durable.write_file(report, json.dumps(content, indent=2).encode())
        self.journal.end(run, status, error=error.message if error else None, outputs=outputs)
        self.watch(
            RunFinished(
                run=run, status="ok" if error is None else "failed", outputs=outputs or {},
                mutations=self.calls.mutations(), report=str(report), error=described,
            )
        )  # fmt: skip
        return report


def describe(error: EmiError) -> dict[str, Any]:
    """Return an error as JSON lines and reports show it."""
    return {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "exit": error.exit_code}


def defect(error: Exception) -> InternalError:
    """Return what people and programs are told of an error that nobody foresaw."""
    return InternalError(f"a defect in emi: {type(error).__name__}: {error}")


def pin(steps: Iterable[StepItem], outside: Outside) -> dict[str, Any]:
    """Ask steps what the recipe leaves open; only reads. Returns step id -> its pins."""
    return {item.id: dict(item.step.pin(item.options, outside)) for item in steps}


@contextmanager
def _under(root: Path) -> Iterator[None]:
    """Turn what the system refuses below our own directory, anywhere in the block, into HostError or DiskFull."""
    try:
        with durable.translate_disk_full(root):
            yield
    except OSError as error:
        if not str(error.filename).startswith(f"{root}/"):
            raise
        raise HostError(
            f"cannot use {error.filename}: {error.strerror}",
            hint="Check who may write there, or point EMI_HOME elsewhere.",
        ) from error


def _may_be(prospect: Prospect, finished: Collection[str]) -> Callable[[str], bool]:
    """Return how to tell whether a claim's token may be that of the prospect; an empty token is nobody's."""
    if prospect.key is None:
        return lambda token: bool(token) and token not in finished
    # Its key is known and the survey found nothing under its claim; a lagging describe may have hidden it.
    mine = Claim(prospect.key).token
    return lambda token: token == mine


def _first_guest_node(prospects: Sequence[Prospect]) -> Node | None:
    waiting = (prospect.node for prospect in prospects if prospect.verdict != "done")
    return next((node for node in waiting if isinstance(node.items[0].step, GuestStep)), None)


def _new_run_id(recipe: str) -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{recipe}-{secrets.token_hex(2)}"
