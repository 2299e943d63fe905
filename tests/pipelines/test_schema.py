"""The JSON Schema of our own steps is valid and accepts our recipes. (test_docs.py checks the file in docs/.)"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipelines.kinds import kinds
from pipelines.recipe import load
from pipelines.schema import schema

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


def test_every_kind_is_in_it() -> None:
    step = schema()["$defs"]["step"]
    assert set(step["properties"]) == {*kinds(), "id", "from"}
    assert len(step["oneOf"]) == len(kinds()) > 3


def test_every_option_is_described() -> None:
    for kind in kinds():
        options = schema()["$defs"][f"kind.{kind}"]
        assert options["description"], kind
        assert options["additionalProperties"] is False
        for name, option in options["properties"].items():
            assert option["description"], f"{kind}.{name}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_our_recipes_fit(path: Path, validator: Draft202012Validator) -> None:
    recipe = yaml.safe_load(path.read_text())
    validator.validate(recipe)
    variables = recipe.get("vars", {}).items()
    asked = {
        name: "https://example.com/x" for name, said in variables if isinstance(said, dict) and "default" not in said
    }
    assert load(path, asked).warnings == ()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_our_recipes_carry_the_modeline(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    word, _, target = first.partition("$schema=")
    assert word == "# yaml-language-server: "
    assert (path.parent / target).resolve() == ROOT / "docs" / "recipe.schema.json"


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 5


def _blocks() -> list[tuple[str, str]]:
    """Return every recipe that is printed in the prose, with the page it is on."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [
        (page.name, block) for page in pages for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    return [(page, block) for page, block in blocks if "\nsteps:\n" in block]


def test_recipes_in_the_prose_are_good(validator: Draft202012Validator, tmp_path: Path) -> None:
    blocks = _blocks()
    assert {page for page, _ in blocks} >= {"README.md", "recipes.md"}
    for page, block in blocks:
        path = tmp_path / f"{page}.yaml"
        path.write_text(block)
        load(path)
        validator.validate(yaml.safe_load(block))


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"url": "https://example.com/x"}, True),
        ({"url": "https://example.com/{version}/x", "attempts": "{n}"}, True),
        ({"url": "https://example.com/x", "attempts": 3, "timeout": 2.5}, True),
        ({"url": "https://example.com/x", "attempts": "three"}, False),
        ({"url": "https://example.com/x", "attempts": 0}, False),
        ({"url": "https://example.com/x", "chekcsum": "sha256:0"}, False),
        ({"url": 24.04}, False),
        ({}, False),
        (None, False),
    ],
)
def test_options(validator: Draft202012Validator, *, options: Any, fits: bool) -> None:
    assert validator.is_valid({"name": "x", "steps": [{"download": options}]}) is fits
