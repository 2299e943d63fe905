"""What a person asks to be run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import UsageError
from pipelines.journal import Run


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked for; equal requests continue each other's unfinished runs."""

    recipe: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    cloud: str
    mirrors: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the request with the recipe's digest, as the journal keeps it."""
        return {
            "recipe": str(self.recipe.resolve()),
            "sha256": hashlib.sha256(self.recipe.read_bytes()).hexdigest(),
            "variables": dict(self.variables),
            "cloud": self.cloud,
            "mirrors": [list(pair) for pair in self.mirrors],
        }

    @classmethod
    def of_run(cls, run: Run) -> Request:
        """Return what a run was asked for. Raises UsageError when its recipe is gone or changed."""
        asked = run.request
        recipe = Path(asked["recipe"])
        request = cls(
            recipe=recipe,
            variables=asked["variables"],
            cloud=asked["cloud"],
            mirrors=tuple((prefix, instead) for prefix, instead in asked["mirrors"]),
        )
        if not recipe.is_file() or request.to_json()["sha256"] != asked["sha256"]:
            raise UsageError(
                f"{recipe} is not the recipe any more that run {run.run} began with",
                hint=f"`emi run {recipe}` starts a new run; finished steps that did not change are not repeated.",
            )
        return request
