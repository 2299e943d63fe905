"""Types of option values that several steps share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from builder.units import parse_size

# Bytes, written in a recipe as `10 GiB`, `512MiB`, `4G` or a plain number; always an int once parsed.
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([KMGT](iB)?|[kKMGT]?B)?\s*$"},
                {"type": "integer", "minimum": 0},
            ]
        }
    ),
]
