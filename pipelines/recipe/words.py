"""pydantic's verdicts in a person's words. What has no better phrase keeps pydantic's, without its jargon."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from pipelines.recipe.nodes import Node, ScalarNode, is_null, noun
from pipelines.recipe.problems import any_of, quoted
from pipelines.recipe.scalars import Ambiguous, resolve

NEEDS: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "path_type": "a path",
    "url_type": "a URL",
    "none_required": "nothing",
}
_VARIABLE_TYPE = {"text": "string", "a whole number": "int", "true or false": "bool"}
_CHOICE = re.compile(r"'([^']*)'|([^\s,']+)")

Said = Callable[[Mapping[str, Any], object], str]
_LIMITS: Mapping[str, Said] = {
    "greater_than": lambda ctx, _: f"must be more than {ctx['gt']}",
    "greater_than_equal": lambda ctx, _: f"must be at least {ctx['ge']}",
    "less_than": lambda ctx, _: f"must be less than {ctx['lt']}",
    "less_than_equal": lambda ctx, _: f"must be at most {ctx['le']}",
    "multiple_of": lambda ctx, _: f"must be a multiple of {ctx['multiple_of']}",
    "string_too_short": lambda ctx, value: (
        "must not be empty" if value == "" else f"must have at least {ctx['min_length']} characters"
    ),
    "string_too_long": lambda ctx, _: f"must have at most {ctx['max_length']} characters",
    "string_pattern_mismatch": lambda ctx, value: f"cannot be {quoted(str(value))}; it must match {ctx['pattern']}",
    "too_short": lambda ctx, value: "must not be empty" if not value else f"needs at least {ctx['min_length']} items",
    "too_long": lambda ctx, _: f"takes at most {ctx['max_length']} items",
    "union_tag_not_found": lambda ctx, _: f"needs the key {ctx['discriminator'].replace(chr(39), '`')}",
    "union_tag_invalid": lambda ctx, _: (
        f"cannot be {quoted(ctx['tag'])}; it is {any_of(choices(ctx['expected_tags']))}"
    ),
    "url_parsing": lambda ctx, _: f"is not a URL: {ctx['error']}",
    "url_scheme": lambda ctx, _: f"is a URL that begins with {any_of(choices(ctx['expected_schemes']))}",
    "finite_number": lambda _, __: "must be a finite number",
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a sentence is about: an option's name, and its value as written and as inserted."""

    name: str
    node: Node
    value: object


def choices(expected: str) -> list[str]:
    """Return the words in pydantic's "'raw' or 'qcow2'", in backticks."""
    words = [text or bare for text, bare in _CHOICE.findall(expected)]
    return [f"`{word}`" for word in words if word != "or"]


def say(error: ErrorDetails, subject: Subject) -> str:
    """Return the sentence for one verdict on one value."""
    name, kind, context = f"`{subject.name}`", error["type"], error.get("ctx", {})
    if kind in NEEDS:
        return say_needs([NEEDS[kind]], subject)
    if kind in ("literal_error", "enum"):
        given = "" if isinstance(subject.value, dict | list) else quoted(_written(subject))
        return f"{name} is {any_of(choices(context['expected']))}, not {given or noun(subject.node)}"
    if kind in _LIMITS:
        return f"{name} {_LIMITS[kind](context, subject.value)}"
    if kind in ("value_error", "assertion_error"):
        return f"{name}: {_without_repr(str(context.get('error') or error['msg']), subject)}"
    message = error["msg"].replace("Input should", "it should").replace("Value error, ", "")
    return f"{name}: {message[:1].lower()}{message[1:]}"


def say_needs(needs: list[str], subject: Subject) -> str:
    """Return the sentence for a value of the wrong type, with the slip of the pen that is its usual cause."""
    node = subject.node
    sentence = f"`{subject.name}` needs {any_of(dict.fromkeys(needs))}"
    if is_null(node):
        return f"`{subject.name}` has no value; it needs {any_of(dict.fromkeys(needs))}"
    if not isinstance(node, ScalarNode):
        return f"{sentence}, not {noun(node)}"
    if isinstance(node.value, str) and subject.value != node.value:
        declare = _VARIABLE_TYPE.get(needs[0])
        advice = f"; declare it with `type: {declare}`" if declare else ""
        return f"{sentence}, but variable `{node.value.strip('{}')}` is {_noun_of(subject.value)}{advice}"
    if "text" in needs and node.value is not None:
        return f"{sentence}, not {noun(node)}; write it in quotes: '{node.text}'"
    if isinstance(node.value, str) and _unquoted_fits(node, needs):
        return f"{sentence}, not text; remove the quotes"
    return f"{sentence}, not {noun(node)}"


def _without_repr(sentence: str, subject: Subject) -> str:
    """Show the value that a validator's sentence begins with as the recipe has it, not as Python would."""
    python = repr(subject.value)
    return quoted(_written(subject)) + sentence.removeprefix(python) if sentence.startswith(python) else sentence


def _unquoted_fits(node: ScalarNode, needs: list[str]) -> bool:
    try:
        return node.quoted and _noun_of(resolve(node.text)) in needs
    except Ambiguous:
        return False


def _noun_of(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case _:
            return "text"


def _written(subject: Subject) -> str:
    value, node = subject.value, subject.node
    return value if isinstance(value, str) else node.text if isinstance(node, ScalarNode) else noun(node)
