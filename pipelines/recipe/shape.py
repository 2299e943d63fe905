"""What a step's options model says about a place in it: which keys fit there, and which values are references."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.step import Reference

Path = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Referred:
    """One value that names an earlier step."""

    path: Path
    id: str
    mark: Reference


def dotted(path: Path) -> str:
    """Return the path as a person writes it: `volumes[0].snapshot`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def fields_at(model: type[BaseModel], path: Path) -> dict[str, FieldInfo]:
    """Return the keys that a mapping at this place may have; those of all variants where there are several."""
    models = [model]
    for part in path:
        if isinstance(part, str):
            fields = [field for outer in models for key, field in keyed(outer) if key == part]
            models = [inner for field in fields for inner in _models_in(field.annotation)]
    return {key: field for found in models for key, field in keyed(found)}


def keyed(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the model's fields under the keys a recipe uses for them."""
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def references(model: type[BaseModel], value: Mapping[str, object]) -> list[Referred]:
    """Return every reference in options that need not be valid otherwise."""
    return list({found.path: found for found in _references(model, value, ())}.values())


def _references(model: type[BaseModel], value: Mapping[str, object], path: Path) -> Iterator[Referred]:
    for key, field in keyed(model):
        if key in value:
            marks = [mark for mark in field.metadata if isinstance(mark, Reference)]
            marks += _marks_in(field.annotation)
            yield from _inside(marks[0] if marks else None, field.annotation, value[key], (*path, key))


def _inside(mark: Reference | None, annotation: Any, value: object, path: Path) -> Iterator[Referred]:
    match value:
        case str() if mark:
            yield Referred(path=path, id=value, mark=mark)
        case list():
            for index, item in enumerate(value):
                yield from _inside(mark, annotation, item, (*path, index))
        case dict():
            for model in _models_in(annotation):
                yield from _references(model, value, path)
            for key, item in value.items() if mark else ():
                yield from _inside(mark, annotation, item, (*path, key))
        case _:
            return


def _marks_in(annotation: Any) -> list[Reference]:
    own = getattr(annotation, "__metadata__", ()) if get_origin(annotation) is Annotated else ()
    found = [mark for mark in own if isinstance(mark, Reference)]
    return found + [mark for inner in get_args(annotation) for mark in _marks_in(inner)]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
