"""What a service model says of its parameters beyond their names: lengths, ranges, patterns and enumerations.

The words are those of AWS's services: "1 validation error detected: Value '…' at '…' failed to satisfy constraint: …".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from builder.sandbox.wire import Refusal


@cache
def model(service: str) -> Any:
    """Return botocore's model of a service, read once."""
    # Lazy: importing botocore takes a tenth of a second that the start need not wait for. Not by way of moto: its
    # modules import each other in a ring, and what runs into that from a second thread finds them half made.
    from botocore.loaders import create_loader  # noqa: TID251 - the model's words, no call to a cloud
    from botocore.model import ServiceModel  # noqa: TID251 - as above

    return ServiceModel(create_loader().load_service_model(service, "service-2"), service)


def check(shape: Any, values: Mapping[str, Any], *, code: str) -> None:
    """Raise Refusal with this code, naming every constraint of the model that the values do not satisfy."""
    found = list(_structure(shape, values, "")) if shape is not None else []
    if found:
        plural = "s" if len(found) > 1 else ""
        raise Refusal(code, f"{len(found)} validation error{plural} detected: {'; '.join(found)}")


def _structure(shape: Any, values: Mapping[str, Any], place: str) -> Iterator[str]:
    for name, member in shape.members.items():
        where = f"{place}{'.' if place else ''}{name[0].lower()}{name[1:]}"
        if values.get(name) is not None:
            yield from _value(member, values[name], where)
        elif name in shape.required_members:
            yield _said(None, where, "Member must not be null")


def _value(shape: Any, value: Any, where: str) -> Iterator[str]:
    match shape.type_name:
        case "structure" if isinstance(value, Mapping):
            yield from _structure(shape, value, where)
        case "list" if isinstance(value, list):
            yield from _bounds(shape, len(value), value, where, "length")
            for number, item in enumerate(value, 1):
                yield from _value(shape.member, item, f"{where}.{number}.member")
        case "string" if isinstance(value, str):
            yield from _bounds(shape, len(value), value, where, "length")
            pattern = shape.metadata.get("pattern")
            if pattern and not _pattern(pattern).fullmatch(value):
                yield _said(value, where, f"Member must satisfy regular expression pattern: {pattern}")
            if shape.enum and value not in shape.enum:
                yield _said(value, where, f"Member must satisfy enum value set: [{', '.join(sorted(shape.enum))}]")
        case "integer" | "long" if isinstance(value, int):
            yield from _bounds(shape, value, value, where, "value")
        case "map" | "boolean" | "timestamp" | "blob" | "float" | "double":
            pass
        case expected:
            yield _said(value, where, f"Member must be of the type {expected}")


def _bounds(shape: Any, size: int, value: Any, where: str, what: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        yield _said(value, where, f"Member must have {what} greater than or equal to {least}")
    if most is not None and size > most:
        yield _said(value, where, f"Member must have {what} less than or equal to {most}")


def _said(value: Any, where: str, constraint: str) -> str:
    shown = "null" if value is None else f"'{value}'"
    return f"Value {shown} at '{where}' failed to satisfy constraint: {constraint}"


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    """Compile a model's pattern, whose classes are Java's: \\p{…} is taken as anything."""
    return re.compile(re.sub(r"\\p\{[^}]*\}", r"\\w\\s!-~", text), re.DOTALL)
