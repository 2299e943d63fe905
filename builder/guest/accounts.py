"""A guest's accounts: passwd, shadow, group, gshadow, subuid and subgid read, and edited line by line as values.

No useradd is run: it costs a process in the appliance, and a guest of another architecture could not run it. Sources of
the formats: passwd(5), shadow(5), group(5), gshadow(5), subuid(5), login.defs(5). Lines that are no entries (comments,
the + and - of NIS) pass through, whatever bytes they hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from builder.errors import GuestError
from builder.guest.facts import GuestFacts

PASSWD, SHADOW, GROUP, GSHADOW = "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"
SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"
FILES = (PASSWD, SHADOW, GROUP, GSHADOW, SUBUID, SUBGID)
LOGIN_DEFS = ("/etc/login.defs", "/usr/etc/login.defs")  # the second on SUSE

_FIELDS = {PASSWD: 7, SHADOW: 9, GROUP: 4, GSHADOW: 4, SUBUID: 3, SUBGID: 3}
_SUBORDINATE = 65536  # how many numbers a user's containers get
_LIMIT = 1 << 20  # bytes of an account file
_NUMBER = re.compile(r"[0-9]{1,10}")

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")  # useradd's own rule, without Samba's final $
# crypt(5): $id$…; the ids that some system's libcrypt knows, all but the two-letter salt of DES.
HASH = re.compile(r"\$(1|2[abxy]|3|5|6|7|gy|y|md5|sha1)(\$|,)[A-Za-z0-9./$=,+-]{8,500}")


@dataclass(frozen=True, kw_only=True)
class User:
    """One entry of passwd."""

    name: str
    uid: int
    gid: int
    gecos: str = ""
    home: str = ""
    shell: str = ""

    @property
    def may_log_in(self) -> bool:
        """Say whether the shell is one to work in."""
        return self.shell.rpartition("/")[2] not in ("nologin", "false", "sync", "shutdown", "halt")


@dataclass(frozen=True, kw_only=True)
class Group:
    """One entry of group."""

    name: str
    gid: int
    members: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """The account files of a guest, and what is in them. Every change returns new ones."""

    texts: Mapping[str, str]  # by path; a file that the guest does not have is absent
    defaults: Mapping[str, str] = field(default_factory=dict)  # login.defs

    @property
    def users(self) -> tuple[User, ...]:
        """Every user, in the file's order; entries whose numbers are none are left out."""
        return tuple(found for row in self._rows(PASSWD) if (found := _user(row)))

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every group, in the file's order."""
        return tuple(found for row in self._rows(GROUP) if (found := _group(row)))

    def user(self, name: str) -> User | None:
        """Return the user of that name."""
        return next((found for found in self.users if found.name == name), None)

    def group(self, name: str) -> Group | None:
        """Return the group of that name."""
        return next((found for found in self.groups if found.name == name), None)

    def password(self, name: str) -> str:
        """Return the password field that counts: a hash, `` for none needed, or something no password fits."""
        row = self._row(PASSWD, name)
        if row is None or row[1] != "x":
            return row[1] if row else "*"
        shadow = self._row(SHADOW, name)
        return shadow[1] if shadow else "*"

    def has_password(self, name: str) -> bool:
        """Say whether some password, be it the empty one, lets that user in."""
        return not self.password(name).startswith(("!", "*")) and self.password(name) != "x"

    def with_password(self, name: str, value: str) -> Accounts:
        """Set the password field, in shadow; one that was in passwd itself moves there."""
        row = self._row(PASSWD, name)
        assert row is not None
        shadow = self._row(SHADOW, name) or self._new_shadow(name)
        accounts = self.put(SHADOW, [name, value, *shadow[2:]])
        return accounts if row[1] == "x" else accounts.put(PASSWD, [name, "x", *row[2:]])

    def locked(self, name: str) -> Accounts:
        """Let no password in; keys still do. The old hash stays behind a `!`, as passwd -l leaves it."""
        return self.with_password(name, f"!{self.password(name)}") if self.has_password(name) else self

    def unlocked(self, name: str) -> Accounts:
        """Let the password in that was locked out. Raises GuestError when there was none."""
        old = self.password(name)
        if not old.startswith(("!", "*")):
            return self
        bare = old.lstrip("!")
        if bare in ("", "*"):
            raise GuestError(
                f"{name} in the guest has no password that could be unlocked", hint="Give one under `passwords`."
            )
        return self.with_password(name, bare)

    def with_group(self, name: str, *, system: bool = False, gid: int | None = None) -> Accounts:
        """Add a group with a free number, or leave it as it is."""
        if self.group(name):
            return self
        if gid is None:
            gid = self._free("GID", {found.gid for found in self.groups}, system=system)
        accounts = self.put(GROUP, [name, "x", str(gid), ""])
        return accounts.put(GSHADOW, [name, "!", "", ""]) if GSHADOW in self.texts else accounts

    def with_user(self, user: User, *, uid: int | None = None) -> Accounts:
        """Add a user without a password, with a group of its own where login.defs says so, and subordinate numbers.

        `user`'s own numbers are ignored: they are `uid` or the next free one, and the group's.
        """
        if uid is None:
            uid = self._free("UID", {found.uid for found in self.users})
        if other := next((found.name for found in self.users if found.uid == uid), None):
            raise GuestError(f"{other} in the guest has the number {uid} already, which {user.name} was to have")
        accounts, gid = self._primary(user.name, uid)
        row = [user.name, "x", str(uid), str(gid), user.gecos, user.home, user.shell]
        accounts = accounts.put(PASSWD, row).put(SHADOW, self._new_shadow(user.name))
        for path, kind in ((SUBUID, "SUB_UID"), (SUBGID, "SUB_GID")):
            if path in accounts.texts:
                accounts = accounts.with_subordinate(path, kind, user.name)
        return accounts

    def changed(self, name: str, **values: str | None) -> Accounts:
        """Set `gecos`, `home` or `shell` of a user; None leaves one as it is."""
        row = self._row(PASSWD, name)
        assert row is not None
        for place, key in ((4, "gecos"), (5, "home"), (6, "shell")):
            value = values.get(key)
            row[place] = row[place] if value is None else value
        return self.put(PASSWD, row)

    def joined(self, name: str, groups: Iterable[str]) -> Accounts:
        """Put a user into groups, which must be there. Raises GuestError."""
        accounts = self
        for group in groups:
            if accounts.group(group) is None:
                raise GuestError(
                    f"the guest has no group {group} for {name} to be in", hint="`groups:` of the step makes it."
                )
            for path in (GROUP, GSHADOW):
                row = accounts._row(path, group)
                if row and name not in (members := row[3].split(",") if row[3] else []):
                    accounts = accounts.put(path, [*row[:3], ",".join([*members, name])])
        return accounts

    def without_user(self, name: str) -> Accounts:
        """Remove a user from every file, and its own group when nobody else is in it."""
        user = self.user(name)
        accounts = self
        for path in (GROUP, GSHADOW):
            for row in accounts._rows(path):
                members = row[3].split(",")
                if name in members:
                    accounts = accounts.put(path, [*row[:3], ",".join(each for each in members if each != name)])
        for path in (PASSWD, SHADOW, SUBUID, SUBGID):
            accounts = accounts.drop(path, name)
        own = accounts.group(name)
        used = own is None or own.members or any(found.gid == own.gid for found in accounts.users)
        if user and own and own.gid == user.gid and not used:
            accounts = accounts.drop(GROUP, name).drop(GSHADOW, name)
        return accounts

    def with_subordinate(self, path: str, kind: str, name: str) -> Accounts:
        """Give a user the next free range of numbers for containers, as useradd does where the file is there."""
        if self._row(path, name):
            return self
        start = self._default(f"{kind}_MIN", 100_000)
        for row in self._rows(path):
            if _NUMBER.fullmatch(row[1]) and _NUMBER.fullmatch(row[2]):
                start = max(start, int(row[1]) + int(row[2]))
        return self.put(path, [name, str(start), str(self._default(f"{kind}_COUNT", _SUBORDINATE))])

    def put(self, path: str, row: Sequence[str]) -> Accounts:
        """Replace the entry of that name, or add it: before the first + or - of NIS, else at the end."""
        lines = _lines(self.texts.get(path, ""))
        new = ":".join(row) + "\n"
        place = next((at for at, line in enumerate(lines) if (old := _row(path, line)) and old[0] == row[0]), None)
        if place is not None:
            lines[place] = new
        else:
            place = next((at for at, line in enumerate(lines) if line[0] in "+-"), len(lines))
            if place == len(lines) and lines and not lines[-1].endswith("\n"):
                lines[-1] += "\n"
            lines.insert(place, new)
        return replace(self, texts={**self.texts, path: "".join(lines)})

    def drop(self, path: str, name: str) -> Accounts:
        """Remove the entries of that name, where there are any."""
        if path not in self.texts:
            return self
        kept = [line for line in _lines(self.texts[path]) if (_row(path, line) or [""])[0] != name]
        return replace(self, texts={**self.texts, path: "".join(kept)})

    def _primary(self, name: str, uid: int) -> tuple[Accounts, int]:
        """Return the group a new user gets: its own, or where login.defs says no to that, `users`."""
        if own := self.group(name):
            return self, own.gid
        shared = self.group("users")
        if self.defaults.get("USERGROUPS_ENAB", "yes").lower() == "no" and shared:
            return self, shared.gid
        free = uid not in {found.gid for found in self.groups}
        accounts = self.with_group(name, gid=uid if free else None)
        made = accounts.group(name)
        assert made is not None
        return accounts, made.gid

    def _free(self, kind: str, used: set[int], *, system: bool = False) -> int:
        """Return the next number as useradd chooses it: above the highest in the range, else the first gap."""
        if system:
            top = self._default(f"SYS_{kind}_MAX", self._default(f"{kind}_MIN", 1000) - 1)
            numbers: Sequence[int] = range(top, self._default(f"SYS_{kind}_MIN", 100) - 1, -1)
        else:
            low, high = self._default(f"{kind}_MIN", 1000), self._default(f"{kind}_MAX", 60000)
            above = max((number for number in used if low <= number <= high), default=low - 1) + 1
            numbers = [*range(above, high + 1), *range(low, above)]
        found = next((number for number in numbers if number not in used), None)
        if found is None:
            raise GuestError(f"the guest has no free number left between its {kind}_MIN and {kind}_MAX")
        return found

    def _new_shadow(self, name: str) -> list[str]:
        # No day of the last change: it would be the build's, and ageing begins only where there is one.
        ages = [str(self._default(key, number)) for key, number in _AGES]
        return [name, "!", "", *ages, "", "", ""]

    def _default(self, key: str, otherwise: int) -> int:
        value = self.defaults.get(key, "")
        return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else otherwise

    def _rows(self, path: str) -> list[list[str]]:
        return [row for line in _lines(self.texts.get(path, "")) if (row := _row(path, line))]

    def _row(self, path: str, name: str) -> list[str] | None:
        return next((row for row in self._rows(path) if row[0] == name), None)


_AGES = (("PASS_MIN_DAYS", 0), ("PASS_MAX_DAYS", 99999), ("PASS_WARN_AGE", 7))


def read_accounts(facts: GuestFacts) -> Accounts:
    """Return the guest's accounts. Raises GuestError when a file is larger than account files are."""
    texts = {}
    for path in FILES:
        data = facts.read(path, limit=_LIMIT)
        if data is not None:
            texts[path] = data.decode("utf-8", "surrogateescape")
    return Accounts(texts=texts, defaults=_login_defs(facts))


def _login_defs(facts: GuestFacts) -> Mapping[str, str]:
    text = next((text for path in LOGIN_DEFS if (text := facts.text(path))), "")
    return dict(re.findall(r"^[ \t]*([A-Z][A-Z_]*)[ \t]+\"?([^\s\"#]+)", text, re.MULTILINE))


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _row(path: str, line: str) -> list[str] | None:
    """Return an entry's fields, as many as the file has; None for what is no entry."""
    body = line.removesuffix("\n")
    if not body or body[0] in "#+-" or ":" not in body:
        return None
    parts = body.split(":")
    return (parts + [""] * _FIELDS[path])[: max(_FIELDS[path], len(parts))]


def _user(row: Sequence[str]) -> User | None:
    if not (_NUMBER.fullmatch(row[2]) and _NUMBER.fullmatch(row[3])):
        return None
    return User(name=row[0], uid=int(row[2]), gid=int(row[3]), gecos=row[4], home=row[5], shell=row[6])


def _group(row: Sequence[str]) -> Group | None:
    if not _NUMBER.fullmatch(row[2]):
        return None
    return Group(name=row[0], gid=int(row[2]), members=tuple(filter(None, row[3].split(","))))
