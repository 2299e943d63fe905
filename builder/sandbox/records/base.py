"""A record: plain values with a key, written as JSON into the state file and read back as they were."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from functools import cache
from typing import Any, ClassVar

from pydantic import TypeAdapter


class Record(ABC):
    """The base of every kind; a subclass is a frozen dataclass, known in the state file by its class name.

    Fields may only be added with a default, never renamed: a state file outlives the version that wrote it. They are
    annotated as what comes back from JSON equal: `tuple[X, ...]` and not Sequence. `in_memory` is False for kinds that
    only grow and are looked up by their key: they stay in the file.
    """

    in_memory: ClassVar[bool] = True
    _kinds: ClassVar[dict[str, type[Record]]] = {}

    def __init_subclass__(cls) -> None:
        Record._kinds[cls.__name__] = cls

    @property
    @abstractmethod
    def key(self) -> str:
        """The record's name within its kind."""

    @staticmethod
    def in_memory_kinds() -> list[type[Record]]:
        """Return the kinds that are held in memory."""
        return [kind for kind in Record._kinds.values() if kind.in_memory]

    @staticmethod
    def kind(name: str) -> type[Record]:
        """Return the kind of that class name. Raises ValueError."""
        try:
            return Record._kinds[name]
        except KeyError:
            raise ValueError(f"a record of unknown kind {name!r}: was this directory written by a newer emi?") from None


def to_json(record: Record) -> str:
    """Return the record as JSON text."""
    return json.dumps(dataclasses.asdict(record))  # type: ignore[call-overload] # every record is a dataclass


def from_json(kind: str, text: str) -> Record:
    """Return the record of class name `kind` that `to_json` wrote. Raises ValueError."""
    record: Record = _reader(Record.kind(kind)).validate_json(text)
    return record


@cache
def _reader(kind: type[Record]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
