"""How the steps of a recipe hang together, and on its leases. Pure: what is leased or done is asked elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from pipelines.artifact import TRANSIENT
from pipelines.lease import LeaseStep
from pipelines.recipe import Recipe, StepItem
from pipelines.recipe.parts import split
from pipelines.step import LocalStep


def references(item: StepItem) -> list[str]:
    """Return what the step takes, as ID or ID.PART, once for each use."""
    return [*([item.source] if item.source else []), *item.references.values()]


def needs(item: StepItem) -> list[str]:
    """Return the ids of the steps whose results the step takes, once for each use."""
    return [split(reference)[0] for reference in references(item)]


@dataclass(frozen=True, kw_only=True)
class Ties:
    """What hangs on what.

    `within` has, for each step whose result passes, the leases in which that result lies: a lease's is itself.
    `upon` has, for each lease, those that it was leased upon, and those that they were: a volume's helper.
    """

    items: Mapping[str, StepItem]  # in the recipe's order
    within: Mapping[str, frozenset[str]]
    upon: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Return the ties of a recipe."""
        items = {item.id: item for item in recipe.steps}
        within: dict[str, frozenset[str]] = {}
        upon: dict[str, frozenset[str]] = {}
        for item in recipe.steps:
            taken = needs(item)
            if isinstance(item.step, LeaseStep):
                within[item.id] = frozenset({item.id})
                upon[item.id] = frozenset(each for id_ in taken if id_ in upon for each in (id_, *upon[id_]))
            elif item.step.returns in TRANSIENT:
                alike = (id_ for id_ in taken if items[id_].step.returns is item.step.returns)
                within[item.id] = frozenset(lease for id_ in alike for lease in within[id_])
        return cls(items=items, within=within, upon=upon)

    @property
    def leases(self) -> list[str]:
        """The ids of the leases, in the recipe's order."""
        return list(self.upon)

    def passing(self, id_: str) -> list[str]:
        """Return the steps that the step takes from whose results pass, but which are no leases."""
        return [
            taken
            for taken in dict.fromkeys(needs(self.items[id_]))
            if self.within.get(taken) and taken not in self.upon
        ]

    def used(self, id_: str, spent: Callable[[str], bool]) -> frozenset[str]:
        """Return the leases that the step needs to run, with what must be made again because it is `spent`.

        What a local step takes is in use: a volume is attached, so what it was leased upon is needed too. A cloud step
        takes a volume as it is.
        """
        item = self.items[id_]
        works = isinstance(item.step, LocalStep)
        direct = {taken for taken in needs(item) if taken in self.upon}
        found = direct | {each for lease in direct for each in self.upon[lease]}
        for taken in self.passing(id_):
            found |= self.within[taken]
            found |= {each for lease in self.within[taken] for each in self.upon[lease]} if works else set()
            found |= self.used(taken, spent) if spent(taken) else set()
        return frozenset(found)
