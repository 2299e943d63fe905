"""Every account's password field at once: a hostile passwd may have tens of thousands of entries."""

from __future__ import annotations

from collections.abc import Mapping

from builder.guest.accounts import PASSWD, SHADOW, Accounts


def passwords(accounts: Accounts) -> Mapping[str, str]:
    """Return by name what `Accounts.password` says of each: a hash, `` for none needed, or what no password fits."""
    shadow = _second_fields(accounts.texts.get(SHADOW, ""))
    return {
        name: shadow.get(name, "*") if field == "x" else field
        for name, field in _second_fields(accounts.texts.get(PASSWD, "")).items()
    }


def lets_in(field: str) -> bool:
    """Say whether some password, be it the empty one, fits such a field."""
    return not field.startswith(("!", "*")) and field != "x"


def _second_fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if line and line[0] not in "#+-" and ":" in line:
            name, field, *_ = line.split(":")
            found.setdefault(name, field)
    return found
