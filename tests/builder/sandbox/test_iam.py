"""IAM's own calls: users, keys, groups, roles, profiles and policies, as boto3 sees them."""

from __future__ import annotations

import json
import os
import signal

import pytest

from builder.sandbox import lifecycle

IAM = "Access: IAM"
MISSING = [
    (IAM, "SAML and OpenID providers, MFA devices, login profiles, service-linked roles, account settings",
     "UnsupportedOperation"),
    (IAM, "SimulatePrincipalPolicy with a resource policy", "UnsupportedOperation; matched statements are not listed"),
]  # fmt: skip
ALLOW_ALL = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})


def trust(principal, **more):
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture(scope="module")
def iam(sandbox):
    return sandbox.client("iam")


@pytest.mark.behaviour(
    IAM,
    "CreateUser, GetUser, ListUsers, TagUser, DeleteUser",
    "what was created is listed with its path and tags; a name is taken whatever its case; a user with a key or a "
    "policy stays",
)
def test_a_users_life(iam, code_of):
    made = iam.create_user(UserName="Ada", Path="/makers/", Tags=[{"Key": "team", "Value": "images"}])["User"]
    assert made["Arn"] == "arn:aws:iam::123456789012:user/makers/Ada"
    assert made["UserId"].startswith("AIDA")
    assert len(made["UserId"]) == 20
    assert code_of(iam.create_user, UserName="ada") == "EntityAlreadyExists"
    assert iam.get_user(UserName="ada")["User"] == made
    assert [one["UserName"] for one in iam.list_users(PathPrefix="/makers/")["Users"]] == ["Ada"]
    iam.tag_user(UserName="Ada", Tags=[{"Key": "team", "Value": "two"}, {"Key": "x", "Value": ""}])
    iam.untag_user(UserName="Ada", TagKeys=["x"])
    assert iam.list_user_tags(UserName="Ada")["Tags"] == [{"Key": "team", "Value": "two"}]
    key = iam.create_access_key(UserName="Ada")["AccessKey"]["AccessKeyId"]
    assert code_of(iam.delete_user, UserName="Ada") == "DeleteConflict"
    iam.delete_access_key(UserName="Ada", AccessKeyId=key)
    iam.put_user_policy(UserName="Ada", PolicyName="p", PolicyDocument=ALLOW_ALL)
    assert code_of(iam.delete_user, UserName="Ada") == "DeleteConflict"
    iam.delete_user_policy(UserName="Ada", PolicyName="p")
    iam.delete_user(UserName="Ada")
    assert code_of(iam.get_user, UserName="Ada") == "NoSuchEntity"


@pytest.mark.behaviour(
    IAM,
    "CreateAccessKey, UpdateAccessKey, DeleteAccessKey",
    "a key works at once as its user; made inactive or deleted it is an unknown key; a third one is LimitExceeded",
)
def test_access_keys(sandbox, iam, code_of):
    iam.create_user(UserName="keys")
    key = iam.create_access_key(UserName="keys")["AccessKey"]
    assert len(key["SecretAccessKey"]) == 40
    as_user = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    sts = sandbox.client("sts", **as_user)
    assert sts.get_caller_identity()["Arn"].endswith(":user/keys")
    iam.update_access_key(UserName="keys", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert code_of(sts.get_caller_identity) == "InvalidClientTokenId"
    iam.update_access_key(UserName="keys", AccessKeyId=key["AccessKeyId"], Status="Active")
    assert sts.get_caller_identity()["Account"] == "123456789012"
    iam.create_access_key(UserName="keys")
    assert code_of(iam.create_access_key, UserName="keys") == "LimitExceeded"
    listed = {one["AccessKeyId"]: one["Status"] for one in iam.list_access_keys(UserName="keys")["AccessKeyMetadata"]}
    assert listed[key["AccessKeyId"]] == "Active"
    assert len(listed) == 2
    iam.delete_access_key(UserName="keys", AccessKeyId=key["AccessKeyId"])
    assert code_of(sts.get_caller_identity) == "InvalidClientTokenId"


@pytest.mark.behaviour(IAM, "CreateRole, UpdateAssumeRolePolicy, UpdateRole, DeleteRole", "the trust policy comes back "
                       "as it was put; a role within a profile or with policies stays")  # fmt: skip
def test_a_roles_life(iam, code_of):
    by_machines = trust({"Service": "ec2.amazonaws.com"})
    made = iam.create_role(RoleName="Builder", AssumeRolePolicyDocument=by_machines, Description="d")["Role"]
    assert made["AssumeRolePolicyDocument"] == json.loads(by_machines)
    assert made["MaxSessionDuration"] == 3600
    other = trust({"AWS": "123456789012"})
    iam.update_assume_role_policy(RoleName="Builder", PolicyDocument=other)
    iam.update_role(RoleName="Builder", MaxSessionDuration=7200)
    found = iam.get_role(RoleName="Builder")["Role"]
    assert (found["AssumeRolePolicyDocument"], found["MaxSessionDuration"]) == (json.loads(other), 7200)
    assert found["Description"] == "d"
    assert "Builder" in [one["RoleName"] for one in iam.list_roles()["Roles"]]
    profile = iam.create_instance_profile(InstanceProfileName="machines")["InstanceProfile"]
    assert profile["Roles"] == []
    iam.add_role_to_instance_profile(InstanceProfileName="machines", RoleName="Builder")
    assert code_of(iam.add_role_to_instance_profile, InstanceProfileName="machines", RoleName="Builder") == (
        "LimitExceeded"
    )
    found = iam.get_instance_profile(InstanceProfileName="machines")["InstanceProfile"]
    assert [one["Arn"] for one in found["Roles"]] == [made["Arn"]]
    assert len(iam.list_instance_profiles_for_role(RoleName="Builder")["InstanceProfiles"]) == 1
    assert code_of(iam.delete_role, RoleName="Builder") == "DeleteConflict"
    assert code_of(iam.delete_instance_profile, InstanceProfileName="machines") == "DeleteConflict"
    iam.remove_role_from_instance_profile(InstanceProfileName="machines", RoleName="Builder")
    iam.delete_instance_profile(InstanceProfileName="machines")
    iam.delete_role(RoleName="Builder")
    assert code_of(iam.get_role, RoleName="Builder") == "NoSuchEntity"


@pytest.mark.behaviour(IAM, "CreatePolicy and its versions", "five versions at most, one of them the default; a policy "
                       "that is attached or has other versions stays")  # fmt: skip
def test_a_managed_policys_life(iam, code_of):
    arn = iam.create_policy(PolicyName="images", PolicyDocument=ALLOW_ALL, Description="all")["Policy"]["Arn"]
    assert arn == "arn:aws:iam::123456789012:policy/images"
    deny = ALLOW_ALL.replace("Allow", "Deny")
    for _ in range(4):
        version = iam.create_policy_version(PolicyArn=arn, PolicyDocument=deny, SetAsDefault=True)["PolicyVersion"]
    assert (version["VersionId"], version["IsDefaultVersion"]) == ("v5", True)
    assert code_of(iam.create_policy_version, PolicyArn=arn, PolicyDocument=deny) == "LimitExceeded"
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v5")["PolicyVersion"]["Document"] == json.loads(deny)
    assert code_of(iam.delete_policy_version, PolicyArn=arn, VersionId="v5") == "DeleteConflict"
    assert code_of(iam.delete_policy, PolicyArn=arn) == "DeleteConflict"
    for number in range(1, 5):
        iam.delete_policy_version(PolicyArn=arn, VersionId=f"v{number}")
    assert [one["VersionId"] for one in iam.list_policy_versions(PolicyArn=arn)["Versions"]] == ["v5"]
    iam.create_user(UserName="holder")
    iam.attach_user_policy(UserName="holder", PolicyArn=arn)
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    assert [one["UserName"] for one in iam.list_entities_for_policy(PolicyArn=arn)["PolicyUsers"]] == ["holder"]
    assert iam.list_attached_user_policies(UserName="holder")["AttachedPolicies"] == [
        {"PolicyName": "images", "PolicyArn": arn}
    ]
    assert code_of(iam.delete_policy, PolicyArn=arn) == "DeleteConflict"
    iam.detach_user_policy(UserName="holder", PolicyArn=arn)
    assert code_of(iam.detach_user_policy, UserName="holder", PolicyArn=arn) == "NoSuchEntity"
    iam.delete_policy(PolicyArn=arn)
    assert code_of(iam.get_policy, PolicyArn=arn) == "NoSuchEntity"
    local = iam.list_policies(Scope="Local")["Policies"]
    assert arn not in [one["Arn"] for one in local]
    aws = iam.list_policies(Scope="AWS")["Policies"]
    assert "arn:aws:iam::aws:policy/AdministratorAccess" in [one["Arn"] for one in aws]


@pytest.mark.behaviour(
    IAM, "PutUserPolicy, PutRolePolicy, PutGroupPolicy", "an inline document comes back as it was put"
)
def test_inline_policies(iam, code_of):
    document = json.dumps({"Statement": {"Effect": "Allow", "Action": ["s3:Get*"], "Resource": "arn:aws:s3:::a%20b/*"}})
    iam.create_user(UserName="inline")
    iam.create_group(GroupName="inlines")
    iam.create_role(RoleName="inline", AssumeRolePolicyDocument=trust("*"))
    for kind, name in (("user", "inline"), ("group", "inlines"), ("role", "inline")):
        of = {f"{kind.capitalize()}Name": name}
        getattr(iam, f"put_{kind}_policy")(**of, PolicyName="one", PolicyDocument=document)
        found = getattr(iam, f"get_{kind}_policy")(**of, PolicyName="one")
        assert found["PolicyDocument"] == json.loads(document)
        assert getattr(iam, f"list_{kind}_policies")(**of)["PolicyNames"] == ["one"]
        getattr(iam, f"delete_{kind}_policy")(**of, PolicyName="one")
        assert code_of(getattr(iam, f"get_{kind}_policy"), **of, PolicyName="one") == "NoSuchEntity"


@pytest.mark.behaviour(IAM, "pages of lists", "MaxItems and Marker walk through every user exactly once")
def test_pages(iam):
    names = [f"page-{number}" for number in range(7)]
    for name in names:
        iam.create_user(UserName=name, Path="/pages/")
    pages = list(iam.get_paginator("list_users").paginate(PathPrefix="/pages/", PaginationConfig={"PageSize": 3}))
    assert [len(one["Users"]) for one in pages] == [3, 3, 1]
    assert [user["UserName"] for one in pages for user in one["Users"]] == names


@pytest.mark.parametrize(
    ("call", "parameters", "code"),
    [
        ("create_user", {"UserName": "a b"}, "ValidationError"),
        ("create_user", {"UserName": "x" * 65}, "ValidationError"),
        ("create_user", {}, "ValidationError"),
        ("create_role", {"RoleName": "r", "AssumeRolePolicyDocument": ALLOW_ALL}, "MalformedPolicyDocument"),
        ("create_role", {"RoleName": "r", "AssumeRolePolicyDocument": trust("*"), "MaxSessionDuration": 900},
         "ValidationError"),
        ("put_user_policy", {"UserName": "nobody", "PolicyName": "p", "PolicyDocument": ALLOW_ALL}, "NoSuchEntity"),
        ("attach_user_policy", {"UserName": "nobody", "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
         "NoSuchEntity"),
        ("get_group", {"GroupName": "none"}, "NoSuchEntity"),
        ("update_access_key", {"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "Status": "Odd"}, "ValidationError"),
    ],
)  # fmt: skip
def test_what_is_refused(iam, code_of, call, parameters, code):
    assert code_of(getattr(iam, call), **parameters) == code


MALFORMED = [
    "no json",
    "[]",
    "{}",
    '{"Statement": []}',
    '{"Version": "2020-01-01", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}',
    '{"Statement": {"Effect": "Perhaps", "Action": "*", "Resource": "*"}}',
    '{"Statement": {"Effect": "Allow", "Resource": "*"}}',
    '{"Statement": {"Effect": "Allow", "Action": "*"}}',
    '{"Statement": {"Effect": "Allow", "Action": "ec2", "Resource": "*"}}',
    '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "bucket"}}',
    '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}}',
    '{"Statement": {"Effect": "Allow", "Action": "*", "NotAction": "ec2:*", "Resource": "*"}}',
    '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Equals": {"a:b": "c"}}}}',
    '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Colour": "red"}}',
    '{"Statement": {"Sid": "a-b", "Effect": "Allow", "Action": "*", "Resource": "*"}}',
    json.dumps({"Statement": [{"Sid": "a", "Effect": "Allow", "Action": "*", "Resource": "*"}] * 2}),
]


@pytest.mark.behaviour(IAM, "CreatePolicy", f"{len(MALFORMED)} documents that break the grammar are each a "
                       "MalformedPolicyDocument and leave no policy")  # fmt: skip
@pytest.mark.parametrize("document", MALFORMED)
def test_a_malformed_document(iam, code_of, document):
    assert code_of(iam.create_policy, PolicyName="bad", PolicyDocument=document) == "MalformedPolicyDocument"
    assert "bad" not in [one["PolicyName"] for one in iam.list_policies(Scope="Local")["Policies"]]


@pytest.mark.behaviour(
    IAM, "every change", "users, keys, groups, roles and policies are there after kill -9 and a start"
)
def test_identities_outlive_the_server(make_sandbox):
    running = make_sandbox()
    iam = running.client("iam")
    iam.create_user(UserName="kept")
    iam.create_group(GroupName="kept")
    iam.add_user_to_group(GroupName="kept", UserName="kept")
    iam.put_group_policy(GroupName="kept", PolicyName="all", PolicyDocument=ALLOW_ALL)
    iam.create_role(RoleName="kept", AssumeRolePolicyDocument=trust("*"))
    key = iam.create_access_key(UserName="kept")["AccessKey"]
    os.kill(running.endpoint.pid, signal.SIGKILL)
    running.restart()
    keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    again = running.client("iam", **keys)  # allowed by the group's policy
    assert again.get_user()["User"]["UserName"] == "kept"
    assert [one["GroupName"] for one in again.list_groups_for_user(UserName="kept")["Groups"]] == ["kept"]
    assert again.get_role(RoleName="kept")["Role"]["Arn"].endswith(":role/kept")
    lifecycle.stop(running.directory)
