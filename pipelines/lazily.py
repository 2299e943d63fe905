"""Modules that are imported when they are first used: pydantic, SQLAlchemy, rich and guest code cost a second at worst.

A module that is not imported yet stands for itself:

    if TYPE_CHECKING:
        from pipelines.verbs import images
    else:
        images = Lazily("pipelines.verbs.images")
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from builder.errors import Interrupted


class Later:
    """A module that is imported when the first thing in it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.modules.get(self._name) or _imported(self._name), name)


class Lazily(Later):
    """A module of verbs; Ctrl-C in one is our Interrupted."""

    def __getattr__(self, name: str) -> Any:
        return _interruptible(super().__getattr__(name))


def _imported(name: str) -> ModuleType:
    """Import with the collector at rest: it would walk every class so far, and what is imported stays anyway."""
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _interruptible(verb: Callable[..., None]) -> Callable[..., None]:
    """Wrap a verb so that Ctrl-C is our Interrupted; typer would end with 1."""

    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            verb(*arguments, **options)
        except KeyboardInterrupt:
            raise Interrupted("interrupted", hint="The same command again carries on.") from None

    return guarded
