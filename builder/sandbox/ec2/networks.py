"""The default VPC that every account has in every region, with a subnet for each zone: names, no network.

Their ids follow from account and region, so that nothing has to be kept of them. Eucalyptus has none here: it is as in
its network modes without VPCs, the ones that its users know as EC2-Classic.
"""

from __future__ import annotations

import hashlib

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import Handler, Traits, Values, check_filters, matches, maybe, paged
from builder.sandbox.ec2.places import zones
from builder.sandbox.wire import Caller, Refusal

# A /16 with a /20 for each zone, as AWS makes default VPCs ("Default VPCs" in the VPC guide), but where this cloud's
# machines have their addresses (machines/addresses.py) and not in 172.31.0.0/16: nothing but 127/8 is ever named.
_RANGE = "127.77.0.0/16"
_SUBNET = "127.77.{}.0/20"
_FREE = 4091  # addresses of a /20 less the five that AWS keeps
_VPC_FILTERS = (
    "cidr", "cidr-block-association.association-id", "cidr-block-association.cidr-block",
    "cidr-block-association.state", "dhcp-options-id", "ipv6-cidr-block-association.association-id",
    "ipv6-cidr-block-association.ipv6-cidr-block", "ipv6-cidr-block-association.ipv6-pool",
    "ipv6-cidr-block-association.state", "is-default", "isDefault", "owner-id", "state", "vpc-id",
)  # fmt: skip
_SUBNET_FILTERS = (
    "availability-zone", "availabilityZone", "availability-zone-id", "availabilityZoneId",
    "available-ip-address-count", "cidr", "cidr-block", "cidrBlock", "customer-owned-ipv4-pool", "default-for-az",
    "defaultForAz", "enable-dns64", "enable-lni-at-device-index", "ipv6-cidr-block-association.association-id",
    "ipv6-cidr-block-association.ipv6-cidr-block", "ipv6-cidr-block-association.state", "ipv6-native",
    "map-customer-owned-ip-on-launch", "map-public-ip-on-launch", "outpost-arn", "owner-id",
    "private-dns-name-options-on-launch.enable-resource-name-dns-a-record",
    "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record",
    "private-dns-name-options-on-launch.hostname-type", "state", "subnet-arn", "subnet-id", "vpc-id",
)  # fmt: skip


def fixed_id(prefix: str, *words: str) -> str:
    """Return an id in EC2's long form that is always the same for these words."""
    return f"{prefix}-0{hashlib.sha256('/'.join(words).encode()).hexdigest()[:16]}"


def vpc_id(cloud: Cloud, account: str, region: str) -> str | None:
    """Return the id of the account's default VPC, None where there are no VPCs."""
    return None if cloud.personality.is_eucalyptus else fixed_id("vpc", account, region)


def subnet_id(cloud: Cloud, account: str, region: str, zone: str) -> str | None:
    """Return the id of the default VPC's subnet in a zone, None where there are no VPCs."""
    return None if cloud.personality.is_eucalyptus else fixed_id("subnet", account, region, zone)


def zone_of(cloud: Cloud, caller: Caller, subnet: str) -> str:
    """Return the zone of one of the caller's subnets. Raises Refusal."""
    for zone in zones(caller.region):
        if subnet_id(cloud, caller.account, caller.region, zone) == subnet:
            return zone
    raise Refusal("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")


def _describe_vpcs(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _VPC_FILTERS)
    own = vpc_id(cloud, caller.account, caller.region)
    for name in values.get("VpcIds", ()):
        if name != own:
            raise Refusal("InvalidVpcID.NotFound", f"The vpc ID '{name}' does not exist")
    if own is None or not matches(_vpc_traits(caller, own), {}, filters):
        return {"Vpcs": []}
    block = {"CidrBlock": _RANGE, "CidrBlockState": {"State": "associated"}}
    block["AssociationId"] = fixed_id("vpc-cidr-assoc", own)
    vpc = {
        "CidrBlock": _RANGE, "CidrBlockAssociationSet": [block], "InstanceTenancy": "default", "IsDefault": True,
        "OwnerId": caller.account, "State": "available", "VpcId": own,
    }  # fmt: skip
    return {"Vpcs": [vpc]}


def _vpc_traits(caller: Caller, own: str) -> Traits:
    return {
        **dict.fromkeys(_VPC_FILTERS, ()),
        "cidr": [_RANGE], "cidr-block-association.cidr-block": [_RANGE], "is-default": ["true"],
        "cidr-block-association.state": ["associated"], "isDefault": ["true"], "owner-id": [caller.account],
        "state": ["available"], "vpc-id": [own],
    }  # fmt: skip


def _describe_subnets(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _SUBNET_FILTERS)
    wanted = {name: zone_of(cloud, caller, name) for name in values.get("SubnetIds", ())}
    there = [] if cloud.personality.is_eucalyptus else list(zones(caller.region).items())
    found = []
    for number, (zone, zone_id) in enumerate(there):
        shape = _subnet(cloud, caller, zone, zone_id, number)
        if (not wanted or shape["SubnetId"] in wanted) and matches(_subnet_traits(shape), {}, filters):
            found.append(shape)
    page, token = paged(found, lambda one: str(one["AvailabilityZone"]), values)
    return {"Subnets": page, "NextToken": token}


def _subnet(cloud: Cloud, caller: Caller, zone: str, zone_id: str, number: int) -> Values:
    name = subnet_id(cloud, caller.account, caller.region, zone)
    return {
        "AssignIpv6AddressOnCreation": False,
        "AvailabilityZone": zone,
        "AvailabilityZoneId": zone_id,
        "AvailableIpAddressCount": _FREE,
        "CidrBlock": _SUBNET.format(16 * number),
        "DefaultForAz": True,
        "MapPublicIpOnLaunch": True,
        "OwnerId": caller.account,
        "State": "available",
        "SubnetArn": f"arn:aws:ec2:{caller.region}:{caller.account}:subnet/{name}",
        "SubnetId": name,
        "VpcId": vpc_id(cloud, caller.account, caller.region),
    }


def _subnet_traits(shape: Values) -> Traits:
    zone, zone_id, block = shape["AvailabilityZone"], shape["AvailabilityZoneId"], shape["CidrBlock"]
    return {
        **dict.fromkeys(_SUBNET_FILTERS, ()),
        **{name: [zone] for name in ("availability-zone", "availabilityZone")},
        **{name: [zone_id] for name in ("availability-zone-id", "availabilityZoneId")},
        **{name: [block] for name in ("cidr", "cidr-block", "cidrBlock")},
        **{name: ["true"] for name in ("default-for-az", "defaultForAz", "map-public-ip-on-launch")},
        "available-ip-address-count": [str(_FREE)], "owner-id": [shape["OwnerId"]], "state": ["available"],
        "subnet-arn": [shape["SubnetArn"]], "subnet-id": [shape["SubnetId"]], "vpc-id": maybe(shape["VpcId"]),
    }  # fmt: skip


ACTIONS: dict[str, Handler] = {"DescribeSubnets": _describe_subnets, "DescribeVpcs": _describe_vpcs}
