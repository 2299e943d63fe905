"""Several accounts in one sandbox, and who a caller is in each."""

from __future__ import annotations

import json

import pytest

from builder.sandbox import lifecycle

STS = "Access: STS"


@pytest.fixture
def second(sandbox):
    """Another account: what makes clients with its root's keys."""
    made = lifecycle.add_account(sandbox.directory, "second")

    def client(service, **options):
        keys = {"aws_access_key_id": made.access_key, "aws_secret_access_key": made.secret_key}
        return sandbox.client(service, **keys | options)

    client.account = made.account
    return client


@pytest.mark.behaviour(STS, "GetCallerIdentity", "each account's root is told its own account and the ARN …:root")
def test_each_root_is_its_own_account(sandbox, second):
    for client, account in ((sandbox.client, "123456789012"), (second, second.account)):
        identity = client("sts").get_caller_identity()
        assert (identity["Account"], identity["Arn"]) == (account, f"arn:aws:iam::{account}:root")
        assert identity["UserId"] == account


@pytest.mark.behaviour("Access: accounts", "every call", "an account sees neither the snapshots, users and parameters "
                       "of another, nor can it change them; its own it can, under the same names")  # fmt: skip
def test_accounts_do_not_see_each_other(sandbox, second, completed, code_of):
    first = sandbox.client
    first("iam").create_user(UserName="both")
    first("ssm").put_parameter(Name="/both", Value="first", Type="String")
    assert second("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    assert code_of(second("ec2").delete_snapshot, SnapshotId=completed) == "InvalidSnapshot.NotFound"
    assert code_of(second("iam").get_user, UserName="both") == "NoSuchEntity"
    assert code_of(second("ssm").get_parameter, Name="/both") == "ParameterNotFound"
    second("iam").create_user(UserName="both")
    second("ssm").put_parameter(Name="/both", Value="second", Type="String")
    assert first("ssm").get_parameter(Name="/both")["Parameter"]["Value"] == "first"
    assert f":{second.account}:" in second("iam").get_user(UserName="both")["User"]["Arn"]
    assert first("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"][0]["SnapshotId"] == completed


def test_an_account_outlives_the_server(make_sandbox):
    running = make_sandbox()
    made = lifecycle.add_account(running.directory, "kept")
    assert made.account != "123456789012"
    lifecycle.stop(running.directory)
    running.restart()
    keys = {"aws_access_key_id": made.access_key, "aws_secret_access_key": made.secret_key}
    assert running.client("sts", **keys).get_caller_identity()["Account"] == made.account
    listed = json.loads(running.raw().call("GET", "/_sandbox/accounts", service=None)[2])["accounts"]
    assert listed == [{"account": "123456789012", "name": "first"}, {"account": made.account, "name": "kept"}]


def test_the_page_makes_no_account_for_a_strangers_web_page(sandbox, raw):
    assert raw.call("POST", "/_sandbox/accounts?name=x", b"", service=None)[0] == 405
    assert raw.call("PUT", "/_sandbox/accounts", b"", service=None)[0] == 400
    assert raw.call("PUT", f"/_sandbox/accounts?name={'x' * 51}", b"", service=None)[0] == 400
