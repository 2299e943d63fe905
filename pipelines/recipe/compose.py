"""YAML text to a tree of nodes, with what is dangerous or ambiguous in YAML refused.

Works on the parser's events, one by one, so that a hostile file is left as soon as it passes a limit: nothing is built
from an alias but a second reference to the same node, and nothing recurses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from pipelines.recipe.nodes import Entry, ListNode, MapNode, Node, Plain, ScalarNode
from pipelines.recipe.problems import closest, quoted
from pipelines.recipe.scalars import Ambiguous, resolve
from pipelines.recipe.source import Findings, Source, Span
from pipelines.recipe.syntax import say_syntax

DEPTH = 40
VALUES = 10_000
_LONG = 256  # characters of a text that count as one value more


@dataclass(kw_only=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    start: yaml.Event
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    key: ScalarNode | None = None
    weight: int = 1


class _Stop(Exception):
    """The rest of the document is not worth reading."""


def compose(source: Source, findings: Findings) -> Node | None:
    """Return the document's tree; None when it is empty or the problems reported leave nothing to go on with."""
    composer = _Composer(source, findings)
    try:
        for event in yaml.parse(source.text, Loader=yaml.CSafeLoader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        say_syntax(error, source, findings)
        return None
    except yaml.YAMLError as error:
        findings.add(source.span(0), f"is not YAML: {error}")
        return None
    except _Stop:
        return None
    return composer.root


class _Composer:
    def __init__(self, source: Source, findings: Findings) -> None:
        self.root: Node | None = None
        self._source = source
        self._findings = findings
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._weight = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._refuse_tag(event.tag, event)
                self._finish(self._scalar(event), event.anchor)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._begin(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._end(event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent() if self.root is not None:
                self._stop(event, "a second document begins here; a recipe is one document")

    def _scalar(self, event: yaml.ScalarEvent) -> ScalarNode:
        span = _span(event)
        plain = not event.style
        is_key = (
            bool(self._open) and isinstance(self._open[-1].start, yaml.MappingStartEvent) and not self._open[-1].key
        )
        value: Plain = event.value
        if plain and not is_key:
            try:
                value = resolve(event.value)
            except Ambiguous as doubt:
                self._findings.add(span, str(doubt))
                self._findings.spoil(span)
        weight = 1 + len(event.value) // _LONG
        return ScalarNode(span=span, weight=weight, text=event.value, value=value, quoted=not plain)

    def _begin(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        self._refuse_tag(event.tag, event)
        if len(self._open) == DEPTH:
            self._stop(event, f"is nested more than {DEPTH} levels deep")
        self._open.append(_Open(start=event))

    def _end(self, event: yaml.Event) -> None:
        done = self._open.pop()
        first = _span(done.start)
        match done.start:
            case yaml.MappingStartEvent(flow_style=flow):
                end = _span(event).end if flow else first.end
                span = Span(first.line, first.column, first.start, max(end, first.start + 1))
                node: Node = MapNode(span=span, weight=done.weight, entries=done.entries, flow=bool(flow))
            case _:
                node = ListNode(span=first, weight=done.weight, items=tuple(done.items))
        self._finish(node, getattr(done.start, "anchor", None))

    def _finish(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        self._count(node.weight if isinstance(node, ScalarNode) else 1, node.span)
        self._attach(node, node.span)

    def _alias(self, event: yaml.AliasEvent) -> None:
        name = event.anchor or ""
        if any(getattr(outer.start, "anchor", None) == name for outer in self._open):
            self._stop(event, f"`*{name}` stands inside `&{name}`, so it would hold itself")
        if name not in self._anchors:
            near = closest(name, self._anchors)
            self._stop(event, f"there is no `&{name}` before this line", suggestion=near and f"*{near}")
        node = self._anchors[name]
        self._count(node.weight, _span(event))
        self._attach(node, _span(event))

    def _count(self, weight: int, span: Span) -> None:
        self._weight += weight
        if self._weight > VALUES:
            cause = "with its anchors written out, " if self._anchors else ""
            self._findings.add(span, f"{cause}the recipe holds more than {VALUES} values, the limit")
            raise _Stop

    def _attach(self, node: Node, span: Span) -> None:
        if not self._open:
            self.root = node
            return
        outer = self._open[-1]
        outer.weight += node.weight
        if isinstance(outer.start, yaml.SequenceStartEvent):
            outer.items.append(node)
        elif outer.key is None:
            outer.key = self._key(node, span)
        else:
            self._put(outer, outer.key, node)
            outer.key = None

    def _key(self, node: Node, span: Span) -> ScalarNode:
        if isinstance(node, ScalarNode):
            return ScalarNode(span=span, text=node.text, value=node.text, quoted=node.quoted)
        self._findings.add(span, "a key must be text, not a list or mapping; quote it if it begins with `[` or `{`")
        raise _Stop

    def _put(self, outer: _Open, key: ScalarNode, node: Node) -> None:
        name = key.text
        if name == "<<" and not key.quoted:
            self._findings.add(key.span, "merge keys (`<<`) are not part of the recipe language; write the keys out")
        elif name in outer.entries:
            line = outer.entries[name].key.line + 1
            self._findings.add(key.span, f"{quoted(name)} is given twice; the first is in line {line}")
        else:
            outer.entries[name] = Entry(key=key.span, value=node)

    def _refuse_tag(self, tag: str | None, event: yaml.Event) -> None:
        if tag is not None:
            short = tag.replace("tag:yaml.org,2002:", "!!")
            self._stop(event, f"the tag {quoted(short)} is not allowed; a recipe holds plain values only")

    def _stop(self, event: yaml.Event, message: str, suggestion: str | None = None) -> None:
        self._findings.add(_span(event), message, suggestion=suggestion)
        raise _Stop


def _span(event: yaml.Event) -> Span:
    start, end = event.start_mark, event.end_mark
    assert start is not None  # the C parser marks every event
    assert end is not None
    return Span(line=start.line, column=start.column, start=start.index, end=max(end.index, start.index + 1))
