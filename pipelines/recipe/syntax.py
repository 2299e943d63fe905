"""The YAML parser's complaints, in words that tell what to do."""

from __future__ import annotations

import re

import yaml

from pipelines.recipe.source import Findings, Source, Span

_INDENT = "the indentation does not fit the lines above"
_WORDS = {
    "mapping values are not allowed in this context": "a `:` cannot stand here; check the indentation or use quotes",
    "could not find expected ':'": "a `:` is missing after this key, or a quote is not closed",
    "did not find expected key": _INDENT,
    "did not find expected '-' indicator": _INDENT,
    "did not find expected ',' or ']'": "a `,` or `]` is missing in the list that begins in line {context}",
    "did not find expected ',' or '}'": "a `,` or `}}` is missing in the mapping that begins in line {context}",
    "found unexpected end of stream": "the quote that opens in line {context} is never closed",
    "found character that cannot start any token": "text cannot begin with `{character}`; write it in quotes",
    "found unknown escape character": "in double quotes a backslash begins an escape; use single quotes",
    "found duplicate anchor": "this anchor is already in use",
    "found undefined tag handle": "tags are not allowed; a recipe holds plain values only",
}
_BARE_VARIABLE = re.compile(r":\s+(\{[A-Za-z][A-Za-z0-9_-]*\}[^,}\s#].*?)\s*$")


def say_syntax(error: yaml.MarkedYAMLError, source: Source, findings: Findings) -> None:
    """Report the syntax error where it is, or where its usual cause is."""
    mark = error.problem_mark or error.context_mark
    if mark is None or mark.line >= len(source.lines):
        last = len(source.lines) - 1
        while last and not source.lines[last].strip():
            last -= 1
        line, column = last, len(source.lines[last].rstrip())
    else:
        line, column = mark.line, mark.column
    for number in (line, line - 1):
        if number >= 0 and _say_cause(number, source, findings):
            return
    context = error.context_mark.line + 1 if error.context_mark else line + 1
    text = source.lines[line]
    character = text[column] if column < len(text) else "end of line"
    words = _WORDS.get(error.problem or "")
    message = words.format(context=context, character=character) if words else f"is not YAML: {error.problem}"
    findings.add(_at(line, column, 1), message)


def _say_cause(line: int, source: Source, findings: Findings) -> bool:
    text = source.lines[line]
    indent = text[: len(text) - len(text.lstrip())]
    if "\t" in indent:
        findings.add(_at(line, indent.index("\t"), 1), "a tab stands in the indentation; YAML takes only spaces there")
        return True
    if bare := _BARE_VARIABLE.search(text):
        value = bare.group(1)
        at = _at(line, bare.start(1), len(value))
        findings.add(at, f'a value that begins with `{{` must be in quotes: "{value}"')
        return True
    return False


def _at(line: int, column: int, width: int) -> Span:
    return Span(line=line, column=column, start=0, end=width)
