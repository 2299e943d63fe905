"""Verbs that are imported when they run: pydantic, SQLAlchemy and rich cost 0.3 s, which `emi --help` can do without.

A module that is not imported yet stands for itself:

    if TYPE_CHECKING:
        from pipelines.verbs import images
    else:
        images = Lazily("pipelines.verbs.images")
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from builder.errors import Interrupted


class Lazily:
    """A module of verbs that is imported when the first of them is used; Ctrl-C in one is our Interrupted."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return _interruptible(getattr(importlib.import_module(self._name), name))


def _interruptible(verb: Callable[..., None]) -> Callable[..., None]:
    """Wrap a verb so that Ctrl-C is our Interrupted; typer would end with 1."""

    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            verb(*arguments, **options)
        except KeyboardInterrupt:
            raise Interrupted("interrupted", hint="The same command again carries on.") from None

    return guarded
