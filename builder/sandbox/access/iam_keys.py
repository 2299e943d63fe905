"""Users, their access keys, and groups."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from builder.sandbox.access.accounts import new_id, new_secret
from builder.sandbox.access.iam_action import Iam, Values, full, gone, in_use, moment, page, tag_list, tags_of
from builder.sandbox.records import AccessKey, Group, SigningCertificate, User
from builder.sandbox.wire import Caller, Refusal

Handler = Callable[[Iam, Caller, Values], Values]
_MOST_KEYS = 2


def _create_user(iam: Iam, caller: Caller, values: Values) -> Values:
    boundary = values.get("PermissionsBoundary")
    if boundary:
        iam.policy(boundary)
    made = User(
        account=caller.account,
        name=values["UserName"],
        id=new_id("AIDA"),
        path=values.get("Path") or "/",
        creation_time=time.time(),
        boundary=boundary,
        tags=tags_of(values),
    )
    iam.add("user", made)
    return {"User": _user(made)}


def _get_user(iam: Iam, caller: Caller, values: Values) -> Values:
    if not values.get("UserName") and caller.root:
        return {"User": {"Path": "/", "UserId": caller.account, "Arn": caller.arn, "CreateDate": moment(0)}}
    return {"User": _user(_named(iam, caller, values))}


def _list_users(iam: Iam, caller: Caller, values: Values) -> Values:
    return page("Users", iam.mine(caller, User, values), lambda one: _user(one, listed=True), values)


def _delete_user(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        found: User = iam.find(caller, "user", values["UserName"])
        if _keys_of(iam, found):
            raise in_use("must delete access keys first")
        certificates = list(iam.state.all(SigningCertificate).values())
        if any((one.account, one.user) == (found.account, found.name) for one in certificates):
            raise in_use("must delete signing certificates first")
        if found.groups:
            raise in_use("must remove users from group first")
        require_bare(found)
        iam.state.remove(found)
    return {}


def require_bare(found: Any) -> None:
    """Raise Refusal when policies hang on a user, role or group that is to be deleted."""
    if found.attached:
        raise in_use("must detach all policies first")
    if found.inline:
        raise in_use("must delete policies first")


def _user(user: User, *, listed: bool = False) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Path": user.path,
        "UserName": user.name,
        "UserId": user.id,
        "Arn": user.arn,
        "CreateDate": moment(user.creation_time),
    }
    if listed:
        return shown
    if user.boundary:
        shown["PermissionsBoundary"] = boundary(user.boundary)
    return shown | ({"Tags": tag_list(user.tags)} if user.tags else {})


def boundary(arn: str) -> Values:
    """Return a permissions boundary as IAM describes it."""
    return {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": arn}


# Access keys


def _named(iam: Iam, caller: Caller, values: Values) -> User:
    """Return the user that is named, or the caller itself. Raises Refusal."""
    if values.get("UserName"):
        found: User = iam.find(caller, "user", values["UserName"])
        return found
    holder = iam.keys.holder(caller.principal)
    if not isinstance(holder, User):
        raise Refusal("ValidationError", "Must specify userName when calling with non-User credentials")
    return holder


def _keys_of(iam: Iam, user: User) -> list[AccessKey]:
    found = list(iam.state.all(AccessKey).values())
    return [one for one in found if (one.account, one.user) == (user.account, user.name)]


def _create_access_key(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        user = _named(iam, caller, values)
        if len(_keys_of(iam, user)) >= _MOST_KEYS:
            raise full(f"AccessKeysPerUser: {_MOST_KEYS}")
        made = AccessKey(
            access_key=new_id("AKIA"),
            secret_key=new_secret(),
            account=user.account,
            user=user.name,
            creation_time=time.time(),
        )
        iam.state.put(made)
    return {"AccessKey": {**_access_key(made), "SecretAccessKey": made.secret_key}}


def _list_access_keys(iam: Iam, caller: Caller, values: Values) -> Values:
    return page("AccessKeyMetadata", _keys_of(iam, _named(iam, caller, values)), _access_key, values)


def _update_access_key(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        found = _key(iam, caller, values)
        iam.state.put(replace(found, active=values["Status"] == "Active"))
    return {}


def _delete_access_key(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        iam.state.remove(_key(iam, caller, values))
    return {}


def _key(iam: Iam, caller: Caller, values: Values) -> AccessKey:
    user = _named(iam, caller, values)
    for one in _keys_of(iam, user):
        if one.access_key == values["AccessKeyId"]:
            return one
    raise gone(f"The Access Key with id {values['AccessKeyId']} cannot be found.")


def _access_key(key: AccessKey) -> Mapping[str, Any]:
    return {
        "UserName": key.user,
        "AccessKeyId": key.access_key,
        "Status": "Active" if key.active else "Inactive",
        "CreateDate": moment(key.creation_time),
    }


# Groups


def _create_group(iam: Iam, caller: Caller, values: Values) -> Values:
    made = Group(
        account=caller.account,
        name=values["GroupName"],
        id=new_id("AGPA"),
        path=values.get("Path") or "/",
        creation_time=time.time(),
    )
    iam.add("group", made)
    return {"Group": _group(made)}


def _get_group(iam: Iam, caller: Caller, values: Values) -> Values:
    found: Group = iam.find(caller, "group", values["GroupName"])
    members = page("Users", _members(iam, found), lambda one: _user(one, listed=True), values)
    return {"Group": _group(found), **members}


def _list_groups(iam: Iam, caller: Caller, values: Values) -> Values:
    return page("Groups", iam.mine(caller, Group, values), _group, values)


def _list_groups_for_user(iam: Iam, caller: Caller, values: Values) -> Values:
    user: User = iam.find(caller, "user", values["UserName"])
    return page("Groups", [iam.find(caller, "group", name) for name in sorted(user.groups)], _group, values)


def _delete_group(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        found: Group = iam.find(caller, "group", values["GroupName"])
        if _members(iam, found):
            raise in_use("must remove users in group first")
        require_bare(found)
        iam.state.remove(found)
    return {}


def _add_user_to_group(iam: Iam, caller: Caller, values: Values) -> Values:
    def change(user: User) -> Mapping[str, Any]:
        group: Group = iam.find(caller, "group", values["GroupName"])
        return {"groups": tuple(dict.fromkeys([*user.groups, group.name]))}

    iam.change(caller, "user", values["UserName"], change)
    return {}


def _remove_user_from_group(iam: Iam, caller: Caller, values: Values) -> Values:
    def change(user: User) -> Mapping[str, Any]:
        group: Group = iam.find(caller, "group", values["GroupName"])
        return {"groups": tuple(name for name in user.groups if name != group.name)}

    iam.change(caller, "user", values["UserName"], change)
    return {}


def _members(iam: Iam, group: Group) -> list[User]:
    users = list(iam.state.all(User).values())
    return [one for one in users if one.account == group.account and group.name in one.groups]


def _group(group: Group) -> Mapping[str, Any]:
    return {
        "Path": group.path,
        "GroupName": group.name,
        "GroupId": group.id,
        "Arn": group.arn,
        "CreateDate": moment(group.creation_time),
    }


ACTIONS: dict[str, Handler] = {
    "AddUserToGroup": _add_user_to_group,
    "CreateAccessKey": _create_access_key,
    "CreateGroup": _create_group,
    "CreateUser": _create_user,
    "DeleteAccessKey": _delete_access_key,
    "DeleteGroup": _delete_group,
    "DeleteUser": _delete_user,
    "GetGroup": _get_group,
    "GetUser": _get_user,
    "ListAccessKeys": _list_access_keys,
    "ListGroups": _list_groups,
    "ListGroupsForUser": _list_groups_for_user,
    "ListUsers": _list_users,
    "RemoveUserFromGroup": _remove_user_from_group,
    "UpdateAccessKey": _update_access_key,
}
