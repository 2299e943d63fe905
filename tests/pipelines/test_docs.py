"""The generated references: current, complete, and in words a recipe's author knows."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field

import builder
import pipelines
from builder.errors import EmiError, InternalError
from pipelines import cli, docs, kinds
from pipelines.artifact import File, ImageFile, Snapshot
from pipelines.recipe import load
from pipelines.step import Inputs, LocalStep, Options, Reference, Work
from pipelines.values import Size

ROOT = Path(__file__).parents[2]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Wheel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    width: int = Field(ge=1, le=9, description="in mm")


class Car(Options):
    name: str = Field(description="what it is called")
    seats: int = Field(default=4, description="how many | at most")
    open: bool = Field(default=False, description="no roof")
    tank: Annotated[Size, Field(gt=0)] = Field(default=2 << 30, description="its tank")
    fuel: Literal["gas", "coal"] = Field(default="gas", description="what it burns")
    colour: Colour = Field(default=Colour.RED, description="its paint")
    owner: str | None = Field(default=None, description="who has it")
    riders: Sequence[str] = Field(default=(), description="who is in it")
    tags: dict[str, str] = Field(default_factory=dict, description="what is written on it")
    base: Annotated[str, Reference(Snapshot)] | None = Field(default=None, description="where it comes from")
    wheels: tuple[Wheel, ...] = Field(default=(), description="what it rolls on")


class CarStep(LocalStep[Car]):
    """Build a car.

    It has wheels.
    """

    options = Car
    accepts = (ImageFile, File)
    returns = ImageFile

    def build(self, options: Car, inputs: Inputs, work: Work) -> ImageFile:
        raise NotImplementedError


class Bare(Options):
    pass


class BareStep(CarStep):
    """Build nothing."""

    options = Bare
    accepts = ()


ROWS = [
    "| `name` | text | **required** | what it is called |",
    "| `seats` | whole number | `4` | how many \\| at most |",
    "| `open` | `true` or `false` | `false` | no roof |",
    "| `tank` | size, like `10 GiB` (above 0 bytes) | `2 GiB` | its tank |",
    "| `fuel` | `gas` or `coal` | `gas` | what it burns |",
    "| `colour` | `red` or `blue` | `red` | its paint |",
    "| `owner` | text | none | who has it |",
    "| `riders` | list, each text | none | who is in it |",
    "| `tags` | mapping of text to text | none | what is written on it |",
    "| `base` | the `id` of an earlier step that returns a snapshot | none | where it comes from |",
    "| `wheels` | list, each mapping, see below | none | what it rolls on |",
    "| `wheels[].width` | whole number (at least 1, at most 9) | **required** | in mm |",
]


def test_options_are_described_in_words() -> None:
    text = docs.describe("car", CarStep())
    assert [line for line in text.splitlines() if line.startswith("| `")] == ROWS
    assert text.startswith("## `car`\n\nBuild a car.\n\nIt has wheels.\n\nTakes a disk image or a file, returns")


def test_a_step_without_options_or_input_says_so() -> None:
    text = docs.describe("bare", BareStep())
    assert "Takes nothing, returns a disk image." in text
    assert "It has no options." in text
    assert "| option" not in text


def test_stale_pages_show_as_a_diff(tmp_path: Path) -> None:
    for name, text in docs.pages().items():
        (tmp_path / name).write_text(text)
    assert docs.stale(tmp_path) == ""
    page = tmp_path / "errors.md"
    page.write_text(page.read_text().replace("`BusyError`", "`LazyError`"))
    assert "-| &emsp;`LazyError`" in docs.stale(tmp_path)
    page.unlink()
    assert "+# Errors and exit codes" in docs.stale(tmp_path)


def test_the_committed_pages_are_current() -> None:
    assert docs.stale(ROOT / "docs") == "", "run `make docs` and commit"


def test_every_step_kind_and_option_is_described() -> None:
    undescribed = []
    names = kinds.kinds()
    assert names
    for kind in names:
        if not docs.summary(kind).endswith("."):
            undescribed.append(kind)
        undescribed += [f"{kind}.{option}" for option in _undescribed(kinds.load(kind).options)]
    assert undescribed == []


def _verbs(group: Any, prefix: str = "emi") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


VERBS = dict(_verbs(typer.main.get_command(cli.app)))


def test_the_readme_shows_every_verb_and_no_other() -> None:
    text = (ROOT / "README.md").read_text()
    shown = set()
    for command in re.findall(r"`(emi [a-z][^`]*)`", text):
        words = command.replace("\\|", "|").split(" ")
        for last in words[2].split("|") if len(words) > 2 and words[2][0].islower() else [""]:
            shown.add(f"{words[0]} {words[1]} {last}".strip())
    assert shown == set(VERBS)


def test_the_readme_shows_a_recipe_that_holds(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    recipe = tmp_path / "readme.yaml"
    recipe.write_text(text)
    assert len(load(recipe).steps) == 5
    schema = re.search(r"\$schema=(\S+)", text)[1]
    assert (ROOT / "recipes" / schema).exists()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_has_help(verb: str) -> None:
    command = VERBS[verb]
    assert (command.help or "").strip().endswith(".")
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []


def _undescribed(model: type[BaseModel]) -> list[str]:
    missing = [name for name, field in model.model_fields.items() if not field.description]
    for field in model.model_fields.values():
        for nested, _ in docs._models(field.annotation):
            missing += [f"{nested.__name__}.{name}" for name in _undescribed(nested)]
    return missing


def _everything() -> list[Any]:
    return [
        importlib.import_module(found.name)
        for package in (builder, pipelines)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not found.name.endswith("__main__")
    ]


def test_every_error_is_on_the_page() -> None:
    assert len(_everything()) > 10
    listed = {error for _, error in docs.error_classes()}
    ours = {error for error in _below(EmiError) if error.__module__.startswith(("builder", "pipelines"))}
    assert ours - listed == set(), "errors are defined in builder/errors.py, so that the page is complete"


def _below(error: type[EmiError]) -> set[type[EmiError]]:
    return {error, *(deeper for below in error.__subclasses__() for deeper in _below(below))}


@pytest.mark.parametrize("error", [error for _, error in docs.error_classes()], ids=lambda error: error.__name__)
def test_every_error_says_what_it_means_and_what_to_do(error: type[EmiError]) -> None:
    assert (vars(error).get("__doc__") or "").strip().endswith(".")
    assert error.advice.endswith(".")
    assert 0 < error.exit_code < 256


def test_two_errors_cannot_set_one_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twin(EmiError):
        """A second error with the code of UsageError."""

        exit_code = 2

    with monkeypatch.context() as patch:
        patch.setattr(docs, "_DEFINE_ERRORS", (*docs._DEFINE_ERRORS, Twin.__module__))
        with pytest.raises(InternalError, match="Twin"):
            docs.error_classes()
    assert docs.error_classes()


def test_the_tree_drawn_in_the_module_is_the_tree() -> None:
    drawn = (ROOT / "builder/errors.py").read_text().split('"""')[1]
    names = [line.split("─ ")[-1].split()[0] for line in drawn.splitlines() if "─ " in line]
    real = [error.__name__ for _, error in docs.error_classes() if error.__module__ == "builder.errors"]
    assert ["EmiError", *names] == real


def test_the_command_says_which_version_it_is(emi) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (emi("--version").code, emi("--version").out) == (0, f"emi {declared}\n")
