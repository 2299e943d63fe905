"""The items of `steps`: one key for the kind, and `id` and `from` beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipelines.kinds import Kinds
from pipelines.recipe import grammar
from pipelines.recipe.flow import Draft, Named
from pipelines.recipe.nodes import Entry, ListNode, MapNode, Node, ScalarNode, is_null, noun
from pipelines.recipe.options import Given, as_text, validate
from pipelines.recipe.problems import any_of, closest, quoted
from pipelines.recipe.shape import references
from pipelines.recipe.source import Findings, Span
from pipelines.recipe.variables import Variables


class Items:
    """Reads the items of one recipe."""

    def __init__(self, node: ListNode, variables: Variables, kinds: Kinds, findings: Findings) -> None:
        self._node = node
        self._variables = variables
        self._kinds = kinds
        self._known = kinds.names()
        self._findings = findings
        self._taken: dict[str, Span] = {}

    def drafts(self) -> list[Draft]:
        """Return a draft for each item, so that a broken one does not change what comes before the next."""
        items = [(f"steps[{index}]", item) for index, item in enumerate(self._node.items)]
        explicit = [self._id(item, where) for where, item in items]
        drafts = []
        for index, (where, item) in enumerate(items):
            found = self._kind(item, where)
            if found is None:
                drafts.append(_broken(f"#{index}", where, item))
            else:
                drafts.append(self._draft(explicit[index] or self._default_id(found[0]), where, item, found))
        return drafts

    def _draft(self, id_: str, where: str, item: Node, found: tuple[str, Entry]) -> Draft:
        kind, entry = found
        step = self._kinds.load(kind) if kind in self._known else None
        value = self._variables.insert(entry.value, f"{where}.{kind}")
        options = value if isinstance(value, dict) else {}
        given = Given(kind=kind, key=entry.key, node=entry.value, value=options, where=f"{where}.{kind}")
        return Draft(
            id=id_,
            kind=kind,
            where=where,
            key=entry.key,
            step=step,
            given=given,
            options=validate(step, given, self._findings) if step else None,
            source=self._from(item, where),
            references=references(step.options, options) if step else (),
        )

    def _id(self, item: Node, where: str) -> str | None:
        """Return the `id` beside the kind, if it is there and good."""
        entry = item.entries.get("id") if isinstance(item, MapNode) else None
        if entry is None:
            return None
        text = as_text(entry.value)
        if text is None or not re.fullmatch(grammar.ID, text):
            shown = quoted(entry.value.text) if isinstance(entry.value, ScalarNode) else noun(entry.value)
            message = f"{shown} cannot be an id; use up to 64 letters, digits, `_` and `-`"
            self._findings.add(entry.value.span, message, where=f"{where}.id")
            return None
        if text in self._taken:
            message = f"the id {quoted(text)} is given twice; the first is in line {self._taken[text].line + 1}"
            self._findings.add(entry.value.span, message, where=f"{where}.id")
            return None
        self._taken[text] = entry.value.span
        return text

    def _default_id(self, kind: str) -> str:
        id_, number = kind, 1
        while id_ in self._taken:
            number += 1
            id_ = f"{kind}-{number}"
        self._taken[id_] = self._node.span
        return id_

    def _from(self, item: Node, where: str) -> Named | None:
        node = item.get("from") if isinstance(item, MapNode) else None
        if node is None:
            return None
        text = as_text(node)
        if text is None:
            message = f"`from` takes the id of an earlier step, not {noun(node)}"
            self._findings.add(node.span, message, where=f"{where}.from")
            return None
        return Named(id=text, at=node.span)

    def _kind(self, item: Node, where: str) -> tuple[str, Entry] | None:
        """Return the item's one kind with its options; report an item that has none or several."""
        if not isinstance(item, MapNode):
            colon = isinstance(item, ScalarNode) and item.text in self._known
            advice = f"write `{item.text}:` with a colon" if colon and isinstance(item, ScalarNode) else _form()
            self._findings.add(item.span, f"a step is a mapping, not {noun(item)}; {advice}", where=where)
            return None
        kinds = [key for key in item.entries if key not in grammar.BESIDE]
        if not kinds:
            self._findings.add(item.span, f"this step has no kind; {_form()}", where=where)
            return None
        kind = next((key for key in kinds if key in self._known), kinds[0])
        self._refuse_others(kind, [key for key in kinds if key != kind], item, where)
        if kind not in self._known:
            near = closest(kind, self._known)
            rest = "" if near else f"; there are {any_of((f'`{name}`' for name in self._known), 'and')}"
            message = f"unknown step {quoted(kind)}{rest}"
            self._findings.add(item.entries[kind].key, message, where=where, suggestion=near)
        return kind, item.entries[kind]

    def _refuse_others(self, kind: str, others: Sequence[str], item: MapNode, where: str) -> None:
        for other in others:
            if other in self._known:
                message = f"a step is either `{kind}` or `{other}`; begin the second with its own `- `"
            elif is_null(item.entries[kind].value):
                message = f"{quoted(other)} stands beside `{kind}`; to be its option it must be indented further"
                self._findings.spoil(item.entries[kind].value.span)
            else:
                message = f"{quoted(other)} cannot stand beside `{kind}`; only `id` and `from` can"
            self._findings.add(item.entries[other].key, message, where=f"{where}.{other}")


def _form() -> str:
    return "write `- KIND: {…}`, with `id` and `from` beside the kind if needed"


def _broken(id_: str, where: str, item: Node) -> Draft:
    return Draft(id=id_, kind="", where=where, key=item.span, step=None, given=None, options=None, source=None)
