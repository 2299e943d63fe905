"""Sessions of STS: roles taken on, what they may, and their end."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from builder.sandbox import lifecycle, settings

STS = "Access: STS"
MISSING = [
    (STS, "AssumeRoleWithWebIdentity, AssumeRoleWithSAML, GetFederationToken", "UnsupportedOperation"),
    (STS, "credentials of an instance's role", "no metadata service yet"),
]
ME = "123456789012"


def document(*actions, effect="Allow", resource="*"):
    entry = {"Effect": effect, "Action": list(actions), "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [entry]})


def trust(principal, **more):
    return json.dumps({"Statement": {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **more}})


def keys_of(answer):
    given = answer["Credentials"]
    return {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }


def add_user(sandbox, name, *documents, keys=None):
    """Make a user with these documents and return keyword arguments with its access key."""
    iam = sandbox.client("iam", **(keys or {}))
    iam.create_user(UserName=name)
    for number, text in enumerate(documents):
        iam.put_user_policy(UserName=name, PolicyName=str(number), PolicyDocument=text)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def add_role(sandbox, name, trusted, *documents, keys=None, **more):
    iam = sandbox.client("iam", **(keys or {}))
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted, **more)["Role"]["Arn"]
    for number, text in enumerate(documents):
        iam.put_role_policy(RoleName=name, PolicyName=str(number), PolicyDocument=text)
    return arn


@pytest.fixture(scope="module")
def ada(sandbox):
    return add_user(sandbox, "ada", document("sts:AssumeRole"))


@pytest.mark.behaviour(
    STS,
    "AssumeRole",
    "the session is arn:aws:sts::…:assumed-role/ROLE/NAME, may what the role may and not what its user may, and ends "
    "at the answer's Expiration, an hour on",
)
def test_a_role_taken_on(sandbox, ada, code_of):
    arn = add_role(sandbox, "reader", trust({"AWS": f"arn:aws:iam::{ME}:user/ada"}), document("ec2:DescribeImages"))
    answer = sandbox.client("sts", **ada).assume_role(RoleArn=arn, RoleSessionName="tuesday")
    assert answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ME}:assumed-role/reader/tuesday"
    assert answer["Credentials"]["AccessKeyId"].startswith("ASIA")
    hour = answer["Credentials"]["Expiration"] - datetime.now(UTC)
    assert timedelta(minutes=59) < hour <= timedelta(hours=1)
    session = keys_of(answer)
    identity = sandbox.client("sts", **session).get_caller_identity()
    assert identity["Arn"] == answer["AssumedRoleUser"]["Arn"]
    assert identity["UserId"] == answer["AssumedRoleUser"]["AssumedRoleId"]
    sandbox.client("ec2", **session).describe_images(Owners=["self"])
    assert code_of(sandbox.client("ec2", **session).describe_snapshots) == "UnauthorizedOperation"
    assert code_of(sandbox.client("sts", **session).assume_role, RoleArn=arn, RoleSessionName="x2") == "AccessDenied"
    sandbox.client("iam").delete_role_policy(RoleName="reader", PolicyName="0")
    assert code_of(sandbox.client("ec2", **session).describe_images) == "UnauthorizedOperation"


# Who is trusted, the caller's own documents, and whether AssumeRole is allowed
TRUSTED = {
    "the user itself, without a policy of its own": ({"AWS": f"arn:aws:iam::{ME}:user/NAME"}, [], True),
    "the account, and the user's policy": ({"AWS": ME}, [document("sts:AssumeRole")], True),
    "the account, without the user's policy": ({"AWS": ME}, [], False),
    "the account, and the user's deny": (
        {"AWS": f"arn:aws:iam::{ME}:user/NAME"}, [document("sts:AssumeRole", effect="Deny")], False,
    ),
    "another user": ({"AWS": f"arn:aws:iam::{ME}:user/other"}, [document("*")], False),
    "a service": ({"Service": "ec2.amazonaws.com"}, [document("*")], False),
}  # fmt: skip


@pytest.mark.behaviour(STS, "AssumeRole", f"of {len(TRUSTED)} combinations of trust policy and own policies those that "
                       "AWS allows are allowed, the others AccessDenied")  # fmt: skip
@pytest.mark.parametrize("number", range(len(TRUSTED)))
def test_trust(sandbox, code_of, number):
    principal, documents, allowed = list(TRUSTED.values())[number]
    name = f"trust-{number}"
    keys = add_user(sandbox, name, *documents)
    named = {kind: value.replace("NAME", name) for kind, value in principal.items()}
    arn = add_role(sandbox, name, trust(named))
    assume = sandbox.client("sts", **keys).assume_role
    if allowed:
        assert keys_of(assume(RoleArn=arn, RoleSessionName="session"))
    else:
        assert code_of(assume, RoleArn=arn, RoleSessionName="session") == "AccessDenied"


@pytest.mark.behaviour(
    STS, "AssumeRole with ExternalId", "a trust policy that wants an external id refuses another or none"
)
def test_an_external_id(sandbox, ada, code_of):
    arn = add_role(sandbox, "external", trust({"AWS": ME}, Condition={"StringEquals": {"sts:ExternalId": "vmimport"}}))
    sts = sandbox.client("sts", **ada)
    assert code_of(sts.assume_role, RoleArn=arn, RoleSessionName="x2") == "AccessDenied"
    assert code_of(sts.assume_role, RoleArn=arn, RoleSessionName="x2", ExternalId="other") == "AccessDenied"
    sts.assume_role(RoleArn=arn, RoleSessionName="x2", ExternalId="vmimport")


@pytest.mark.behaviour(STS, "AssumeRole into another account", "needs both the role's trust in the account and the "
                       "user's own permission; the session then sees the other account's resources")  # fmt: skip
def test_across_accounts(sandbox, ada, code_of, completed):
    other = lifecycle.add_account(sandbox.directory, "other")
    root = {"aws_access_key_id": other.access_key, "aws_secret_access_key": other.secret_key}
    bare = add_user(sandbox, "bare")
    trusted = add_role(sandbox, "in", trust({"AWS": f"arn:aws:iam::{ME}:root"}), document("*"), keys=root)
    closed = add_role(sandbox, "closed", trust({"AWS": other.account}), document("*"), keys=root)
    assert code_of(sandbox.client("sts", **bare).assume_role, RoleArn=trusted, RoleSessionName="x2") == "AccessDenied"
    assert code_of(sandbox.client("sts", **ada).assume_role, RoleArn=closed, RoleSessionName="x2") == "AccessDenied"
    session = keys_of(sandbox.client("sts", **ada).assume_role(RoleArn=trusted, RoleSessionName="x2"))
    assert sandbox.client("sts", **session).get_caller_identity()["Account"] == other.account
    assert sandbox.client("ec2", **session).describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    assert sandbox.client("ec2").describe_snapshots(SnapshotIds=[completed])["Snapshots"]


@pytest.mark.behaviour(
    STS, "AssumeRole with a session policy", "the session may what both the role and its policy allow"
)
def test_a_session_policy(sandbox, ada, code_of):
    arn = add_role(sandbox, "broad", trust({"AWS": ME}), document("ec2:*"))
    limit = document("ec2:DescribeImages", "s3:*")
    sts = sandbox.client("sts", **ada)
    session = keys_of(sts.assume_role(RoleArn=arn, RoleSessionName="x2", Policy=limit))
    sandbox.client("ec2", **session).describe_images(Owners=["self"])
    assert code_of(sandbox.client("ec2", **session).describe_snapshots) == "UnauthorizedOperation"
    assert code_of(sandbox.client("s3", **session).list_buckets) == "AccessDenied"
    bad = {"RoleArn": arn, "RoleSessionName": "x2", "Policy": "{}"}
    assert code_of(sts.assume_role, **bad) == "MalformedPolicyDocument"


@pytest.mark.behaviour(
    STS,
    "DurationSeconds",
    "under 900 and over 43200 is a ValidationError, as is more than the role's MaxSessionDuration, and more than an "
    "hour for a role taken on by a role",
)
def test_durations(sandbox, ada, code_of):
    arn = add_role(sandbox, "long", trust({"AWS": ME}), document("sts:AssumeRole"), MaxSessionDuration=7200)
    sts = sandbox.client("sts", **ada)
    for seconds in (899, 43201, 7201):
        wish = {"RoleArn": arn, "RoleSessionName": "x2", "DurationSeconds": seconds}
        assert code_of(sts.assume_role, **wish) == "ValidationError"
    answer = sts.assume_role(RoleArn=arn, RoleSessionName="x2", DurationSeconds=7200)
    assert answer["Credentials"]["Expiration"] - datetime.now(UTC) > timedelta(minutes=119)
    chained = sandbox.client("sts", **keys_of(answer))
    wish = {"RoleArn": arn, "RoleSessionName": "again"}
    assert code_of(chained.assume_role, **wish, DurationSeconds=3601) == "ValidationError"
    chained.assume_role(**wish, DurationSeconds=3600)
    assert code_of(sts.assume_role, RoleArn=arn, RoleSessionName="a b") == "ValidationError"


def test_what_root_and_strangers_cannot(sandbox, ada, code_of):
    arn = add_role(sandbox, "rooted", trust("*"))
    assert code_of(sandbox.client("sts").assume_role, RoleArn=arn, RoleSessionName="x2") == "AccessDenied"
    nowhere = {"RoleArn": f"arn:aws:iam::{ME}:role/none", "RoleSessionName": "x2"}
    assert code_of(sandbox.client("sts", **ada).assume_role, **nowhere) == "AccessDenied"


@pytest.mark.behaviour(
    STS,
    "GetSessionToken",
    "the session is its user and may the same; a session cannot open another; without its token, or with "
    "another's, its key is refused",
)
def test_session_tokens(sandbox, ada, code_of):
    answer = sandbox.client("sts", **ada).get_session_token()
    session = keys_of(answer)
    sts = sandbox.client("sts", **session)
    assert sts.get_caller_identity()["Arn"] == f"arn:aws:iam::{ME}:user/ada"
    assert timedelta(hours=11) < answer["Credentials"]["Expiration"] - datetime.now(UTC) <= timedelta(hours=12)
    assert code_of(sts.get_session_token) == "AccessDenied"
    other = keys_of(sandbox.client("sts", **ada).get_session_token())["aws_session_token"]
    for token in (None, other, session["aws_session_token"][:-4] + "AAA="):
        wrong = {**session, "aws_session_token": token}
        assert code_of(sandbox.client("sts", **wrong).get_caller_identity) == "InvalidClientTokenId"
        assert code_of(sandbox.client("s3", **wrong).list_buckets) == "InvalidToken"
        assert code_of(sandbox.client("ec2", **wrong).describe_images) == "AuthFailure"
    root = sandbox.client("sts").get_session_token(DurationSeconds=7200)
    assert root["Credentials"]["Expiration"] - datetime.now(UTC) <= timedelta(hours=1)
    sandbox.client("ec2", **keys_of(root)).describe_images(Owners=["self"])


EXPIRED = {
    "sts": ("get_caller_identity", {}, "ExpiredToken"),
    "iam": ("list_users", {}, "ExpiredToken"),
    "s3": ("list_buckets", {}, "ExpiredToken"),
    "ec2": ("describe_images", {}, "RequestExpired"),
    "ebs": ("start_snapshot", {"VolumeSize": 1}, "ExpiredTokenException"),
    "ssm": ("describe_parameters", {}, "ExpiredTokenException"),
}


@pytest.mark.behaviour(
    STS,
    "every call under a session that has ended",
    "ExpiredToken of STS, IAM and S3, RequestExpired of EC2, ExpiredTokenException of EBS direct and SSM; the session "
    "lives through kill -9 of the server until then and not beyond",
)
def test_a_session_ends(make_sandbox, code_of):
    running = make_sandbox("short")
    lifecycle.stop(running.directory)
    settings.save(running.directory, replace(settings.load(running.directory), session_life=4.0))
    running.restart()
    answer = running.client("sts").get_session_token()
    end = answer["Credentials"]["Expiration"]
    assert end - datetime.now(UTC) < timedelta(seconds=5)
    session = keys_of(answer)
    os.kill(running.endpoint.pid, signal.SIGKILL)
    running.restart()
    assert running.client("sts", **session).get_caller_identity()["Account"] == ME
    while datetime.now(UTC) < end + timedelta(seconds=1):
        time.sleep(0.1)
    for service, (call, parameters, code) in EXPIRED.items():
        assert code_of(getattr(running.client(service, **session), call), **parameters) == code


def test_session_tags_are_the_principals(sandbox, ada, code_of):
    may = {"Effect": "Allow", "Action": "ec2:DescribeImages", "Resource": "*",
           "Condition": {"StringEquals": {"aws:PrincipalTag/team": "images"}}}  # fmt: skip
    tagging = json.dumps({"Statement": {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ME}:user/ada"},
                                        "Action": ["sts:AssumeRole", "sts:TagSession"]}})  # fmt: skip
    arn = add_role(sandbox, "tagged", tagging, json.dumps({"Statement": may}))
    sts = sandbox.client("sts", **ada)
    for team, allowed in (("images", True), ("others", False)):
        tags = [{"Key": "team", "Value": team}]
        session = keys_of(sts.assume_role(RoleArn=arn, RoleSessionName="x2", Tags=tags))
        images = sandbox.client("ec2", **session).describe_images
        if allowed:
            images(Owners=["self"])
        else:
            assert code_of(images) == "UnauthorizedOperation"
    plain = add_role(sandbox, "untagged", trust({"AWS": f"arn:aws:iam::{ME}:user/ada"}))
    tags = [{"Key": "team", "Value": "images"}]
    assert code_of(sts.assume_role, RoleArn=plain, RoleSessionName="x2", Tags=tags) == "AccessDenied"
