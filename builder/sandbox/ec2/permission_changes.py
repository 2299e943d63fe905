"""Whom a ModifyImageAttribute or ModifySnapshotAttribute shares with: accounts and the group `all`, in both forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from builder.sandbox.cloud import EVERYBODY
from builder.sandbox.ec2.action import Values
from builder.sandbox.wire import Refusal

_ACCOUNT = re.compile(r"\d{12}")


@dataclass(frozen=True, kw_only=True)
class Form:
    """How one call names its permissions: the structure and the old form's list of groups; how it refuses a name."""

    structure: str
    groups: str
    wrong_user: Callable[[str], Refusal]
    wrong_group: Callable[[str], Refusal]


def read(values: Values, form: Form) -> tuple[list[str], list[str]]:
    """Return to whom the call gives permission, and from whom it takes it. Raises Refusal."""
    structure = values.get(form.structure, {})
    added, removed = _named(structure.get("Add", ()), form), _named(structure.get("Remove", ()), form)
    flat = [*_users(values.get("UserIds", ()), form), *_groups(values.get(form.groups, ()), form)]
    if flat and (kind := values.get("OperationType")) not in ("add", "remove"):
        raise Refusal("InvalidParameterValue", f"Value ({kind}) for parameter operationType is invalid.")
    (added if values.get("OperationType") == "add" else removed).extend(flat)
    if not added and not removed:
        wire = form.structure[0].lower() + form.structure[1:]
        raise Refusal("MissingParameter", f"The request must contain the parameter {wire}")
    return added, removed


def _named(entries: Iterable[Values], form: Form) -> list[str]:
    named = []
    for entry in entries:
        if entry.get("OrganizationArn") or entry.get("OrganizationalUnitArn"):
            raise Refusal("UnsupportedOperation", "The sandbox has no organizations.")
        named += _users([entry["UserId"]], form) if entry.get("UserId") else []
        named += _groups([entry["Group"]], form) if entry.get("Group") else []
    return named


def _users(names: Iterable[str], form: Form) -> list[str]:
    for name in (found := list(names)):
        if not _ACCOUNT.fullmatch(name):
            raise form.wrong_user(name)
    return found


def _groups(names: Iterable[str], form: Form) -> list[str]:
    for name in (found := list(names)):
        if name != EVERYBODY:
            raise form.wrong_group(name)
    return found
