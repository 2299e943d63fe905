"""Instance profiles: a role as machines are given it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from builder.sandbox.access.accounts import new_id
from builder.sandbox.access.iam_action import Iam, Values, full, gone, in_use, moment, page, tag_list, tags_of
from builder.sandbox.access.iam_roles import describe as describe_role
from builder.sandbox.records import InstanceProfile, Role, iam_key
from builder.sandbox.wire import Caller

Handler = Callable[[Iam, Caller, Values], Values]
_KIND = "instance-profile"


def _create(iam: Iam, caller: Caller, values: Values) -> Values:
    made = InstanceProfile(
        account=caller.account,
        name=values["InstanceProfileName"],
        id=new_id("AIPA"),
        path=values.get("Path") or "/",
        creation_time=time.time(),
        tags=tags_of(values),
    )
    iam.add(_KIND, made)
    return {"InstanceProfile": _describe(iam, made)}


def _get(iam: Iam, caller: Caller, values: Values) -> Values:
    return {"InstanceProfile": _describe(iam, iam.find(caller, _KIND, values["InstanceProfileName"]))}


def _list(iam: Iam, caller: Caller, values: Values) -> Values:
    found = iam.mine(caller, InstanceProfile, values)
    return page("InstanceProfiles", found, lambda one: _describe(iam, one), values)


def _list_for_role(iam: Iam, caller: Caller, values: Values) -> Values:
    role: Role = iam.find(caller, "role", values["RoleName"])
    found = [one for one in iam.mine(caller, InstanceProfile, {}) if one.role == role.name]
    return page("InstanceProfiles", found, lambda one: _describe(iam, one), values)


def _delete(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        found: InstanceProfile = iam.find(caller, _KIND, values["InstanceProfileName"])
        if found.role:
            raise in_use("must remove roles from instance profile first")
        iam.state.remove(found)
    return {}


def _add_role(iam: Iam, caller: Caller, values: Values) -> Values:
    def change(found: InstanceProfile) -> Mapping[str, Any]:
        role: Role = iam.find(caller, "role", values["RoleName"])
        if found.role:
            raise full("InstanceSessionsPerInstanceProfile: 1")
        return {"role": role.name}

    iam.change(caller, _KIND, values["InstanceProfileName"], change)
    return {}


def _remove_role(iam: Iam, caller: Caller, values: Values) -> Values:
    def change(found: InstanceProfile) -> Mapping[str, Any]:
        role: Role = iam.find(caller, "role", values["RoleName"])
        if found.role != role.name:
            raise gone(f"The role with name {role.name} cannot be found.")
        return {"role": None}

    iam.change(caller, _KIND, values["InstanceProfileName"], change)
    return {}


def _describe(iam: Iam, profile: InstanceProfile) -> Mapping[str, Any]:
    role = iam.state.all(Role).get(iam_key(profile.account, profile.role)) if profile.role else None
    return {
        "Path": profile.path,
        "InstanceProfileName": profile.name,
        "InstanceProfileId": profile.id,
        "Arn": profile.arn,
        "CreateDate": moment(profile.creation_time),
        "Roles": [describe_role(role, listed=True)] if role is not None else [],
        "Tags": tag_list(profile.tags),
    }


ACTIONS: dict[str, Handler] = {
    "AddRoleToInstanceProfile": _add_role,
    "CreateInstanceProfile": _create,
    "DeleteInstanceProfile": _delete,
    "GetInstanceProfile": _get,
    "ListInstanceProfiles": _list,
    "ListInstanceProfilesForRole": _list_for_role,
    "RemoveRoleFromInstanceProfile": _remove_role,
}
