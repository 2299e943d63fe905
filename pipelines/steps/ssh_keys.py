"""The step kind `ssh-keys`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from builder.errors import GuestError, InputError
from builder.guest import accounts, sshkeys
from builder.guest.accounts import User, read_accounts
from builder.guest.edits import Edit, MakeDirectory, SetAttributes, Unchanged, WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.sshd import CONFIGS, sshd_settings
from builder.guest.sshkeys import Key
from pipelines.step import GuestStep, Options, Outside

Name = Annotated[str, StringConstraints(pattern=rf"^{accounts.NAME.pattern}$")]

_DROP_IN = "/etc/ssh/sshd_config.d/00-emi.conf"
_INCLUDES = re.compile(r"^\s*Include\s+(?:\S+\s+)*(?:/etc/ssh/)?sshd_config\.d/\*\.conf", re.MULTILINE | re.IGNORECASE)
_FILE_LIMIT = 1 << 20  # bytes of a file of keys


class SshKeysOptions(Options):
    """Whose keys, and whether passwords count beside them."""

    user: Name | None = Field(default=None, description="the user who may log in with the keys")
    keys: tuple[str, ...] = Field(default=(), description="public keys, each as it is written in authorized_keys")
    files: tuple[str, ...] = Field(default=(), description="files of public keys, in the recipe's folder")
    only: bool = Field(default=False, description="no other keys of that user stay")
    password_authentication: bool | None = Field(default=None, description="whether sshd takes passwords from anybody")
    permit_root_login: bool | Literal["prohibit-password"] | None = Field(
        default=None, description="whether sshd lets root in, or with keys only"
    )


class SshKeys(GuestStep[SshKeysOptions]):
    """Let a user in by ssh with these keys, and say whether sshd takes passwords.

    Keys are added to the file that the guest's sshd reads (~/.ssh/authorized_keys, unless its AuthorizedKeysFile says
    otherwise); one that is there already, under whatever comment, is not added again. The file and ~/.ssh get the owner
    and modes that sshd insists on. A key is decoded to its end first: a damaged line, or a private key, is refused
    before anything is spent.

    The settings of sshd go into /etc/ssh/sshd_config.d/00-emi.conf, the first to be read and so the one that counts,
    or to the top of sshd_config where that directory is not included. cloud-init's `ssh_pwauth` cannot undo them.
    """

    options = SshKeysOptions

    def check(self, options: SshKeysOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = [f"`keys` number {number} is {wrong}" for number, wrong in _wrong(options.keys)]
        wanted = bool(options.keys or options.files or options.only)
        problems += [
            f"`files`: {name} is not a path within the recipe's folder" for name in options.files if _out(name)
        ]
        if wanted and options.user is None:
            problems.append("`user` says whose keys they are")
        if options.user is not None and not wanted:
            problems.append("no keys are given: `keys`, `files`, or `only: true` to have none")
        if not wanted and options.user is None and not _settings(options):
            problems.append("nothing is asked for: give `user` and `keys`, or a setting of sshd")
        return problems

    def pin(self, options: SshKeysOptions, outside: Outside) -> Mapping[str, Any]:
        """Return the keys in the files: they are public, and part of what the step does."""
        return {"keys": [key.line for name in options.files for key in _read(name, outside)]} if options.files else {}

    def edits(self, options: SshKeysOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Add the keys that are not there, and set what sshd does not do already."""
        edits: list[Edit] = []
        if options.user is not None:
            lines = [*options.keys, *pins.get("keys", ())]
            keys = [key for line in lines if isinstance(key := sshkeys.parse(line), Key)]
            edits += _authorized(options.user, keys, facts, only=options.only)
        edits += _sshd(_settings(options), facts)
        return edits or Unchanged(why="the keys are there, and sshd does as asked")


def _wrong(lines: Sequence[str]) -> list[tuple[int, str]]:
    parsed = ((number, sshkeys.parse(line)) for number, line in enumerate(lines, 1))
    return [(number, found) for number, found in parsed if isinstance(found, str)]


def _out(name: str) -> bool:
    return not name or name.startswith("/") or ".." in name.split("/")


def _read(name: str, outside: Outside) -> list[Key]:
    folder = outside.recipe_directory.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise InputError(f"{name} leads out of the recipe's folder")
    try:
        with open(path, "rb") as file:
            text = file.read(_FILE_LIMIT).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"the keys in {name} cannot be read: {error.strerror}") from error
    if "PRIVATE KEY" in text:
        raise InputError(
            f"{name} holds a private key, which belongs in no image", hint="Give its public half, the .pub."
        )
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    found = [(number, sshkeys.parse(line)) for number, line in lines if not line.lstrip().startswith("#")]
    for number, key in found:
        if isinstance(key, str):
            raise InputError(f"{name}, line {number}, is {key}")
    if not found:
        raise InputError(f"{name} holds no key")
    return [key for _, key in found if isinstance(key, Key)]


def _authorized(name: str, keys: Sequence[Key], facts: GuestFacts, *, only: bool) -> list[Edit]:
    user = _user(name, facts)
    path = _path(user, facts)
    text = facts.text(path)
    if only:
        new = "".join(f"{line}\n" for line in dict.fromkeys(key.line for key in keys))
        why = f"{path} holds {', '.join(map(str, keys)) or 'no key'} and no other"
    else:
        new, added = sshkeys.added(text, keys)
        why = f"{path} lets in {', '.join(map(str, added))}"
    edits = _right(path, user, facts)
    if new != text:
        data = new.encode("utf-8", "surrogateescape")
        owner = _owner(path, user)
        mode = 0o600 if owner == (user.uid, user.gid) else 0o644  # sshd reads it as the user
        edits.append(WriteFile(path=path, data=data, mode=mode, owner=owner, why=why + _told(user, facts)))
    return edits


def _user(name: str, facts: GuestFacts) -> User:
    found = read_accounts(facts)
    user = found.user(name)
    if user is None:
        there = ", ".join(each.name for each in found.users if each.may_log_in)
        raise GuestError(
            f"the guest has no user {name}; those who may log in are {there or 'none'}",
            hint="A `users` step before this one makes it. cloud-init's default user is made at first boot only.",
        )
    if not user.home.startswith("/") or not facts.exists(user.home):
        raise GuestError(
            f"the home of {name}, {user.home or 'none'}, is not in the guest", hint="A `users` step makes it."
        )
    return user


def _path(user: User, facts: GuestFacts) -> str:
    """Return the file of the user's keys: the first that sshd reads."""
    said = sshd_settings(facts).get("authorizedkeysfile")
    words = said.value.split() if said else []
    word = words[0] if words and words[0].lower() != "none" else ".ssh/authorized_keys"
    for token, value in (("%h", user.home), ("%u", user.name), ("%U", str(user.uid)), ("%%", "%")):
        word = word.replace(token, value)
    return posixpath.normpath(posixpath.join(user.home, word))


def _owner(path: str, user: User) -> tuple[int, int]:
    """Return who is to own the file: the user at home, root elsewhere."""
    return (user.uid, user.gid) if path.startswith(f"{user.home.rstrip('/')}/") else (0, 0)


def _right(path: str, user: User, facts: GuestFacts) -> list[Edit]:
    """Return the edits that give ~/.ssh and the file the owner and modes that sshd insists on."""
    directory, owner = posixpath.dirname(path), _owner(path, user)
    if owner != (user.uid, user.gid):
        return []
    edits: list[Edit] = []
    found = facts.stat(directory)
    if found is None:
        edits.append(MakeDirectory(path=directory, mode=0o700, owner=owner))
    elif found.is_directory and ((found.uid, found.gid) != owner or found.permissions & 0o077):
        edits.append(SetAttributes(path=directory, mode=0o700, owner=owner))
    file = facts.stat(path)
    if file and file.is_file and ((file.uid, file.gid) != owner or file.permissions & 0o177):
        edits.append(SetAttributes(path=path, mode=0o600, owner=owner))
    return edits


def _told(user: User, facts: GuestFacts) -> str:
    """Say what would still keep the user out."""
    home = facts.stat(user.home)
    if not user.may_log_in:
        return f"; but {user.shell} lets nobody work"
    if home and (home.permissions & 0o022 or home.uid not in (0, user.uid)):
        return f"; but sshd refuses them while {user.home} is another's or writable to others (StrictModes)"
    return ""


def _settings(options: SshKeysOptions) -> dict[str, str]:
    settings = {}
    if options.password_authentication is not None:
        settings["PasswordAuthentication"] = "yes" if options.password_authentication else "no"
        if not options.password_authentication:
            # PAM asks for passwords by this way too. This is its old name, which every sshd knows.
            settings["ChallengeResponseAuthentication"] = "no"
    if options.permit_root_login is not None:
        # Again the name that every sshd knows: one before 7.0 does not start with `prohibit-password`.
        words = {True: "yes", False: "no", "prohibit-password": "without-password"}
        settings["PermitRootLogin"] = words[options.permit_root_login]
    return settings


def _sshd(settings: Mapping[str, str], facts: GuestFacts) -> list[Edit]:
    """Return the edit that puts the settings where they are read first."""
    said = sshd_settings(facts)
    lacking = {}
    for name, value in settings.items():
        known = said.get(name.lower()) or (said.get("kbdinteractiveauthentication") if "Challenge" in name else None)
        if known is None or known.value.lower().replace("prohibit-", "without-") != value:
            lacking[name] = value
    if not lacking:
        return []
    config = next((path for path in CONFIGS if facts.exists(path)), None)
    if config is None:
        raise GuestError("sshd is not installed in the guest", hint="Put a `packages` step before this one.")
    text = facts.text(config)
    include = _INCLUDES.search(text)
    first = re.search(rf"^\s*({'|'.join(lacking)}|Match)\b", text, re.MULTILINE | re.IGNORECASE)
    whole = include is not None and (first is None or include.start() < first.start())
    path = _DROP_IN if whole else config
    if path.startswith("/usr/"):
        raise GuestError(f"{config} in the guest is the system's own and includes no {posixpath.dirname(_DROP_IN)}")
    kept = [line for line in facts.text(path).splitlines(keepends=True) if not (whole and _sets(line, lacking))]
    new = "".join(f"{name} {value}\n" for name, value in lacking.items()) + "".join(kept)
    why = f"{path} sets {', '.join(f'{name} {value}' for name, value in lacking.items())}"
    return [WriteFile(path=path, data=new.encode("utf-8", "surrogateescape"), why=why)]


def _sets(line: str, settings: Mapping[str, str]) -> bool:
    return line.split(maxsplit=1)[:1] in [[name] for name in settings]
