"""sudo's rules in a guest. Source: sudoers(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from builder.guest.facts import GuestFacts

DIRECTORY = "/etc/sudoers.d"
_MAIN = ("/etc/sudoers", "/usr/etc/sudoers")  # the second on SUSE, where the first is not
_INCLUDES = re.compile(r"^[#@]includedir\s+/etc/sudoers\.d\b", re.MULTILINE)
# HOSTS = (USERS) TAGS: COMMANDS. One wrong rule and sudo takes none at all, so that only plain ones are let in.
_RULE = re.compile(
    r"[A-Za-z0-9_.!,-]+\s*=\s*(\([A-Za-z0-9_.%#:!, -]*\)\s*)?"
    r"(((NO)?(PASSWD|EXEC|SETENV|LOG_INPUT|LOG_OUTPUT|FOLLOW|MAIL)):\s*)*(ALL|!?/[^\s,:=\\\"]+|sudoedit\s)[^\n\\\"]*"
)


def is_rule(text: str) -> bool:
    """Say whether this is a rule as it stands after the user's name, like `ALL=(ALL) NOPASSWD:ALL`."""
    return bool(_RULE.fullmatch(text))


def path(name: str) -> str:
    """Return the file for a user's rules; sudo passes over names with a dot or a final ~."""
    return f"{DIRECTORY}/90-emi-{name.replace('.', '_')}"


def render(name: str, rules: Sequence[str]) -> bytes:
    """Return the file that gives a user these rules."""
    return "".join(f"{name} {rule}\n" for rule in rules).encode()


def missing(facts: GuestFacts) -> str | None:
    """Return why rules of ours would not be read in this guest, or None."""
    if not facts.exists("/usr/bin/sudo"):
        return "sudo is not installed in the guest"
    text = "".join(facts.text(path) for path in _MAIN)
    return None if _INCLUDES.search(text) else f"{_MAIN[0]} in the guest does not include {DIRECTORY}"
