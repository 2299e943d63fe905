"""A recipe becomes a plan: nodes in order, neighbouring guest steps fused, and for each whether it must run and why.

Pure but for what it reads through the journal, the store and the cloud; it changes nothing anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from builder.cloud.api import Call
from builder.cloud.claims import RECIPE_TAG, Claim
from pipelines.artifact import (
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
from pipelines.journal import Abandon, Effect, Intent, Journal, Result
from pipelines.recipe import Recipe, StepItem
from pipelines.recipe.parts import PARTS, pick, split
from pipelines.step import Before, CloudStep, Foreseen, GuestStep, Inputs
from pipelines.store import FileStore
from pipelines.targets import Target

_REGISTER = Call("ec2", "RegisterImage")


@dataclass(frozen=True, kw_only=True)
class Node:
    """One unit of work: a step, or neighbouring guest steps that share one appliance launch."""

    items: tuple[StepItem, ...]

    @property
    def id(self) -> str:
        """The id that others refer to: that of the last step."""
        return self.items[-1].id

    @property
    def title(self) -> str:
        """The ids of all its steps, for people."""
        return " + ".join(item.id for item in self.items)

    @property
    def kind(self) -> str:
        """The kinds of its steps."""
        return "+".join(item.kind for item in self.items)

    @property
    def source(self) -> str | None:
        """The id whose result it takes."""
        return self.items[0].source

    @property
    def cloud_step(self) -> CloudStep[Any] | None:
        """Its step, when that is a cloud step."""
        step = self.items[0].step
        return step if isinstance(step, CloudStep) else None


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """What will become of a node. `verdict` is done, will run or will adopt; `expected` in bytes, None when unknown."""

    node: Node
    verdict: str
    why: str
    key: str | None = None
    result: AnyArtifact | None = None
    expected: int | None = None
    calls: Sequence[Call] = ()


def arrange(recipe: Recipe) -> tuple[Node, ...]:
    """Return the recipe's steps as nodes, in an order in which every input comes first.

    A guest step joins the one before it when nothing else needs that one's image. A kernel that was copied out stays
    beside the image through the guest steps that follow, so who needs only that keeps nothing apart.
    """
    takes = [split(reference) for item in recipe.steps for reference in _references(item)]
    takes += [(output.step, output.field if output.field in PARTS else None) for output in recipe.outputs.values()]
    users = Counter(id_ for id_, part in takes if part is None)
    copies_used = {id_ for id_, part in takes if part}
    nodes: list[Node] = []
    for item in recipe.steps:
        before = nodes[-1] if nodes else None
        if before and item.source == before.id and users[before.id] == 1 and _joins(item, before, copies_used):
            nodes[-1] = Node(items=(*before.items, item))
        else:
            nodes.append(Node(items=(item,)))
    return tuple(nodes)


def _joins(item: StepItem, before: Node, copies_used: AbstractSet[str]) -> bool:
    """Say whether the step can share the launch of the node whose image it takes."""
    if not isinstance(item.step, GuestStep) or not isinstance(before.items[-1].step, GuestStep):
        return False
    ids = {each.id for each in before.items}
    replaces = item.step.copies_out and ids & copies_used  # the result has one kernel: this step's
    return not replaces and ids.isdisjoint(split(reference)[0] for reference in item.references.values())


def needs(item: StepItem) -> list[str]:
    """Return the ids of the steps whose results the step takes, once for each use."""
    return [split(reference)[0] for reference in _references(item)]


def _references(item: StepItem) -> list[str]:
    return [*([item.source] if item.source else []), *item.references.values()]


def labels(recipe: Recipe) -> dict[str, str]:
    """Return the tags of whatever a run of the recipe makes in a cloud; part of the key, since a claim's call repeats
    them to the letter.
    """
    return {RECIPE_TAG: recipe.name}


def ingredients(recipe: Recipe, node: Node, inputs: Inputs, pins: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Return, as JSON values, everything that decides the node's result."""
    made_of: dict[str, Any] = {
        "steps": [
            {
                "kind": item.kind,
                "revision": item.step.revision,
                "options": item.options.model_dump(mode="json"),
                "pins": pins.get(item.id) or {},
            }
            for item in node.items
        ],
        "inputs": {
            name: artifact.identity()
            for name, artifact in {"source": inputs.source, **inputs.named}.items()
            if artifact
        },
    }
    if node.cloud_step:
        made_of |= {"target": target.identity, "labels": labels(recipe)}
    return made_of


def key_of(made_of: Mapping[str, Any]) -> str:
    """Return the key: SHA-256 (hex) of the ingredients in canonical JSON."""
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def bind(node: Node, results: Mapping[str, AnyArtifact]) -> Inputs | None:
    """Return the node's inputs, or None while one of them does not exist yet. Raises InputError (see `pick`)."""
    needed = {need for item in node.items for need in needs(item)} - {item.id for item in node.items}
    if not needed <= results.keys():
        return None
    references = {name: pick(step, results) for item in node.items for name, step in item.references.items()}
    return Inputs(source=pick(node.source, results) if node.source else None, named=references)


def by_id(node: Node, result: AnyArtifact) -> dict[str, AnyArtifact]:
    """Return a node's result under the ids of all its steps.

    Of the steps before its last nobody takes the whole result: they would not have been joined (`arrange`).
    """
    return {item.id: result for item in node.items}


def foresee(prospects: Iterable[Prospect]) -> dict[str, Before]:
    """Return, by the node's id, what can be told of its inputs now; of a part of a result nothing can."""
    known: dict[str, Foreseen] = {}
    before: dict[str, Before] = {}
    for prospect in prospects:
        node = prospect.node
        named = {name: known.get(step, Foreseen()) for item in node.items for name, step in item.references.items()}
        before[node.id] = Before(source=known.get(node.source or "", Foreseen()), named=named)
        last = node.items[-1]
        foreseen = last.step.foresee(last.options, before[node.id].source)
        known[node.id] = replace(foreseen, result=prospect.result, returns=last.step.returns)
    return before


@dataclass(frozen=True, kw_only=True)
class Surveyor:
    """Looks, without touching, at what a recipe needs: the journal, the store and the cloud."""

    recipe: Recipe
    target: Target
    journal: Journal
    store: FileStore

    def survey(self, pins: Mapping[str, Any]) -> tuple[Prospect, ...]:
        """Return the prospect of every node."""
        results: dict[str, AnyArtifact] = {}
        sizes: dict[str, int | None] = {}
        prospects = []
        for node in arrange(self.recipe):
            prospect = self.prospect(node, bind(node, results), pins)
            if prospect.result:
                results |= by_id(node, prospect.result)
            sizes[node.id] = self._size(prospect, sizes)
            prospects.append(replace(prospect, expected=sizes[node.id]))
        return tuple(prospects)

    def _size(self, prospect: Prospect, sizes: Mapping[str, int | None]) -> int | None:
        """Return the bytes of data that the node moves or moved: its own estimate, or those of what it is made from."""
        if isinstance(prospect.result, File | ImageFile | Bundle):
            return self.store.allocated(prospect.result)
        if Snapshot in prospect.node.items[0].step.accepts:
            return None  # registering moves none
        before = sizes.get(prospect.node.source) if prospect.node.source else None
        return prospect.expected or before

    def prospect(self, node: Node, inputs: Inputs | None, pins: Mapping[str, Any]) -> Prospect:
        """Return what will become of one node whose inputs (None: not made yet) are these."""
        calls = self._calls(node)
        expected = node.items[0].step.expect(node.items[0].options, pins.get(node.id) or {})
        if inputs is None:
            return Prospect(node=node, verdict="will run", why=f"after {node.source}", calls=calls, expected=expected)
        made_of = ingredients(self.recipe, node, inputs, pins, self.target)
        key = key_of(made_of)
        done = self._finished(node, key)
        if done:
            return Prospect(node=node, verdict="done", why="unchanged", key=key, result=done)
        verdict, why = self._outlook(node, key, inputs) or ("will run", self._why(node, key, made_of))
        return Prospect(node=node, verdict=verdict, why=why, key=key, expected=expected, calls=calls)

    def _calls(self, node: Node) -> tuple[Call, ...]:
        """Return every kind of call that the node may make; where RegisterImage takes no tags, they follow it."""
        calls = tuple(node.cloud_step.calls(node.items[0].options)) if node.cloud_step else ()
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
