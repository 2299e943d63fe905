"""How results flow between steps: ids, sources, references, their types, and the recipe's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.artifact import AnyArtifact, ImageFile
from pipelines.kinds import Kinds
from pipelines.lease import LeaseStep
from pipelines.recipe.model import Output
from pipelines.recipe.nodes import MapNode, Node, noun
from pipelines.recipe.options import Given, as_text
from pipelines.recipe.parts import PARTS, split
from pipelines.recipe.problems import any_of, closest, quoted
from pipelines.recipe.shape import Referred, dotted
from pipelines.recipe.source import Findings, Span
from pipelines.step import GuestStep, Options, Step


@dataclass(frozen=True, kw_only=True)
class Named:
    """An id of another step, or ID.PART for a file beside its image, and where it is written."""

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


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """What a step takes of an earlier one."""

    name: str  # as the recipe writes it: ID or ID.PART
    draft: Draft
    gives: type[AnyArtifact] | None  # None when it cannot be told


class Flow:
    """Binds each step to the earlier ones it uses."""

    def __init__(self, drafts: Sequence[Draft], kinds: Kinds, findings: Findings) -> None:
        self._drafts = drafts
        self._kinds = kinds
        self._findings = findings
        self._used: set[str] = set()
        self._sources: dict[str, _Taken | None] = {}

    def bind(self) -> dict[str, str | None]:
        """Return the source of each step by id, as ID or ID.PART; report what dangles or does not fit."""
        for index, draft in enumerate(self._drafts):
            self._sources[draft.id] = self._source(index, draft)
            for reference in draft.references:
                self._reference(index, draft, reference)
            self._warn_stale(draft)
        return {id_: taken.name if taken else None for id_, taken in self._sources.items()}

    def _source(self, index: int, draft: Draft) -> _Taken | None:
        takes = draft.step.accepts if draft.step else (object,)
        if not takes:
            if draft.source:
                message = f"step `{draft.kind}` takes no input; remove `from`"
                self._findings.add(draft.source.at, message, where=f"{draft.where}.from")
            return None
        if draft.source:
            source = self._take(index, draft.source, f"{draft.where}.from")
        elif index:
            source = _whole(self._before(index, takes))
        else:
            source = None
            if draft.step:
                self._refuse_first(draft, draft.step)
        if source:
            self._used.add(source.draft.id)
            if draft.step and source.gives and not issubclass(source.gives, draft.step.accepts):
                self._refuse_source(draft, draft.step, source.name, source.gives)
        return source

    def _before(self, index: int, takes: tuple[type, ...]) -> Draft:
        """Return the step whose result comes in: the one before; but a lease only where it is just what is taken."""
        for draft in reversed(self._drafts[:index]):
            if not isinstance(draft.step, LeaseStep) or issubclass(draft.step.returns, takes):
                return draft
        return self._drafts[index - 1]

    def _reference(self, index: int, draft: Draft, reference: Referred) -> None:
        assert draft.given
        where = draft.given.at(reference.path)
        at = draft.given.find(reference.path).span
        target = self._take(index, Named(id=reference.id, at=at), where)
        if target is None:
            return
        self._used.add(target.draft.id)
        if target.gives and not issubclass(target.gives, reference.mark.to):
            message = (
                f"`{dotted(reference.path)}` of step `{draft.kind}` takes {reference.mark.noun}, "
                f"but `{target.name}` gives {target.gives.noun}"
            )
            self._findings.add(at, message, where=where)

    def _take(self, index: int, named: Named, where: str) -> _Taken | None:
        """Return what is named of the steps before that index; report a name that leads to nothing."""
        _, part = split(named.id)
        draft = self._earlier(index, named, where)
        if draft is None:
            return None
        if part is None:
            return _whole(draft)
        if part not in PARTS:
            near = closest(part, PARTS)
            rest = "" if near else f"; there are {any_of((f'`{name}`' for name in PARTS), 'and')}"
            message = f"no step's result has a part {quoted(part)}{rest}"
            self._findings.add(named.at, message, where=where, suggestion=near and f"{draft.id}.{near}")
            return None
        if not self._may_have(draft, part):
            self._refuse_part(index, draft, part, named.at, where)
            return None
        return _Taken(name=named.id, draft=draft, gives=PARTS[part])

    def _may_have(self, draft: Draft, part: str) -> bool:
        """Say whether the step's image may have that file beside it: some guest step on the way copied one out."""
        return any(each.step is None or part in _copied(each.step) for each in self._way(draft))

    def _way(self, draft: Draft) -> Iterator[Draft]:
        """Yield the steps that handed the image on with what is beside it: the step itself, then those before it."""
        here: Draft | None = draft
        while here:
            yield here
            source = self._sources.get(here.id)
            keeps = here.step is None or here.step.hands_on or isinstance(here.step, GuestStep)
            here = source.draft if keeps and source and "." not in source.name else None

    def _refuse_part(self, index: int, draft: Draft, part: str, at: Span, where: str) -> None:
        others = (each for each in reversed(self._drafts[:index]) if each.step and self._may_have(each, part))
        near = next((f"{each.id}.{part}" for each in others), None)
        makers = [f"`{name}`" for name, kind in self._all() if part in _copied(kind)]
        message = f"`{draft.id}` has no {part} beside its image: no {any_of(makers or ['such'])} step led to it"
        if draft.step and draft.step.returns is not ImageFile:
            message = f"`{draft.id}` gives {draft.step.returns.noun}, which has no {part}"
        self._findings.add(at, message, where=where, suggestion=near)

    def _earlier(self, index: int, named: Named, where: str) -> Draft | None:
        id_, part = split(named.id)
        for draft in self._drafts[:index]:
            if draft.id == id_:
                return draft
        ids = [draft.id for draft in self._drafts]
        if id_ in ids:
            place = ids.index(id_)
            message = f"step `{id_}` comes later, in line {self._drafts[place].key.line + 1}; a step uses earlier ones"
            message = f"step `{id_}` cannot use its own result" if place == index else message
            self._findings.add(named.at, message, where=where)
        else:
            near = closest(id_, ids[:index])
            near = f"{near}.{part}" if near and part else near
            self._findings.add(named.at, f"there is no step {quoted(id_)}", where=where, suggestion=near)
        return None

    def _refuse_first(self, draft: Draft, step: Step[Any]) -> None:
        makers = [
            f"`{name}`" for name, kind in self._all() if not kind.accepts and issubclass(kind.returns, step.accepts)
        ]
        advice = f"; begin with {any_of(makers)}" if makers else ""
        message = f"step `{draft.kind}` takes {_nouns(step)}, but no step comes before it{advice}"
        self._findings.add(draft.key, message, where=draft.where)

    def _refuse_source(self, draft: Draft, step: Step[Any], source: str, gives: type[AnyArtifact]) -> None:
        between = [
            f"a `{name}` step"
            for name, kind in self._all()
            if issubclass(gives, kind.accepts) and issubclass(kind.returns, step.accepts) and name != draft.kind
            if not isinstance(kind, GuestStep)  # which changes what is inside, and makes an image of a file by the way
        ]
        advice = f"; add {any_of(between)} between" if between else ""
        message = f"step `{draft.kind}` takes {_nouns(step)}, but `{source}` gives {gives.noun}{advice}"
        at = draft.source.at if draft.source else draft.key
        self._findings.add(at, message, where=draft.where)

    def _all(self) -> list[tuple[str, Step[Any]]]:
        return [(name, self._kinds.load(name)) for name in self._kinds.names()]

    def outputs(self, node: Node | None) -> Mapping[str, Output]:
        """Return `outputs`, by default the last step; report names and fields that do not exist."""
        if node is None:
            lasting = [draft for draft in self._drafts if not isinstance(draft.step, LeaseStep)]
            if not lasting:
                self._findings.add(self._drafts[-1].key, "nothing uses what the recipe leases", where="steps")
                return {}
            self._used.add(lasting[-1].id)
            return {lasting[-1].id: Output(step=lasting[-1].id)}
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
        id_, field = split(text)
        end = len(self._drafts)
        draft = self._earlier(end, Named(id=id_, at=node.span), where)
        if draft is None:
            return None
        self._used.add(id_)
        if isinstance(draft.step, LeaseStep):
            message = f"{draft.step.returns.noun} is leased for the run, and no output: it is gone when the run ends"
            self._findings.add(node.span, message, where=where)
            return None
        fields = [name for name in draft.step.returns.model_fields if name != "kind"] if draft.step else []
        if field in PARTS and field in fields:
            if not self._may_have(draft, field):
                self._refuse_part(end, draft, field, node.span, where)
        elif field is not None and draft.step and field not in fields:
            message = f"{draft.step.returns.noun} has no field {quoted(field)}"
            near = closest(field, fields)
            if near is None:
                message += f"; it has {any_of((f'`{name}`' for name in fields), 'and')}"
            self._findings.add(node.span, message, where=where, suggestion=near and f"{id_}.{near}")
        return Output(step=id_, field=field)

    def _warn_stale(self, draft: Draft) -> None:
        """Warn of a step that may change the kernel after it was copied out."""
        if not isinstance(draft.step, GuestStep) or not draft.step.may_change_kernel:
            return
        before = (each for each in self._way(draft) if each.step and _copied(each.step))
        if earlier := next(before, None):
            message = (
                f"step `{draft.kind}` may change the guest's kernel or its initramfs after `{earlier.id}` copied them "
                f"out; put it before `{earlier.id}`"
            )
            self._findings.warn(draft.key, message, where=draft.where)

    def warn_unused(self) -> None:
        """Warn of every step whose result nothing uses; the last one may stand for itself."""
        for draft in self._drafts[:-1]:
            if draft.id not in self._used:
                self._findings.warn(draft.key, f"nothing uses the result of step `{draft.id}`", where=draft.where)


def _whole(draft: Draft) -> _Taken:
    return _Taken(name=draft.id, draft=draft, gives=draft.step.returns if draft.step else None)


def _copied(step: Step[Any]) -> tuple[str, ...]:
    """Return the parts that a step puts beside its image."""
    return step.copies_out if isinstance(step, GuestStep) else ()


def _nouns(step: Step[Any]) -> str:
    return any_of(accepted.noun for accepted in step.accepts)
