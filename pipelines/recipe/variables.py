"""The insertion of `{name}` into values that were parsed before: typed, never text templating of the YAML."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from pipelines.recipe import grammar
from pipelines.recipe.model import Value
from pipelines.recipe.nodes import ListNode, MapNode, Node, ScalarNode
from pipelines.recipe.problems import closest, quoted
from pipelines.recipe.source import Findings, Span

VariableType = Literal["string", "int", "bool", "size"]

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One variable with its value: the override's, else the default's. No value: it is broken, and reported."""

    name: str
    type: VariableType
    value: Value | None
    key: Span


class Variables:
    """The variables declared so far; remembers which were used."""

    def __init__(self, findings: Findings, names: Collection[str] = ()) -> None:
        self._findings = findings
        self._names = names  # of all that will be declared
        self._declared: dict[str, Declared] = {}
        self._used: set[str] = set()

    def declare(self, variable: Declared) -> None:
        """Make a variable known to all that is inserted from now on."""
        self._declared[variable.name] = variable

    def values(self) -> dict[str, Value]:
        """Return every variable's value."""
        return {name: found.value for name, found in self._declared.items() if found.value is not None}

    def unused(self) -> list[Declared]:
        """Return the variables that nothing refers to."""
        return [found for name, found in self._declared.items() if name not in self._used]

    def insert(self, node: Node, where: str) -> object:
        """Return the node's value, as JSON has it, with `{name}` replaced in every text in it.

        A text that is nothing but `{name}` becomes the variable's typed value. Where a variable is unknown or broken,
        the place is spoilt, so that nothing more is reported about it.
        """
        match node:
            case MapNode():
                if bare := self._bare(node):
                    self._findings.add(
                        node.span, f"quotes are missing: write '{{{bare}}}' for the variable", where=where
                    )
                    self._findings.spoil(node.span)
                    return ""
                return {key: self.insert(entry.value, f"{where}.{key}") for key, entry in node.entries.items()}
            case ListNode():
                return [self.insert(item, f"{where}[{index}]") for index, item in enumerate(node.items)]
            case ScalarNode(value=str() as text) if "{" in text or "}" in text:
                return self._text(node, text, where)
            case ScalarNode():
                return node.value
            case _:
                raise TypeError(node)

    def _bare(self, node: MapNode) -> str | None:
        """Return the name in a `{name}` without quotes, which YAML reads as a mapping."""
        written = self._findings.source.text[node.span.start : node.span.end]
        bare = re.fullmatch(rf"\{{\s*({grammar.VARIABLE})\s*\}}", written) if node.flow else None
        return bare.group(1) if bare else None

    def _text(self, node: ScalarNode, text: str, where: str) -> object:
        whole = _PIECE.fullmatch(text)
        if whole and whole.group(1) is not None:
            return self._look_up(node, whole, 0, where)
        pieces: list[str] = []
        last = 0
        for nth, piece in enumerate(_PIECE.finditer(text)):
            pieces += text[last : piece.start()], self._piece(node, piece, nth, where)
            last = piece.end()
        return "".join([*pieces, text[last:]])

    def _piece(self, node: ScalarNode, piece: re.Match[str], nth: int, where: str) -> str:
        braces = piece.group()
        if braces in ("{{", "}}"):
            return braces[0]
        if piece.group(1) is None:
            side = "opens" if braces == "{" else "closes"
            message = f"this `{braces}` {side} no variable; for the character itself write `{braces * 2}`"
            self._findings.add(self._place(node, nth), message, where=where)
            self._findings.spoil(node.span)
            return ""
        return as_text(self._look_up(node, piece, nth, where))

    def _look_up(self, node: ScalarNode, piece: re.Match[str], nth: int, where: str) -> Value:
        name = piece.group(1)
        found = self._declared.get(name)
        if found is None:
            near = closest(name, self._declared) if name not in self._names else None
            self._findings.add(self._place(node, nth), self._unknown(name), where=where, suggestion=near)
        else:
            self._used.add(name)
        if found is None or found.value is None:
            self._findings.spoil(node.span)
            return ""
        return found.value

    def _unknown(self, name: str) -> str:
        if not re.fullmatch(grammar.VARIABLE, name):
            braces = quoted("{" + name + "}")
            return f"{braces} is not the name of a variable; for the braces themselves write `{{{{` and `}}}}`"
        if name in self._names:
            return f"variable `{name}` is declared further down, and a default uses only those above it"
        return f"unknown variable {quoted(name)}"

    def _place(self, node: ScalarNode, nth: int) -> Span:
        """Return where the text's nth piece stands in the file; quotes and escapes before it do not matter."""
        source = self._findings.source
        pieces = list(_PIECE.finditer(source.text, node.span.start, node.span.end))
        return source.span(pieces[nth].start(), pieces[nth].end()) if nth < len(pieces) else node.span


def as_text(value: Value) -> str:
    """Return the value as it stands inside a text."""
    return str(value).lower() if isinstance(value, bool) else str(value)
