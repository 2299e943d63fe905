"""The step kinds there are: the file names in `steps/`. Nothing registers on import, and listing imports nothing."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from builder.errors import InternalError
from pipelines.step import Step


class Kinds(Protocol):
    """Where step kinds come from."""

    def names(self) -> tuple[str, ...]:
        """Return the words a recipe may use, sorted. Imports nothing."""

    def load(self, kind: str) -> Step[Any]:
        """Return the step of that kind. Raises KeyError when there is none."""


@dataclass(frozen=True, kw_only=True)
class Directory:
    """The kinds that are modules of one package: `run_on_helper.py` is the kind `run-on-helper`."""

    folder: Path
    package: str

    def names(self) -> tuple[str, ...]:
        """Return the words a recipe may use, sorted. Imports nothing."""
        stems = (path.stem for path in self.folder.glob("*.py"))
        return tuple(sorted(stem.replace("_", "-") for stem in stems if not stem.startswith("_")))

    def load(self, kind: str) -> Step[Any]:
        """Import just that kind's module and return its step.

        Raises KeyError when there is no such file, InternalError when the file cannot be imported or does not hold
        exactly one step.
        """
        if kind not in self.names():
            raise KeyError(kind)
        name = f"{self.package}.{kind.replace('-', '_')}"
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise InternalError(f"the step kind `{kind}` cannot be loaded: {error}") from error
        found = _steps_of(module)
        if len(found) != 1:
            raise InternalError(f"{module.__file__} must define exactly one step class; it defines {len(found)}")
        return found[0]()


def _steps_of(module: ModuleType) -> list[type[Step[Any]]]:
    classes = (value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Step))
    return [found for found in classes if found.__module__ == module.__name__ and not inspect.isabstract(found)]


BUILT_IN = Directory(folder=Path(__file__).parent / "steps", package="pipelines.steps")


def kinds() -> tuple[str, ...]:
    """Return the names of emi's own step kinds, sorted. Imports none of them."""
    return BUILT_IN.names()


def load(kind: str) -> Step[Any]:
    """Return the step of that kind. Raises KeyError when there is none."""
    return BUILT_IN.load(kind)
