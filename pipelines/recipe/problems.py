"""What is wrong with a recipe: values that know their place, and how a person sees them."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from builder.errors import UsageError

MOST = 50  # problems shown; a file with more is broken in one way, not in fifty
_SENTENCE = 400  # characters of a message shown
_WINDOW = 100  # characters of a line shown around the caret


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong at one place. Lines and columns count from 1; line 0 means the place is no line of the file."""

    path: str
    line: int = 0
    column: int = 0
    message: str
    suggestion: str | None = None
    where: str = ""  # steps[2].snapshot.verify
    excerpt: str = ""  # the user's own line
    width: int = 1  # characters the caret underlines


class RecipeError(UsageError):
    """The recipe cannot be used; `problems` holds all that is wrong with it. Nothing was started."""

    advice = "Correct the lines shown; `emi steps KIND` lists a step's options."

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(render(problems))
        self.problems = tuple(problems)


def render(problems: Sequence[Problem]) -> str:
    """Return the problems as a person reads them, each with the line it is about."""
    shown = [render_one(problem) for problem in problems[:MOST]]
    if len(problems) > MOST:
        shown.append(f"… and {len(problems) - MOST} more")
    return "\n".join(shown)


def render_one(problem: Problem) -> str:
    """Return one problem: its place and sentence, the user's line, and a caret below it."""
    place = problem.path + (f":{problem.line}:{problem.column}" if problem.line else "")
    ask = f"; did you mean `{problem.suggestion}`?" if problem.suggestion else ""
    sentence = f"{place}: {problem.message}{ask}"
    if not problem.line or not problem.excerpt.strip():
        return sentence
    text, column = _window(problem.excerpt, problem.column - 1)
    carets = "^" * max(1, len(_blank(text[column : column + problem.width])))
    number = f"{problem.line:>5}"
    return f"{sentence}\n{number} | {text}\n{' ' * len(number)} | {_blank(text[:column])}{carets}"


def _window(line: str, column: int) -> tuple[str, int]:
    """Cut a long line to what stands around the column; return it with the column's new place.

    What would move a terminal's cursor or turn its writing direction shows as a replacement character.
    """
    start = max(0, column - _WINDOW // 2) if len(line) > _WINDOW else 0
    cut = _tamed(line[start : start + _WINDOW].rstrip())
    return (f"…{cut}", column - start + 1) if start else (cut, column)


def _tamed(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text)


def shortened(message: str) -> str:
    """Return a sentence that may quote a value of any length or content, fit for a terminal."""
    cut = _tamed(message[:_SENTENCE])
    return f"{cut}…" if len(message) > _SENTENCE else cut


def _blank(text: str) -> str:
    """Return white space exactly as wide as the text is on a terminal."""
    return "".join("\t" if char == "\t" else " " * _columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def quoted(text: str, most: int = 60) -> str:
    """Return the text in backticks, short and without characters that could move a terminal's cursor."""
    plain = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: most + 1])
    return f"`{plain[:most]}…`" if len(plain) > most else f"`{plain}`"


def any_of(words: Iterable[str], conjunction: str = "or") -> str:
    """Join words as a sentence does: a, b or c."""
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was most likely meant, if one is near enough."""
    folded = {candidate.lower().replace("_", "-"): candidate for candidate in known}
    wanted = word[:100].lower().replace("_", "-")
    matches = difflib.get_close_matches(wanted, folded, n=1, cutoff=0.6)
    if not matches:  # `size` for `max_size`, where that is the only one
        holding = [candidate for candidate in folded if wanted in candidate.split("-")]
        matches = holding if len(holding) == 1 else []
    return folded[matches[0]] if matches else None
