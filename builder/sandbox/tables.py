"""Tables for a person, of plain values: what is in the cloud, as a terminal and a browser show it.

A cell is a text, a number or None; its column's kind says what it means: text, a state, bytes, or a time in seconds
since the epoch, which is shown as an age.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from builder.units import format_size

Kind = Literal["text", "state", "bytes", "time"]
Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's heading and what its cells mean."""

    name: str
    kind: Kind = "text"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one kind of thing, newest first; `total` is how many there are, `size` what their bytes add up to."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    total: int
    size: int | None = None

    @property
    def about(self) -> str:
        """How many rows there are, how many bytes, and whether all are shown."""
        size = f", {format_size(self.size)}" if self.size else ""
        shown = f", the latest {len(self.rows)} shown" if len(self.rows) < self.total else ""
        return f"{self.total or 'none'}{size}{shown}"

    def shown(self) -> list[list[str]]:
        """Return the rows as people read them."""
        return [[show(column.kind, cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows]


def show(kind: Kind, cell: Cell) -> str:
    """Return a cell as people read it, without what a terminal would obey."""
    if cell is None:
        return ""
    match kind:
        case "bytes":
            return format_size(int(cell))
        case "time":
            return age(float(cell))
        case "text" | "state":
            return "".join(letter if letter.isprintable() else "�" for letter in str(cell))


def age(then: float) -> str:
    """Return how long ago that was, in the largest unit of which there are two or more, such as `3 min`."""
    seconds = max(0, int(time.time() - then))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
