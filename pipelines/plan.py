"""A recipe becomes a plan: nodes in order, neighbouring guest steps fused, and for each whether it must run and why.

Pure but for what it reads through the journal, the store and the cloud; it changes nothing anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from builder.cloud.api import Call
from builder.cloud.claims import RECIPE_TAG
from pipelines.artifact import (
    TRANSIENT,
    AnyArtifact,
)
from pipelines.lease import LeaseStep
from pipelines.recipe import Recipe, StepItem
from pipelines.recipe.parts import PARTS, pick, split
from pipelines.step import Before, CloudStep, Foreseen, GuestStep, Inputs
from pipelines.targets import Target
from pipelines.ties import Ties, needs, references

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

    @property
    def lease(self) -> LeaseStep[Any] | None:
        """Its step, when that is a lease."""
        step = self.items[0].step
        return step if isinstance(step, LeaseStep) else None


@dataclass(frozen=True, kw_only=True)
class Promised:
    """What stands for a lease among the results, before it is known whether anybody needs it."""

    id: str
    noun: str
    key: str

    def identity(self) -> dict[str, Any]:
        """Return what of it counts in the keys of the steps that take it: nothing that could differ."""
        return {"kind": self.noun}


Standing = AnyArtifact | Promised  # what there is, or stands, for the result of a step


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a node takes, as Inputs has it, with what is only promised."""

    source: Standing | None
    named: Mapping[str, Standing]

    def there(self) -> Inputs:
        """Return it without what is only promised."""
        source = None if isinstance(self.source, Promised) else self.source
        return Inputs(source=source, named={name: a for name, a in self.named.items() if not isinstance(a, Promised)})


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """What will become of a node. `expected` in bytes, None when unknown.

    `verdict` is done, will run or will adopt; of a lease will lease, will adopt or not needed. The last is also that of
    a step whose result has passed with its lease (`result` is what it was), while nothing that will run asks for it.
    """

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
    takes = [split(reference) for item in recipe.steps for reference in references(item)]
    takes += [(output.step, output.field if output.field in PARTS else None) for output in recipe.outputs.values()]
    users = Counter(id_ for id_, part in takes if part is None)
    copies_used = {id_ for id_, part in takes if part}
    nodes: list[Node] = []
    for item in recipe.steps:
        index = next((at for at in reversed(range(len(nodes))) if not nodes[at].lease), None)
        before = nodes[index] if index is not None else None
        if before and item.source == before.id and users[before.id] == 1 and _joins(item, before, copies_used):
            nodes[nodes.index(before)] = Node(items=(*before.items, item))
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


def labels(recipe: Recipe) -> dict[str, str]:
    """Return the tags of whatever a run of the recipe makes in a cloud; part of the key, since a claim's call repeats
    them to the letter.
    """
    return {RECIPE_TAG: recipe.name}


def _steps(items: Iterable[StepItem], pins: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "kind": item.kind,
            "revision": item.step.revision,
            "options": item.options.model_dump(mode="json"),
            "pins": pins.get(item.id) or {},
        }
        for item in items
    ]


def lease_key(recipe: Recipe, item: StepItem, pins: Mapping[str, Any], target: Target) -> str:
    """Return the key of a lease: it is of one step of one recipe, and nothing that other steps make is in it."""
    made_of = {"lease": item.id, "steps": _steps([item], pins), "target": target.identity, "labels": labels(recipe)}
    return key_of(made_of)


def ingredients(recipe: Recipe, node: Node, inputs: Bound, pins: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Return, as JSON values, everything that decides the node's result.

    What lies in a lease has the lease's key in its own, as has what depends on what the helper is: a later write is
    into the same volume or another result. What goes on from there has neither: only what was written counts.
    """
    made_of: dict[str, Any] = {
        "steps": _steps(node.items, pins),
        "inputs": {
            name: artifact.identity()
            for name, artifact in {"source": inputs.source, **inputs.named}.items()
            if artifact
        },
    }
    if node.cloud_step:
        made_of |= {"target": target.identity, "labels": labels(recipe)}
    step = node.items[0].step
    if step.helper_matters or step.returns in TRANSIENT:
        ties = Ties.of(recipe)
        leases = ties.used(node.id, spent=lambda _: False) if step.helper_matters else ties.within[node.id]
        made_of["leases"] = [lease_key(recipe, ties.items[lease], pins, target) for lease in sorted(leases)]
    return made_of


def key_of(made_of: Mapping[str, Any]) -> str:
    """Return the key: SHA-256 (hex) of the ingredients in canonical JSON."""
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def bind(node: Node, results: Mapping[str, Standing]) -> Bound | None:
    """Return what the node takes, or None while one of them does not exist yet. Raises InputError (see `pick`)."""
    needed = {need for item in node.items for need in needs(item)} - {item.id for item in node.items}
    if not needed <= results.keys():
        return None
    named = {name: pick(step, results) for item in node.items for name, step in item.references.items()}
    return Bound(source=pick(node.source, results) if node.source else None, named=named)


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
