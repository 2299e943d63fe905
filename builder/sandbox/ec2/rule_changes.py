"""AuthorizeSecurityGroupIngress and -Egress, RevokeSecurityGroupIngress and -Egress, DescribeSecurityGroupRules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import security_groups, security_rules
from builder.sandbox.ec2.action import Handler, Values, check_filters, matches, paged
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import Rule, SecurityGroup
from builder.sandbox.wire import Caller, Refusal

_MOST = 60  # rules of a group in each direction: the quota of a new account
_ID = re.compile(r"sgr-[0-9a-f]{8,17}")
_FILTERS = ("group-id", "security-group-rule-id")


def _authorize(cloud: Cloud, caller: Caller, values: Values, *, egress: bool) -> Values:
    tags = specified(values.get("TagSpecifications", ()), "security-group-rule")
    with cloud.state.lock:
        group = _changed_group(cloud, caller, values, egress=egress)
        added = [replace(one, tags=tags) for one in _given(cloud, caller, values, egress=egress)]
        there = {one.meaning for one in group.rules}
        for rule in added:
            if rule.meaning in there:
                if cloud.personality.is_eucalyptus:  # `return` is false there, and none is added
                    return {"Return": False}
                message = f'the specified rule "{security_rules.described(rule)}" already exists'
                raise Refusal("InvalidPermission.Duplicate", message)
        if sum(one.egress == egress for one in group.rules) + len(added) > _MOST:
            message = "The maximum number of rules per security group has been reached."
            raise Refusal("RulesPerSecurityGroupLimitExceeded", message)
        cloud.state.put(replace(group, rules=(*group.rules, *added)))
    if cloud.personality.is_eucalyptus:
        return {"Return": True}
    return {"Return": True, "SecurityGroupRules": [security_rules.shape(group, one) for one in added]}


def _revoke(cloud: Cloud, caller: Caller, values: Values, *, egress: bool) -> Values:
    with cloud.state.lock:
        group = _changed_group(cloud, caller, values, egress=egress)
        mine = [one for one in group.rules if one.egress == egress]
        if ids := values.get("SecurityGroupRuleIds", ()):
            gone = [_numbered(mine, rule_id) for rule_id in dict.fromkeys(ids)]
        else:
            wanted = {one.meaning for one in _given(cloud, caller, values, egress=egress)}
            gone = [one for one in mine if one.meaning in wanted]
            # Eucalyptus removes what is there and says nothing of the rest.
            if len(gone) < len(wanted) and not cloud.personality.is_eucalyptus:
                message = "The specified rule does not exist in this security group."
                raise Refusal("InvalidPermission.NotFound", message)
        left = tuple(one for one in group.rules if one not in gone)
        cloud.state.put(replace(group, rules=left))
    if cloud.personality.is_eucalyptus:
        return {"Return": True}
    return {"Return": True, "RevokedSecurityGroupRules": [_revoked(group, one) for one in gone]}


def _given(cloud: Cloud, caller: Caller, values: Values, *, egress: bool) -> list[Rule]:
    def group(pair: Values) -> SecurityGroup:
        if (owner := pair.get("UserId")) not in (None, "", caller.account):
            name = pair.get("GroupId") or pair.get("GroupName")
            raise Refusal("InvalidGroup.NotFound", f"The security group '{name}' of account {owner} does not exist")
        return security_groups.meant(cloud, caller, pair)

    return security_rules.given(values, group, egress=egress)


def _changed_group(cloud: Cloud, caller: Caller, values: Values, *, egress: bool) -> SecurityGroup:
    group = security_groups.meant(cloud, caller, values)
    if egress and group.vpc_id is None:
        raise Refusal("InvalidGroup.NotFound", f"VPC security group ({group.group_id}) not found")
    return group


def _numbered(rules: Iterable[Rule], rule_id: str) -> Rule:
    if not _ID.fullmatch(rule_id):
        message = f'Invalid id: "{rule_id}" (expecting "sgr-...")'
        raise Refusal("InvalidSecurityGroupRuleId.Malformed", message)
    for rule in rules:
        if rule.rule_id == rule_id:
            return rule
    message = f"The security group rule ID '{rule_id}' does not exist"
    raise Refusal("InvalidSecurityGroupRuleId.NotFound", message)


def _revoked(group: SecurityGroup, rule: Rule) -> Values:
    shown = security_rules.shape(group, rule)
    names = (
        "CidrIpv4", "CidrIpv6", "Description", "FromPort", "GroupId", "IpProtocol", "IsEgress", "SecurityGroupRuleId",
        "ToPort",
    )  # fmt: skip
    return {**{name: shown[name] for name in names}, "ReferencedGroupId": rule.group_id}


def _describe(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _FILTERS)
    everything = [(group, rule) for group in security_groups.of(cloud, caller) for rule in group.rules]
    if ids := values.get("SecurityGroupRuleIds", ()):
        if values.get("MaxResults") is not None:
            message = "The parameter securityGroupRuleIds cannot be used with the parameter maxResults"
            raise Refusal("InvalidParameterCombination", message)
        wanted = {_numbered((rule for _, rule in everything), rule_id).rule_id for rule_id in ids}
        everything = [each for each in everything if each[1].rule_id in wanted]
    found = []
    for group, rule in everything:
        traits = {"group-id": [group.group_id], "security-group-rule-id": [rule.rule_id]}
        if matches(traits, rule.tags, filters):
            found.append(security_rules.shape(group, rule))
    page, token = paged(found, lambda one: str(one["SecurityGroupRuleId"]), values)
    return {"SecurityGroupRules": page, "NextToken": token}


ACTIONS: dict[str, Handler] = {
    "AuthorizeSecurityGroupEgress": partial(_authorize, egress=True),
    "AuthorizeSecurityGroupIngress": partial(_authorize, egress=False),
    "DescribeSecurityGroupRules": _describe,
    "RevokeSecurityGroupEgress": partial(_revoke, egress=True),
    "RevokeSecurityGroupIngress": partial(_revoke, egress=False),
}
