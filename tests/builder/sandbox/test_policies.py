"""What policies allow: the evaluation by tables, and its effect on calls of every service."""

from __future__ import annotations

import json

import pytest

from builder.sandbox.access.conditions import hold
from builder.sandbox.access.decide import Rights, decide, merged
from builder.sandbox.access.documents import RESOURCE, TRUST, parse
from builder.sandbox.wire import ANONYMOUS, Caller, Need

IAM = "Access: IAM"
MISSING = [
    (IAM, "policies of organizations, of VPC endpoints and of KMS keys", "not evaluated: there are none"),
    (IAM, "condition keys", "the global ones, tags, and some of the calls' own; keys such as ec2:Owner have no value"),
]

ADA = Caller(
    account="111111111111", region="us-east-1", service="s3", access_key="k",
    arn="arn:aws:iam::111111111111:user/ada", principal="arn:aws:iam::111111111111:user/ada", user_id="AIDA",
)  # fmt: skip
ROOT = Caller(
    account="111111111111", region="us-east-1", service="s3", access_key="r",
    arn="arn:aws:iam::111111111111:root", principal="arn:aws:iam::111111111111:root", user_id="111111111111", root=True,
)  # fmt: skip
BUCKET = "arn:aws:s3:::bucket"


def statement(effect="Allow", action="*", resource="*", **more):
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


ALLOW, DENY = document(statement()), document(statement("Deny"))
CONTEXT = merged({"aws:username": "ada", "s3:prefix": "a/b", "aws:TagKeys": ("one", "two"), "n": "5", "aws:SourceIp":
                  "127.0.0.1", "aws:CurrentTime": "2026-02-01T00:00:00+00:00", "yes": "true"})  # fmt: skip

# A statement's elements, and whether s3:GetObject on bucket/a/b is allowed by it alone
STATEMENTS = [
    ({}, True),
    ({"Action": "s3:GetObject"}, True),
    ({"Action": "S3:getobject"}, True),
    ({"Action": ["ec2:*", "s3:Get*"]}, True),
    ({"Action": "s3:Get?bject"}, True),
    ({"Action": "s3:GetObjectAcl"}, False),
    ({"Action": "s3:Put*"}, False),
    ({"Resource": f"{BUCKET}/*"}, True),
    ({"Resource": f"{BUCKET}/a/?"}, True),
    ({"Resource": BUCKET}, False),
    ({"Resource": f"{BUCKET}/A/b"}, False),
    ({"Resource": "arn:aws:s3:::*"}, True),
    ({"Resource": "arn:aws:*:::bucket/*"}, True),
    ({"Resource": "arn:aws:*"}, False),  # a wildcard does not reach over a colon
    ({"Resource": BUCKET + "/${s3:prefix}"}, True),
    ({"Resource": BUCKET + "/${aws:username}/*"}, False),
    ({"Resource": BUCKET + "/${nothing}"}, False),
    ({"Resource": BUCKET + "/${nothing, 'a'}/b"}, True),
    ({"Resource": BUCKET + "/a${*}"}, False),
    ({"NotAction": "s3:PutObject"}, True),
    ({"NotAction": "s3:*"}, False),
    ({"NotResource": f"{BUCKET}/c"}, True),
    ({"NotResource": f"{BUCKET}/*"}, False),
    ({"Effect": "Deny"}, False),
]


@pytest.mark.behaviour(IAM, "policy statements", f"{len(STATEMENTS)} forms of Action, NotAction, Resource and "
                       "NotResource with wildcards and variables decide as the grammar says")  # fmt: skip
@pytest.mark.parametrize(("elements", "allowed"), STATEMENTS)
def test_statements(elements, allowed):
    base = {key: value for key, value in statement().items() if f"Not{key}" not in elements}
    rights = Rights(caller=ADA, identity=(parse(document({**base, **elements})),))
    need = Need(action="s3:GetObject", resources=(f"{BUCKET}/a/b",))
    assert decide(rights, need, CONTEXT).allowed == allowed


CONDITIONS = [
    ("StringEquals", "aws:UserName", ["bob", "ada"], True),
    ("StringEquals", "aws:username", "Ada", False),
    ("StringEqualsIgnoreCase", "aws:username", "Ada", True),
    ("StringNotEquals", "aws:username", ["bob", "ada"], False),
    ("StringNotEquals", "aws:username", ["bob", "eve"], True),
    ("StringLike", "s3:prefix", "a/*", True),
    ("StringLike", "s3:prefix", "${aws:username}/*", False),
    ("StringNotLike", "s3:prefix", "a/*", False),
    ("StringEquals", "none", "x", False),
    ("StringNotEquals", "none", "x", True),
    ("StringEqualsIfExists", "none", "x", True),
    ("StringEqualsIfExists", "aws:username", "x", False),
    ("NumericLessThan", "n", 6, True),
    ("NumericLessThan", "n", "5", False),
    ("NumericGreaterThanEquals", "n", "5.0", True),
    ("NumericEquals", "aws:username", "5", False),
    ("NumericNotEquals", "n", "5", False),
    ("DateGreaterThan", "aws:CurrentTime", "2026-01-31T23:59:59Z", True),
    ("DateLessThan", "aws:CurrentTime", "2026-01-31T23:59:59Z", False),
    ("DateLessThan", "aws:CurrentTime", "4102444800", True),
    ("Bool", "yes", True, True),
    ("Bool", "yes", "false", False),
    ("IpAddress", "aws:SourceIp", "127.0.0.0/8", True),
    ("NotIpAddress", "aws:SourceIp", ["10.0.0.0/8", "127.0.0.1"], False),
    ("Null", "none", "true", True),
    ("Null", "aws:username", "true", False),
    ("Null", "aws:username", "false", True),
    ("ForAllValues:StringEquals", "aws:TagKeys", ["one", "two", "three"], True),
    ("ForAllValues:StringEquals", "aws:TagKeys", ["one"], False),
    ("ForAllValues:StringEquals", "none", ["one"], True),
    ("ForAnyValue:StringEquals", "aws:TagKeys", ["two"], True),
    ("ForAnyValue:StringLike", "aws:TagKeys", ["x*"], False),
    ("ForAnyValue:StringEquals", "none", ["one"], False),
]


@pytest.mark.behaviour(IAM, "conditions", f"{len(CONDITIONS)} conditions over the string, numeric, date, Bool, IP and "
                       "Null operators, IfExists, ForAllValues and ForAnyValue hold as documented")  # fmt: skip
@pytest.mark.parametrize(("operator", "key", "wanted", "holds"), CONDITIONS)
def test_conditions(operator, key, wanted, holds):
    text = document(statement(Condition={operator: {key: wanted}}))
    assert hold(parse(text).statements[0].condition, CONTEXT) == holds


@pytest.mark.parametrize(
    ("pattern", "holds"), [("arn:aws:iam::*:role/b*", True), ("arn:aws:iam:*:role/b*", False), ("arn:*:role/b", False)]
)
def test_arn_conditions(pattern, holds):
    context = merged({"aws:PrincipalArn": "arn:aws:iam::111111111111:role/builder"})
    for operator in ("ArnLike", "ArnEquals"):
        assert hold({operator: {"aws:PrincipalArn": (pattern,)}}, context) == holds
        assert hold({operator.replace("Arn", "ArnNot"): {"aws:PrincipalArn": (pattern,)}}, context) != holds


def shared(principal, effect="Allow"):
    return document(statement(effect, "s3:*", [BUCKET, f"{BUCKET}/*"], Principal=principal))


OWN, OTHER = "111111111111", "222222222222"
# caller, its identity documents, boundary, session documents, resource policy, the resource's owner, allowed
DECISIONS = {
    "nothing said": (ADA, [], None, None, None, OWN, False),
    "identity allows": (ADA, [ALLOW], None, None, None, OWN, True),
    "an explicit deny wins": (ADA, [ALLOW, DENY], None, None, None, OWN, False),
    "the boundary is silent": (ADA, [ALLOW], document(statement(action="ec2:*")), None, None, OWN, False),
    "the boundary allows": (ADA, [ALLOW], ALLOW, None, None, OWN, True),
    "a boundary alone allows nothing": (ADA, [], ALLOW, None, None, OWN, False),
    "the session's policy is silent": (ADA, [ALLOW], None, [document(statement(action="ec2:*"))], None, OWN, False),
    "the session's policy allows": (ADA, [ALLOW], None, [ALLOW], None, OWN, True),
    "the bucket names the user": (ADA, [], None, None, shared({"AWS": ADA.arn}), OWN, True),
    "the bucket names everybody": (ADA, [], None, None, shared("*"), OWN, True),
    "the bucket names the account": (ADA, [], None, None, shared({"AWS": OWN}), OWN, False),
    "the bucket denies": (ADA, [ALLOW], None, None, shared({"AWS": "*"}, "Deny"), OWN, False),
    "the bucket names another": (ADA, [], None, None, shared({"AWS": f"arn:aws:iam::{OWN}:user/bob"}), OWN, False),
    "another's bucket, identity only": (ADA, [ALLOW], None, None, None, OTHER, False),
    "another's bucket, its policy only": (ADA, [], None, None, shared({"AWS": ADA.arn}), OTHER, False),
    "another's bucket, both": (ADA, [ALLOW], None, None, shared({"AWS": f"arn:aws:iam::{OWN}:root"}), OTHER, True),
    "root of the owner": (ROOT, [], None, None, None, OWN, True),
    "root, and the bucket denies": (ROOT, [], None, None, shared("*", "Deny"), OWN, False),
    "root of another": (ROOT, [], None, None, None, OTHER, False),
    "root of another, allowed": (ROOT, [], None, None, shared({"AWS": OWN}), OTHER, True),
    "nobody": (ANONYMOUS, [], None, None, None, OWN, False),
    "nobody, a public bucket": (ANONYMOUS, [], None, None, shared("*"), OWN, True),
    "nobody, a bucket for one": (ANONYMOUS, [], None, None, shared({"AWS": ADA.arn}), OWN, False),
}


@pytest.mark.behaviour(IAM, "policies together", f"{len(DECISIONS)} combinations of identity, boundary, session and "
                       "resource policies within and between accounts decide as the evaluation logic says")  # fmt: skip
@pytest.mark.parametrize("name", DECISIONS)
def test_decisions(name):
    caller, identity, boundary, session, policy, owner, allowed = DECISIONS[name]
    rights = Rights(
        caller=caller,
        identity=tuple(map(parse, identity)),
        boundary=parse(boundary) if boundary else None,
        session=tuple(map(parse, session)) if session else None,
    )
    if policy:
        parse(policy, RESOURCE)
    need = Need(action="s3:GetObject", resources=(f"{BUCKET}/a",), policy=policy, owner=owner)
    decision = decide(rights, need, {})
    assert decision.allowed == allowed
    assert bool(decision.reason) != allowed


@pytest.mark.parametrize(
    ("principal", "identity", "allowed"),
    [(ADA.arn, [], True), (OWN, [], False), (OWN, [ALLOW], True), (OTHER, [ALLOW], False)],
)
def test_a_role_must_trust_within_one_account_too(principal, identity, allowed):
    entry = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Statement": entry})
    parse(trust, TRUST)
    need = Need(
        action="sts:AssumeRole", resources=(f"arn:aws:iam::{OWN}:role/r",), policy=trust, owner=OWN, strict=True
    )
    rights = Rights(caller=ADA, identity=tuple(map(parse, identity)))
    assert decide(rights, need, {}).allowed == allowed


# Effects on calls


@pytest.fixture
def user(sandbox):
    """Return a function that makes a user with one inline document, and clients of theirs."""
    iam = sandbox.client("iam")
    made = []

    def make(*statements):
        name = f"user-{len(made)}"
        made.append(name)
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(*statements))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        return lambda service, **options: sandbox.client(service, **keys | options)

    yield make
    for name in made:
        for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
            iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
        iam.delete_user_policy(UserName=name, PolicyName="p")
        iam.delete_user(UserName=name)


@pytest.mark.behaviour(
    IAM,
    "every call",
    "a user without a permission is refused by EC2 with UnauthorizedOperation, by EBS direct and SSM with "
    "AccessDeniedException, by IAM and S3 with AccessDenied; with it, answered",
)
def test_each_service_refuses_what_is_not_permitted(user, code_of):
    nobody = user(statement("Deny", "none:None"))
    everybody = user(statement())
    calls = [
        ("ec2", "describe_images", {"Owners": ["self"]}, "UnauthorizedOperation"),
        ("ebs", "start_snapshot", {"VolumeSize": 1}, "AccessDeniedException"),
        ("iam", "list_users", {}, "AccessDenied"),
        ("s3", "list_buckets", {}, "AccessDenied"),
        ("ssm", "describe_parameters", {}, "AccessDeniedException"),
    ]
    for service, call, parameters, code in calls:
        assert code_of(getattr(nobody(service), call), **parameters) == code
        getattr(everybody(service), call)(**parameters)
    assert nobody("sts").get_caller_identity()["Account"] == "123456789012"  # needs none


def test_the_refusal_names_who_what_and_why(user):
    with pytest.raises(Exception, match="not authorized") as caught:
        user(statement(action="ec2:Get*"))("ec2").describe_images()
    error = caught.value.response["Error"]
    assert error["Message"].startswith(
        "You are not authorized to perform this operation. User: arn:aws:iam::12345678901"
    )
    assert "perform: ec2:DescribeImages" in error["Message"]
    assert "because no identity-based policy allows the ec2:DescribeImages action" in error["Message"]


@pytest.mark.behaviour(IAM, "EC2 with DryRun", "UnauthorizedOperation without the permission, DryRunOperation with it")
def test_a_dry_run_tells_the_permission(user, code_of):
    allowed = user(statement(action="ec2:DescribeImages"))("ec2")
    assert code_of(allowed.describe_images, DryRun=True) == "DryRunOperation"
    assert code_of(allowed.describe_snapshots, DryRun=True) == "UnauthorizedOperation"


@pytest.mark.behaviour(IAM, "EBS direct", "a policy for one snapshot's ARN lets its blocks be put and nobody else's; a "
                       "refused StartSnapshot starts nothing")  # fmt: skip
def test_blocks_of_one_snapshot(sandbox, user, code_of, blocks, checksum):
    ebs = sandbox.client("ebs")
    mine, other = (ebs.start_snapshot(VolumeSize=1)["SnapshotId"] for _ in range(2))
    only = user(statement(action="ebs:PutSnapshotBlock", resource=f"arn:aws:ec2:us-east-1::snapshot/{mine}"))("ebs")
    data = blocks(1)
    put = {"BlockIndex": 0, "BlockData": data, "DataLength": len(data), "Checksum": checksum(data),
           "ChecksumAlgorithm": "SHA256"}  # fmt: skip
    only.put_snapshot_block(SnapshotId=mine, **put)
    assert code_of(only.put_snapshot_block, SnapshotId=other, **put) == "AccessDeniedException"
    assert code_of(only.complete_snapshot, SnapshotId=mine, ChangedBlocksCount=1) == "AccessDeniedException"
    before = len(sandbox.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"])
    assert code_of(only.start_snapshot, VolumeSize=1) == "AccessDeniedException"
    assert len(sandbox.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]) == before
    assert code_of(ebs.complete_snapshot, SnapshotId=other, ChangedBlocksCount=1) == "ValidationException"
    ebs.complete_snapshot(SnapshotId=mine, ChangedBlocksCount=1)


@pytest.mark.behaviour(
    IAM,
    "RegisterImage, CreateTags, DeleteSnapshot",
    "tag-on-create needs ec2:CreateTags; a condition on a resource's tag lets the tagged be deleted and nothing else",
)
def test_tags_and_permissions(sandbox, user, code_of, raw):
    one, two = (raw.snapshot({0: bytes(1 << 19)}) for _ in range(2))
    image = {"Name": "tagged", "RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": one}}]}  # fmt: skip
    tags = [{"ResourceType": "image", "Tags": [{"Key": "team", "Value": "a"}]}]
    register = user(statement(action="ec2:RegisterImage"))("ec2")
    assert code_of(register.register_image, **image, TagSpecifications=tags) == "UnauthorizedOperation"
    both = user(
        statement(action="ec2:RegisterImage"),
        statement(
            action="ec2:CreateTags",
            resource="arn:aws:ec2:*::image/*",
            Condition={"StringEquals": {"ec2:CreateAction": "RegisterImage", "aws:RequestTag/team": "a"}},
        ),
    )("ec2")
    image_id = both.register_image(**image, TagSpecifications=tags)["ImageId"]
    assert code_of(both.create_tags, Resources=[image_id], Tags=tags[0]["Tags"]) == "UnauthorizedOperation"
    root = sandbox.client("ec2")
    root.deregister_image(ImageId=image_id)
    root.create_tags(Resources=[two], Tags=[{"Key": "mine", "Value": "yes"}])
    condition = {"StringEquals": {"aws:ResourceTag/mine": "yes"}}
    careful = user(statement(action="ec2:DeleteSnapshot", Condition=condition))("ec2")
    assert code_of(careful.delete_snapshot, SnapshotId=one) == "UnauthorizedOperation"
    careful.delete_snapshot(SnapshotId=two)
    left = [found["SnapshotId"] for found in root.describe_snapshots(OwnerIds=["self"])["Snapshots"]]
    assert (one in left, two in left) == (True, False)


@pytest.mark.behaviour(
    IAM,
    "RunInstances with an instance profile",
    "a user needs iam:PassRole on the profile's role, for EC2: without it, or for another role or service, nothing is "
    "launched",
)
def test_a_role_is_handed_on_by_permission(sandbox, user, code_of, raw):
    iam, root = sandbox.client("iam"), sandbox.client("ec2")
    device = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": raw.snapshot({0: bytes(1 << 19)})}}
    image = root.register_image(Name="handed", RootDeviceName="/dev/xvda", BlockDeviceMappings=[device])["ImageId"]
    trust = document({"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"})
    role = iam.create_role(RoleName="handed", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    profile = iam.create_instance_profile(InstanceProfileName="handed")["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName="handed", RoleName="handed")
    launch, run = statement(action="ec2:RunInstances"), {"ImageId": image, "MinCount": 1, "MaxCount": 1}

    def service(name):
        return {"StringEquals": {"iam:PassedToService": name}}

    for more in (
        [],
        [statement(action="iam:PassRole", resource=role + "x")],
        [statement(action="iam:PassRole", resource=role, Condition=service("vmie.amazonaws.com"))],
    ):
        ec2 = user(launch, *more)("ec2")
        for named in ({"Name": "handed"}, {"Arn": profile}):
            assert code_of(ec2.run_instances, **run, IamInstanceProfile=named) == "UnauthorizedOperation"
    assert root.describe_instances()["Reservations"] == []
    ec2 = user(launch, statement(action="iam:PassRole", resource=role, Condition=service("ec2.amazonaws.com")))("ec2")
    (made,) = ec2.run_instances(**run, IamInstanceProfile={"Name": "handed"})["Instances"]
    assert made["IamInstanceProfile"]["Arn"] == profile
    root.terminate_instances(InstanceIds=[made["InstanceId"]])


@pytest.mark.behaviour(
    IAM,
    "groups, managed policies and boundaries",
    "a group's and an attached policy count for its user at once, a new default version too; a boundary takes away "
    "what it does not allow",
)
def test_where_permissions_come_from(sandbox, user, code_of):
    iam = sandbox.client("iam")
    images = user(statement("Deny", "none:None"))("ec2").describe_images
    name = "user-0"
    assert code_of(images) == "UnauthorizedOperation"
    iam.create_group(GroupName="readers")
    iam.attach_group_policy(GroupName="readers", PolicyArn="arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess")
    iam.add_user_to_group(GroupName="readers", UserName=name)
    images()
    iam.remove_user_from_group(GroupName="readers", UserName=name)
    assert code_of(images) == "UnauthorizedOperation"
    arn = iam.create_policy(PolicyName="versions", PolicyDocument=DENY)["Policy"]["Arn"]
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    assert code_of(images) == "UnauthorizedOperation"
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=ALLOW, SetAsDefault=True)
    images()
    iam.put_user_permissions_boundary(UserName=name, PermissionsBoundary="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    assert code_of(images) == "UnauthorizedOperation"
    iam.delete_user_permissions_boundary(UserName=name)
    images()
    iam.detach_user_policy(UserName=name, PolicyArn=arn)


@pytest.mark.behaviour(IAM, "SimulatePrincipalPolicy", "says of each action what the call itself then meets")
def test_simulation_agrees_with_the_calls(sandbox, user, code_of):
    clients = user(statement(action="ec2:Describe*"), statement("Deny", "ec2:DescribeSnapshots"))
    actions = ["ec2:DescribeImages", "ec2:DescribeSnapshots", "ssm:DescribeParameters"]
    found = sandbox.client("iam").simulate_principal_policy(
        PolicySourceArn="arn:aws:iam::123456789012:user/user-0", ActionNames=actions
    )
    decided = {one["EvalActionName"]: one["EvalDecision"] for one in found["EvaluationResults"]}
    assert decided == dict(zip(actions, ["allowed", "explicitDeny", "implicitDeny"], strict=True))
    clients("ec2").describe_images()
    assert code_of(clients("ec2").describe_snapshots) == "UnauthorizedOperation"
    assert code_of(clients("ssm").describe_parameters) == "AccessDeniedException"
