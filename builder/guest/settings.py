"""YAML of a guest, read within bounds: what an image brings may be made to keep a reader busy for hours.

Aliases are what small files become endless by (each level of `[*a, *a]` doubles, merge keys even in memory), nesting is
what PyYAML's scanner takes quadratic time for, and its size is all that bounds the rest.
"""

from __future__ import annotations

from typing import Any

import yaml

from builder.errors import GuestError

LIMIT = 256 << 10  # bytes; the largest that distributions bring, cloud.cfg, has 5 KiB
_DEPTH = 64
_ALIASES = 16  # each may double what it stands in


def load_yaml(data: bytes | str, path: str) -> Any:
    """Return what a YAML file of the guest holds. Raises GuestError: it is none, or goes beyond every use."""
    if len(data) > LIMIT:
        raise _refused(path, f"it has more than {LIMIT >> 10} KiB")
    try:
        return yaml.load(data, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise _refused(path, why) from error


def _refused(path: str, why: str) -> GuestError:
    hint = "Mend or remove it with a `files` step before this one."
    return GuestError(f"{path} in the guest is not YAML: {why}", hint=hint)


class _Loader(yaml.SafeLoader):
    """PyYAML's own, but for depth and aliases."""

    def __init__(self, stream: bytes | str) -> None:
        super().__init__(stream)
        self._within: list[str | None] = []  # the anchors of what is being read
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if event.anchor in self._within or self._aliases > _ALIASES:
                raise yaml.YAMLError(f"an alias within itself, or more than {_ALIASES} of them")
        if len(self._within) == _DEPTH:
            raise yaml.YAMLError(f"nested deeper than {_DEPTH}")
        self._within.append(event.anchor)
        node = super().compose_node(parent, index)
        self._within.pop()
        return node
