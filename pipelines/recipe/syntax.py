"""The YAML parser's complaints, in words that tell what to do."""

from __future__ import annotations

import re

import yaml

from pipelines.recipe.problems import quoted
from pipelines.recipe.source import Findings, Source, Span

_INDENT = "the indentation does not fit the lines above"
_TAGS = "tags are not allowed; a recipe holds plain values only"
_WORDS = {  # libyaml's scanner.c and parser.c, 0.2.5
    "mapping values are not allowed in this context": "a `:` cannot stand here; check the indentation or use quotes",
    "could not find expected ':'": "a `:` is missing after this key, or a quote is not closed",
    "did not find expected key": _INDENT,
    "did not find expected '-' indicator": _INDENT,
    "did not find expected ',' or ']'": "a `,` or `]` is missing in the list that begins in line {context}",
    "did not find expected ',' or '}'": "a `,` or `}}` is missing in the mapping that begins in line {context}",
    "found character that cannot start any token": "text cannot begin with {character}; write it in quotes",
    "did not find expected node content": "a value is missing here, or a bracket is not closed",
    "found unknown escape character": "in double quotes a backslash begins an escape; use single quotes",
    "found invalid Unicode character escape code": "this escape is no character",
    "found duplicate anchor": "this anchor is already in use",
    "found undefined tag handle": _TAGS,
    "did not find expected whitespace or line break": _TAGS,
    "did not find URI escaped octet": _TAGS,
}
_NEVER_CLOSED = {
    "found unexpected end of stream": "this quote is never closed",
    "did not find expected ',' or ']'": "this `[` is never closed",
    "did not find expected ',' or '}'": "this `{` is never closed",
}
_BARE_VARIABLE = re.compile(r":\s+(\{[A-Za-z][A-Za-z0-9_-]*\}[^,}\s#].*?)\s*$")


def say_syntax(error: yaml.MarkedYAMLError, source: Source, findings: Findings) -> None:
    """Report the syntax error where it is, or where its usual cause is."""
    mark = error.problem_mark or error.context_mark
    assert mark is not None  # the C parser marks every error
    for line in (mark.line, mark.line - 1):
        if 0 <= line < len(source.lines) and _say_cause(line, source, findings):
            return
    context = error.context_mark
    if mark.index >= len(source.text.rstrip()) and context and error.problem in _NEVER_CLOSED:
        findings.add(_at(context.line, context.column, 1), _NEVER_CLOSED[error.problem])
        return
    text = source.lines[mark.line] if mark.line < len(source.lines) else ""
    character = quoted(text[mark.column : mark.column + 1])
    known = _WORDS.get(error.problem or "", f"is not YAML: {error.problem}".replace("{", "{{").replace("}", "}}"))
    begins = context.line + 1 if context else mark.line + 1
    findings.add(_at(mark.line, mark.column, 1), known.format(context=begins, character=character))


def _say_cause(line: int, source: Source, findings: Findings) -> bool:
    text = source.lines[line]
    indent = text[: len(text) - len(text.lstrip())]
    if "\t" in indent:
        findings.add(_at(line, indent.index("\t"), 1), "a tab stands in the indentation; YAML takes only spaces there")
        return True
    if bare := _BARE_VARIABLE.search(text):
        value = bare.group(1)
        at = _at(line, bare.start(1), len(value))
        findings.add(at, f"a value that begins with `{{` must be in quotes: '{quoted(value)[1:-1]}'")
        return True
    return False


def _at(line: int, column: int, width: int) -> Span:
    return Span(line=line, column=column, start=0, end=width)
