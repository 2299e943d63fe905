"""The rules of security groups: from a call's IpPermissions, and as describe calls and filters show them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from builder.sandbox.cloud import new_id
from builder.sandbox.ec2.action import Traits, Values
from builder.sandbox.records import Rule, SecurityGroup
from builder.sandbox.wire import Caller, Refusal

_ALL = "-1"
_NAMES = {"1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6"}  # of protocols, by IANA's numbers
_WITH_PORTS = {"tcp": "TCP", "udp": "UDP"}
_MOST_PORT, _MOST_PROTOCOL, _MOST_ICMP = 65535, 255, 255
_PARTS = (
    "cidr",
    "from-port",
    "group-id",
    "group-name",
    "ipv6-cidr",
    "prefix-list-id",
    "protocol",
    "to-port",
    "user-id",
)
_PREFIXES = {"ip-permission": False, "egress.ip-permission": True}
FILTERS = tuple(f"{prefix}.{part}" for prefix in _PREFIXES for part in _PARTS)
Group = Callable[[Values], SecurityGroup]  # finds the group that a UserIdGroupPair means, or raises Refusal


def everywhere(rule_id: str) -> Rule:
    """Return the rule that lets everything out, which a new group of a VPC has."""
    return Rule(rule_id=rule_id, egress=True, protocol=_ALL, cidr="0.0.0.0/0")


def given(values: Values, group: Group, *, egress: bool) -> list[Rule]:
    """Return the rules that a call's IpPermissions or its older parameters mean, with new ids. Raises Refusal."""
    if not (permissions := values.get("IpPermissions", ())):
        permissions = [_older(values)]
    rules = [rule for one in permissions for rule in _rules(one, group, egress=egress)]
    seen: set[object] = set()
    for rule in rules:
        if rule.meaning in seen:
            raise Refusal("InvalidParameterValue", "The same permission must not appear multiple times")
        seen.add(rule.meaning)
    return rules


def _older(values: Values) -> Values:
    """Return the one permission that CidrIp, IpProtocol, FromPort and ToPort, or a source group, say."""
    permission: dict[str, Any] = {name: values.get(name) for name in ("IpProtocol", "FromPort", "ToPort")}
    if cidr := values.get("CidrIp"):
        return {**permission, "IpRanges": [{"CidrIp": cidr}]}
    if name := values.get("SourceSecurityGroupName"):
        pair = {"GroupName": name, "UserId": values.get("SourceSecurityGroupOwnerId")}
        # Without a protocol it means all of them, as it did before there were VPCs.
        return {**permission, "IpProtocol": permission["IpProtocol"] or _ALL, "UserIdGroupPairs": [pair]}
    raise Refusal("MissingParameter", "The request must contain the parameter ipPermissions")


def _rules(permission: Values, group: Group, *, egress: bool) -> Iterator[Rule]:
    protocol = _protocol(permission.get("IpProtocol"))
    first, last = _ports(protocol, permission.get("FromPort"), permission.get("ToPort"))
    if permission.get("PrefixListIds"):
        raise Refusal("UnsupportedOperation", "The sandbox has no prefix lists.")
    ports = Rule(rule_id="", egress=egress, protocol=protocol, from_port=first, to_port=last)
    peers: list[tuple[Values, dict[str, Any]]] = [
        *((one, {"cidr": _range(one.get("CidrIp", ""), 4)}) for one in permission.get("IpRanges", ())),
        *((one, {"cidr6": _range(one.get("CidrIpv6", ""), 6)}) for one in permission.get("Ipv6Ranges", ())),
        *((one, {"group_id": group(one).group_id}) for one in permission.get("UserIdGroupPairs", ())),
    ]
    if not peers:
        message = "Invalid value 'null' for cidr, group or prefix list: a permission needs one of them."
        raise Refusal("InvalidParameterValue", message)
    for one, peer in peers:
        yield replace(ports, rule_id=new_id("sgr"), description=one.get("Description"), **peer)


def _protocol(text: str | None) -> str:
    if not text:
        raise Refusal("MissingParameter", "The request must contain the parameter ipProtocol")
    name = _NAMES.get(text, text.lower())
    if name in (_ALL, "all"):
        return _ALL
    number = text.isascii() and text.isdecimal() and int(text) <= _MOST_PROTOCOL
    if name not in _NAMES.values() and not number:
        raise Refusal("InvalidPermission.Malformed", f"Invalid IP protocol '{text}'")
    return name


def _ports(protocol: str, first: int | None, last: int | None) -> tuple[int, int]:
    """Return the ports, or the ICMP type and code, that count; -1 for all. Raises Refusal."""
    if protocol in _WITH_PORTS:
        if first is None or last is None:
            message = "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange."
            raise Refusal("InvalidParameterValue", message)
        if not (0 <= first <= _MOST_PORT and 0 <= last <= _MOST_PORT):
            raise Refusal("InvalidParameterValue", f"{_WITH_PORTS[protocol]} port ({max(first, last)}) out of range")
        if first > last:
            raise Refusal("InvalidParameterValue", f"Invalid {_WITH_PORTS[protocol]} port range ({first}:{last})")
        return first, last
    if protocol in ("icmp", "icmpv6"):
        for number in (first, last):
            if number is not None and not -1 <= number <= _MOST_ICMP:
                message = f"ICMP code ({number}) out of range. Supported range for ICMP code and type is 0 to 255"
                raise Refusal("InvalidParameterValue", message)
        return -1 if first is None else first, -1 if last is None else last
    return -1, -1  # ports mean nothing there


def _range(text: str, version: int) -> str:
    """Return an address range in its canonical form, as EC2 keeps it. Raises Refusal."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        network = None
    if "/" not in text or network is None or network.version != version:
        raise Refusal("InvalidParameterValue", f"CIDR block {text} is malformed")
    return str(network)


def described(rule: Rule) -> str:
    """Return a rule as EC2 names it in its refusals."""
    peer = rule.cidr or rule.cidr6 or rule.group_id
    if rule.protocol == _ALL:
        return f"peer: {peer}, ALL, ALLOW"
    return f"peer: {peer}, {rule.protocol.upper()}, from port: {rule.from_port}, to port: {rule.to_port}, ALLOW"


def shape(group: SecurityGroup, rule: Rule) -> dict[str, Any]:
    """Return a rule as calls on rules show it."""
    source = {"GroupId": rule.group_id, "UserId": group.account, "VpcId": group.vpc_id} if rule.group_id else None
    return {
        "CidrIpv4": rule.cidr,
        "CidrIpv6": rule.cidr6,
        "Description": rule.description,
        "FromPort": rule.from_port,
        "GroupId": group.group_id,
        "GroupOwnerId": group.account,
        "IpProtocol": rule.protocol,
        "IsEgress": rule.egress,
        "ReferencedGroupInfo": source,
        "SecurityGroupRuleArn": f"arn:aws:ec2:{group.region}:{group.account}:security-group-rule/{rule.rule_id}",
        "SecurityGroupRuleId": rule.rule_id,
        "Tags": [{"Key": key, "Value": value} for key, value in rule.tags.items()],
        "ToPort": rule.to_port,
    }


def permissions(caller: Caller, group: SecurityGroup, *, egress: bool) -> list[Values]:
    """Return a group's rules as DescribeSecurityGroups shows them: by protocol and ports."""
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for rule in group.rules:
        if rule.egress != egress:
            continue
        key = (rule.protocol, rule.from_port, rule.to_port)
        empty: dict[str, Any] = {name: [] for name in ("IpRanges", "Ipv6Ranges", "PrefixListIds", "UserIdGroupPairs")}
        ports = {} if rule.protocol == _ALL else {"FromPort": rule.from_port, "ToPort": rule.to_port}
        entry = found.setdefault(key, {"IpProtocol": rule.protocol, **ports, **empty})
        if rule.cidr:
            entry["IpRanges"].append({"CidrIp": rule.cidr, "Description": rule.description})
        elif rule.cidr6:
            entry["Ipv6Ranges"].append({"CidrIpv6": rule.cidr6, "Description": rule.description})
        else:
            pair = {"GroupId": rule.group_id, "UserId": caller.account, "Description": rule.description}
            entry["UserIdGroupPairs"].append(pair)
    return list(found.values())


def traits(group: SecurityGroup, names: Mapping[str, str]) -> Traits:
    """Return what filters see of a group's rules; `names` are those of groups by their id."""
    found: dict[str, list[str]] = {name: [] for name in FILTERS}
    for prefix, egress in _PREFIXES.items():
        for rule in group.rules:
            if rule.egress != egress:
                continue
            for part, value in _parts(group, rule, names):
                found[f"{prefix}.{part}"].append(value)
    return found


def _parts(group: SecurityGroup, rule: Rule, names: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    yield "protocol", rule.protocol
    yield "from-port", str(rule.from_port)
    yield "to-port", str(rule.to_port)
    if rule.cidr:
        yield "cidr", rule.cidr
    if rule.cidr6:
        yield "ipv6-cidr", rule.cidr6
    if rule.group_id:
        yield "group-id", rule.group_id
        yield "user-id", group.account
        if rule.group_id in names:
            yield "group-name", names[rule.group_id]
