"""Shorthands: the steps that such a step stands for take its place, before anything is bound to anything.

From here on nothing knows of shorthands: each of the steps has its own key, its own words in the journal and its own
line in a plan. Every one of them points to the shorthand's line of the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.kinds import Kinds
from pipelines.recipe.flow import Draft, Named
from pipelines.recipe.options import Given, validate
from pipelines.recipe.shape import references
from pipelines.recipe.source import Findings, Span
from pipelines.step import Meant, Shorthand, its


def expand(drafts: Sequence[Draft], kinds: Kinds, findings: Findings) -> list[Draft]:
    """Return the drafts with every shorthand that is without problems replaced by what it stands for.

    A shorthand's id is that of its last step; the others have it with a name behind it, `install-kernel`. An id that
    another step of the recipe has already is reported.
    """
    taken = {draft.id: draft.key for draft in drafts}
    made: list[Draft] = []
    for index, draft in enumerate(drafts):
        before = drafts[index - 1].id if index else None
        source = draft.source.id if draft.source else before
        if isinstance(draft.step, Shorthand) and draft.options is not None and source is not None:
            made += _Expansion(draft, draft.step, source, kinds, findings, taken).drafts()
        else:
            made.append(draft)
    return made


class _Expansion:
    def __init__(
        self,
        short: Draft,
        step: Shorthand[Any],
        source: str,
        kinds: Kinds,
        findings: Findings,
        taken: Mapping[str, Span],
    ) -> None:
        self._short = short
        self._means = step.stands_for(short.options, source)
        self._kinds = kinds
        self._findings = findings
        self._taken = taken
        self._ids = {its(meant.name): self._id(meant) for meant in self._means}

    def drafts(self) -> Iterator[Draft]:
        for number, meant in enumerate(self._means):
            yield self._draft(meant, f"{self._short.where}.{number}")

    def _id(self, meant: Meant) -> str:
        id_ = "-".join(filter(None, (self._short.id, meant.name)))
        if meant.name and id_ in self._taken:
            line = self._taken[id_].line + 1
            message = f"`{self._short.kind}` makes a step `{id_}`, but that in line {line} has this id; give it another"
            self._findings.add(self._short.key, message, where=self._short.where)
        return id_

    def _draft(self, meant: Meant, where: str) -> Draft:
        assert self._short.given
        step = self._kinds.load(meant.kind)
        options = self._named(meant.options)
        given = replace(self._short.given, kind=meant.kind, value=options)
        return Draft(
            id=self._ids[its(meant.name)],
            kind=meant.kind,
            where=where,
            key=self._short.key,
            step=step,
            given=given,
            options=validate(step, given, self._findings),
            source=self._source(meant, given),
            references=references(step.options, options),
        )

    def _named(self, value: Any) -> Any:
        """Return options with the names of the shorthand's own steps in the place of marks."""
        match value:
            case str():
                return self._ids.get(value, value)
            case Mapping():
                return {key: self._named(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self._named(inner) for inner in value]
            case _:
                return value

    def _source(self, meant: Meant, given: Given) -> Named:
        """Return what the step takes, with the place where the recipe's author wrote it, if it is an option."""
        name = self._ids.get(meant.source, meant.source)
        if self._short.source and self._short.source.id == name:
            return self._short.source
        written = (key for key, value in self._short.given.value.items() if value == name) if self._short.given else ()
        at = next((given.find((key,)).span for key in written), self._short.key)
        return Named(id=name, at=at)
