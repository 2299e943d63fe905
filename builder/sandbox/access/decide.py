"""The decision: identity policies, the resource's own policy, a boundary and a session's policy together.

Source: "Policy evaluation logic" of the IAM user guide. An explicit Deny anywhere wins; then, within one account,
either side may allow; between accounts both must.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.sandbox.access.documents import RESOURCE, TRUST, Document, names_account, names_directly, parse
from builder.sandbox.access.patterns import Context
from builder.sandbox.wire import Caller, Need


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What a caller carries: the policies of its identity, and what limits them (None: nothing does)."""

    caller: Caller
    identity: tuple[Document, ...] = ()
    boundary: Document | None = None
    session: tuple[Document, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a call is allowed; `reason` ends the sentence that begins "… is not authorized to perform …"."""

    allowed: bool
    reason: str = ""
    explicit: bool = False


_ALLOWED = Decision(allowed=True)


def decide(rights: Rights, need: Need, context: Context) -> Decision:
    """Return whether every resource of the need is allowed to the caller, else why the first is not."""
    for resource in need.resources:
        decision = _decide(rights, need, resource, context)
        if not decision.allowed:
            return decision
    return _ALLOWED


def merged(*sources: Mapping[str, Any]) -> Context:
    """Return condition keys of several sources as one context; a later source outranks."""
    return {
        key.lower(): value if isinstance(value, tuple) else (value,)
        for source in sources
        for key, value in source.items()
    }


def _decide(rights: Rights, need: Need, resource: str, context: Context) -> Decision:
    caller = rights.caller
    own = True if caller.root else _effect(rights.identity, need.action, resource, context)
    effects = {
        "identity-based policy": own,
        "permissions boundary": _limit(
            None if rights.boundary is None else (rights.boundary,), need.action, resource, context
        ),
        "session policy": _limit(rights.session, need.action, resource, context),
    }
    by_resource = _by_resource(need, resource, caller, context)
    for name, effect in effects.items():
        if effect is False:
            return _refused(need, resource, caller, f"with an explicit deny in {_a(name)}", explicit=True)
    if by_resource == "deny":
        return _refused(need, resource, caller, "with an explicit deny in a resource-based policy", explicit=True)
    silent = [name for name, effect in effects.items() if effect is None]
    inside = bool(caller.account) and (need.owner or caller.account) == caller.account
    if inside and not need.strict:
        allowed = not silent or (by_resource == "direct" and "session policy" not in silent)
    elif inside:
        allowed = by_resource == "direct" or (by_resource == "account" and not silent)
    else:
        allowed = by_resource in {"direct", "account"} and (not silent or not caller.account)
    if allowed:
        return _ALLOWED
    lacking = silent[0] if silent else "resource-based policy"
    return _refused(need, resource, caller, f"because no {lacking} allows the {need.action} action")


def _effect(documents: tuple[Document, ...], action: str, resource: str, context: Context) -> bool | None:
    found = {document.effect(action, resource, context) for document in documents} - {None}
    return None if not found else False not in found


def _limit(documents: tuple[Document, ...] | None, action: str, resource: str, context: Context) -> bool | None:
    return True if documents is None else _effect(documents, action, resource, context)


def _by_resource(need: Need, resource: str, caller: Caller, context: Context) -> str | None:
    """Return deny, direct, account, or None: what the resource's own policy says of the caller."""
    if need.policy is None:
        return None
    found = set()
    for statement in parse(need.policy, TRUST if need.strict else RESOURCE).statements:
        if not statement.applies(need.action, resource, context):
            continue
        direct, account = names_directly(statement, caller), names_account(statement, caller)
        if direct or account:
            found.add("deny" if not statement.allow else "direct" if direct else "account")
    return next((word for word in ("deny", "direct", "account") if word in found), None)


def _refused(need: Need, resource: str, caller: Caller, reason: str, *, explicit: bool = False) -> Decision:
    who = f"User: {caller.arn} is" if caller.account else "An anonymous user is"
    on = "" if resource == "*" else f" on resource: {resource}"
    return Decision(
        allowed=False,
        reason=f"{who} not authorized to perform: {need.action}{on} {reason}",
        explicit=explicit,
    )


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
