"""A YAML document as a tree in which every value knows its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.recipe.source import Span

Plain = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """A value of the document. One that is reached through an alias keeps the place where it was written."""

    span: Span
    weight: int = 1  # values in it, itself included, aliases counted as if written out; a long text counts for more


@dataclass(frozen=True, kw_only=True, eq=False)
class ScalarNode(Node):
    """Text, a number, true, false or null."""

    text: str  # without quotes and escapes
    value: Plain
    quoted: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class ListNode(Node):
    """A list."""

    items: tuple[Node, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """A key with its value."""

    key: Span
    value: Node


@dataclass(frozen=True, kw_only=True, eq=False)
class MapNode(Node):
    """A mapping; its keys are text, whatever they look like."""

    entries: Mapping[str, Entry]
    flow: bool  # written in braces

    def get(self, key: str) -> Node | None:
        """Return the value of a key that is there."""
        entry = self.entries.get(key)
        return entry.value if entry else None


def noun(node: Node) -> str:
    """Return what a person calls this value."""
    match node:
        case MapNode():
            return "a mapping"
        case ListNode():
            return "a list"
        case ScalarNode(value=None):
            return "nothing"
        case ScalarNode(value=bool()):
            return node.text
        case ScalarNode(value=int() | float()):
            return f"the number {node.text}"
        case _:
            return "text"


def is_null(node: Node) -> bool:
    """Say whether the value was left out or written as null."""
    return isinstance(node, ScalarNode) and node.value is None
