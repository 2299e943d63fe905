"""Managed policies and their versions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from builder.sandbox.access import managed
from builder.sandbox.access.accounts import new_id
from builder.sandbox.access.iam_action import Iam, Values, checked, full, gone, in_use, moment, page, tag_list, tags_of
from builder.sandbox.access.iam_action import wire as encoded
from builder.sandbox.records import Group, Policy, PolicyVersion, Role, User
from builder.sandbox.wire import Caller, Refusal

Handler = Callable[[Iam, Caller, Values], Values]
_MOST_VERSIONS = 5


def _create_policy(iam: Iam, caller: Caller, values: Values) -> Values:
    now = time.time()
    made = Policy(
        account=caller.account,
        name=values["PolicyName"],
        id=new_id("ANPA"),
        path=values.get("Path") or "/",
        description=values.get("Description") or "",
        creation_time=now,
        versions=(PolicyVersion(number=1, document=checked(values["PolicyDocument"]), creation_time=now),),
        tags=tags_of(values),
    )
    with iam.state.lock:
        if any(one.name.lower() == made.name.lower() for one in iam.mine(caller, Policy, {})):
            raise Refusal("EntityAlreadyExists", f"A policy called {made.name} already exists. Duplicate names are not "
                          "allowed.", status=409)  # fmt: skip
        iam.state.put(made)
    return {"Policy": _describe(iam, caller, made)}


def _find(iam: Iam, caller: Caller, arn: str) -> Policy:
    found = iam.state.all(Policy).get(arn)
    if found is None and arn in managed.DOCUMENTS:
        return _aws(arn)
    if found is None or found.account != caller.account:
        raise gone(f"Policy {arn} was not found.")
    return found


def _own(iam: Iam, caller: Caller, arn: str) -> Policy:
    found = _find(iam, caller, arn)
    if found.account == "aws":
        raise Refusal("AccessDenied", f"{arn} is managed by AWS.", status=403)
    return found


def _aws(arn: str) -> Policy:
    name = arn.rpartition("/")[2]
    version = PolicyVersion(number=1, document=managed.DOCUMENTS[arn], creation_time=0)
    return Policy(account="aws", name=name, id=f"ANPA{name.upper()[:16]:X<16}", creation_time=0, versions=(version,))


def _get_policy(iam: Iam, caller: Caller, values: Values) -> Values:
    return {"Policy": _describe(iam, caller, _find(iam, caller, values["PolicyArn"]))}


def _list_policies(iam: Iam, caller: Caller, values: Values) -> Values:
    scope = values.get("Scope", "All")
    found = iam.mine(caller, Policy, values) if scope != "AWS" else []
    if scope != "Local":
        found = found + [_aws(arn) for arn in managed.DOCUMENTS]
    if values.get("OnlyAttached"):
        found = [one for one in found if _holders(iam, caller.account, one.arn)]
    return page("Policies", found, lambda one: _describe(iam, caller, one, listed=True), values)


def _delete_policy(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        found = _own(iam, caller, values["PolicyArn"])
        if _holders(iam, caller.account, found.arn) or _bounded(iam, found.arn):
            raise Refusal("DeleteConflict", "Cannot delete a policy attached to entities.", status=409)
        if len(found.versions) > 1:
            raise Refusal("DeleteConflict", "This policy has more than one version. Before you delete a policy, you "
                          "must delete the policy's versions. The default version is deleted with the policy.",
                          status=409)  # fmt: skip
        iam.state.remove(found)
    return {}


def _holders(iam: Iam, account: str, arn: str) -> list[User | Role | Group]:
    kinds: tuple[type[User | Role | Group], ...] = (User, Role, Group)
    found = [one for kind in kinds for one in list(iam.state.all(kind).values())]
    return [one for one in found if one.account == account and arn in one.attached]


def _bounded(iam: Iam, arn: str) -> int:
    kinds: tuple[type[User | Role], ...] = (User, Role)
    return sum(one.boundary == arn for kind in kinds for one in list(iam.state.all(kind).values()))


def _list_entities(iam: Iam, caller: Caller, values: Values) -> Values:
    found = _holders(iam, caller.account, _find(iam, caller, values["PolicyArn"]).arn)
    return {
        "PolicyUsers": [{"UserName": one.name, "UserId": one.id} for one in found if isinstance(one, User)],
        "PolicyRoles": [{"RoleName": one.name, "RoleId": one.id} for one in found if isinstance(one, Role)],
        "PolicyGroups": [{"GroupName": one.name, "GroupId": one.id} for one in found if isinstance(one, Group)],
        "IsTruncated": False,
    }


# Versions


def _create_version(iam: Iam, caller: Caller, values: Values) -> Values:
    document = checked(values["PolicyDocument"])
    with iam.state.lock:
        found = _own(iam, caller, values["PolicyArn"])
        if len(found.versions) >= _MOST_VERSIONS:
            raise full(f"VersionsPerPolicy: {_MOST_VERSIONS}")
        made = PolicyVersion(number=found.made + 1, document=document, creation_time=time.time())
        default = made.number if values.get("SetAsDefault") else found.default
        found = replace(found, versions=(*found.versions, made), default=default, made=made.number)
        iam.state.put(found)
    return {"PolicyVersion": _version(found, made)}


def _get_version(iam: Iam, caller: Caller, values: Values) -> Values:
    found = _find(iam, caller, values["PolicyArn"])
    version = _version_of(found, values["VersionId"])
    return {"PolicyVersion": {**_version(found, version), "Document": encoded(version.document)}}


def _list_versions(iam: Iam, caller: Caller, values: Values) -> Values:
    found = _find(iam, caller, values["PolicyArn"])
    return page("Versions", reversed(found.versions), lambda one: _version(found, one), values)


def _set_default(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        found = _own(iam, caller, values["PolicyArn"])
        iam.state.put(replace(found, default=_version_of(found, values["VersionId"]).number))
    return {}


def _delete_version(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        found = _own(iam, caller, values["PolicyArn"])
        version = _version_of(found, values["VersionId"])
        if version.number == found.default:
            raise in_use("the default version of a policy stays")
        iam.state.put(replace(found, versions=tuple(one for one in found.versions if one != version)))
    return {}


def _version_of(policy: Policy, name: str) -> PolicyVersion:
    for version in policy.versions:
        if f"v{version.number}" == name:
            return version
    raise gone(f"Policy {policy.arn} version {name} does not exist or is not attachable.")


def _version(policy: Policy, version: PolicyVersion) -> Mapping[str, Any]:
    return {
        "VersionId": f"v{version.number}",
        "IsDefaultVersion": version.number == policy.default,
        "CreateDate": moment(version.creation_time),
    }


def _describe(iam: Iam, caller: Caller, policy: Policy, *, listed: bool = False) -> Mapping[str, Any]:
    shown: dict[str, Any] = {
        "PolicyName": policy.name,
        "PolicyId": policy.id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": f"v{policy.default}",
        "AttachmentCount": len(_holders(iam, caller.account, policy.arn)),
        "PermissionsBoundaryUsageCount": _bounded(iam, policy.arn),
        "IsAttachable": True,
        "CreateDate": moment(policy.creation_time),
        "UpdateDate": moment(policy.versions[-1].creation_time),
    }
    if policy.description and not listed:
        shown["Description"] = policy.description
    return shown | ({"Tags": tag_list(policy.tags)} if policy.tags and not listed else {})


ACTIONS: dict[str, Handler] = {
    "CreatePolicy": _create_policy,
    "CreatePolicyVersion": _create_version,
    "DeletePolicy": _delete_policy,
    "DeletePolicyVersion": _delete_version,
    "GetPolicy": _get_policy,
    "GetPolicyVersion": _get_version,
    "ListEntitiesForPolicy": _list_entities,
    "ListPolicies": _list_policies,
    "ListPolicyVersions": _list_versions,
    "SetDefaultPolicyVersion": _set_default,
}
