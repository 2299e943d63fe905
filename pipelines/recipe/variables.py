"""The insertion of `{name}` into values that were parsed before: typed, never text templating of the YAML."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.recipe import grammar
from pipelines.recipe.model import Value
from pipelines.recipe.nodes import ListNode, MapNode, Node, ScalarNode
from pipelines.recipe.problems import closest, quoted
from pipelines.recipe.source import Findings, Span

ROOM = 4 << 20  # characters that variables may put into one recipe, all together

VariableType = Literal["string", "int", "bool", "size"]

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One variable with its value: the override's, else the default's. No value: it is broken, and reported."""

    name: str
    type: VariableType
    value: Value | None
    key: Span


@dataclass(frozen=True, kw_only=True)
class _Text:
    """A text with braces in it, and where in the file each of them stands."""

    node: ScalarNode
    where: str
    places: Sequence[Span]

    def place(self, nth: int) -> Span:
        """Return the place of the nth piece, whatever quotes and escapes stand before it."""
        return self.places[nth] if nth < len(self.places) else self.node.span


class Variables:
    """The variables declared so far; remembers which were used."""

    def __init__(self, findings: Findings, names: Collection[str] = ()) -> None:
        self._findings = findings
        self._names = names  # of all that will be declared
        self._declared: dict[str, Declared] = {}
        self._used: set[str] = set()
        self._inserted = 0

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
        source = self._findings.source
        found = _PIECE.finditer(source.text, node.span.start, node.span.end)
        spot = _Text(node=node, where=where, places=[source.span(piece.start(), piece.end()) for piece in found])
        whole = _PIECE.fullmatch(text)
        if whole and whole.group(1) is not None:
            value = self._look_up(whole.group(1), spot, 0)
            return value if self._has_room(as_text(value), spot) else ""
        pieces: list[str] = []
        last = 0
        for nth, piece in enumerate(_PIECE.finditer(text)):
            inserted = self._piece(piece, spot, nth)
            if not self._has_room(inserted, spot):
                return ""
            pieces += text[last : piece.start()], inserted
            last = piece.end()
        return "".join([*pieces, text[last:]])

    def _has_room(self, inserted: str, spot: _Text) -> bool:
        """Count what is inserted: defaults that double each other must not fill the memory."""
        self._inserted += len(inserted)
        if self._inserted > ROOM:
            message = f"with its variables inserted the recipe is larger than {ROOM >> 20} MiB, the limit"
            self._findings.add(spot.node.span, message, where=spot.where)
            self._findings.spoil(spot.node.span)
        return self._inserted <= ROOM

    def _piece(self, piece: re.Match[str], spot: _Text, nth: int) -> str:
        braces = piece.group()
        if braces in ("{{", "}}"):
            return braces[0]
        if piece.group(1) is not None:
            return as_text(self._look_up(piece.group(1), spot, nth))
        side = "opens" if braces == "{" else "closes"
        message = f"this `{braces}` {side} no variable; for the character itself write `{braces * 2}`"
        self._findings.add(spot.place(nth), message, where=spot.where)
        self._findings.spoil(spot.node.span)
        return ""

    def _look_up(self, name: str, spot: _Text, nth: int) -> Value:
        found = self._declared.get(name)
        if found is None:
            near = closest(name, self._declared) if name not in self._names else None
            self._findings.add(spot.place(nth), self._unknown(name), where=spot.where, suggestion=near)
        else:
            self._used.add(name)
        if found is None or found.value is None:
            self._findings.spoil(spot.node.span)
            return ""
        return found.value

    def _unknown(self, name: str) -> str:
        if not re.fullmatch(grammar.VARIABLE, name):
            braces = quoted("{" + name + "}")
            return f"{braces} is not the name of a variable; for the braces themselves write `{{{{` and `}}}}`"
        if name in self._names:
            return f"variable `{name}` is declared further down, and a default uses only those above it"
        # `${HOME}` of a shell, most likely
        hint = "; for the braces themselves write `{{` and `}}`" if name.isupper() else ""
        return f"unknown variable {quoted(name)}{hint}"


def as_text(value: Value) -> str:
    """Return the value as it stands inside a text."""
    return str(value).lower() if isinstance(value, bool) else str(value)
