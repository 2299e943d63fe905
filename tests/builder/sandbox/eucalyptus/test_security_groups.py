"""Security groups of a Eucalyptus without VPCs: by name, with its own refusals."""

from __future__ import annotations

import pytest

AREA = "Eucalyptus: security groups"
SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "192.0.2.7/32"}


@pytest.mark.behaviour(AREA, "CreateSecurityGroup, DescribeSecurityGroups", "no VPC and no egress; `default` is there")
@pytest.mark.behaviour(AREA, "AuthorizeSecurityGroupIngress, Revoke…", "a rule that is there: `return` is false; one "
                       "that is not: revoked in silence")  # fmt: skip
@pytest.mark.behaviour(AREA, "AuthorizeSecurityGroupEgress", "InvalidGroup.NotFound: it is for groups of VPCs")
def test_groups_without_a_vpc(cloud, refusal):
    ec2 = cloud.ec2
    (default,) = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    assert (default["Description"], default["IpPermissions"], "VpcId" in default) == ("default group", [], False)
    made = ec2.create_security_group(GroupName="mine", Description="of a test")["GroupId"]
    again = refusal(ec2.create_security_group, GroupName="mine", Description="x")
    assert again == ("InvalidGroup.Duplicate", 400, "The security group 'mine' already exists")
    assert ec2.authorize_security_group_ingress(GroupName="mine", **SSH)["Return"] is True
    assert ec2.authorize_security_group_ingress(GroupName="mine", **SSH)["Return"] is False
    (group,) = ec2.describe_security_groups(GroupIds=[made])["SecurityGroups"]
    assert (len(group["IpPermissions"]), group["IpPermissionsEgress"]) == (1, [])
    assert ec2.revoke_security_group_ingress(GroupName="mine", **SSH)["Return"] is True
    assert ec2.revoke_security_group_ingress(GroupName="mine", **SSH)["Return"] is True
    out = refusal(ec2.authorize_security_group_egress, GroupId=made, IpPermissions=[{"IpProtocol": "-1"}])
    assert out == ("InvalidGroup.NotFound", 400, f"VPC security group ({made}) not found")
    reserved = refusal(ec2.delete_security_group, GroupName="default")
    assert reserved == ("InvalidGroup.Reserved", 400, "The security group 'default' is reserved")
    ec2.delete_security_group(GroupName="mine")
    assert ec2.describe_vpcs()["Vpcs"] == ec2.describe_subnets()["Subnets"] == []
    assert refusal(ec2.describe_security_group_rules)[0] == "400 Bad Request"


@pytest.mark.behaviour(AREA, "RunInstances, DeleteSecurityGroup", "groups by name, shown with the reservation; one in "
                       "use: InvalidGroup.InUse")  # fmt: skip
def test_an_instance_is_in_a_group_by_name(cloud, bundled, refusal):
    location = cloud.upload(bundled(cloud.identity, "grouped"))
    image = cloud.ec2.register_image(Name="grouped", ImageLocation=location, VirtualizationType="hvm")["ImageId"]
    assert cloud.described(image)["State"] == "available"
    group = cloud.ec2.create_security_group(GroupName="of an instance", Description="x")["GroupId"]
    wish = {"ImageId": image, "MinCount": 1, "MaxCount": 1}
    made = cloud.ec2.run_instances(**wish, SecurityGroups=["of an instance"])
    assert made["Groups"] == [{"GroupId": group, "GroupName": "of an instance"}]
    (instance,) = made["Instances"]
    assert (instance["SecurityGroups"], "VpcId" in instance) == (made["Groups"], False)
    in_use = refusal(cloud.ec2.delete_security_group, GroupId=group)
    assert in_use == ("InvalidGroup.InUse", 400, "Specified group cannot be deleted because it is in use.")
    by_default = cloud.ec2.run_instances(**wish)["Groups"]
    assert [one["GroupName"] for one in by_default] == ["default"]
