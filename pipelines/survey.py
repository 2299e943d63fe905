"""What a run of a recipe would do now: each node held against the journal, the store and the cloud. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from builder.cloud.api import Call
from builder.cloud.claims import Claim
from pipelines.artifact import (
    TRANSIENT,
    AnyArtifact,
    Bundle,
    BundleLocation,
    File,
    Helper,
    ImageFile,
    MachineImage,
    Snapshot,
    Volume,
)
from pipelines.journal import Held, Journal, Last
from pipelines.lease import LeaseStep
from pipelines.plan import (
    Bound,
    Node,
    Promised,
    Prospect,
    Standing,
    arrange,
    bind,
    by_id,
    ingredients,
    key_of,
    lease_key,
)
from pipelines.recipe import Recipe
from pipelines.recipe.parts import split
from pipelines.step import Inputs
from pipelines.store import FileStore
from pipelines.targets import Target
from pipelines.ties import Ties
from pipelines.words import Abandon, Effect, Intent, Result

_REGISTER = Call("ec2", "RegisterImage")


@dataclass(frozen=True, kw_only=True)
class Surveyor:
    """Looks, without touching, at what a recipe needs: the journal, the store and the cloud."""

    recipe: Recipe
    target: Target
    journal: Journal
    store: FileStore
    _looked: dict[tuple[str, int], bool] = field(default_factory=dict)  # is the lease of that key and generation there?

    @cached_property
    def ties(self) -> Ties:
        """How the recipe's steps hang on its leases."""
        return Ties.of(self.recipe)

    def survey(self, pins: Mapping[str, Any]) -> tuple[Prospect, ...]:
        """Return the prospect of every node."""
        results: dict[str, Standing] = {}
        sizes: dict[str, int | None] = {}
        prospects = []
        for node in arrange(self.recipe):
            if node.lease:
                prospects.append(self._leased(node, pins))
                results[node.id] = self.promise(node, pins)
                continue
            prospect = self.prospect(node, bind(node, results), pins)
            if prospect.result:
                results |= by_id(node, prospect.result)
            sizes[node.id] = self._size(prospect, sizes)
            prospects.append(replace(prospect, expected=sizes[node.id]))
        return self._needed(prospects, pins)

    def promise(self, node: Node, pins: Mapping[str, Any]) -> Promised:
        """Return what stands for a lease."""
        noun = node.items[0].step.returns.model_fields["kind"].default
        return Promised(id=node.id, noun=noun, key=self.lease_key(node.id, pins))

    def lease_key(self, lease: str, pins: Mapping[str, Any]) -> str:
        """Return the key of the lease of that id."""
        return lease_key(self.recipe, self.ties.items[lease], pins, self.target)

    def _leased(self, node: Node, pins: Mapping[str, Any]) -> Prospect:
        """Return what is to be said of a lease as long as nobody needs it."""
        key = self.lease_key(node.id, pins)
        held = self.journal.held(key)
        kept = f"{held.resource} is leased still, and nothing needs it" if held and held.resource else ""
        return Prospect(
            node=node,
            verdict="not needed",
            why=kept or "nothing that will run needs it",
            key=key,
            calls=self._calls(node),
        )

    def _needed(self, prospects: Sequence[Prospect], pins: Mapping[str, Any]) -> tuple[Prospect, ...]:
        """Return all with those leases to be leased, and those results to be made again, that others need."""
        passed = {each.node.id for each in prospects if each.verdict == "not needed" and not each.node.lease}
        wanted: set[str] = set()
        leases: set[str] = set()
        for each in reversed(prospects):
            if each.verdict == "will run" or each.node.id in wanted:
                for item in each.node.items:
                    wanted |= passed & set(self.ties.passing(item.id))
                    leases |= self.ties.used(item.id, spent=passed.__contains__)
        return tuple(
            replace(each, verdict="will run", why="what it wrote into has passed, and is needed", result=None)
            if each.node.id in wanted
            else self._wanted_lease(each, pins)
            if each.node.id in leases
            else each
            for each in prospects
        )

    def _wanted_lease(self, prospect: Prospect, pins: Mapping[str, Any]) -> Prospect:
        held = self.held(prospect.node.id, pins)
        if held is None or held.resource is None:
            return replace(prospect, verdict="will lease", why="for what will run")
        return replace(prospect, verdict="will adopt", why=f"{held.resource} is leased still")

    def held(self, lease: str, pins: Mapping[str, Any]) -> Held | None:
        """Return what the lease of that id holds by the journal, unless the cloud has it no more."""
        key = self.lease_key(lease, pins)
        held = self.journal.held(key)
        if held is None or held.resource is None:
            return held
        item = self.ties.items[lease]
        if (key, held.generation) not in self._looked:
            assert isinstance(item.step, LeaseStep)
            self._looked[key, held.generation] = item.step.present(held.resource, self.target.cloud)
        return held if self._looked[key, held.generation] else None

    def spent(self, id_: str, last: Last, pins: Mapping[str, Any]) -> bool:
        """Say whether a step's result, which lies in leases, has passed: they are gone, or were written to since."""
        held = [self.held(lease, pins) for lease in self.ties.within[id_]]
        return not held or any(each is None or each.resource is None or each.place > last.place for each in held)

    def _size(self, prospect: Prospect, sizes: Mapping[str, int | None]) -> int | None:
        """Return the bytes of data that the node moves or moved: its own estimate, or those of what it is made from."""
        if isinstance(prospect.result, File | ImageFile | Bundle):
            return self.store.allocated(prospect.result)
        if Snapshot in prospect.node.items[0].step.accepts:
            return None  # registering moves none
        before = sizes.get(prospect.node.source) if prospect.node.source else None
        return prospect.expected or before

    def prospect(self, node: Node, inputs: Bound | None, pins: Mapping[str, Any]) -> Prospect:
        """Return what will become of one node whose inputs (None: not made yet) are these."""
        calls = self._calls(node)
        expected = node.items[0].step.expect(node.items[0].options, pins.get(node.id) or {})
        if inputs is None:
            return Prospect(node=node, verdict="will run", why=f"after {node.source}", calls=calls, expected=expected)
        made_of = ingredients(self.recipe, node, inputs, pins, self.target)
        key = key_of(made_of)
        last = self.journal.last(key)
        if last and isinstance(last.word, Result) and isinstance(last.word.artifact, TRANSIENT):
            passed = self.spent(node.id, last, pins)
            verdict, why = ("not needed", "nothing asks for what it wrote") if passed else ("done", "unchanged")
            result = last.word.artifact
            return Prospect(node=node, verdict=verdict, why=why, key=key, result=result, expected=expected, calls=calls)
        done = self._finished(node, key)
        if done:
            return Prospect(node=node, verdict="done", why="unchanged", key=key, result=done)
        verdict, why = self._outlook(node, key, inputs.there()) or ("will run", self._why(node, key, made_of))
        return Prospect(node=node, verdict=verdict, why=why, key=key, expected=expected, calls=calls)

    def _calls(self, node: Node) -> tuple[Call, ...]:
        """Return every kind of call that the node may make; where RegisterImage takes no tags, they follow it."""
        options, calls = node.items[0].options, tuple[Call, ...]()
        if node.cloud_step:
            id_, part = split(node.source) if node.source else ("", None)
            source = self.ties.items[id_].step.returns if id_ and not part else None
            calls = tuple(node.cloud_step.calls_upon(options, source))
        elif node.lease:
            calls = tuple(node.lease.calls(options))
        if _REGISTER in calls and not self.target.cloud.capabilities.tag_on_register:
            return (*calls, Call("ec2", "CreateTags"))
        return calls

    def _finished(self, node: Node, key: str) -> AnyArtifact | None:
        last = self.journal.last(key)
        if last is None or not isinstance(last.word, Result):
            return None
        artifact = last.word.artifact
        if isinstance(artifact, (File, ImageFile, Bundle)):
            return artifact if self.store.holds(artifact) else None
        step = node.cloud_step
        return artifact if step and step.present(artifact, self.target.cloud) else None

    def _outlook(self, node: Node, key: str, inputs: Inputs) -> tuple[str, str] | None:
        step = node.cloud_step
        if step is None:
            return None
        last = self.journal.last(key)
        match last.word if last else None:
            case Effect(resource=resource):
                return "will adopt", f"{resource} was begun and is not finished"
            case Result(artifact=artifact):
                return "will run", f"{_name(artifact)} is gone from the cloud"
            case Abandon(why=why):
                return "will run", f"given up before: {why}"
            case Intent() | None:
                claim = Claim(key, last.generation if last else 0)
                found = step.find(node.items[0].options, inputs, claim, self.target.cloud)
                return ("will adopt", f"{found} carries our claim") if found else None

    def _why(self, node: Node, key: str, made_of: Mapping[str, Any]) -> str:
        last = self.journal.last(key)
        if last:
            done = isinstance(last.word, Result)
            return "its file is no longer in the store" if done else "begun before and not finished"
        before = self.journal.remembered(self.recipe.name, node.id)
        changes = explain(before, made_of) if before else []
        return "; ".join(changes[:3]) or "first run"


def explain(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return, in words, what differs between two ingredient lists."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    return [
        f"{_spoken(path)} changed: {_short(old.get(path))} -> {_short(new.get(path))}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


# How people name the parts of an ingredient list.
_WORDS = (
    (re.compile(r"steps\[(\d+)\]\.options\.(.+)"), "option `{1}`"),
    (re.compile(r"steps\[(\d+)\]\.pins\.(.+)"), "pinned {1}"),
    (re.compile(r"steps\[(\d+)\]\.revision()"), "emi's own way of doing it"),
    (re.compile(r"inputs\.(source)\.(.+)"), "the input's {1}"),
    (re.compile(r"inputs\.(.+)\.([^.]+)"), "`{0}`'s {1}"),
)


def _spoken(path: str) -> str:
    for pattern, words in _WORDS:
        found = pattern.fullmatch(path)
        if found:
            return words.format(*found.groups())
    return path


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{number}]")
    else:
        yield path, value


def _short(value: Any, limit: int = 40) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _name(artifact: AnyArtifact) -> str:
    match artifact:
        case File() | ImageFile():
            return artifact.digest
        case Bundle():
            return artifact.manifest.digest
        case BundleLocation():
            return artifact.location
        case (
            Snapshot(snapshot_id=name) | MachineImage(image_id=name) | Helper(instance_id=name) | Volume(volume_id=name)
        ):
            return name
