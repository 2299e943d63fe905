"""What a rule is, and what it finds: plain values.

A rule is a function that asks a Subject and yields what it found. What cannot be told is never an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from builder.guest.lint.subject import Subject

Severity = Literal["error", "warning", "note"]
SEVERITIES: Mapping[Severity, str] = {
    "error": "the image will not boot, cannot be reached, or leaks a secret",
    "warning": "it works, and will hurt",
    "note": "worth knowing; also what could not be told",
}

_QUOTE_LIMIT = 160  # characters of evidence
_SECRETS = (
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),  # user:password of a URL
    re.compile(r"(?i)((?:password|passwd|secret|token|key|auth)[\w-]*[\"']?\s*[=:]\s*)[^\s,;]+"),
    re.compile(r"\$(?:\d\w?|y|gy|2[abxy])\$[^\s:]+"),  # password hashes, crypt(5)
    re.compile(r"[A-Za-z0-9+/]{40,}={0,2}"),  # keys in base64
)


@dataclass(frozen=True, kw_only=True)
class Mend:
    """A step of a recipe that mends a finding, with its options as YAML has them."""

    step: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether a recipe can say it: no name in it is more than printable text, or has a recipe's braces."""
        return all(text.isprintable() and not {"{", "}"} & set(text) for text in _texts(self.options))


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for key, inner in value.items():
                lines = key == "content"  # a file's, which may have several
                yield from (text.replace("\n", "") for text in _texts(inner)) if lines else _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)
        case _:
            return


def install(*packages: str) -> Mend:
    """Return the step that installs packages, from the guest's own repositories."""
    return Mend(step="packages", options={"install": list(packages), "network": True})


def delete(*paths: str) -> Mend:
    """Return the step that deletes files of the guest."""
    return Mend(step="files", options={"entries": [{"path": path, "delete": True} for path in paths]})


def lock(user: str) -> Mend:
    """Return the step after which no password lets that user in."""
    return Mend(step="users", options={"lock": [user]})


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing that a rule found. `where` is FILE:LINE, a file or a device; `quote` the evidence as it stands there.

    `advice` says what a person can do where there is no `mend`.
    """

    severity: Severity
    what: str
    where: str = ""
    quote: str = ""
    mends: tuple[Mend, ...] = ()
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found, by which rule. Texts are printable, and secrets in them blotted out."""

    rule: str
    severity: Severity
    what: str
    where: str = ""
    quote: str = ""
    mends: tuple[Mend, ...] = ()
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.severity}: {self.rule}: {self.what}{f' ({self.where})' if self.where else ''}"


Check = Callable[[Subject], Iterator[Found]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule: its function, the severest word it has, and the step kinds that may mend what it finds."""

    check: Check
    worst: Severity
    mended_by: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its name, as `except:` and reports have it: that of the function."""
        return self.check.__name__.replace("_", "-")


def printable(text: str) -> str:
    """Return a guest's text as a person may see it: on one line, nothing that a terminal would obey, not too long."""
    plain = "".join(char if char.isprintable() else "�" for char in text.strip())
    return plain if len(plain) <= _QUOTE_LIMIT else f"{plain[: _QUOTE_LIMIT - 1]}…"


def blotted(text: str) -> str:
    """Return the text without what looks like a secret, printable."""
    text = text[: 8 * _QUOTE_LIMIT]  # what is beyond is not shown; the patterns would take their time with megabytes
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: f"{found[1] if found.re.groups else ''}[blotted out]", text)
    return printable(text)
