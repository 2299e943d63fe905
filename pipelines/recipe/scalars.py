"""What an unquoted scalar means.

Readers of YAML 1.1 and 1.2 disagree about `no`, `012`, `1_000`, `12:30` and dates (compare
https://yaml.org/type/bool.html, int.html, float.html and timestamp.html with chapter 10.3 of YAML 1.2.2). emi takes
only what both read alike and asks for quotes around the rest.
"""

from __future__ import annotations

import re

from pipelines.recipe.nodes import Plain

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OLD_BOOL = re.compile("yes|no|on|off", re.IGNORECASE)
_INT = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t][-+:.0-9Zz \t]*)?")
_ODD_NUMBER = re.compile(
    r"""  [-+]?0[xob]?[0-9a-fA-F_]+        # 012, 0x1F, 0o14, 0b1
        | [-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?   # 12:30, counted in sixties
        | [-+]?([0-9][0-9_]*)?\.?[0-9_]+([eE][-+]?[0-9]+)?   # 1_000, +5, .5
        | [-+]?[0-9][0-9_]*\.            # 5.
        | [-+]?\.(inf|Inf|INF) | \.(nan|NaN|NAN)""",
    re.VERBOSE,
)
_DIGITS = 18  # what every reader of JSON and YAML holds exactly


class Ambiguous(Exception):
    """Two readers of YAML would not agree on this scalar; the message says what to write instead."""


def resolve(text: str) -> Plain:
    """Return the value of an unquoted scalar. Raises Ambiguous."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _OLD_BOOL.fullmatch(text):
        meant = "true" if text.lower() in ("yes", "on") else "false"
        raise Ambiguous(
            f"`{text}` is read as {meant} by some and as text by others; write {meant}, or '{text}' in quotes"
        )
    if _INT.fullmatch(text) and len(text) <= _DIGITS:
        return int(text)
    if _FLOAT.fullmatch(text) and len(text) <= _DIGITS and abs(number := float(text)) != float("inf"):
        return number
    if _DATE.fullmatch(text):
        raise Ambiguous(f"`{text}` is read as a date by some and as text by others; write it in quotes: '{text}'")
    if _ODD_NUMBER.fullmatch(text):
        raise Ambiguous(
            f"`{text}` is not the same number to every reader of YAML; "
            f"for text write it in quotes: '{text}', else as a plain decimal number"
        )
    return text
