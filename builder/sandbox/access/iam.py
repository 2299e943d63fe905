"""The service `iam`: a table of the calls that are answered, one file per area; one for all regions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from builder.sandbox.access import (
    iam_certificates,
    iam_holders,
    iam_keys,
    iam_policies,
    iam_profiles,
    iam_roles,
    iam_simulate,
)
from builder.sandbox.access.iam_action import Iam as Calls
from builder.sandbox.access.keys import Keys
from builder.sandbox.bundling import Bundling
from builder.sandbox.personality import AWS, Personality
from builder.sandbox.protocols import query, validate
from builder.sandbox.state import State
from builder.sandbox.wire import Answer, Caller, Need, Refusal, Request

ACTIONS: dict[str, Callable[[Calls, Caller, Mapping[str, Any]], Mapping[str, Any]]] = {
    **iam_certificates.ACTIONS,
    **iam_holders.ACTIONS,
    **iam_keys.ACTIONS,
    **iam_policies.ACTIONS,
    **iam_profiles.ACTIONS,
    **iam_roles.ACTIONS,
    **iam_simulate.ACTIONS,
}
_OWN = {  # of the caller's own
    "CreateAccessKey", "DeleteAccessKey", "DeleteSigningCertificate", "GetUser", "ListAccessKeys",
    "ListSigningCertificates", "UpdateAccessKey", "UpdateSigningCertificate", "UploadSigningCertificate",
}  # fmt: skip
_NAMED = (  # parameter, kind in the ARN
    ("UserName", "user"),
    ("RoleName", "role"),
    ("GroupName", "group"),
    ("InstanceProfileName", "instance-profile"),
)


class Iam:
    """IAM's query protocol over the table."""

    service = "iam"
    actions = frozenset(ACTIONS)

    def __init__(self, state: State, keys: Keys, *, bundling: Bundling | None = None, like: Personality = AWS) -> None:
        self._calls = Calls(state=state, keys=keys, bundling=bundling, like=like)

    def action(self, request: Request) -> str:
        """Return the name of the call."""
        return request.form.get("Action", "")

    def permissions(self, action: str, request: Request, caller: Caller) -> Iterable[Need]:
        """Return what the caller must be allowed: the call, on what it names."""
        form = request.form
        context: dict[str, str | tuple[str, ...]] = {}
        for parameter, key in (("PolicyArn", "iam:PolicyARN"), ("PermissionsBoundary", "iam:PermissionsBoundary")):
            if form.get(parameter):
                context[key] = form[parameter]
        yield Need(action=f"iam:{action}", resources=(self._resource(action, form, caller),), context=context)
        if action == "AddRoleToInstanceProfile":
            yield Need(action="iam:PassRole", resources=(self._calls.arn(caller, "role", form.get("RoleName", "")),))

    def _resource(self, action: str, form: Mapping[str, str], caller: Caller) -> str:
        if form.get("PolicySourceArn"):
            return form["PolicySourceArn"]
        if action == "CreatePolicy":
            return f"arn:aws:iam::{caller.account}:policy{form.get('Path', '/')}{form.get('PolicyName', '')}"
        for parameter, kind in _NAMED:
            if form.get(parameter):
                return self._calls.arn(caller, kind, form[parameter], path=form.get("Path", "/"))
        if form.get("PolicyArn"):
            return form["PolicyArn"]
        return caller.principal if action in _OWN else "*"

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""
        model = query.service("iam")
        handler = ACTIONS.get(action)
        if handler is None and model.has(action):
            raise Refusal("UnsupportedOperation", f"The sandbox does not support {action}.")
        if handler is None:
            raise Refusal("InvalidAction", f"Could not find operation {action} for version 2010-05-08")
        try:
            values = model.parse(action, request.form)
        except Refusal as refusal:
            raise Refusal("ValidationError", refusal.message) from None
        validate.check(validate.model("iam").operation_model(action).input_shape, values, code="ValidationError")
        return model.answer(action, handler(self._calls, caller, values), request)

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as IAM words it."""
        return query.refuse_query(refusal, request)
