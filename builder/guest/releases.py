"""The order of kernel releases, as `uname -r` says them: 6.1.0-9 before 6.1.0-10, 6.7-rc3 before 6.7.

Numbers count as numbers, and a number is newer than a word in its place (553.16.1.el8 than 553.el8, el8_10 than el8);
words before a release (rc, beta) are older than nothing. That is rpm's and `sort -V`'s order where both agree, which
they do on what distributions ship.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+|~")
_BEFORE = frozenset({"rc", "alpha", "beta", "pre", "~"})
_BEFORE_IT, _END, _WORD, _NUMBER = range(4)

Token = tuple[int, int, str]


def key(release: str) -> tuple[Token, ...]:
    """Return what releases are sorted by."""
    return (*map(_token, _TOKEN.findall(release)), (_END, 0, ""))


def newest(releases: Iterable[str]) -> list[str]:
    """Return the newest release; further ones only where they are that release in another flavour (-cloud, xen)."""
    ordered = sorted(releases, key=key, reverse=True)
    return [release for release in ordered if same(release, ordered[0])]


def same(one: str, other: str) -> bool:
    """Say whether two are flavours of one release: they part where one goes on with a word, or both do."""
    for left, right in zip_longest(key(one), key(other), fillvalue=(_END, 0, "")):
        if left != right:
            return _is_flavour(left) and _is_flavour(right)
    return True


def in_order(releases: Iterable[str]) -> Sequence[str]:
    """Return the releases, oldest first."""
    return sorted(releases, key=key)


def _is_flavour(token: Token) -> bool:
    return token[0] in (_WORD, _END)


def _token(text: str) -> Token:
    if text.isdigit():
        return (_NUMBER, int(text[:18]), "")
    return (_BEFORE_IT if text in _BEFORE else _WORD, 0, text)
