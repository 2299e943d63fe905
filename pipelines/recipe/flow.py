"""How results flow between steps: ids, sources, references, their types, and the recipe's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.kinds import Kinds
from pipelines.recipe.model import Output
from pipelines.recipe.nodes import MapNode, Node, noun
from pipelines.recipe.options import Given, as_text
from pipelines.recipe.problems import any_of, closest, quoted
from pipelines.recipe.shape import Referred, dotted
from pipelines.recipe.source import Findings, Span
from pipelines.step import AnyArtifact, Options, Step


@dataclass(frozen=True, kw_only=True)
class Named:
    """An id of another step, and where it is written."""

    id: str
    at: Span


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One item of `steps` before its references are bound."""

    id: str
    kind: str  # empty when the item names none
    where: str  # steps[2]
    key: Span
    step: Step[Any] | None  # None for a kind that does not exist
    given: Given | None
    options: Options | None  # None when they have problems
    source: Named | None  # `from`
    references: Sequence[Referred] = ()


class Flow:
    """Binds each step to the earlier ones it uses."""

    def __init__(self, drafts: Sequence[Draft], kinds: Kinds, findings: Findings) -> None:
        self._drafts = drafts
        self._kinds = kinds
        self._findings = findings
        self._used: set[str] = set()

    def bind(self) -> dict[str, str | None]:
        """Return the source of each step by id; report what dangles or does not fit."""
        sources: dict[str, str | None] = {}
        for index, draft in enumerate(self._drafts):
            source = self._source(index, draft)
            sources[draft.id] = source.id if source else None
            for reference in draft.references:
                self._reference(index, draft, reference)
        return sources

    def _source(self, index: int, draft: Draft) -> Draft | None:
        takes = draft.step.accepts if draft.step else (object,)
        if not takes:
            if draft.source:
                message = f"step `{draft.kind}` takes no input; remove `from`"
                self._findings.add(draft.source.at, message, where=f"{draft.where}.from")
            return None
        if draft.source:
            source = self._earlier(index, draft.source, f"{draft.where}.from")
        elif index:
            source = self._drafts[index - 1]
        else:
            source = None
            if draft.step:
                self._refuse_first(draft, draft.step)
        if source:
            self._used.add(source.id)
            if draft.step and source.step and not issubclass(source.step.returns, draft.step.accepts):
                self._refuse_source(draft, draft.step, source, source.step.returns)
        return source

    def _reference(self, index: int, draft: Draft, reference: Referred) -> None:
        assert draft.given
        where = draft.given.at(reference.path)
        at = draft.given.find(reference.path).span
        target = self._earlier(index, Named(id=reference.id, at=at), where)
        if target is None:
            return
        self._used.add(target.id)
        if target.step and not issubclass(target.step.returns, reference.mark.to):
            message = (
                f"`{dotted(reference.path)}` of step `{draft.kind}` takes {reference.mark.to.noun}, "
                f"but `{target.id}` gives {target.step.returns.noun}"
            )
            self._findings.add(at, message, where=where)

    def _earlier(self, index: int, named: Named, where: str) -> Draft | None:
        for draft in self._drafts[:index]:
            if draft.id == named.id:
                return draft
        ids = [draft.id for draft in self._drafts]
        if named.id in ids:
            place = ids.index(named.id)
            message = (
                f"step `{named.id}` comes later, in line {self._drafts[place].key.line + 1}; a step uses earlier ones"
            )
            message = f"step `{named.id}` cannot use its own result" if place == index else message
            self._findings.add(named.at, message, where=where)
        else:
            near = closest(named.id, ids[:index])
            self._findings.add(named.at, f"there is no step {quoted(named.id)}", where=where, suggestion=near)
        return None

    def _refuse_first(self, draft: Draft, step: Step[Any]) -> None:
        makers = [
            f"`{name}`" for name, kind in self._all() if not kind.accepts and issubclass(kind.returns, step.accepts)
        ]
        advice = f"; begin with {any_of(makers)}" if makers else ""
        message = f"step `{draft.kind}` takes {_nouns(step)}, but no step comes before it{advice}"
        self._findings.add(draft.key, message, where=draft.where)

    def _refuse_source(self, draft: Draft, step: Step[Any], source: Draft, gives: type[AnyArtifact]) -> None:
        between = [
            f"a `{name}` step"
            for name, kind in self._all()
            if issubclass(gives, kind.accepts) and issubclass(kind.returns, step.accepts) and name != draft.kind
        ]
        advice = f"; add {any_of(between)} between" if between else ""
        message = f"step `{draft.kind}` takes {_nouns(step)}, but `{source.id}` gives {gives.noun}{advice}"
        at = draft.source.at if draft.source else draft.key
        self._findings.add(at, message, where=draft.where)

    def _all(self) -> list[tuple[str, Step[Any]]]:
        return [(name, self._kinds.load(name)) for name in self._kinds.names()]

    def outputs(self, node: Node | None) -> Mapping[str, Output]:
        """Return `outputs`, by default the last step; report names and fields that do not exist."""
        if node is None:
            last = self._drafts[-1].id
            self._used.add(last)
            return {last: Output(step=last)}
        if not isinstance(node, MapNode) or not node.entries:
            message = f"`outputs` takes a mapping of names to step ids, not {noun(node)}"
            self._findings.add(node.span, message, where="outputs")
            return {}
        found = {name: self._output(f"outputs.{name}", entry.value) for name, entry in node.entries.items()}
        return {name: output for name, output in found.items() if output}

    def _output(self, where: str, node: Node) -> Output | None:
        text = as_text(node)
        if text is None:
            message = f"an output is the id of a step, or ID.FIELD for a part of its result, not {noun(node)}"
            self._findings.add(node.span, message, where=where)
            return None
        id_, dot, field = text.partition(".")
        draft = self._earlier(len(self._drafts), Named(id=id_, at=node.span), where)
        if draft is None:
            return None
        self._used.add(id_)
        fields = [name for name in draft.step.returns.model_fields if name != "kind"] if draft.step else []
        if dot and draft.step and field not in fields:
            message = f"{draft.step.returns.noun} has no field {quoted(field)}"
            near = closest(field, fields)
            if near is None:
                message += f"; it has {any_of((f'`{name}`' for name in fields), 'and')}"
            self._findings.add(node.span, message, where=where, suggestion=near and f"{id_}.{near}")
        return Output(step=id_, field=field if dot else None)

    def warn_unused(self) -> None:
        """Warn of every step whose result nothing uses; the last one may stand for itself."""
        for draft in self._drafts[:-1]:
            if draft.id not in self._used:
                self._findings.warn(draft.key, f"nothing uses the result of step `{draft.id}`", where=draft.where)


def _nouns(step: Step[Any]) -> str:
    return any_of(accepted.noun for accepted in step.accepts)
