"""A recipe, read and checked: what the planner works on. Frozen; holds no secret, no cloud id, no path but its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.recipe.problems import Problem
from pipelines.step import Options, Step

Value = str | int | bool


@dataclass(frozen=True, kw_only=True)
class StepItem:
    """One item of `steps`, ready to be planned."""

    id: str
    kind: str
    step: Step[Any]
    options: Options
    source: str | None  # id of the step whose result comes in, or ID.PART; None for a step that takes nothing
    references: Mapping[str, str]  # option -> ID or ID.PART of an earlier step; nested as `volumes[0].snapshot`
    line: int  # of the kind's key, counted from 1


@dataclass(frozen=True, kw_only=True)
class Output:
    """One named result: a step's whole artifact, or one field of it."""

    step: str
    field: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe without problems: every id unique, every reference bound to an earlier step of the right type."""

    path: Path
    name: str
    description: str
    variables: Mapping[str, Value]  # with the overrides applied; sizes in bytes
    steps: tuple[StepItem, ...]  # in the recipe's order, which is an order they can run in
    outputs: Mapping[str, Output]  # without `outputs` in the file: the last step, under its id
    warnings: tuple[Problem, ...] = ()

    def step(self, id: str) -> StepItem:  # noqa: A002
        """Return the step of that id. Raises KeyError."""
        for item in self.steps:
            if item.id == id:
                return item
        raise KeyError(id)
