"""The recipe's text, read with limits, and the one list that every problem found in it goes to."""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pipelines.recipe.problems import Problem, RecipeError, shortened

MOST_PROBLEMS = 1000  # a file with more is no recipe: the rest of it is not looked at
LIMIT = 1 << 20  # bytes; the largest recipe we can imagine is a hundredth of that

_UTF16_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML 1.1, production b-break
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Span:
    """A stretch of the text; lines, columns and offsets count characters from 0."""

    line: int
    column: int
    start: int
    end: int


class Source:
    """The text of one recipe and its lines, as YAML counts them."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.lines = _BREAK.split(text)
        self._starts = [0, *(found.end() for found in _BREAK.finditer(text))]

    def span(self, start: int, end: int | None = None) -> Span:
        """Return the place of an offset in the text."""
        line = bisect_right(self._starts, start) - 1
        column = start - self._starts[line]
        return Span(line=line, column=column, start=start, end=start + 1 if end is None else end)

    def problem(self, at: Span, message: str, *, where: str = "", suggestion: str | None = None) -> Problem:
        """Return a problem that shows the line it is about."""
        number, column = at.line, at.column
        if number >= len(self.lines):  # the parser ends every file with a line break, even one without
            number, column = len(self.lines) - 1, len(self.lines[-1])
        line = self.lines[number]
        return Problem(
            path=str(self.path),
            line=number + 1,
            column=column + 1,
            message=shortened(message),
            suggestion=suggestion,
            where=where,
            excerpt=line,
            width=max(1, min(at.end - at.start, len(line) - column)),
        )


class TooMany(Exception):
    """There are more problems than anybody will read."""


class Findings:
    """Collects what is wrong, so that all of it is reported at once.

    A place is reported once: what follows from a value that is broken already would only be noise.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._broken: set[Span] = set()

    def add(self, at: Span, message: str, *, where: str = "", suggestion: str | None = None) -> None:
        """Report a problem, unless its place is broken already. Raises TooMany."""
        if len(self.problems) >= MOST_PROBLEMS:
            raise TooMany
        if at not in self._broken:
            self.problems.append(self.source.problem(at, message, where=where, suggestion=suggestion))

    def spoil(self, at: Span) -> None:
        """Take no further problems for this place."""
        self._broken.add(at)

    def is_spoilt(self, at: Span) -> bool:
        """Say whether the place is broken already."""
        return at in self._broken

    def warn(self, at: Span, message: str, *, where: str = "") -> None:
        """Report what is allowed, but hardly meant."""
        self.warnings.append(self.source.problem(at, message, where=where))

    def raise_if_any(self) -> None:
        """Raise RecipeError with every problem, in the order of the file's lines."""
        if self.problems:
            raise RecipeError(sorted(self.problems, key=lambda problem: (problem.line, problem.column)))


def read(path: Path, *, noun: str = "a recipe") -> Source:
    """Return the recipe's text. Raises RecipeError for what cannot be read, is too large, or is not UTF-8 text.

    `noun` is what the file is, where it is something else that is written as recipes are.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except IsADirectoryError:
        _refuse(path, "is a directory; name the recipe's YAML file in it")
    except FileNotFoundError:
        _refuse(path, "there is no such file")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        _refuse(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if len(data) > LIMIT:
        _refuse(path, f"is larger than 1 MiB, the limit for {noun}; is it the right file?")
    if data.startswith(_UTF16_32):
        _refuse(path, "is UTF-16 or UTF-32 text; save it as UTF-8")
    return Source(path, _decoded(path, data.removeprefix(codecs.BOM_UTF8), noun))


def _decoded(path: Path, data: bytes, noun: str) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start
        line = data.count(b"\n", 0, start) + 1
        _refuse(
            path, f"is not UTF-8 text: byte 0x{data[start]:02x} at offset {start}, in line {line}; save it as UTF-8"
        )
    if bad := _NOT_PRINTABLE.search(text):
        source = Source(path, text)
        code = ord(bad.group())
        name = "a NUL byte" if code == 0 else f"the control character U+{code:04X}"
        problem = source.problem(source.span(bad.start()), f"{name} is not allowed in {noun}")
        raise RecipeError([_without_excerpt(problem)])
    return text


def _without_excerpt(problem: Problem) -> Problem:
    return Problem(path=problem.path, line=problem.line, column=problem.column, message=problem.message)


def _refuse(path: Path, message: str) -> NoReturn:
    raise RecipeError([Problem(path=str(path), message=message)]) from None
