"""What the journal says about a key and generation, one word at a time; journal.py has their order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.artifact import ARTIFACT, AnyArtifact


@dataclass(frozen=True, kw_only=True)
class Intent:
    """About to start."""

    at: float  # seconds since the epoch


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Something exists in a cloud by our doing: its id."""

    resource: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """Finished."""

    artifact: AnyArtifact


@dataclass(frozen=True, kw_only=True)
class Abandon:
    """Given up under this generation, and why; the next attempt claims under the next number."""

    why: str


Word = Intent | Effect | Result | Abandon


def body_of(word: Word) -> dict[str, Any]:
    """Return a word as the journal keeps it, as JSON values."""
    match word:
        case Intent(at=at):
            return {"at": at}
        case Effect(resource=resource):
            return {"resource": resource}
        case Result(artifact=artifact):
            return {"artifact": json.loads(artifact.model_dump_json())}
        case Abandon(why=why):
            return {"why": why}


def word_of(name: str, body: Mapping[str, Any]) -> Word:
    """Return the word of that name from what `body_of` returned."""
    match name:
        case "intent":
            return Intent(at=body["at"])
        case "effect":
            return Effect(resource=body["resource"])
        case "result":
            return Result(artifact=ARTIFACT.validate_python(body["artifact"]))
        case _:
            return Abandon(why=body["why"])
