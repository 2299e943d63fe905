"""What comes with a user beside the account files: a home with the skeleton's files, sudo's rules, and what is left."""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Iterator, Sequence

from builder.guest import sudoers
from builder.guest.accounts import FILES, LOGIN_DEFS, SHADOW, Accounts, User
from builder.guest.edits import MakeDirectory, MakeLink, Remove, WriteFile
from builder.guest.facts import GuestFacts, Stat

Change = MakeDirectory | MakeLink | Remove | WriteFile

_SKELETON = "/etc/skel"
_DEPTH = 5  # levels of it


def home(user: User, facts: GuestFacts) -> list[Change]:
    """Return the edits that make a home that is not there, as useradd -m does."""
    if not user.home.startswith("/") or facts.exists(user.home):
        return []
    owner = (user.uid, user.gid)
    edits: list[Change] = [MakeDirectory(path=user.home, mode=_home_mode(facts), owner=owner)]
    for path, found in _below(facts, _SKELETON, _DEPTH):
        there = user.home + path.removeprefix(_SKELETON)
        if found.is_directory:
            edits.append(MakeDirectory(path=there, mode=found.permissions, owner=owner))
        elif found.is_link:
            edits.append(MakeLink(path=there, target=facts.link(path) or ""))
        elif found.is_file:
            edits.append(WriteFile(path=there, data=facts.read(path) or b"", mode=found.permissions, owner=owner))
    return edits


def written(before: Accounts, after: Accounts, facts: GuestFacts) -> list[Change]:
    """Return the edits of the account files that changed, the shadows first: no account is there half."""
    edits: list[Change] = []
    for path in (SHADOW, *(path for path in FILES if path != SHADOW)):
        text = after.texts.get(path)
        if text is not None and text != before.texts.get(path):
            mode = None if facts.exists(path) else 0o600 if "shadow" in path else 0o644
            edits.append(WriteFile(path=path, data=text.encode("utf-8", "surrogateescape"), mode=mode))
    return edits


def rules(name: str, wanted: Sequence[str], facts: GuestFacts) -> list[Change]:
    """Return the edit that gives a user these rules of sudo, or takes ours away where there are none."""
    path, data = sudoers.path(name), sudoers.render(name, wanted)
    if not wanted:
        return [Remove(paths=(path,))] if facts.exists(path) else []
    found = facts.stat(path)
    if facts.read(path) == data and found and (found.permissions, found.uid, found.gid) == (0o440, 0, 0):
        return []
    return [WriteFile(path=path, data=data, mode=0o440, owner=(0, 0))]


def leavings(user: User, others: Sequence[User], facts: GuestFacts) -> tuple[str, ...]:
    """Return what a user who is removed leaves: mail, crontabs, our rules of sudo, and its home.

    The home only where it is its own: not another's, nor above another's, nor a directory of the system.
    """
    name = user.name
    places = ["/var/mail", "/var/spool/mail", "/var/spool/cron", "/var/spool/cron/crontabs", "/var/spool/cron/tabs"]
    paths = [f"{place}/{name}" for place in places if name not in ("crontabs", "tabs")] + [sudoers.path(name)]
    place = posixpath.normpath(user.home) if user.home.startswith("/") else "/"
    found = facts.stat(place)
    shared = any(f"{posixpath.normpath(other.home)}/".startswith(f"{place}/") for other in others)
    if found and found.is_directory and found.uid == user.uid and user.uid and place != "/" and not shared:
        paths.append(place)
    return tuple(path for path in paths if facts.exists(path))


def _home_mode(facts: GuestFacts) -> int:
    text = next((text for path in LOGIN_DEFS if (text := facts.text(path))), "")
    said = re.search(r"^\s*HOME_MODE\s+0?([0-7]{3})\b", text, re.MULTILINE)
    mask = re.search(r"^\s*UMASK\s+0?([0-7]{3})\b", text, re.MULTILINE)
    return int(said[1], 8) if said else 0o777 & ~int(mask[1], 8) if mask else 0o755


def _below(facts: GuestFacts, directory: str, depth: int) -> Iterator[tuple[str, Stat]]:
    place = glob.escape(directory)
    for pattern in ("*", ".[!.]*", "..?*"):
        for path in facts.names(f"{place}/{pattern}"):
            found = facts.stat(path)
            if found:
                yield path, found
            if found and found.is_directory and depth:
                yield from _below(facts, path, depth - 1)
