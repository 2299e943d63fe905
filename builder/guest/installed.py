"""Which packages a guest has, by its package manager's own files: no process is spent where a file answers.

dpkg's status file (deb-control(5)), apk's database (APK v2: lines `P:` and `V:`), pacman's local database (a directory
for each package). rpm's is a binary database of several formats: it is asked by `rpm -q`, in the guest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from builder.guest.facts import GuestFacts

DPKG = "/var/lib/dpkg/status"
_APK = "/lib/apk/db/installed"
_PACMAN = "/var/lib/pacman/local"
_LIMIT = 64 << 20  # bytes


def installed(facts: GuestFacts, manager: str) -> Mapping[str, str] | None:
    """Return the version by name of each package that is installed; None where only a command could tell.

    What an installed package provides under another name is there with an empty version.
    """
    match manager:
        case "apt":
            return dpkg((facts.read(DPKG, limit=_LIMIT) or b"").decode("utf-8", "replace"))
        case "apk":
            return apk((facts.read(_APK, limit=_LIMIT) or b"").decode("utf-8", "replace"))
        case "pacman":
            return pacman(path.rpartition("/")[2] for path in facts.names(f"{_PACMAN}/*"))
        case _:
            return None


def dpkg(status: str) -> dict[str, str]:
    """Return the packages that dpkg's status file says are installed: whole ones, held back or not."""
    found: dict[str, str] = {}
    provided: set[str] = set()
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version|Provides|Architecture): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        name = fields.get("Package", "").strip()
        found[name] = found[f"{name}:{fields.get('Architecture', '')}"] = fields.get("Version", "").strip()
        provided.update(word.split()[0] for word in fields.get("Provides", "").split(",") if word.strip())
    return dict.fromkeys(provided, "") | found


def apk(database: str) -> dict[str, str]:
    """Return the packages of apk's database."""
    found: dict[str, str] = {}
    provided: set[str] = set()
    for paragraph in database.split("\n\n"):
        fields = dict(re.findall(r"^([PVp]):(.*)$", paragraph, re.MULTILINE))
        if "P" in fields:
            found[fields["P"]] = fields.get("V", "")
            provided.update(word.partition("=")[0] for word in fields.get("p", "").split())
    return dict.fromkeys(provided, "") | found


def pacman(directories: Iterable[str]) -> dict[str, str]:
    """Return the packages of pacman's local database, by its directories' names: NAME-VERSION-RELEASE."""
    matches = (re.fullmatch(r"(.+)-([^-]+-[^-]+)", name) for name in directories)
    return {match[1]: match[2] for match in matches if match}


def is_satisfied(packages: Mapping[str, str], wanted: str) -> bool:
    """Say whether `name`, `name=version`, `name:architecture` or `name/suite` is there; a suite says nothing of it."""
    name, _, version = wanted.partition("=")
    name = name.partition("/")[0]
    return name in packages and (not version or packages[name] == version)
