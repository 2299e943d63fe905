"""Roles and who may take them on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from builder.sandbox.access import documents
from builder.sandbox.access.accounts import new_id
from builder.sandbox.access.iam_action import Iam, Values, checked, in_use, moment, page, tag_list, tags_of, wire
from builder.sandbox.access.iam_keys import boundary, require_bare
from builder.sandbox.records import InstanceProfile, Role
from builder.sandbox.wire import Caller

Handler = Callable[[Iam, Caller, Values], Values]


def _create_role(iam: Iam, caller: Caller, values: Values) -> Values:
    limit = values.get("PermissionsBoundary")
    if limit:
        iam.policy(limit)
    made = Role(
        account=caller.account,
        name=values["RoleName"],
        id=new_id("AROA"),
        path=values.get("Path") or "/",
        creation_time=time.time(),
        trust=checked(values["AssumeRolePolicyDocument"], documents.TRUST),
        description=values.get("Description") or "",
        longest=values.get("MaxSessionDuration") or 3600,
        boundary=limit,
        tags=tags_of(values),
    )
    iam.add("role", made)
    return {"Role": describe(made)}


def _get_role(iam: Iam, caller: Caller, values: Values) -> Values:
    return {"Role": describe(iam.find(caller, "role", values["RoleName"])) | {"RoleLastUsed": {}}}


def _list_roles(iam: Iam, caller: Caller, values: Values) -> Values:
    return page("Roles", iam.mine(caller, Role, values), lambda one: describe(one, listed=True), values)


def _update_role(iam: Iam, caller: Caller, values: Values) -> Values:
    changes = {
        field: values[name]
        for name, field in (("Description", "description"), ("MaxSessionDuration", "longest"))
        if values.get(name) is not None
    }
    iam.change(caller, "role", values["RoleName"], lambda _: changes)
    return {}


def _update_trust(iam: Iam, caller: Caller, values: Values) -> Values:
    trust = checked(values["PolicyDocument"], documents.TRUST)
    iam.change(caller, "role", values["RoleName"], lambda _: {"trust": trust})
    return {}


def _delete_role(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        found: Role = iam.find(caller, "role", values["RoleName"])
        profiles = iam.state.all(InstanceProfile).values()
        if any((one.account, one.role) == (found.account, found.name) for one in profiles):
            raise in_use("must remove roles from instance profile first")
        require_bare(found)
        iam.state.remove(found)
    return {}


def describe(role: Role, *, listed: bool = False) -> dict[str, Any]:
    """Return a role as IAM describes it; lists leave out its tags and its boundary."""
    shown: dict[str, Any] = {
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.id,
        "Arn": role.arn,
        "CreateDate": moment(role.creation_time),
        "AssumeRolePolicyDocument": wire(role.trust),
        "MaxSessionDuration": role.longest,
    }
    if role.description:
        shown["Description"] = role.description
    if role.boundary and not listed:
        shown["PermissionsBoundary"] = boundary(role.boundary)
    return shown | ({"Tags": tag_list(role.tags)} if role.tags and not listed else {})


ACTIONS: dict[str, Handler] = {
    "CreateRole": _create_role,
    "DeleteRole": _delete_role,
    "GetRole": _get_role,
    "ListRoles": _list_roles,
    "UpdateAssumeRolePolicy": _update_trust,
    "UpdateRole": _update_role,
}
