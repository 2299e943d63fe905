"""Security groups and the default VPC: records, whose rules nothing enforces."""

from __future__ import annotations

import itertools

import pytest

AREA = "EC2 security groups and VPCs"
MISSING = [
    (AREA, "all rules", "kept and described; nothing is filtered by them: every address is one of this machine"),
    (AREA, "CreateVpc, CreateSubnet, …", "UnsupportedOperation: there is the default VPC, of names alone"),
    (AREA, "AuthorizeSecurityGroup…", "prefix lists, groups of other accounts: refused"),
]
SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.7/32", "Description": "me"}]}
ABSENT = "sg-0123456789abcdef0"
_NUMBERS = itertools.count()


@pytest.fixture
def name():
    return f"group {next(_NUMBERS)}"


@pytest.fixture
def group(ec2, name):
    """A new group's id."""
    return ec2.create_security_group(GroupName=name, Description="of a test")["GroupId"]


def described(ec2, group_id):
    (found,) = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    return found


@pytest.mark.behaviour(AREA, "CreateSecurityGroup", "in the default VPC, with tags and the one rule that lets all out")
def test_a_group_is_created_and_deleted(ec2, name, code_of):
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "k", "Value": "v"}]}]
    made = ec2.create_security_group(GroupName=name, Description="of a test", TagSpecifications=tags)
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    group = described(ec2, made["GroupId"])
    assert (group["GroupName"], group["Description"], group["VpcId"]) == (name, "of a test", vpc["VpcId"])
    assert (group["Tags"], group["IpPermissions"]) == ([{"Key": "k", "Value": "v"}], [])
    (out,) = group["IpPermissionsEgress"]
    assert (out["IpProtocol"], out["IpRanges"], "FromPort" in out) == ("-1", [{"CidrIp": "0.0.0.0/0"}], False)
    assert code_of(ec2.create_security_group, GroupName=name, Description="again") == "InvalidGroup.Duplicate"
    ec2.create_tags(Resources=[made["GroupId"]], Tags=[{"Key": "k", "Value": "w"}])
    found = ec2.describe_security_groups(Filters=[{"Name": "tag:k", "Values": ["w"]}])["SecurityGroups"]
    assert [one["GroupId"] for one in found] == [made["GroupId"]]
    ec2.delete_security_group(GroupId=made["GroupId"])
    assert code_of(ec2.describe_security_groups, GroupIds=[made["GroupId"]]) == "InvalidGroup.NotFound"
    assert code_of(ec2.delete_security_group, GroupName=name) == "InvalidGroup.NotFound"


@pytest.mark.behaviour(AREA, "DescribeSecurityGroups", "every account has `default` in every region, which cannot be "
                       "deleted and may be changed")  # fmt: skip
def test_the_default_group(sandbox, second, code_of):
    ec2 = sandbox.client("ec2", region_name="eu-west-3")
    (default,) = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    (inside,) = default["IpPermissions"]
    assert inside["UserIdGroupPairs"] == [{"GroupId": default["GroupId"], "UserId": default["OwnerId"]}]
    assert code_of(ec2.delete_security_group, GroupId=default["GroupId"]) == "CannotDelete"
    ec2.authorize_security_group_ingress(GroupName="default", IpPermissions=[SSH])
    assert len(described(ec2, default["GroupId"])["IpPermissions"]) == 2
    assert ec2.describe_security_groups()["SecurityGroups"] == [described(ec2, default["GroupId"])]
    theirs = sandbox.client("ec2", region_name="eu-west-3", **second[0])
    assert code_of(theirs.describe_security_groups, GroupIds=[default["GroupId"]]) == "InvalidGroup.NotFound"
    assert [one["GroupName"] for one in theirs.describe_security_groups()["SecurityGroups"]] == ["default"]


@pytest.mark.behaviour(AREA, "AuthorizeSecurityGroupIngress", "rules of ranges and groups, by protocol and ports; "
                       "the same one again: InvalidPermission.Duplicate")  # fmt: skip
@pytest.mark.behaviour(AREA, "RevokeSecurityGroupIngress, -Egress", "by value or by the rule's id; what is not there: "
                       "InvalidPermission.NotFound")  # fmt: skip
def test_rules_come_and_go(ec2, group, code_of):
    more = {**SSH, "IpRanges": [{"CidrIp": "198.51.100.9/24"}], "Ipv6Ranges": [{"CidrIpv6": "2001:db8::1/64"}]}
    pair = {"IpProtocol": "6", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": group}]}
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[SSH, more, pair])
    assert (made["Return"], len(made["SecurityGroupRules"])) == (True, 4)
    (shown,) = described(ec2, group)["IpPermissions"]
    assert shown["IpRanges"] == [{"CidrIp": "192.0.2.7/32", "Description": "me"}, {"CidrIp": "198.51.100.0/24"}]
    assert shown["Ipv6Ranges"] == [{"CidrIpv6": "2001:db8::/64"}]
    assert [one["GroupId"] for one in shown["UserIdGroupPairs"]] == [group]
    again = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "192.0.2.7/32"}
    assert code_of(ec2.authorize_security_group_ingress, GroupId=group, **again) == "InvalidPermission.Duplicate"
    ec2.revoke_security_group_ingress(GroupId=group, **again)
    assert code_of(ec2.revoke_security_group_ingress, GroupId=group, **again) == "InvalidPermission.NotFound"
    ids = [one["SecurityGroupRuleId"] for one in made["SecurityGroupRules"][1:]]
    gone = ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=ids)["RevokedSecurityGroupRules"]
    assert [one["SecurityGroupRuleId"] for one in gone] == ids
    (out,) = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    assert (out["IsEgress"], out["CidrIpv4"], out["FromPort"]) == (True, "0.0.0.0/0", -1)
    ec2.revoke_security_group_egress(GroupId=group, SecurityGroupRuleIds=[out["SecurityGroupRuleId"]])
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[SSH])
    assert [one["FromPort"] for one in described(ec2, group)["IpPermissionsEgress"]] == [22]


@pytest.mark.behaviour(AREA, "AuthorizeSecurityGroupIngress", "what is no rule is refused, and none is added")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"IpProtocol": "sctp"}, "InvalidPermission.Malformed"),
        ({"IpProtocol": ""}, "MissingParameter"),
        ({"FromPort": 23}, "InvalidParameterValue"),
        ({"ToPort": 65536}, "InvalidParameterValue"),
        ({"ToPort": None}, "InvalidParameterValue"),
        ({"IpRanges": []}, "InvalidParameterValue"),
        ({"IpRanges": [{"CidrIp": "192.0.2.7"}]}, "InvalidParameterValue"),
        ({"IpRanges": [{"CidrIp": "::/0"}]}, "InvalidParameterValue"),
        ({"IpProtocol": "icmp", "ToPort": 256}, "InvalidParameterValue"),
        ({"UserIdGroupPairs": [{"GroupId": ABSENT}]}, "InvalidGroup.NotFound"),
        ({"UserIdGroupPairs": [{"GroupName": "default", "UserId": "210987654321"}]}, "InvalidGroup.NotFound"),
        ({"PrefixListIds": [{"PrefixListId": "pl-12345678"}]}, "UnsupportedOperation"),
    ],
)
def test_rules_that_are_refused(ec2, group, code_of, change, code):
    changed = {name: value for name, value in {**SSH, **change}.items() if value is not None}
    fine = {**SSH, "FromPort": 1, "ToPort": 1}
    assert code_of(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[fine, changed]) == code
    assert described(ec2, group)["IpPermissions"] == []


def test_refusals(ec2, group, name, code_of):
    twice = [SSH, {**SSH, "IpProtocol": "6"}]
    assert code_of(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=twice) == "InvalidParameterValue"
    many = [{**SSH, "IpRanges": [{"CidrIp": f"192.0.2.{number}/32"} for number in range(61)]}]
    limit = "RulesPerSecurityGroupLimitExceeded"
    assert code_of(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=many) == limit
    assert code_of(ec2.authorize_security_group_ingress, GroupId=group) == "MissingParameter"
    assert code_of(ec2.authorize_security_group_ingress, IpPermissions=[SSH]) == "MissingParameter"
    for rule_id, code in (("sgr-1", "Malformed"), ("sgr-12345678", "NotFound")):
        revoke = {"GroupId": group, "SecurityGroupRuleIds": [rule_id]}
        assert code_of(ec2.revoke_security_group_ingress, **revoke) == f"InvalidSecurityGroupRuleId.{code}"
    for wish in ({"GroupName": "sg-own"}, {"GroupName": "default"}, {"GroupName": "ü"}, {"Description": "a\nb"}):
        given = {"GroupName": f"{name} other", "Description": "x", **wish}
        assert code_of(ec2.create_security_group, **given) == "InvalidParameterValue"
    wish = {"GroupName": f"{name} other", "Description": "x"}
    assert code_of(ec2.create_security_group, **wish, VpcId="vpc-12345678") == "InvalidVpcID.NotFound"
    assert code_of(ec2.describe_security_groups, GroupIds=["x"]) == "InvalidGroupId.Malformed"


@pytest.mark.behaviour(AREA, "RunInstances, DescribeInstances", "an instance is in the groups that it names by id, or "
                       "in `default`")  # fmt: skip
@pytest.mark.behaviour(AREA, "DeleteSecurityGroup", "DependencyViolation while an instance is in the group, or "
                       "another group's rule names it")  # fmt: skip
def test_a_group_in_use_stays(ec2, group, name, completed, code_of):
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": completed}}]
    image_id = ec2.register_image(Name=name, RootDeviceName="/dev/xvda", BlockDeviceMappings=devices)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})
    wish = {"ImageId": image_id, "MinCount": 1, "MaxCount": 1, "SecurityGroupIds": [group]}
    (instance,) = ec2.run_instances(**wish)["Instances"]
    assert instance["SecurityGroups"] == [{"GroupId": group, "GroupName": name}]
    assert code_of(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    there = {"InstanceId": instance["InstanceId"]}
    (default,) = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    ec2.modify_instance_attribute(**there, Groups=[group, default["GroupId"]])
    shown = ec2.describe_instance_attribute(**there, Attribute="groupSet")["Groups"]
    assert [one["GroupId"] for one in shown] == [group, default["GroupId"]]
    assert code_of(ec2.modify_instance_attribute, **there, Groups=[ABSENT]) == "InvalidGroup.NotFound"
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[instance["InstanceId"]], WaiterConfig={"Delay": 0.05})
    other = ec2.create_security_group(GroupName=f"{name} other", Description="x")["GroupId"]
    pair = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=[pair])
    assert code_of(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    ec2.delete_security_group(GroupId=other)
    ec2.delete_security_group(GroupId=group)


@pytest.mark.behaviour(AREA, "DescribeSecurityGroups, -Rules", "filters and pages")
def test_filters_and_pages(sandbox, code_of):
    ec2 = sandbox.client("ec2", region_name="sa-east-1")
    ids = [ec2.create_security_group(GroupName=f"g{number}", Description="x")["GroupId"] for number in range(6)]
    ec2.authorize_security_group_ingress(GroupId=ids[3], IpPermissions=[SSH])

    def found(name, *values):
        filters = [{"Name": name, "Values": list(values)}]
        return {one["GroupId"] for one in ec2.describe_security_groups(Filters=filters)["SecurityGroups"]}

    assert found("ip-permission.from-port", "22") == found("ip-permission.cidr", "192.0.2.*") == {ids[3]}
    assert found("group-name", "g[12]", "g1") == {ids[1]}
    assert found("egress.ip-permission.cidr", "0.0.0.0/0") > set(ids)
    assert found("vpc-id", "vpc-none") == set()
    filters = [{"Name": "colour", "Values": ["red"]}]
    assert code_of(ec2.describe_security_groups, Filters=filters) == "InvalidParameterValue"
    for call, key, count in (("describe_security_groups", "SecurityGroups", 7),
                             ("describe_security_group_rules", "SecurityGroupRules", 9)):  # fmt: skip
        pages = list(ec2.get_paginator(call).paginate(PaginationConfig={"PageSize": 5}))
        assert (len(pages), sum(len(page[key]) for page in pages)) == (2, count)


@pytest.mark.behaviour(AREA, "DescribeVpcs, DescribeSubnets", "the default VPC with a subnet for each zone, always "
                       "the same")  # fmt: skip
def test_the_default_vpc(sandbox, second, code_of):
    ec2, theirs = sandbox.client("ec2"), sandbox.client("ec2", **second[0])
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    assert (vpc["IsDefault"], vpc["CidrBlock"], vpc["State"]) == (True, "127.77.0.0/16", "available")
    assert theirs.describe_vpcs()["Vpcs"][0]["VpcId"] != vpc["VpcId"]
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
    assert [one["AvailabilityZone"] for one in subnets] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert len({one["CidrBlock"] for one in subnets}) == 3
    assert code_of(theirs.describe_vpcs, VpcIds=[vpc["VpcId"]]) == "InvalidVpcID.NotFound"
    assert code_of(theirs.describe_subnets, SubnetIds=[subnets[0]["SubnetId"]]) == "InvalidSubnetID.NotFound"
    assert ec2.describe_vpcs(Filters=[{"Name": "state", "Values": ["pending"]}])["Vpcs"] == []
