"""Bad recipes and exactly what a user reads about each: the tables are bad/*.txt.

A row is `=== NAME [--var NAME=VALUE …]`, the recipe, `--- says`, and the message down to the last caret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

TABLES = Path(__file__).parent / "bad"


@dataclass(frozen=True, kw_only=True)
class Bad:
    name: str
    overrides: dict[str, str]
    recipe: str
    says: str


def rows() -> list[Bad]:
    found = []
    for table in sorted(TABLES.glob("*.txt")):
        for section in re.split(r"^=== ", table.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            head, body = section.split("\n", 1)
            name, *variables = head.split(" --var ")
            recipe, says = re.split(r"^--- says\n", body, flags=re.MULTILINE)
            overrides = dict(variable.split("=", 1) for variable in variables)
            found.append(Bad(name=f"{table.stem}-{name}", overrides=overrides, recipe=recipe, says=says.rstrip()))
    return found


ROWS = rows()


def test_the_tables_are_full() -> None:
    assert len(ROWS) > 100
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_bad_recipe_is_refused_in_these_words(row: Bad, complaint: Callable[..., str]) -> None:
    assert complaint(row.recipe, row.overrides) == row.says
