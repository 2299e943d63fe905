"""A step's options checked against its model, strictly: no value is converted to fit."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipelines.recipe import grammar
from pipelines.recipe.nodes import ListNode, MapNode, Node, ScalarNode, is_null, noun
from pipelines.recipe.problems import any_of, closest, quoted
from pipelines.recipe.shape import Path, dotted, fields_at
from pipelines.recipe.source import Findings, Span
from pipelines.recipe.words import NEEDS, Subject, say, say_needs
from pipelines.step import Options, Step


@dataclass(frozen=True, kw_only=True)
class Given:
    """The options of one step as the recipe gives them."""

    kind: str
    key: Span  # of the kind
    node: Node  # a mapping, or null for none
    value: dict[str, object]  # with the variables inserted
    where: str  # steps[2].snapshot

    def find(self, path: Path) -> Node:
        """Return the node at a path, or the nearest one above it."""
        return _walk(self.node, path)[0]

    def at(self, path: Path) -> str:
        """Return the path from the recipe's top."""
        return f"{self.where}.{dotted(path)}" if path else self.where


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    error: ErrorDetails
    path: Path  # as far as the recipe goes
    tail: Path  # what pydantic adds: the variant of a union, the name of a missing key
    node: Node

    @property
    def is_mistyped_variant(self) -> bool:
        return bool(self.tail) and self.error["type"] in NEEDS


def validate(step: Step[Any], given: Given, findings: Findings) -> Options | None:
    """Return the options, or None with every problem in them reported."""
    if not isinstance(given.node, MapNode) and not is_null(given.node):
        message = (
            f"the options of step `{given.kind}` are a mapping, not {noun(given.node)}; write them as `KEY: VALUE`"
        )
        findings.add(given.node.span, message, where=given.where)
        return None
    if findings.is_spoilt(given.node.span):
        return None
    before = len(findings.problems)
    try:
        options = step.options.model_validate_json(json.dumps(given.value))
    except ValidationError as error:
        verdicts = [_verdict(given.node, detail) for detail in error.errors(include_url=False)]
        _report(verdicts, step, given, findings)
        return None
    if _has_spoilt(given.node, findings):
        return None
    for sentence in step.check(options):
        node = _mentioned(sentence, given)
        findings.add(node.span if node else given.key, sentence, where=given.where)
    return options if len(findings.problems) == before else None


def _walk(node: Node, path: Sequence[str | int]) -> tuple[Node, Path, Path]:
    """Return the last node on a path, the path to it, and what followed; names that lead nowhere are stepped over."""
    taken: list[str | int] = []
    tail: list[str | int] = []
    for part in path:
        match node, part:
            case MapNode(), str() if (inner := node.get(part)) is not None:
                node = inner
            case ListNode(), int() if part < len(node.items):
                node = node.items[part]
            case _:
                tail.append(part)
                continue
        taken.append(part)
        tail.clear()
    return node, tuple(taken), tuple(tail)


def _verdict(node: Node, error: ErrorDetails) -> _Verdict:
    found, path, tail = _walk(node, error["loc"])
    return _Verdict(error=error, path=path, tail=tail, node=found)


def _report(verdicts: list[_Verdict], step: Step[Any], given: Given, findings: Findings) -> None:
    mistyped: dict[Path, list[_Verdict]] = {}
    for verdict in verdicts:
        if verdict.is_mistyped_variant:
            mistyped.setdefault(verdict.path, []).append(verdict)
        elif verdict.path or not _has_spoilt(given.node, findings) or verdict.error["type"] == "missing":
            _report_one(verdict, step, given, findings)
    for path, variants in mistyped.items():
        others = (verdict.path for verdict in verdicts if not verdict.is_mistyped_variant)
        if not any(other[: len(path)] == path for other in others):
            needs = [NEEDS[variant.error["type"]] for variant in variants]
            message = say_needs(needs, _subject(variants[0], given))
            findings.add(variants[0].node.span, message, where=given.at(path))


def _report_one(verdict: _Verdict, step: Step[Any], given: Given, findings: Findings) -> None:
    path, error = verdict.path, verdict.error
    if error["type"] == "extra_forbidden":
        _report_unknown(path, step, given, findings)
    elif error["type"] == "missing":
        key = str(error["loc"][-1])
        owner = f"`{dotted(path)}`" if path else f"step `{given.kind}`"
        field = fields_at(step.options, path).get(key)
        description = f": {field.description}" if field and field.description else ""
        at = verdict.node.span if path else given.key
        findings.add(at, f"{owner} needs `{key}`{description}", where=given.at((*path, key)))
    elif not path:
        text = error.get("ctx", {}).get("error") or error["msg"]
        findings.add(given.key, f"step `{given.kind}`: {text}", where=given.where)
    else:
        findings.add(verdict.node.span, say(error, _subject(verdict, given)), where=given.at(path))


def _report_unknown(path: Path, step: Step[Any], given: Given, findings: Findings) -> None:
    *outer, key = path
    parent = given.find(tuple(outer))
    assert isinstance(parent, MapNode)
    owner = f"`{dotted(tuple(outer))}` of step `{given.kind}`" if outer else f"step `{given.kind}`"
    known = list(fields_at(step.options, tuple(outer)))
    message = f"unknown option {quoted(str(key))} of {owner}"
    near = closest(str(key), known)
    if not outer and key in grammar.BESIDE:
        message = f"`{key}` stands beside `{given.kind}`, not among its options; indent it less"
        near = None
    elif near is None:
        message += f"; it has {any_of((f'`{name}`' for name in known), 'and')}" if known else "; it has none"
    findings.add(parent.entries[str(key)].key, message, where=given.at(path), suggestion=near)


def _subject(verdict: _Verdict, given: Given) -> Subject:
    value: Any = given.value
    for part in verdict.path:
        value = value[part]
    return Subject(name=dotted(verdict.path), node=verdict.node, value=value)


def _has_spoilt(node: Node, findings: Findings) -> bool:
    match node:
        case MapNode():
            inner = [entry.value for entry in node.entries.values()]
        case ListNode():
            inner = list(node.items)
        case _:
            inner = []
    return findings.is_spoilt(node.span) or any(_has_spoilt(child, findings) for child in inner)


def _mentioned(sentence: str, given: Given) -> Node | None:
    """Return the option that a step's own sentence is about: named in backticks or at the front, or quoted there."""
    if not isinstance(given.node, MapNode):
        return None
    quoting = (key for key, value in given.value.items() if isinstance(value, str) and sentence.startswith(repr(value)))
    for word in (*re.findall(r"`(\w+)`", sentence), sentence.split(" ", 1)[0], *quoting):
        if node := given.node.get(word):
            return node
    return None


def as_text(node: Node | None) -> str | None:
    """Return a scalar's text if it is text."""
    return node.value if isinstance(node, ScalarNode) and isinstance(node.value, str) else None
