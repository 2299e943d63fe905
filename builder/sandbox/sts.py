"""The service `sts`: GetCallerIdentity."""

from __future__ import annotations

from collections.abc import Iterable

from builder.sandbox.protocols import query
from builder.sandbox.wire import Answer, Caller, Need, Refusal, Request


class Sts:
    """STS's query protocol."""

    service = "sts"
    actions = frozenset({"GetCallerIdentity"})

    def action(self, request: Request) -> str:
        """Return the name of the call."""
        return request.form.get("Action", "")

    def permissions(self, _action: str, _request: Request, _caller: Caller) -> Iterable[Need]:
        """Return nothing: nobody can be forbidden to ask who it is."""
        return ()

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""
        if action not in self.actions:
            raise Refusal("UnsupportedOperation", f"The sandbox does not support {action}.")
        identity = {
            "UserId": caller.user_id,
            "Account": caller.account,
            "Arn": caller.arn,
        }
        return query.service("sts").answer(action, identity, request)

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as STS words it."""
        return query.refuse_query(refusal, request)
