"""Checksums as publishers write them.

Line formats: GNU coreutils' `HASH  NAME` and `HASH *NAME` (with a leading backslash when NAME is escaped), BSD's
`SHA256 (NAME) = HASH`, and a file that holds one bare hash. Comments, PGP armour and the hashes of weaker algorithms
beside them are passed over.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.errors import InputError, UsageError

# Only these are proof; MD5 and SHA-1 collisions can be made.
_ALGORITHM_BY_LENGTH: Mapping[int, str] = {64: "sha256", 96: "sha384", 128: "sha512"}
_WEAK_BY_LENGTH: Mapping[int, str] = {32: "MD5", 40: "SHA-1", 56: "SHA-224"}
# sha256 first: it is what the store names files by, so that a file that is there already is not read at all.
_PREFERRED = ("sha256", "sha512", "sha384")

_GNU = re.compile(r"(\\?)([0-9A-Fa-f]{32,128}) [ *](.+)")
_BSD = re.compile(r"(\\?)([A-Za-z0-9-]+) ?\((.+)\) ?= ?([0-9A-Fa-f]{32,128})")
_BARE = re.compile(r"([0-9A-Fa-f]{32,128})(?:\s+[ *]?-)?")
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
_NEAR = 5  # names shown when the one looked for is absent


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """A digest that a file must have: `algorithm` is sha256, sha384 or sha512, `value` lower-case hexadecimal."""

    algorithm: str
    value: str
    source: str = ""  # where it was read, for messages

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


@dataclass(frozen=True, kw_only=True)
class _Entry:
    name: str  # '' for a bare hash
    value: str

    @property
    def algorithm(self) -> str | None:
        return _ALGORITHM_BY_LENGTH.get(len(self.value))


def parse_checksum(text: str) -> Checksum:
    """Read `sha256:HEX`, `sha384:HEX` or `sha512:HEX`. Raises UsageError."""
    algorithm, _, value = text.strip().partition(":")
    lengths = {name: length for length, name in _ALGORITHM_BY_LENGTH.items()}
    if algorithm not in lengths:
        raise UsageError(f"checksum {text!r} does not begin with sha256:, sha384: or sha512:")
    if not re.fullmatch(f"[0-9A-Fa-f]{{{lengths[algorithm]}}}", value):
        raise UsageError(f"checksum {text!r}: {algorithm} has {lengths[algorithm]} hexadecimal digits, not {value!r}")
    return Checksum(algorithm=algorithm, value=value.lower())


def parse_sums(data: bytes, name: str, *, source: str) -> Checksum:
    """Return the checksum of the file called `name` from a checksum file's bytes; `source` names it in messages.

    An entry `./NAME` or `dir/NAME` stands for NAME; a file with one bare hash stands for whatever is asked. Raises
    InputError if there is no entry, several that differ, or none of a strong algorithm.
    """
    entries = _entries(data, source)
    matching = [entry for entry in entries if entry.name == name]
    matching = matching or [entry for entry in entries if posixpath.basename(entry.name) == name]
    if not matching and len({entry.name for entry in entries}) == 1 and entries[0].name == "":
        matching = entries
    if not matching:
        raise InputError(f"{source} has no checksum of {name!r}{_near(name, entries)}")
    for algorithm in _PREFERRED:
        values = {entry.value for entry in matching if entry.algorithm == algorithm}
        if len(values) > 1:
            places = ", ".join(sorted({repr(entry.name) if entry.name else "no name" for entry in matching}))
            raise InputError(f"{source} has {len(values)} different {algorithm} checksums of {name!r} ({places})")
        if values:
            return Checksum(algorithm=algorithm, value=values.pop(), source=source)
    weak = _WEAK_BY_LENGTH.get(len(matching[0].value), f"{len(matching[0].value) * 4}-bit")
    raise InputError(f"{source} has only the {weak} checksum of {name!r}: SHA-256 or SHA-512 is needed")


def _entries(data: bytes, source: str) -> list[_Entry]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{source} is not a checksum file: it is not text") from None
    # str.splitlines would also split at characters that may stand in a name.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    entries = [entry for line in lines if (entry := _entry(line.strip(" \t")))]
    if not entries:
        raise InputError(f"{source} is not a checksum file: no line of it has a checksum")
    return entries


def _entry(line: str) -> _Entry | None:
    if found := _GNU.fullmatch(line):
        escaped, value, name = found.groups()
    elif found := _BSD.fullmatch(line):
        escaped, _, name, value = found.groups()
    elif found := _BARE.fullmatch(line):
        return _Entry(name="", value=found[1].lower())
    else:
        return None
    if escaped:
        name = re.sub(r"\\[\\nr]", lambda match: _ESCAPES[match[0]], name)
    name = "" if name == "-" else posixpath.normpath(name)
    return _Entry(name=name, value=value.lower())


def _near(name: str, entries: Sequence[_Entry]) -> str:
    names = sorted({posixpath.basename(entry.name) for entry in entries if entry.name})
    near = difflib.get_close_matches(name, names, n=_NEAR, cutoff=0.5) or names[:_NEAR]
    if not near:
        return ""
    more = f" and {len(names) - len(near)} more" if len(names) > len(near) else ""
    return f"; it has {', '.join(map(repr, near))}{more}"
