"""What one run leases: acquired when a step that really runs needs it, given back after the last, however it ends.

The journal alone knows what is held: an Intent or an Effect without an Abandon. Whoever holds the recipe's lock may go
on with it or give it back. docs/design/journal.md has the crash windows.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from builder.cloud.claims import Claim
from builder.errors import CloudFailed, CloudNotFound, EmiError, InternalError
from pipelines.artifact import AnyArtifact, Volume
from pipelines.events import LeaseAcquired, LeaseKept, LeaseReleased, StepProgress, StepStarted, Watcher
from pipelines.home import Home
from pipelines.journal import Held
from pipelines.lazily import Later
from pipelines.lease import LeaseStep
from pipelines.plan import Bound, Node, Promised, Standing, bind, labels
from pipelines.recipe.parts import split
from pipelines.step import Inputs, LocalStep, Outside, Work
from pipelines.survey import Surveyor
from pipelines.words import Abandon, Effect, Intent

if TYPE_CHECKING:
    from pipelines import logins
else:  # most runs speak no SSH
    logins = Later("pipelines.logins")


@dataclass(kw_only=True)
class Record:
    """What became of one lease in this run; `end` is released, kept (as was asked), left (see `text`), or nothing."""

    step: str
    kind: str
    how: str = "found"  # ran (acquired), adopted, or found: of an earlier attempt, and only given back
    seconds: float = 0
    resource: str = ""
    result: AnyArtifact | None = None
    end: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Leases:
    """The leases of one run, whose end, good or bad, is that of the block."""

    surveyor: Surveyor
    home: Home
    outside: Outside
    pins: Mapping[str, Any]
    run: str
    epoch: int | None
    watch: Watcher
    keep: bool  # helpers stay, for debugging
    results: Mapping[str, Standing]  # of the steps so far, by id
    records: dict[str, Record]  # by id; for the report
    spent: set[str] = field(default_factory=set)  # steps whose result has passed, while nothing asked for it
    _ready: dict[str, AnyArtifact] = field(default_factory=dict)
    _passed: set[str] = field(default_factory=set)  # steps that are finished
    _refused: set[str] = field(default_factory=set)  # leases that could not be given back at once

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        trouble = self._end(failed=kind is not None)
        if kind is None and trouble:
            raise trouble

    # In use

    def inputs(self, node: Node, bound: Bound) -> Inputs:
        """Return what the node takes, as it is now: leased if it is not yet, and attached for a step that works on it.

        Raises what acquiring raises; what was acquired until then is given back when the block ends.
        """
        item = node.items[0]
        ids = {"source": item.source, **item.references}
        works = isinstance(item.step, LocalStep)

        def there(name: str, standing: Standing) -> AnyArtifact:
            if isinstance(standing, Promised):
                return self.hold(standing.id)
            taken = split(ids.get(name) or "")[0]
            within = self.surveyor.ties.within.get(taken, ())
            if not isinstance(standing, Volume):
                return standing
            if not works:
                for lease in within:  # a cloud step may detach the volume: who works on it next has it attached anew
                    self._ready.pop(lease, None)
                return standing
            held = [self.hold(lease) for lease in sorted(within)]
            for each in held:
                if isinstance(each, Volume) and each.volume_id == standing.volume_id:
                    return standing.at(each)
            raise CloudNotFound(f"volume {standing.volume_id} went while the run was at work", hint="Run it again.")

        source = there("source", bound.source) if bound.source else None
        return Inputs(source=source, named={name: there(name, standing) for name, standing in bound.named.items()})

    def hold(self, id_: str) -> AnyArtifact:
        """Return the lease of that id, acquired and ready, once in a run; what it is leased upon comes first."""
        if id_ in self._ready:
            return self._ready[id_]
        node = self._node(id_)
        bound = bind(node, self.results)
        assert bound, f"{id_} comes before its input"
        inputs = self.inputs(node, bound)
        started = time.monotonic()
        held = self.surveyor.held(id_, self.pins)
        why = f"{held.resource} is leased still" if held and held.resource else "a step that runs needs it"
        self.watch(StepStarted(step=node.title, kind=node.kind, why=why))
        how, resource, artifact = self._take(node, inputs)
        seconds = time.monotonic() - started
        self._ready[id_] = artifact
        self.records[id_] = Record(
            step=node.title, kind=node.kind, how=how, seconds=seconds, resource=resource, result=artifact
        )
        self.watch(LeaseAcquired(step=node.title, kind=node.kind, how=how, seconds=seconds, result=artifact))
        return artifact

    def _take(self, node: Node, inputs: Inputs) -> tuple[str, str, AnyArtifact]:
        """Return how, the id and the artifact. What is of no use, and was not made now, is replaced, once."""
        step, options, cloud = self._step(node), node.items[0].options, self.surveyor.target.cloud
        for attempt in (1, 2):
            held, fresh = self._claim(node)
            work = self._work(node, held, fresh=fresh)
            assert work.claim
            resource, how = held.resource, "adopted"
            try:
                if resource is None:
                    resource = step.find(options, work.claim, cloud)
                    how = "adopted" if resource else "ran"
                    if resource is None:
                        zoned = replace(work, zone=self._zone(node.id))
                        resource = step.acquire(options, inputs, work.claim, cloud, zoned)
                    self._write(node, held, Effect(resource=resource))
                return how, resource, step.ready(options, inputs, resource, cloud, work)
            except (CloudFailed, CloudNotFound) as error:
                self._replace(node, held, resource, error)
                if attempt == 2 or (how == "ran" and isinstance(error, CloudFailed)):
                    raise
        raise InternalError("a second attempt neither ended nor failed")

    def _zone(self, lease: str) -> str | None:
        """Return the zone of what an earlier run kept of the leases upon this one: it is of no use elsewhere."""
        cloud = self.surveyor.target.cloud
        zones = (self._step(node).zone(node.items[0].options, kept, cloud) for node, _, kept in self._held_upon(lease))
        return next(filter(None, zones), None)

    def _held_upon(self, lease: str) -> Iterator[tuple[Node, Held, str]]:
        """Yield what is held of the leases upon this one, and its resource."""
        for other, upon in self.surveyor.ties.upon.items():
            node = self._node(other)
            held = self.surveyor.journal.held(self._key(node)) if lease in upon else None
            if held and held.resource:
                yield node, held, held.resource

    def _replace(self, node: Node, held: Held, resource: str | None, error: EmiError) -> None:
        """Give back what is of no use. If that fails too, both are told, and it is tried again when the run ends."""
        try:
            self._give_back(node, held, resource)
        except EmiError as second:
            error.message += f"\n{resource or node.id} is still there: {second.message}"
            raise error from second
        self._give_up(node, held, error.message)

    def _claim(self, node: Node) -> tuple[Held, bool]:
        """Return what is held, or is claimed now with its Intent written; and whether it is claimed now."""
        journal, key = self.surveyor.journal, self._key(node)
        held = journal.held(key)
        if held and held.resource and self.surveyor.held(node.id, self.pins) is None:
            self._give_back(node, held, held.resource)  # what was made besides it
            self._give_up(node, held, "gone from the cloud")
            held = None
        if held:
            return held, False
        last = journal.last(key)
        held = Held(generation=last.generation + 1 if last else 0, intended=time.time(), resource=None, place=0)
        self._tidy(node)
        self._write(node, held, Intent(at=held.intended))
        return held, True

    def renew(self, node: Node) -> None:
        """Say that what lies in the node's leases is about to change: what others have written there passes."""
        ties = self.surveyor.ties
        for lease in ties.within.get(node.id, ()):
            held = self.surveyor.journal.held(self.surveyor.lease_key(lease, self.pins))
            assert held, f"{lease} is written to before it is leased"
            assert held.resource
            self._write(self._node(lease), held, Effect(resource=held.resource))
            self.spent.update(id_ for id_, within in ties.within.items() if lease in within and id_ not in ties.upon)
        self.spent.discard(node.id)

    # Given back

    def passed(self, node: Node) -> None:
        """Learn that the node is finished, and give back what nothing that may still run needs."""
        self._passed.update(item.id for item in node.items)
        self.settle()

    def settle(self) -> None:
        """Give back what nothing that may still run needs. What cannot be given back is tried again at the end."""
        ties = self.surveyor.ties
        waiting = [id_ for id_ in ties.items if id_ not in self._passed and id_ not in ties.upon] if ties.upon else []
        used = {lease for id_ in waiting for lease in ties.used(id_, spent=self.spent.__contains__)}
        for lease in reversed(ties.leases):
            if lease not in used | self._refused and not self._keeps(lease):
                try:
                    self._release(lease)
                except EmiError as error:
                    self._refused.add(lease)
                    StepProgress(lease, self.watch).note(f"is tried again at the end: {error.message}")

    def _end(self, *, failed: bool) -> EmiError | None:
        """Give back everything but what is to be kept, and return the first error of that; none stops the others."""
        first: EmiError | None = None
        for lease in reversed(self.surveyor.ties.leases):
            outlives = failed and self._step(self._node(lease)).outlives_failure
            try:
                if outlives or self._keeps(lease):
                    self._tell_kept(lease, for_resume=outlives)
                else:
                    self._release(lease, quiet=failed)
                    self._tidy(self._node(lease))
            except EmiError as error:
                self._left(lease, f"could not be released: {error.message}")
                first = first or error
            except KeyboardInterrupt:
                self._left(lease, "was not released: interrupted")
                if not failed:
                    raise
        return first

    def _keeps(self, lease: str) -> bool:
        return self.keep and not self._step(self._node(lease)).outlives_failure

    def _release(self, lease: str, *, quiet: bool = False) -> None:
        """Give back what is held; nothing is done where nothing is."""
        node, cloud = self._node(lease), self.surveyor.target.cloud
        held = self.surveyor.journal.held(self._key(node))
        if held is None:
            return
        claim = Claim(self._key(node), held.generation)
        resource = held.resource or self._step(node).find(node.items[0].options, claim, cloud)
        if resource:
            self._part_others(lease)
            self._ready.pop(lease, None)
        self._give_back(node, held, resource)
        self._give_up(node, held, "released")
        if resource:
            self._record(node, resource).end = "released"
            with suppress(*((OSError, EmiError) if quiet else ())):  # nobody may be left who listens
                self.watch(LeaseReleased(step=node.title, kind=node.kind, resource=resource))

    def _give_back(self, node: Node, held: Held, resource: str | None) -> None:
        step, cloud, work = self._step(node), self.surveyor.target.cloud, self._work(node, held, fresh=False)
        if resource:
            step.release(node.items[0].options, resource, cloud, work)
        else:
            step.clear(node.items[0].options, cloud, work)

    def _part_others(self, lease: str) -> None:
        """Part from a lease that goes those that were leased upon it and stay."""
        for node, held, resource in self._held_upon(lease):
            self._ready.pop(node.id, None)
            work = self._work(node, held, fresh=False)
            self._step(node).part(node.items[0].options, resource, self.surveyor.target.cloud, work)

    def _tell_kept(self, lease: str, *, for_resume: bool) -> None:
        node = self._node(lease)
        held = self.surveyor.journal.held(self._key(node))
        if held is None or held.resource is None:
            return
        by_hand = self._step(node).by_hand(node.items[0].options, held.resource, self._ready.get(lease), self.home.root)
        text = f"`emi resume {self.run}` goes on with it; {by_hand}" if for_resume else by_hand
        record = self._record(node, held.resource)
        record.end, record.text = "left" if for_resume else "kept", f"is kept: {text}"
        with suppress(OSError, EmiError):
            self.watch(LeaseKept(step=node.title, kind=node.kind, resource=held.resource, text=text))

    def _left(self, lease: str, text: str) -> None:
        node = self._node(lease)
        held = self.surveyor.journal.held(self._key(node))
        if held:
            record = self._record(node, held.resource or f"what `{lease}` may have begun")
            record.end, record.text = "left", text

    # What both need

    def _node(self, id_: str) -> Node:
        return Node(items=(self.surveyor.ties.items[id_],))

    def _step(self, node: Node) -> LeaseStep[Any]:
        assert node.lease
        return node.lease

    def _key(self, node: Node) -> str:
        return self.surveyor.lease_key(node.id, self.pins)

    def _record(self, node: Node, resource: str) -> Record:
        new = Record(step=node.title, kind=node.kind, resource=resource)
        return self.records.setdefault(node.id, new)

    def _write(self, node: Node, held: Held, word: Intent | Effect | Abandon) -> None:
        self.surveyor.journal.write(self._key(node), held.generation, word, run=self.run)

    def _give_up(self, node: Node, held: Held, why: str) -> None:
        self._write(node, held, Abandon(why=why))
        scratch = self._scratch(node, held)
        if scratch.exists():
            shutil.rmtree(scratch)

    def _tidy(self, node: Node) -> None:
        """Remove the directories of what was given up by a process that was killed then; nothing is held now."""
        for old in self.home.leases.glob(f"{self._key(node)[:32]}.*"):
            shutil.rmtree(old)

    def _scratch(self, node: Node, held: Held) -> Path:
        return self.home.leases / f"{self._key(node)[:32]}.{held.generation}"

    def _work(self, node: Node, held: Held, *, fresh: bool) -> Work:
        progress = StepProgress(node.title, self.watch)
        scratch = self._scratch(node, held)
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Work(
            scratch=scratch,
            outside=self.outside,
            pins=self.pins.get(node.id) or {},
            progress=progress,
            epoch=self.epoch,
            labels=labels(self.surveyor.recipe),
            claim=Claim(self._key(node), held.generation),
            intended=None if fresh else held.intended,
            run=self.run,
            remote=lambda helper: logins.log_in(helper, self.home.root, self.surveyor.target.cloud, progress),
        )
