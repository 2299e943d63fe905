"""`vars`: what variables a recipe declares, and what `--var NAME=VALUE` makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from builder.units import parse_size
from pipelines.recipe import grammar
from pipelines.recipe.model import Value
from pipelines.recipe.nodes import MapNode, Node, ScalarNode, noun
from pipelines.recipe.problems import Problem, any_of, closest, quoted
from pipelines.recipe.source import Findings, Span
from pipelines.recipe.variables import Declared, Variables, VariableType

TYPES: Mapping[str, VariableType] = {name: name for name in get_args(VariableType)}
_NOUNS: Mapping[VariableType, str] = {
    "string": "text",
    "int": "a whole number",
    "bool": "true or false",
    "size": "a size such as 10 GiB",
}
_SURROGATE = re.compile("[\ud800-\udfff]")  # a byte of the command line that is not UTF-8


class WrongValue(Exception):
    """The value does not fit the variable's type; the message goes on after the variable's name."""


@dataclass(frozen=True, kw_only=True)
class _Declaration:
    name: str
    key: Span
    type: VariableType | None
    default: Node | None
    broken: bool  # reported already

    @property
    def where(self) -> str:
        return f"vars.{self.name}"


def declare(node: Node | None, overrides: Mapping[str, str], findings: Findings) -> Variables:
    """Read `vars` and the overrides; report what is wrong with either."""
    if node is not None and not isinstance(node, MapNode):
        findings.add(node.span, f"`vars` takes a mapping of names to values, not {noun(node)}", where="vars")
    entries = node.entries if isinstance(node, MapNode) else {}
    variables = Variables(findings, entries.keys())
    for name, entry in entries.items():
        if not re.fullmatch(grammar.VARIABLE, name):
            message = f"{quoted(name)} cannot name a variable; use letters, digits, `_` and `-`, a letter first"
            findings.add(entry.key, message, where="vars")
            continue
        declaration = _declaration(name, entry.key, entry.value, findings)
        variables.declare(_resolved(declaration, overrides.get(name), variables, findings))
    for name in sorted(overrides.keys() - entries.keys()):
        message = f"the recipe has no variable {quoted(name)}"
        _refuse_override(name, overrides[name], message, findings, suggestion=closest(name, entries))
    return variables


def _declaration(name: str, key: Span, node: Node, findings: Findings) -> _Declaration:
    if not isinstance(node, MapNode):
        return _Declaration(name=name, key=key, type=None, default=node, broken=False)
    before = len(findings.problems)
    for unknown in node.entries.keys() - set(grammar.DECLARATION):
        near = closest(unknown, grammar.DECLARATION)
        rest = "" if near else f"; it has {any_of((f'`{key}`' for key in grammar.DECLARATION), 'and')}"
        message = f"unknown key {quoted(unknown)} of variable `{name}`{rest}"
        findings.add(node.entries[unknown].key, message, where=f"vars.{name}.{unknown}", suggestion=near)
    type_ = _type(node.get("type"), f"vars.{name}.type", findings)
    default = node.get("default")
    if len(findings.problems) == before and default is None and type_ is None:
        findings.add(key, f"variable `{name}` needs a `type` or a `default`", where=f"vars.{name}")
    broken = len(findings.problems) > before
    return _Declaration(name=name, key=key, type=type_, default=default, broken=broken)


def _type(node: Node | None, where: str, findings: Findings) -> VariableType | None:
    if node is None:
        return None
    word = node.text if isinstance(node, ScalarNode) else ""
    if word not in TYPES:
        message = f"a variable's type is {any_of(f'`{name}`' for name in TYPES)}"
        findings.add(node.span, message, where=where, suggestion=closest(word, TYPES))
    return TYPES.get(word)


def _resolved(found: _Declaration, override: str | None, variables: Variables, findings: Findings) -> Declared:
    type_, value = _default(found, variables, findings)
    if override is not None and type_ is not None:
        try:
            value = from_text(type_, override)
        except WrongValue as wrong:
            _refuse_override(found.name, override, f"variable `{found.name}` {wrong}", findings)
    elif found.default is None and not found.broken:
        message = f"variable `{found.name}` has no default; give it a value with --var {found.name}=…"
        findings.add(found.key, message, where=found.where)
    return Declared(name=found.name, type=type_ or "string", value=value, key=found.key)


def _default(found: _Declaration, variables: Variables, findings: Findings) -> tuple[VariableType | None, Value | None]:
    """Return the type, declared or inferred, and the default; None for what is broken or not there."""
    if found.default is None:
        return found.type, None
    raw = variables.insert(found.default, found.where)
    if findings.is_spoilt(found.default.span):
        return found.type, None
    try:
        type_ = found.type or _inferred(raw)
        return type_, _typed(type_, raw)
    except WrongValue as wrong:
        node = found.default
        advice = f"; write it in quotes: '{node.text}'" if isinstance(node, ScalarNode) and node.text else ""
        says_size = found.type == "size" and isinstance(raw, str)
        tail = (
            str(wrong) if says_size else f"{wrong}, not {noun(node)}{advice if found.type in (None, 'string') else ''}"
        )
        findings.add(node.span, f"variable `{found.name}` {tail}", where=found.where)
        return found.type, None


def _inferred(raw: object) -> VariableType:
    match raw:
        case bool():
            return "bool"
        case int():
            return "int"
        case str():
            return "string"
        case _:
            raise WrongValue("takes text, a whole number, true or false")


def _typed(type_: VariableType, raw: object) -> Value:
    if type_ == "bool" and isinstance(raw, bool):
        return raw
    if type_ == "string" and isinstance(raw, str):
        return raw
    if isinstance(raw, int) and not isinstance(raw, bool):
        if type_ == "int":
            return raw
        if type_ == "size":
            return _size(raw)
    if type_ == "size" and isinstance(raw, str):
        return _size(raw)
    raise WrongValue(f"takes {_NOUNS[type_]}")


def _size(raw: str | int) -> int:
    try:
        return parse_size(raw)
    except ValueError as error:
        raise WrongValue(f"takes a size: {error}") from error


def from_text(type_: VariableType, text: str) -> Value:
    """Convert what stands after `--var NAME=`. Raises WrongValue."""
    match type_:
        case "string" if not _SURROGATE.search(text):
            return text
        case "bool" if text in ("true", "false"):
            return text == "true"
        case "int" if re.fullmatch(r"-?[0-9]{1,18}", text):
            return int(text)
        case "size":
            return _size(text)
        case _:
            raise WrongValue(f"takes {_NOUNS[type_]}, not {quoted(text)}")


def _refuse_override(name: str, value: str, message: str, findings: Findings, *, suggestion: str | None = None) -> None:
    flag = f"--var {quoted(name).strip('`')}={quoted(value).strip('`')}"
    findings.problems.append(Problem(path=flag, message=message, where=f"vars.{name}", suggestion=suggestion))
