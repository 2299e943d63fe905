"""Policy documents: read, held against the grammar, and asked whether a statement of theirs applies to a call.

Source: "Grammar of the IAM JSON policy language" of the IAM user guide; the words of refusal are IAM's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from builder.sandbox.access import conditions
from builder.sandbox.access.patterns import Context, matches, matches_arn
from builder.sandbox.wire import Caller

IDENTITY, TRUST, RESOURCE = "identity", "trust", "resource"

_VERSIONS = {"2012-10-17", "2008-10-17"}
_KEYS = {
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
}  # fmt: skip
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_PRINCIPALS = {"AWS", "Service", "Federated", "CanonicalUser"}


class Malformed(Exception):
    """The text is no policy document; the message is what IAM would say."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement. A list that is None was not given; of each pair (`actions`, `not_actions`) at most one is."""

    sid: str = ""
    allow: bool
    actions: tuple[str, ...] | None = None
    not_actions: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    not_resources: tuple[str, ...] | None = None
    principals: Mapping[str, tuple[str, ...]] | None = None
    not_principals: Mapping[str, tuple[str, ...]] | None = None
    condition: conditions.Block = field(default_factory=dict)

    def applies(self, action: str, resource: str, context: Context) -> bool:
        """Say whether it speaks of this action on this resource in this context; of whom is another question."""
        return (
            self._speaks_of_action(action)
            and self._speaks_of_resource(resource, context)
            and conditions.hold(self.condition, context)
        )

    def _speaks_of_action(self, action: str) -> bool:
        if self.actions is not None:
            return any(matches(pattern, action, {}, fold=True) for pattern in self.actions)
        return not any(matches(pattern, action, {}, fold=True) for pattern in self.not_actions or ())

    def _speaks_of_resource(self, resource: str, context: Context) -> bool:
        if self.resources is not None:
            return any(matches_arn(pattern, resource, context) for pattern in self.resources)
        if self.not_resources is not None:
            return not any(matches_arn(pattern, resource, context) for pattern in self.not_resources)
        return True  # a trust policy is about its own role


@dataclass(frozen=True, kw_only=True)
class Document:
    """A policy document."""

    statements: tuple[Statement, ...]

    def effect(self, action: str, resource: str, context: Context) -> bool | None:
        """Return whether it allows (True) or forbids (False), or None when it says nothing; a Deny outranks."""
        found = {one.allow for one in self.statements if one.applies(action, resource, context)}
        return None if not found else False not in found


def names_directly(statement: Statement, caller: Caller) -> bool:
    """Say whether the statement of a resource's policy names the caller itself, or everybody."""
    if statement.not_principals is not None:
        return not _named(statement.not_principals, caller)
    entries = (statement.principals or {}).get("AWS", ())
    return "*" in entries or bool(
        {caller.arn, caller.principal} & set(entries) - {f"arn:aws:iam::{caller.account}:root"}
    )


def names_account(statement: Statement, caller: Caller) -> bool:
    """Say whether the statement names the caller's account, which then decides by its own policies."""
    return bool(caller.account) and bool(
        {caller.account, f"arn:aws:iam::{caller.account}:root"} & set((statement.principals or {}).get("AWS", ()))
    )


def names_service(statement: Statement, service: str) -> bool:
    """Say whether the statement names a service such as ec2.amazonaws.com."""
    return service in (statement.principals or {}).get("Service", ())


def _named(principals: Mapping[str, tuple[str, ...]], caller: Caller) -> bool:
    own = {"*", caller.arn, caller.principal, caller.account, f"arn:aws:iam::{caller.account}:root"}
    return bool(own & set(principals.get("AWS", ())))


@lru_cache(maxsize=1024)
def parse(text: str, kind: str = IDENTITY) -> Document:
    """Return the document; `kind` says what it hangs on. Raises Malformed."""
    try:
        values = json.loads(text)
    except ValueError:
        raise Malformed("This policy contains invalid Json") from None
    if not isinstance(values, dict) or set(values) - {"Version", "Id", "Statement"}:
        raise Malformed("Syntax errors in policy.")
    if values.get("Version", "2008-10-17") not in _VERSIONS:
        raise Malformed("The policy must contain a valid version string")
    entries = values.get("Statement")
    entries = [entries] if isinstance(entries, dict) else entries
    if not isinstance(entries, list) or not entries:
        raise Malformed("Syntax errors in policy.")
    statements = tuple(_statement(entry, kind) for entry in entries)
    sids = [one.sid for one in statements if one.sid]
    if len(sids) != len(set(sids)):
        raise Malformed("Statement IDs (SID) in a single policy must be unique.")
    return Document(statements=statements)


def _statement(entry: Any, kind: str) -> Statement:
    if not isinstance(entry, dict) or set(entry) - _KEYS or entry.get("Effect") not in {"Allow", "Deny"}:
        raise Malformed("Syntax errors in policy.")
    sid = entry.get("Sid", "")
    if not isinstance(sid, str) or (kind == IDENTITY and not re.fullmatch("[0-9A-Za-z]*", sid)):
        raise Malformed("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular "
                        "expression [0-9A-Za-z]*")  # fmt: skip
    _check_pairs(entry, kind)
    for action in _texts(entry, "Action") or _texts(entry, "NotAction") or ():
        if not _ACTION.fullmatch(action):
            raise Malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    for resource in _texts(entry, "Resource") or _texts(entry, "NotResource") or ():
        if not (resource.startswith("arn:") or resource == "*"):
            raise Malformed(f'Resource {resource} must be in ARN format or "*".')
    return Statement(
        sid=sid,
        allow=entry["Effect"] == "Allow",
        actions=_texts(entry, "Action"),
        not_actions=_texts(entry, "NotAction"),
        resources=_texts(entry, "Resource"),
        not_resources=_texts(entry, "NotResource"),
        principals=_principals(entry.get("Principal")),
        not_principals=_principals(entry.get("NotPrincipal")),
        condition=_condition(entry.get("Condition", {})),
    )


def _check_pairs(entry: dict[str, Any], kind: str) -> None:
    def given(name: str) -> int:
        return (name in entry) + (f"Not{name}" in entry)

    if given("Action") != 1:
        raise Malformed("Policy statement must contain actions." if not given("Action") else "Syntax errors in policy.")
    if kind == IDENTITY and given("Principal"):
        raise Malformed("Policy document should not specify a principal.")
    if kind != IDENTITY and given("Principal") != 1:
        raise Malformed("Missing required field Principal")
    if kind == TRUST and given("Resource"):
        raise Malformed("Has prohibited field Resource")
    if kind != TRUST and given("Resource") != 1:
        raise Malformed("Policy statement must contain resources.")


def _texts(entry: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    if name not in entry:
        return None
    values = entry[name] if isinstance(entry[name], list) else [entry[name]]
    if not values or not all(isinstance(value, str) for value in values):
        raise Malformed("Syntax errors in policy.")
    return tuple(values)


def _principals(value: Any) -> Mapping[str, tuple[str, ...]] | None:
    if value is None:
        return None
    if value == "*":
        return {"AWS": ("*",)}
    if not isinstance(value, dict) or not value or set(value) - _PRINCIPALS:
        raise Malformed("Invalid principal in policy")
    found = {kind: _texts(value, kind) or () for kind in value}
    for name in found.get("AWS", ()):
        if not re.fullmatch(r"\*|\d{12}|arn:aws:(iam|sts)::(\d{12}):.+", name):
            raise Malformed(f'Invalid principal in policy: "AWS":"{name}"')
    return found


def _condition(block: Any) -> conditions.Block:
    if not isinstance(block, dict) or not all(isinstance(keys, dict) for keys in block.values()):
        raise Malformed("Syntax errors in policy.")
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for operator, keys in block.items():
        if not conditions.known(operator):
            raise Malformed(f"Invalid Condition type : {operator}.")
        for key, value in keys.items():
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(one, str | int | float | bool) for one in values):
                raise Malformed("Syntax errors in policy.")
            found.setdefault(operator, {})[key] = tuple(_plain(one) for one in values)
    return found


def _plain(value: str | float | bool) -> str:  # noqa: FBT001 - what JSON gives
    return str(value).lower() if isinstance(value, bool) else str(value)
