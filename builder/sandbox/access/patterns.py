"""Patterns of policies: `*` and `?` in actions, resources and values, and the variables `${…}` in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

Context = Mapping[str, tuple[str, ...]]  # condition keys in lower case; most have one value

_PARTS = re.compile(r"\$\{([^}]*)\}|(\*)|(\?)|([^*?$]+|\$)")
_LITERAL = {"*": r"\*", "?": r"\?", "$": r"\$"}
_SEGMENTS = 5  # colons of an ARN before its resource


def matches(pattern: str, text: str, context: Context, *, fold: bool = False) -> bool:
    """Say whether the whole text is what the pattern means; never when a variable in it has no value."""
    compiled = _fixed(pattern, fold) if "${" not in pattern else _compile(pattern, context, fold=fold)
    return compiled is not None and compiled.fullmatch(text) is not None


def matches_arn(pattern: str, arn: str, context: Context) -> bool:
    """Say the same of ARNs, part by part: a wildcard does not reach over a colon, but in the resource it does."""
    if pattern == "*":
        return True
    patterns, parts = pattern.split(":", _SEGMENTS), arn.split(":", _SEGMENTS)
    return len(patterns) == len(parts) and all(
        matches(one, part, context) for one, part in zip(patterns, parts, strict=True)
    )


def substituted(text: str, context: Context) -> str | None:
    """Return a text without wildcards of its own with its variables filled in, or None when one has no value."""
    if "${" not in text:
        return text
    filled = []
    for variable, *rest in _PARTS.findall(text):
        value = "".join(rest) or _value(variable, context)
        if value is None:
            return None
        filled.append(value)
    return "".join(filled)


@lru_cache(maxsize=4096)
def _fixed(pattern: str, fold: bool) -> re.Pattern[str] | None:  # noqa: FBT001 - a cache key
    return _compile(pattern, {}, fold=fold)


def _compile(pattern: str, context: Context, *, fold: bool) -> re.Pattern[str] | None:
    parts = []
    for variable, star, question, plain in _PARTS.findall(pattern):
        if star or question:
            parts.append(".*" if star else ".")
        elif plain:
            parts.append(re.escape(plain))
        elif variable in _LITERAL:
            parts.append(_LITERAL[variable])
        elif (value := _value(variable, context)) is None:
            return None
        else:
            parts.append(re.escape(value))
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if fold else 0))


def _value(variable: str, context: Context) -> str | None:
    """Return a variable's value: the one value of its condition key, else the default after the comma."""
    if variable in _LITERAL:
        return variable
    name, comma, default = variable.partition(",")
    values = context.get(name.strip().lower(), ())
    if len(values) == 1:
        return values[0]
    return default.strip().strip("'") if comma else None
