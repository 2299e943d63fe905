"""sshd's settings as sshd reads them: the first value of a keyword counts, Include where it stands, Match left out.

Source: sshd_config(5).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from builder.guest.facts import GuestFacts

CONFIGS = ("/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config")  # the second on SUSE, where the first is not
_DEPTH = 4


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value, and where it stands."""

    value: str
    path: str
    line: int
    text: str


def sshd_settings(facts: GuestFacts) -> Mapping[str, Setting]:
    """Return the settings that hold for every connection, by keyword in small letters."""
    path = next((path for path in CONFIGS if facts.exists(path)), CONFIGS[0])
    found: dict[str, Setting] = {}
    for keyword, setting in _settings(facts, path, _DEPTH, set()):
        found.setdefault(keyword, setting)
    return found


def _settings(facts: GuestFacts, path: str, depth: int, seen: set[str]) -> Iterator[tuple[str, Setting]]:
    """Yield the settings of a file, each file once: the first value counts, and a circle would take for ever."""
    if path in seen:
        return
    seen.add(path)
    for number, line in enumerate(facts.text(path).splitlines(), 1):
        words = re.match(r"([A-Za-z]+)(?:\s*=\s*|\s+)(.*)", line.strip())
        if words is None:
            continue
        keyword, value = words[1].lower(), words[2].strip('"')
        if keyword == "match":
            return
        if keyword == "include" and depth:
            for pattern in value.split():
                full = posixpath.join(posixpath.dirname(path), pattern)
                for included in facts.names(full) if "*" in full else (full,):
                    yield from _settings(facts, included, depth - 1, seen)
            continue
        yield keyword, Setting(value=value, path=path, line=number, text=line)
