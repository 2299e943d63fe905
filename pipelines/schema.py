"""The JSON Schema (draft 2020-12) of recipes, for editors: completion, help on hover, a first check while typing.

Made from the same option models that `emi validate` uses. An editor cannot follow references or variables, so the
schema lets `{var}` stand for any value; what a variable's value must be is for `emi validate` to say.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any, get_args

from pipelines.kinds import BUILT_IN, Kinds
from pipelines.recipe import grammar
from pipelines.recipe.variables import VariableType

Schema = dict[str, Any]

_INSERTED: Schema = {"$ref": "#/$defs/inserted"}
_WITH_INSERTED: Schema = {"$ref": "#/$defs/with-inserted"}
_VARIABLE = r"\{" + grammar.VARIABLE + r"\}"
_NOTES = ("description", "default", "examples", "deprecated")


def schema(kinds: Kinds = BUILT_IN) -> Schema:
    """Return the schema of a recipe that may use these kinds; the same on every call."""
    definitions: Schema = {
        "inserted": {"type": "string", "pattern": f"^{_VARIABLE}$", "description": "a variable: '{name}'"},
        "with-inserted": {"type": "string", "pattern": _VARIABLE, "description": "text with variables in it"},
        "variable": _variable(),
    }
    for name in kinds.names():
        definitions |= _definitions(name, kinds)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "emi recipe",
        "description": "What a machine image is made of, step by step.",
        **_closed({
            "name": {"type": "string", "pattern": _whole(grammar.NAME), "description": "names the image family"},
            "description": {"type": "string", "description": "for people"},
            "vars": {
                "type": "object",
                "description": "typed values; '{name}' in a step's option inserts one, `--var name=value` overrides it",
                "propertyNames": {"pattern": _whole(grammar.VARIABLE)},
                "additionalProperties": {"$ref": "#/$defs/variable"},
            },
            "steps": {
                "type": "array",
                "description": "what is done, in order; each step takes the result of the one before it",
                "minItems": 1,
                "items": {"$ref": "#/$defs/step"},
            },
            "outputs": {
                "type": "object",
                "description": "named results: a step's id, or ID.FIELD for a part of its result",
                "minProperties": 1,
                "additionalProperties": {"type": "string", "pattern": _whole(rf"{grammar.ID}(\.\w+)?")},
            },
        }),
        "required": ["name", "steps"],
        "$defs": {"step": _step(kinds), **definitions},
    }  # fmt: skip


def schema_page() -> str:
    """Return docs/recipe.schema.json, which the recipes' modelines name."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _step(kinds: Kinds) -> Schema:
    beside = {
        "id": {"type": "string", "pattern": _whole(grammar.ID), "description": "by default the kind: `download-2`"},
        "from": {"type": "string", "description": "the id of the step whose result this one takes"},
    }
    names = kinds.names()
    steps = {name: {"$ref": f"#/$defs/kind.{name}"} for name in names}
    one = [{"required": [name]} for name in names]
    return {**_closed({**steps, **beside}), "oneOf": one, "description": "one step: its kind and options"}


def _variable() -> Schema:
    types = list(get_args(VariableType))
    scalars: list[Schema] = [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]
    declared = _closed({
        "type": {"enum": types, "description": "by default the type of `default`"},
        "default": {"anyOf": scalars, "description": "without it a value must come with --var"},
        "description": {"type": "string"},
    })  # fmt: skip
    declared["anyOf"] = [{"required": ["type"]}, {"required": ["default"]}]
    return {"anyOf": [*scalars, declared], "description": "a value, or its `type`, `default` and `description`"}


def _definitions(kind: str, kinds: Kinds) -> Schema:
    """Return the definition of a kind's options and those of the models inside it, each under the kind's name."""
    step = kinds.load(kind)
    prefix = f"kind.{kind}"
    whole = step.options.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    inner = whole.pop("$defs", {})
    options = _open(whole) | {"description": inspect.cleandoc(type(step).__doc__ or "").split("\n\n")[0]}
    if not options.get("required"):
        options["type"] = ["object", "null"]
    return {prefix: options} | {f"{prefix}.{name}": _open(found) for name, found in inner.items()}


def _open(found: Mapping[str, Any]) -> Schema:
    """Return the schema with a place for `{var}` wherever a value is not free text already."""
    notes = {key: found[key] for key in _NOTES if key in found}
    rest = {key: value for key, value in found.items() if key not in (*_NOTES, "title")}
    match rest:
        case {"type": "object" | "array"}:
            return notes | {key: _open_inside(key, value) for key, value in rest.items()}
        case {"anyOf": list(variants)}:
            opened = [variant for each in variants for variant in _variants(_open(each))]
            distinct = {json.dumps(variant, sort_keys=True): variant for variant in opened}
            return notes | {"anyOf": list(distinct.values())}
        case {"type": "string", **constraints} if constraints:
            return notes | {"anyOf": [rest, _WITH_INSERTED]}
        case {"type": "integer" | "number" | "boolean"} | {"enum": _} | {"const": _}:
            return notes | {"anyOf": [rest, _INSERTED]}
        case _:
            return notes | rest


def _open_inside(key: str, value: Any) -> Any:
    match key, value:
        case ("properties" | "patternProperties", dict()):
            return {name: _open(inner) for name, inner in value.items()}
        case ("items" | "additionalProperties", dict()):
            return _open(value)
        case "prefixItems", list():
            return [_open(inner) for inner in value]
        case _:
            return value


def _variants(opened: Schema) -> list[Schema]:
    return opened["anyOf"] if opened.keys() == {"anyOf"} else [opened]


def _closed(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _whole(pattern: str) -> str:
    return f"^{pattern}$"
