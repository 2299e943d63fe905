"""Bad recipes and exactly what a user reads about each: the tables are bad/*.txt.

A row is `=== NAME [--var NAME=VALUE …]`, the recipe, `--- says`, and the message down to the last caret.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def test_the_tables_are_full(bad_recipes: Sequence[Any]) -> None:
    assert len(bad_recipes) > 100
    assert len({row.name for row in bad_recipes}) == len(bad_recipes)


def test_a_bad_recipe_is_refused_in_these_words(bad_recipe: Any, complaint: Callable[..., str]) -> None:
    assert complaint(bad_recipe.recipe, bad_recipe.overrides) == bad_recipe.says
