"""The step kind `users`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from builder.errors import GuestError
from builder.guest import accounts, people, sudoers
from builder.guest.accounts import Accounts, User, read_accounts
from builder.guest.edits import Edit, Remove, Unchanged
from builder.guest.facts import GuestFacts
from builder.guest.people import Change
from pipelines.step import GuestStep, Options

Name = Annotated[str, StringConstraints(pattern=rf"^{accounts.NAME.pattern}$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^:\x00-\x1f]*$")]
Path = Annotated[str, StringConstraints(pattern=r"^/[^:\x00-\x20]*$")]


class Person(Options):
    """A user to have. What is not given is as useradd chooses it, or stays as it is."""

    name: Name = Field(description="login name")
    uid: int | None = Field(
        default=None, ge=1, le=4294967293, description="its number; without one, the next free as login.defs has it"
    )
    gecos: Text | None = Field(default=None, description="full name")
    home: Path | None = Field(default=None, description="home directory; /home/NAME for a new user")
    shell: Path | None = Field(default=None, description="login shell; /bin/bash for a new user, or /bin/sh")
    groups: tuple[Name, ...] = Field(default=(), description="groups to be in beside its own; it stays in others")
    sudo: tuple[str, ...] | None = Field(
        default=None,
        description="rules for sudo, like `ALL=(ALL) NOPASSWD:ALL`, in a file of their own; [] removes that",
    )
    password: str | None = Field(
        default=None, description="the hash of a password, as `mkpasswd -m sha-512` prints it; never the password"
    )


class UsersOptions(Options):
    """Who is to be there, and who not."""

    create: tuple[Person, ...] = Field(default=(), description="users to have; one that is there is changed")
    groups: tuple[Name, ...] = Field(default=(), description="groups to have, made before users are put into them")
    lock: tuple[Name, ...] = Field(
        default=(), description="users whom no password lets in, such as `root`; keys still do"
    )
    unlock: tuple[Name, ...] = Field(default=(), description="users whose locked password counts again")
    remove: tuple[Name, ...] = Field(default=(), description="users to remove, with their home, mail and crontabs")
    keep_home: bool = Field(default=False, description="`remove` leaves homes where they are")


class Users(GuestStep[UsersOptions]):
    """Create, change, lock and remove users and groups of the guest.

    The account files are edited themselves: no program of the guest runs, so that it may be of another architecture.
    A new user gets what useradd gives: the next free number of login.defs, a group of its own (or the group `users`,
    where login.defs says so), a home with the files of /etc/skel, ranges for containers in subuid and subgid, and no
    password that would let it in. Order: remove, groups, create, lock, unlock.

    A recipe holds hashes of passwords only; something else is refused without being shown. A locked user has a `!`
    before the hash, as `passwd -l` puts it: sshd with PAM still takes its keys. A removed user's home goes only when it
    is the user's own and nobody else's lies in it.
    """

    options = UsersOptions

    def check(self, options: UsersOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types. A password is never repeated."""
        names = [person.name for person in options.create]
        problems = [f"`create` has {name} twice" for name in sorted({name for name in names if names.count(name) > 1})]
        for person in options.create:
            if person.password is not None and not accounts.HASH.fullmatch(person.password):
                problems.append(
                    f"`password` of {person.name} is no hash: `mkpasswd -m sha-512` or `openssl passwd -6` makes one"
                )
            problems += [
                f"`sudo` of {person.name}: {rule!r} is no rule" for rule in person.sudo or () if not _rule(rule)
            ]
        for first, second in (("remove", "create"), ("remove", "lock"), ("remove", "unlock"), ("lock", "unlock")):
            both = {*_names(options, first)} & {*_names(options, second)}
            problems += [f"{name} stands under `{first}` and `{second}`" for name in sorted(both)]
        if "root" in options.remove:
            problems.append("root cannot be removed; `lock` keeps passwords out")
        if not any((options.create, options.groups, options.lock, options.unlock, options.remove)):
            problems.append("nothing is asked for: give `create`, `lock` or another option")
        return problems

    def edits(self, options: UsersOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Change the account files once, and make or remove what belongs to the users."""
        before = read_accounts(facts)
        _require(before)
        after, gone = _removed(options, before, facts)
        for name in options.groups:
            after = after.with_group(name)
        around: list[Change] = []
        for person in options.create:
            after = _created(person, after, facts)
            around += _around(person, after, facts)
        for name in options.lock:
            after = _known(name, after).locked(name)
        for name in options.unlock:
            after = _known(name, after).unlocked(name)
        edits = [*people.written(before, after, facts), *around, *gone]
        if not edits:
            return Unchanged(why="users and groups are as they are to be")
        return [replace(edits[0], why=f"{_told(before, after)}: {edits[0]}"), *edits[1:]]


def _names(options: UsersOptions, field: str) -> Sequence[str]:
    return [person.name for person in options.create] if field == "create" else getattr(options, field)


def _rule(text: str) -> bool:
    return sudoers.is_rule(text)


def _require(found: Accounts) -> None:
    for path in (accounts.PASSWD, accounts.SHADOW, accounts.GROUP):
        if path not in found.texts:
            raise GuestError(f"the guest has no {path}: its users are kept in a way that is not known here")


def _known(name: str, found: Accounts) -> Accounts:
    if found.user(name) is None:
        there = ", ".join(user.name for user in found.users if user.may_log_in)
        raise GuestError(f"the guest has no user {name}; those who may log in are {there or 'none'}")
    return found


def _removed(options: UsersOptions, found: Accounts, facts: GuestFacts) -> tuple[Accounts, list[Change]]:
    gone: list[Change] = []
    after = found
    for name in options.remove:
        user = after.user(name)
        after = after.without_user(name)
        if user is None:
            continue
        if user.uid == 0 and all(other.uid for other in after.users):
            raise GuestError(
                f"{name} in the guest is the only name of root, and is not removed", hint="Lock it instead."
            )
        paths = people.leavings(user, after.users, facts)
        paths = tuple(path for path in paths if not (options.keep_home and path == user.home))
        gone += [Remove(paths=paths)] if paths else []
    return after, gone


def _created(person: Person, found: Accounts, facts: GuestFacts) -> Accounts:
    shell = person.shell
    if shell and not facts.exists(shell):
        raise GuestError(f"{person.name} is to have the shell {shell}, which is not in the guest")
    old = found.user(person.name)
    if old is None:
        usual = "/bin/bash" if facts.exists("/bin/bash") else "/bin/sh"
        home = person.home or f"/home/{person.name}"
        new = User(name=person.name, uid=-1, gid=-1, gecos=person.gecos or "", home=home, shell=shell or usual)
        found = found.with_user(new, uid=person.uid)
    elif person.uid not in (None, old.uid):
        raise GuestError(
            f"{person.name} in the guest has the number {old.uid}, not {person.uid}: its files would be nobody's",
            hint="Leave `uid` out, or remove the user first.",
        )
    else:
        found = found.changed(person.name, gecos=person.gecos, home=person.home, shell=shell)
    found = found.joined(person.name, person.groups)
    return found if person.password is None else found.with_password(person.name, person.password)


def _around(person: Person, found: Accounts, facts: GuestFacts) -> list[Change]:
    if person.sudo and (why := sudoers.missing(facts)):
        raise GuestError(why, hint="Put a `packages` step with `install: [sudo]` before this one.")
    user = found.user(person.name)
    assert user is not None
    edits = people.home(user, facts)
    return edits if person.sudo is None else [*edits, *people.rules(person.name, person.sudo, facts)]


def _told(before: Accounts, after: Accounts) -> str:
    """Say in words who came, went or changed."""
    old, new = ({user.name for user in found.users} for found in (before, after))
    said = [f"user {name} made" for name in sorted(new - old)] + [f"user {name} removed" for name in sorted(old - new)]
    groups = {group.name for group in after.groups} - {group.name for group in before.groups} - new
    said += [f"group {name} made" for name in sorted(groups)]
    for name in sorted(old & new):
        was, now = before.password(name), after.password(name)
        if was != now:
            word = "locked" if now == f"!{was}" else "unlocked" if was == f"!{now}" else "set"
            said.append(f"password of {name} {word}")
    return ", ".join(said) or "users changed"
