"""CreateSecurityGroup, DescribeSecurityGroups, DeleteSecurityGroup; and which groups a call names.

The default group of an account in a region is there without a record until somebody changes it: its id follows from
both. Where Eucalyptus differs (no VPC, so groups have names and no egress rules) its own words stand beside EC2's,
read in its NetworkGroupManager.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import instance_states, networks, security_rules
from builder.sandbox.ec2.action import Handler, Traits, Values, check_filters, matches, maybe, paged, tag_list
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import Instance, Rule, SecurityGroup
from builder.sandbox.wire import Caller, Refusal

DEFAULT = "default"
_TEXT = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}")  # CreateSecurityGroup, GroupName and Description
_ID = re.compile(r"sg-[0-9a-f]{8,17}")
_OWN_FILTERS = ("description", "group-id", "group-name", "owner-id", "vpc-id")
_FILTERS = (*_OWN_FILTERS, *security_rules.FILTERS)


def require(cloud: Cloud, caller: Caller, group_id: str) -> SecurityGroup:
    """Return the caller's group of that id. Raises Refusal."""
    if not _ID.fullmatch(group_id):
        raise Refusal("InvalidGroupId.Malformed", f'Invalid id: "{group_id}" (expecting "sg-...")')
    for group in of(cloud, caller):
        if group.group_id == group_id:
            return group
    raise Refusal("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")


def require_named(cloud: Cloud, caller: Caller, name: str) -> SecurityGroup:
    """Return the caller's group of that name, where there are VPCs in the default one. Raises Refusal."""
    for group in of(cloud, caller):
        if group.name == name:
            return group
    vpc = networks.vpc_id(cloud, caller.account, caller.region)
    where = f" in default VPC '{vpc}'" if vpc else ""
    raise Refusal("InvalidGroup.NotFound", f"The security group '{name}' does not exist{where}")


def meant(cloud: Cloud, caller: Caller, values: Values) -> SecurityGroup:
    """Return the group that a call's GroupId or GroupName means. Raises Refusal."""
    if group_id := values.get("GroupId"):
        return require(cloud, caller, group_id)
    if name := values.get("GroupName"):
        return require_named(cloud, caller, name)
    raise Refusal("MissingParameter", "The request must contain the parameter groupName or groupId")


def of_launch(cloud: Cloud, caller: Caller, values: Values) -> tuple[str, ...]:
    """Return the ids of the groups that RunInstances names, the default one's when it names none. Raises Refusal."""
    found = [require(cloud, caller, group_id) for group_id in values.get("SecurityGroupIds", ())]
    for name in values.get("SecurityGroups", ()):
        by_id = cloud.personality.is_eucalyptus and _ID.fullmatch(name)
        found.append(require(cloud, caller, name) if by_id else require_named(cloud, caller, name))
    return tuple(dict.fromkeys(one.group_id for one in found or [_default(cloud, caller)]))


def of(cloud: Cloud, owner: Caller | Instance) -> list[SecurityGroup]:
    """Return the groups of an account in a region, the default one first."""
    default, mine = _default(cloud, owner), (owner.account, owner.region)
    others = [one for one in list(cloud.state.all(SecurityGroup).values()) if (one.account, one.region) == mine]
    return [default, *(one for one in others if one.group_id != default.group_id)]


def of_instance(cloud: Cloud, instance: Instance) -> list[Values]:
    """Return the instance's groups as it shows them."""
    there = {one.group_id: one.name for one in of(cloud, instance)}
    return [{"GroupId": one, "GroupName": there[one]} for one in instance.security_groups if one in there]


def _default(cloud: Cloud, owner: Caller | Instance) -> SecurityGroup:
    group_id = networks.fixed_id("sg", owner.account, owner.region)
    kept = cloud.state.all(SecurityGroup).get(group_id)
    if kept is not None:
        return kept
    vpc_id = networks.vpc_id(cloud, owner.account, owner.region)
    rules: tuple[Rule, ...] = ()
    if vpc_id is not None:
        inside = Rule(rule_id=networks.fixed_id("sgr", group_id, "in"), egress=False, protocol="-1", group_id=group_id)
        rules = (inside, security_rules.everywhere(networks.fixed_id("sgr", group_id, "out")))
    return SecurityGroup(
        group_id=group_id,
        account=owner.account,
        region=owner.region,
        name=DEFAULT,
        description="default VPC security group" if vpc_id else "default group",
        vpc_id=vpc_id,
        rules=rules,
    )


def _create(cloud: Cloud, caller: Caller, values: Values) -> Values:
    name, description = values["GroupName"], values["Description"]
    vpc_id = networks.vpc_id(cloud, caller.account, caller.region)
    if (given := values.get("VpcId")) not in (None, "", vpc_id):
        raise Refusal("InvalidVpcID.NotFound", f"The vpc ID '{given}' does not exist")
    _check_words(cloud, name, description)
    tags = specified(values.get("TagSpecifications", ()), "security-group")
    group = SecurityGroup(
        group_id=new_id("sg"),
        account=caller.account,
        region=caller.region,
        name=name,
        description=description,
        vpc_id=vpc_id,
        rules=(security_rules.everywhere(new_id("sgr")),) if vpc_id else (),
        tags=tags,
    )
    with cloud.state.lock:
        if any(one.name == name for one in of(cloud, caller)):
            where = f" for VPC '{vpc_id}'" if vpc_id else ""
            raise Refusal("InvalidGroup.Duplicate", f"The security group '{name}' already exists{where}")
        cloud.state.put(group)
    return {"GroupId": group.group_id, "Tags": tag_list(tags), "SecurityGroupArn": _arn(group)}


def _check_words(cloud: Cloud, name: str, description: str) -> None:
    if name.startswith("sg-"):
        message = f"Value ({name}) for parameter GroupName is invalid. Group names may not be in the format sg-*"
        raise Refusal("InvalidParameterValue", message)
    if cloud.personality.is_eucalyptus:
        for parameter, text in (("GroupName", name), ("GroupDescription", description)):
            if not text.isascii():
                message = f"Value ({text}) for parameter {parameter} is invalid. Character sets beyond ASCII are not "
                raise Refusal("InvalidParameterValue", message + "supported.")
        return
    if name == DEFAULT:
        raise Refusal("InvalidParameterValue", f"Cannot use reserved security group name: {name}")
    for word, text in (("name", name), ("description", description)):
        if not _TEXT.fullmatch(text):
            message = (
                f"Invalid security group {word}. Valid {word}s are strings less than 256 characters from the following "
                "set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*"
            )
            raise Refusal("InvalidParameterValue", message)


def _delete(cloud: Cloud, caller: Caller, values: Values) -> Values:
    classic = cloud.personality.is_eucalyptus
    with cloud.state.lock:
        group = meant(cloud, caller, values)
        if group.name == DEFAULT:
            if classic:
                raise Refusal("InvalidGroup.Reserved", "The security group 'default' is reserved")
            message = f'the specified group: "{group.group_id}" name: "default" cannot be deleted by a user'
            raise Refusal("CannotDelete", message)
        if _in_use(cloud, caller, group):
            if classic:
                raise Refusal("InvalidGroup.InUse", "Specified group cannot be deleted because it is in use.")
            raise Refusal("DependencyViolation", f"resource {group.group_id} has a dependent object")
        cloud.state.remove(group)
    return {"Return": True, "GroupId": group.group_id}


def _in_use(cloud: Cloud, caller: Caller, group: SecurityGroup) -> bool:
    """Say whether an instance is in the group, or another group's rule names it; call it under the state's lock."""
    for instance in cloud.state.all(Instance).values():
        if group.group_id in instance.security_groups and instance_states.state_of(cloud, instance) != "terminated":
            return True
    others = [one for one in of(cloud, caller) if one.group_id != group.group_id]
    return any(rule.group_id == group.group_id for one in others for rule in one.rules)


def _describe(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _FILTERS)
    ids, names = values.get("GroupIds", ()), values.get("GroupNames", ())
    if (ids or names) and values.get("MaxResults") is not None:
        raise Refusal(
            "InvalidParameterCombination", "The parameter groups cannot be used with the parameter maxResults"
        )
    found = [require(cloud, caller, one) for one in ids] + [require_named(cloud, caller, one) for one in names]
    found = list({one.group_id: one for one in found}.values()) if ids or names else of(cloud, caller)
    found = [one for one in found if matches(_traits(cloud, caller, one), one.tags, filters)]
    page, token = paged(found, lambda one: one.group_id, values)
    return {"SecurityGroups": [_shape(caller, one) for one in page], "NextToken": token}


def _shape(caller: Caller, group: SecurityGroup) -> Values:
    return {
        "Description": group.description,
        "GroupId": group.group_id,
        "GroupName": group.name,
        "IpPermissions": security_rules.permissions(caller, group, egress=False),
        "IpPermissionsEgress": security_rules.permissions(caller, group, egress=True),
        "OwnerId": group.account,
        "SecurityGroupArn": _arn(group),
        "Tags": tag_list(group.tags),
        "VpcId": group.vpc_id,
    }


def _arn(group: SecurityGroup) -> str | None:
    if group.vpc_id is None:  # Eucalyptus shows none
        return None
    return f"arn:aws:ec2:{group.region}:{group.account}:security-group/{group.group_id}"


def _traits(cloud: Cloud, caller: Caller, group: SecurityGroup) -> Traits:
    names = {one.group_id: one.name for one in of(cloud, caller)}
    own: dict[str, Sequence[str]] = {
        "description": [group.description], "group-id": [group.group_id], "group-name": [group.name],
        "owner-id": [group.account], "vpc-id": maybe(group.vpc_id),
    }  # fmt: skip
    return {**own, **security_rules.traits(group, names)}


ACTIONS: dict[str, Handler] = {
    "CreateSecurityGroup": _create,
    "DeleteSecurityGroup": _delete,
    "DescribeSecurityGroups": _describe,
}
