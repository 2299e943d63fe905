"""Who may what: bucket policies, ACLs and the public access block, as another account and as nobody sees them."""

from __future__ import annotations

import json

import pytest

AREA = "S3 permissions"
ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
EXEC = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c"
MISSING = [
    (AREA, "e-mail addresses as grantees", "UnresolvableGrantByEmailAddress"),
]


def allow(bucket, principal, *actions, effect="Allow", path="/*", **more):
    resource = f"arn:aws:s3:::{bucket}{path}"
    return {"Effect": effect, "Principal": principal, "Action": list(actions), "Resource": resource, **more}


def put_policy(s3, bucket, *statements):
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    s3.put_bucket_policy(Bucket=bucket, Policy=document)
    return document


def owner_of(s3):
    return s3.list_buckets()["Owner"]["ID"]


@pytest.fixture
def granted(s3, loose):
    """A bucket that may be opened up, with one object."""
    s3.put_object(Bucket=loose, Key="k", Body=b"data")
    return loose


@pytest.mark.behaviour(AREA, "every call", "another account and an anonymous caller may nothing by default")
def test_strangers_may_nothing(s3, other, anonymous, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    for client in (other, anonymous):
        for call, values in (
            (client.get_object, {"Key": "k"}),
            (client.get_object, {"Key": "missing"}),  # not even that it is missing
            (client.put_object, {"Key": "new", "Body": b"x"}),
            (client.delete_object, {"Key": "k"}),
            (client.list_objects_v2, {}),
            (client.get_bucket_acl, {}),
            (client.delete_bucket, {}),
            (client.create_multipart_upload, {"Key": "new"}),
        ):
            error = refused(call, Bucket=bucket, **values)
            assert (error["Code"], error["Status"]) == ("AccessDenied", 403), call
        answer = client.delete_objects if client is other else None
        if answer is not None:
            (error,) = answer(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})["Errors"]
            assert error["Code"] == "AccessDenied"
    assert refused(anonymous.list_buckets)["Code"] == "AccessDenied"
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


@pytest.mark.behaviour(AREA, "PutBucketPolicy", "what it allows another account, that account may, and nothing else")
def test_a_policy_for_another_account(s3, other, stranger, bucket, refused):
    s3.put_object(Bucket=bucket, Key="in/k", Body=b"data")
    s3.put_object(Bucket=bucket, Key="out/k", Body=b"data")
    whom = {"AWS": f"arn:aws:iam::{stranger[1]}:root"}
    document = put_policy(s3, bucket, allow(bucket, whom, "s3:GetObject", "s3:PutObject", path="/in/*"))
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == json.loads(document)
    assert other.get_object(Bucket=bucket, Key="in/k")["Body"].read() == b"data"
    other.put_object(Bucket=bucket, Key="in/new", Body=b"theirs")
    assert s3.get_object(Bucket=bucket, Key="in/new")["Body"].read() == b"theirs"  # the bucket's owner owns it
    for call, values in (
        (other.get_object, {"Key": "out/k"}),
        (other.delete_object, {"Key": "in/k"}),
        (other.list_objects_v2, {}),
    ):
        assert refused(call, Bucket=bucket, **values)["Code"] == "AccessDenied"
    s3.delete_bucket_policy(Bucket=bucket)
    assert refused(other.get_object, Bucket=bucket, Key="in/k")["Code"] == "AccessDenied"


@pytest.mark.behaviour(
    AREA, "PutBucketPolicy", "an explicit Deny holds for the owner's own account too; s3:prefix counts"
)
def test_denials_and_conditions(s3, other, stranger, bucket, refused):
    s3.put_object(Bucket=bucket, Key="a/k", Body=b"data")
    whom = {"AWS": stranger[1]}
    only = {"StringLike": {"s3:prefix": "a/*"}}
    put_policy(
        s3,
        bucket,
        allow(bucket, whom, "s3:ListBucket", path="", Condition=only),
        allow(bucket, "*", "s3:DeleteObject", effect="Deny"),
    )
    assert other.list_objects_v2(Bucket=bucket, Prefix="a/k")["KeyCount"] == 1
    assert refused(other.list_objects_v2, Bucket=bucket)["Code"] == "AccessDenied"
    assert refused(s3.delete_object, Bucket=bucket, Key="a/k")["Code"] == "AccessDenied"
    s3.delete_bucket_policy(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="a/k")


@pytest.mark.behaviour(AREA, "PutBucketPolicy", "MalformedPolicy where S3 would not take it")
@pytest.mark.parametrize(
    "policy",
    [
        "not json",
        "{}",
        json.dumps({"Statement": [{"Effect": "Maybe", "Principal": "*", "Action": "s3:*", "Resource": "*"}]}),
        json.dumps({"Statement": [allow("BUCKET", "*", "ec2:RunInstances")]}),
        json.dumps({"Statement": [allow("another-bucket", "*", "s3:GetObject")]}),
        json.dumps({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::BUCKET/*"}]}),
    ],
)
def test_malformed_policies(s3, loose, refused, policy):
    error = refused(s3.put_bucket_policy, Bucket=loose, Policy=policy.replace("BUCKET", loose))
    assert error["Code"] == "MalformedPolicy"
    assert refused(s3.get_bucket_policy, Bucket=loose)["Code"] == "NoSuchBucketPolicy"


@pytest.mark.behaviour(AREA, "PutPublicAccessBlock", "public policies are refused, or of no use, while it is on")
def test_the_access_block(s3, anonymous, granted, refused):
    public = allow(granted, "*", "s3:GetObject")
    put_policy(s3, granted, public)
    assert s3.get_bucket_policy_status(Bucket=granted)["PolicyStatus"]["IsPublic"] is True
    assert anonymous.get_object(Bucket=granted, Key="k")["Body"].read() == b"data"
    block = {"RestrictPublicBuckets": True}
    s3.put_public_access_block(Bucket=granted, PublicAccessBlockConfiguration=block)
    assert refused(anonymous.get_object, Bucket=granted, Key="k")["Code"] == "AccessDenied"
    block = {"BlockPublicPolicy": True}
    s3.put_public_access_block(Bucket=granted, PublicAccessBlockConfiguration=block)
    assert anonymous.get_object(Bucket=granted, Key="k")["Body"].read() == b"data"
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        put_policy(s3, granted, public)


@pytest.mark.behaviour(AREA, "a new bucket", "takes no ACLs, as S3's since April 2023")
def test_no_acls_by_default(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"data", ACL="bucket-owner-full-control")
    for call, values in (
        (s3.put_object, {"Key": "k", "Body": b"new", "ACL": "public-read"}),
        (s3.put_object_acl, {"Key": "k", "ACL": "public-read"}),
        (s3.put_bucket_acl, {"ACL": "public-read"}),
    ):
        assert refused(call, Bucket=bucket, **values)["Code"] == "AccessControlListNotSupported"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"data"


CANNED = {
    "private": [],
    "public-read": [("READ", ALL_USERS)],
    "public-read-write": [("READ", ALL_USERS), ("WRITE", ALL_USERS)],
    "authenticated-read": [("READ", ALL_USERS.replace("AllUsers", "AuthenticatedUsers"))],
    "aws-exec-read": [("READ", EXEC)],
    "bucket-owner-full-control": [],
}


@pytest.mark.behaviour(AREA, "PutObject, PutObjectAcl", "canned ACLs are told as the grants that they mean")
@pytest.mark.parametrize("name", CANNED)
def test_canned(s3, granted, name):
    def grants():
        answer = s3.get_object_acl(Bucket=granted, Key="k")
        assert answer["Owner"]["ID"] == owner_of(s3)
        return [(one["Permission"], one["Grantee"].get("URI") or one["Grantee"]["ID"]) for one in answer["Grants"]]

    expected = [("FULL_CONTROL", owner_of(s3)), *CANNED[name]]
    s3.put_object(Bucket=granted, Key="k", Body=b"data", ACL=name)
    assert grants() == expected
    s3.put_object_acl(Bucket=granted, Key="k", ACL="private")
    assert grants() == expected[:1]
    s3.put_object_acl(Bucket=granted, Key="k", ACL=name)
    assert grants() == expected


@pytest.mark.behaviour(
    AREA, "PutObjectAcl", "READ lets another account read, FULL_CONTROL change the ACL; public is public"
)
def test_grants(s3, other, anonymous, granted, refused):
    theirs = owner_of(other)
    assert refused(other.get_object, Bucket=granted, Key="k")["Code"] == "AccessDenied"
    s3.put_object_acl(Bucket=granted, Key="k", GrantRead=f'id="{theirs}"', GrantFullControl=f'id="{owner_of(s3)}"')
    assert other.get_object(Bucket=granted, Key="k")["Body"].read() == b"data"
    assert refused(other.get_object_acl, Bucket=granted, Key="k")["Code"] == "AccessDenied"
    assert refused(anonymous.get_object, Bucket=granted, Key="k")["Code"] == "AccessDenied"
    policy = s3.get_object_acl(Bucket=granted, Key="k")
    policy = {"Owner": policy["Owner"], "Grants": policy["Grants"]}
    policy["Grants"].append({"Grantee": {"Type": "CanonicalUser", "ID": theirs}, "Permission": "FULL_CONTROL"})
    s3.put_object_acl(Bucket=granted, Key="k", AccessControlPolicy=policy)
    told = s3.get_object_acl(Bucket=granted, Key="k")["Grants"]
    assert told == policy["Grants"]
    other.put_object_acl(Bucket=granted, Key="k", ACL="public-read")
    assert anonymous.get_object(Bucket=granted, Key="k")["Body"].read() == b"data"
    assert refused(anonymous.delete_object, Bucket=granted, Key="k")["Code"] == "AccessDenied"


@pytest.mark.behaviour(
    AREA, "PutBucketAcl", "READ lets another account list, WRITE put and delete; its objects are its own"
)
def test_bucket_grants(s3, other, granted, refused):
    s3.put_bucket_acl(Bucket=granted, GrantRead=f"id={owner_of(other)}", GrantWrite=f"id={owner_of(other)}")
    assert other.list_objects_v2(Bucket=granted)["KeyCount"] == 1
    assert refused(other.get_object, Bucket=granted, Key="k")["Code"] == "AccessDenied"
    other.put_object(Bucket=granted, Key="theirs", Body=b"theirs")
    assert other.get_object(Bucket=granted, Key="theirs")["Body"].read() == b"theirs"
    assert refused(s3.get_object, Bucket=granted, Key="theirs")["Code"] == "AccessDenied"  # ObjectWriter: not ours
    other.put_object(Bucket=granted, Key="shared", Body=b"shared", ACL="bucket-owner-full-control")
    assert s3.get_object(Bucket=granted, Key="shared")["Body"].read() == b"shared"
    s3.delete_object(Bucket=granted, Key="theirs")  # but in our bucket
    other.delete_object(Bucket=granted, Key="shared")
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=granted)["Contents"]] == ["k"]
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    s3.put_bucket_ownership_controls(Bucket=granted, OwnershipControls=controls)
    other.put_object(Bucket=granted, Key="ours", Body=b"x", ACL="bucket-owner-full-control")
    assert s3.get_object_acl(Bucket=granted, Key="ours")["Owner"]["ID"] == owner_of(s3)


@pytest.mark.behaviour(AREA, "PutObjectAcl", "wrong grantees and canned names are refused")
def test_wrong_grants(s3, granted, refused):
    for values, code in (
        ({"ACL": "world-read"}, "InvalidArgument"),
        ({"GrantRead": "id=abc"}, "InvalidArgument"),
        ({"GrantRead": "uri=http://example/group"}, "InvalidArgument"),
        ({"GrantRead": "emailAddress=a@example.org"}, "UnresolvableGrantByEmailAddress"),
        ({"GrantRead": "nonsense"}, "InvalidArgument"),
    ):
        assert refused(s3.put_object_acl, Bucket=granted, Key="k", **values)["Code"] == code
    assert len(s3.get_object_acl(Bucket=granted, Key="k")["Grants"]) == 1


@pytest.mark.behaviour(AREA, "IgnorePublicAcls, BlockPublicAcls", "public ACLs are of no use, or refused")
def test_public_acls(s3, anonymous, granted, refused):
    s3.put_object_acl(Bucket=granted, Key="k", ACL="public-read")
    assert anonymous.get_object(Bucket=granted, Key="k")["Body"].read() == b"data"
    for name in ("IgnorePublicAcls", "BlockPublicAcls"):
        s3.put_public_access_block(Bucket=granted, PublicAccessBlockConfiguration={name: True})
        if name == "IgnorePublicAcls":
            assert refused(anonymous.get_object, Bucket=granted, Key="k")["Code"] == "AccessDenied"
        else:
            assert anonymous.get_object(Bucket=granted, Key="k")["Body"].read() == b"data"
            assert refused(s3.put_object_acl, Bucket=granted, Key="k", ACL="public-read")["Code"] == "AccessDenied"


@pytest.mark.behaviour(AREA, "CopyObject", "needs s3:GetObject on the source and s3:PutObject on the target")
def test_copies(s3, other, stranger, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    target = f"{bucket}-theirs"
    other.create_bucket(Bucket=target)
    named = {"Bucket": target, "Key": "copy", "CopySource": f"{bucket}/k"}
    assert refused(other.copy_object, **named)["Code"] == "AccessDenied"
    put_policy(s3, bucket, allow(bucket, {"AWS": stranger[1]}, "s3:GetObject"))
    other.copy_object(**named)
    assert other.get_object(Bucket=target, Key="copy")["Body"].read() == b"data"
    back = {"Bucket": bucket, "Key": "back", "CopySource": f"{target}/copy"}
    assert refused(other.copy_object, **back)["Code"] == "AccessDenied"


@pytest.mark.behaviour(AREA, "a user without s3:ListBucket", "AccessDenied in place of NoSuchKey")
def test_users(s3, sandbox, bucket, refused):
    iam = sandbox.client("iam")
    iam.create_user(UserName="reader")
    keys = iam.create_access_key(UserName="reader")["AccessKey"]
    reader = sandbox.client("s3", aws_access_key_id=keys["AccessKeyId"], aws_secret_access_key=keys["SecretAccessKey"])
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    assert refused(reader.get_object, Bucket=bucket, Key="k")["Code"] == "AccessDenied"
    statements = [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}]

    def give():
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_user_policy(UserName="reader", PolicyName="p", PolicyDocument=document)

    give()
    assert reader.get_object(Bucket=bucket, Key="k")["Body"].read() == b"data"
    assert refused(reader.get_object, Bucket=bucket, Key="missing")["Code"] == "AccessDenied"
    assert refused(reader.put_object, Bucket=bucket, Key="k", Body=b"x")["Code"] == "AccessDenied"
    statements.append({"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}"})
    give()
    assert refused(reader.get_object, Bucket=bucket, Key="missing")["Code"] == "NoSuchKey"
    tagged = {"Bucket": bucket, "Key": "k", "Body": b"x", "Tagging": "a=1"}
    statements.append({"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*"})
    give()
    assert refused(reader.put_object, **tagged)["Code"] == "AccessDenied"
    statements.append({"Effect": "Allow", "Action": "s3:PutObjectTagging", "Resource": f"arn:aws:s3:::{bucket}/*"})
    give()
    reader.put_object(**tagged)
