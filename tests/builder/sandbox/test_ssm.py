"""SSM's parameters, as boto3 sees them."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

SSM = "SSM"
MISSING = [
    (SSM, "SecureString", "kept unencrypted: there is no KMS; without WithDecryption its value is not shown"),
    (SSM, "parameter policies (expiration, notification), shared parameters", "UnsupportedOperation; none are shared"),
    (SSM, "data types other than text and aws:ec2:image", "ValidationException"),
    (SSM, "public parameters under /aws/service", "ParameterNotFound"),
    (SSM, "everything of SSM but parameters", "UnsupportedOperation"),
]


@pytest.fixture(scope="module")
def ssm(sandbox):
    return sandbox.client("ssm")


def value(ssm, name, **more):
    return ssm.get_parameter(Name=name, **more)["Parameter"]["Value"]


@pytest.mark.behaviour(
    SSM,
    "PutParameter",
    "a second put is ParameterAlreadyExists without Overwrite, with it the next version; what an overwrite does "
    "not say stays; another type is refused",
)
def test_versions(ssm, code_of):
    put = {"Name": "/put/a", "Type": "String"}
    assert ssm.put_parameter(**put, Value="one", Description="d")["Version"] == 1
    assert code_of(ssm.put_parameter, **put, Value="two") == "ParameterAlreadyExists"
    assert value(ssm, "/put/a") == "one"
    assert ssm.put_parameter(Name="/put/a", Value="two", Overwrite=True)["Version"] == 2
    assert code_of(ssm.put_parameter, Name="/put/a", Value="x", Type="SecureString", Overwrite=True) == (
        "HierarchyTypeMismatchException"
    )
    found = ssm.get_parameter(Name="/put/a")["Parameter"]
    assert (found["Value"], found["Version"], found["Type"], found["DataType"]) == ("two", 2, "String", "text")
    assert found["ARN"] == "arn:aws:ssm:us-east-1:123456789012:parameter/put/a"
    assert value(ssm, found["ARN"]) == "two"
    assert abs(found["LastModifiedDate"].timestamp() - time.time()) < 60
    assert value(ssm, "/put/a:1") == "one"
    assert ssm.get_parameter(Name="/put/a:1")["Parameter"]["Selector"] == ":1"
    assert code_of(ssm.get_parameter, Name="/put/a:3") == "ParameterVersionNotFound"
    assert code_of(ssm.get_parameter, Name="/put/none") == "ParameterNotFound"
    described = ssm.describe_parameters(ParameterFilters=[{"Key": "Name", "Values": ["/put/a"]}])["Parameters"]
    assert (described[0]["Description"], described[0]["LastModifiedUser"]) == ("d", "arn:aws:iam::123456789012:root")
    history = ssm.get_parameter_history(Name="/put/a")["Parameters"]
    assert [(one["Version"], one["Value"]) for one in history] == [(1, "one"), (2, "two")]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"Name": "a b", "Value": "x", "Type": "String"}, "ValidationException"),
        ({"Name": "a/b", "Value": "x", "Type": "String"}, "ValidationException"),
        ({"Name": "/AWS/b", "Value": "x", "Type": "String"}, "ValidationException"),
        ({"Name": "ssm-x", "Value": "x", "Type": "String"}, "ValidationException"),
        ({"Name": "/a" * 16, "Value": "x", "Type": "String"}, "HierarchyLevelLimitExceededException"),
        ({"Name": "bad", "Value": "x"}, "ValidationException"),
        ({"Name": "bad", "Value": "x", "Type": "Text"}, "ValidationException"),
        ({"Name": "bad", "Value": "", "Type": "String"}, "ValidationException"),
        ({"Name": "bad", "Type": "String"}, "ValidationException"),
        ({"Name": "bad", "Value": 5, "Type": "String"}, "ValidationException"),
        ({"Name": "bad", "Value": "x" * 4097, "Type": "String"}, "ValidationException"),
        ({"Name": "bad", "Value": "x" * 8193, "Type": "String", "Tier": "Advanced"}, "ValidationException"),
        ({"Name": "bad", "Value": "x", "Type": "String", "AllowedPattern": "5"}, "ParameterPatternMismatchException"),
        ({"Name": "bad", "Value": "x", "Type": "String", "AllowedPattern": "("}, "InvalidAllowedPatternException"),
        ({"Name": "bad", "Value": "x", "Type": "String", "DataType": "odd"}, "ValidationException"),
        ({"Name": "bad", "Value": "x", "Type": "String", "Overwrite": True, "Tags": [{"Key": "a", "Value": "b"}]},
         "ValidationException"),
    ],
)  # fmt: skip
def test_a_put_that_is_refused(ssm, code_of, parameters, code):
    before = [one["Name"] for one in ssm.describe_parameters()["Parameters"]]
    assert code_of(ssm.put_parameter, **parameters) == code
    assert [one["Name"] for one in ssm.describe_parameters()["Parameters"]] == before


@pytest.mark.behaviour(
    SSM,
    "PutParameter's Tier",
    "Standard holds 4096 bytes; Intelligent-Tiering becomes Advanced beyond them, and there is no way back",
)
def test_tiers(ssm, code_of):
    put = {"Name": "tiered", "Type": "String", "Overwrite": True}
    assert ssm.put_parameter(**put, Value="x" * 4096)["Tier"] == "Standard"
    assert ssm.put_parameter(**put, Value="x" * 4097, Tier="Intelligent-Tiering")["Tier"] == "Advanced"
    assert code_of(ssm.put_parameter, **put, Value="x", Tier="Standard") == "ValidationException"
    assert ssm.put_parameter(**put, Value="x")["Tier"] == "Advanced"


@pytest.mark.behaviour(
    SSM, "GetParameter of a SecureString", "the value with WithDecryption, without it a text that is not it"
)
def test_secrets(ssm):
    ssm.put_parameter(Name="/secret", Value="hush", Type="SecureString")
    assert value(ssm, "/secret", WithDecryption=True) == "hush"
    assert "hush" not in value(ssm, "/secret")
    found = ssm.get_parameters(Names=["/secret", "/nothing"], WithDecryption=True)
    assert [one["Value"] for one in found["Parameters"]] == ["hush"]
    assert found["InvalidParameters"] == ["/nothing"]


@pytest.mark.behaviour(
    SSM, "LabelParameterVersion", "a label names a version, moves to another, and is gone when removed"
)
def test_labels(ssm, code_of):
    for text in ("one", "two"):
        ssm.put_parameter(Name="/labelled", Value=text, Type="String", Overwrite=text != "one")
    answer = ssm.label_parameter_version(Name="/labelled", ParameterVersion=1, Labels=["stable", "1st", "aws-x"])
    assert answer["InvalidLabels"] == ["1st", "aws-x"]
    assert value(ssm, "/labelled:stable") == "one"
    assert ssm.label_parameter_version(Name="/labelled", Labels=["stable"])["ParameterVersion"] == 2
    assert value(ssm, "/labelled:stable") == "two"
    assert ssm.get_parameter_history(Name="/labelled")["Parameters"][0]["Labels"] == []
    ssm.unlabel_parameter_version(Name="/labelled", ParameterVersion=2, Labels=["stable"])
    assert code_of(ssm.get_parameter, Name="/labelled:stable") == "ParameterVersionNotFound"
    assert code_of(ssm.label_parameter_version, Name="/labelled", ParameterVersion=9, Labels=["x"]) == (
        "ParameterVersionNotFound"
    )


@pytest.mark.behaviour(SSM, "GetParametersByPath", "one level or, with Recursive, all below; pages of ten at most name "
                       "every parameter once, also when some are deleted between two pages")  # fmt: skip
def test_paths(ssm, code_of):
    names = [f"/tree/{number:02}" for number in range(12)] + ["/tree/deep/a", "/trees"]
    for name in names:
        ssm.put_parameter(Name=name, Value=name, Type="String")
    pager = ssm.get_paginator("get_parameters_by_path")
    pages = [[one["Name"] for one in page["Parameters"]] for page in pager.paginate(Path="/tree")]
    assert [len(page) for page in pages] == [10, 2]
    assert [name for page in pages for name in page] == names[:12]
    deep = [one["Name"] for page in pager.paginate(Path="/tree/", Recursive=True) for one in page["Parameters"]]
    assert deep == names[:13]
    first = ssm.get_parameters_by_path(Path="/tree", MaxResults=5)
    ssm.delete_parameters(Names=names[:5])
    second = ssm.get_parameters_by_path(Path="/tree", MaxResults=5, NextToken=first["NextToken"])
    assert [one["Name"] for one in second["Parameters"]] == names[5:10]
    ssm.label_parameter_version(Name=names[7], Labels=["here"])
    labelled = [{"Key": "Label", "Values": ["here"]}]
    found = ssm.get_parameters_by_path(Path="/tree", ParameterFilters=labelled)["Parameters"]
    assert [one["Name"] for one in found] == [names[7]]
    assert code_of(ssm.get_parameters_by_path, Path="tree") == "ValidationException"
    assert code_of(ssm.get_parameters_by_path, Path="/tree", MaxResults=11) == "ValidationException"
    assert code_of(ssm.get_parameters_by_path, Path="/tree", NextToken="?") == "InvalidNextToken"


@pytest.mark.behaviour(SSM, "DescribeParameters", "filters of name, type, path and tag select what they say")
def test_filters(ssm, code_of):
    ssm.put_parameter(Name="/f/one", Value="1", Type="String", Tags=[{"Key": "team", "Value": "a"}])
    ssm.put_parameter(Name="/f/two", Value="1,2", Type="StringList", Tags=[{"Key": "team", "Value": "b"}])
    ssm.put_parameter(Name="/f/deep/three", Value="3", Type="String")

    def found(*filters):
        base = {"Key": "Name", "Option": "BeginsWith", "Values": ["/f/"]}
        return [one["Name"] for one in ssm.describe_parameters(ParameterFilters=[base, *filters])["Parameters"]]

    assert found() == ["/f/deep/three", "/f/one", "/f/two"]
    assert found({"Key": "Type", "Values": ["StringList"]}) == ["/f/two"]
    assert found({"Key": "Path", "Option": "OneLevel", "Values": ["/f"]}) == ["/f/one", "/f/two"]
    assert found({"Key": "Name", "Option": "Contains", "Values": ["ee"]}) == ["/f/deep/three"]
    assert found({"Key": "tag:team", "Values": ["a"]}) == ["/f/one"]
    assert found({"Key": "tag:team"}) == ["/f/one", "/f/two"]
    legacy = ssm.describe_parameters(Filters=[{"Key": "Name", "Values": ["/f/o"]}])["Parameters"]
    assert [one["Name"] for one in legacy] == ["/f/one"]
    odd = [{"Key": "Type", "Option": "Contains", "Values": ["x"]}]
    assert code_of(ssm.describe_parameters, ParameterFilters=odd) == "InvalidFilterOption"
    assert code_of(ssm.describe_parameters, ParameterFilters=[{"Key": "Odd", "Values": ["x"]}]) == "ValidationException"


@pytest.mark.behaviour(
    SSM,
    "AddTagsToResource, ListTagsForResource, RemoveTagsFromResource",
    "tags are listed as they were added, an ARN or a name says of what",
)
def test_tags(ssm, code_of):
    ssm.put_parameter(Name="/tags", Value="1", Type="String", Tags=[{"Key": "a", "Value": "1"}])
    of = {"ResourceType": "Parameter", "ResourceId": "/tags"}
    ssm.add_tags_to_resource(**of, Tags=[{"Key": "b", "Value": "2"}, {"Key": "a", "Value": "3"}])
    ssm.remove_tags_from_resource(**of, TagKeys=["b"])
    assert ssm.list_tags_for_resource(**of)["TagList"] == [{"Key": "a", "Value": "3"}]
    assert code_of(ssm.list_tags_for_resource, ResourceType="Parameter", ResourceId="/none") == "InvalidResourceId"


@pytest.mark.behaviour(SSM, "DeleteParameter, DeleteParameters", "what is deleted is not found any more, and a new one "
                       "begins with version 1")  # fmt: skip
def test_deletes(ssm, code_of):
    ssm.put_parameter(Name="/gone", Value="1", Type="String")
    ssm.put_parameter(Name="/gone", Value="2", Type="String", Overwrite=True)
    ssm.delete_parameter(Name="/gone")
    assert code_of(ssm.get_parameter, Name="/gone") == "ParameterNotFound"
    assert code_of(ssm.delete_parameter, Name="/gone") == "ParameterNotFound"
    assert ssm.put_parameter(Name="/gone", Value="3", Type="String")["Version"] == 1
    answer = ssm.delete_parameters(Names=["/gone", "/never"])
    assert (answer["DeletedParameters"], answer["InvalidParameters"]) == (["/gone"], ["/never"])


@pytest.mark.behaviour(
    SSM,
    "PutParameter of the data type aws:ec2:image",
    "is acknowledged at once and validated after: an image that the caller can see counts a moment later, any other "
    "value never does and leaves the parameter as it was",
)
def test_image_parameters(make_sandbox, code_of):
    running = make_sandbox(settle=1.5)
    ec2, ssm = running.client("ec2"), running.client("ssm")
    snapshot_id = running.raw().snapshot({0: bytes(1 << 19)})
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id}}]
    image_id = ec2.register_image(Name="latest", RootDeviceName="/dev/xvda", BlockDeviceMappings=devices)["ImageId"]
    put = {"Name": "/image/latest", "Type": "String", "DataType": "aws:ec2:image"}
    assert ssm.put_parameter(**put, Value="ami-00000000000000000")["Version"] == 1
    time.sleep(1.6)
    assert code_of(ssm.get_parameter, Name="/image/latest") == "ParameterNotFound"
    assert ssm.put_parameter(**put, Value=image_id)["Version"] == 1
    assert code_of(ssm.get_parameter, Name="/image/latest") == "ParameterNotFound"  # being validated
    time.sleep(1.6)
    assert value(ssm, "/image/latest") == image_id
    ssm.put_parameter(**put, Value="no image", Overwrite=True)
    time.sleep(1.6)
    found = ssm.get_parameter(Name="/image/latest")["Parameter"]
    assert (found["Value"], found["Version"]) == (image_id, 1)


@pytest.mark.behaviour(
    SSM, "every change", "parameters, their versions, labels and tags are there after kill -9 and a start"
)
def test_parameters_outlive_the_server(make_sandbox):
    running = make_sandbox()
    ssm = running.client("ssm")
    ssm.put_parameter(Name="/kept", Value="one", Type="String", Tags=[{"Key": "a", "Value": "b"}])
    ssm.put_parameter(Name="/kept", Value="two", Type="String", Overwrite=True)
    ssm.label_parameter_version(Name="/kept", ParameterVersion=1, Labels=["old"])
    os.kill(running.endpoint.pid, signal.SIGKILL)
    running.restart()
    again = running.client("ssm")
    assert (value(again, "/kept"), value(again, "/kept:old")) == ("two", "one")
    assert again.list_tags_for_resource(ResourceType="Parameter", ResourceId="/kept")["TagList"]


@pytest.mark.behaviour(SSM, "regions", "a name in one region is not one in another")
def test_regions(sandbox, ssm, code_of):
    ssm.put_parameter(Name="/regional", Value="x", Type="String")
    other = sandbox.client("ssm", region_name="eu-west-1")
    assert code_of(other.get_parameter, Name="/regional") == "ParameterNotFound"
    other.put_parameter(Name="/regional", Value="y", Type="String")
    assert value(ssm, "/regional") == "x"


@pytest.mark.behaviour(SSM, "permissions", "a policy for a path's ARN lets its parameters be read and put, others not")
def test_permissions(sandbox, ssm, code_of):
    iam = sandbox.client("iam")
    iam.create_user(UserName="publisher")
    arn = "arn:aws:ssm:*:123456789012:parameter/mine"
    entry = {"Effect": "Allow", "Action": ["ssm:GetParameter*", "ssm:PutParameter"], "Resource": [arn, f"{arn}/*"]}
    iam.put_user_policy(UserName="publisher", PolicyName="p", PolicyDocument=json.dumps({"Statement": entry}))
    key = iam.create_access_key(UserName="publisher")["AccessKey"]
    keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    mine = sandbox.client("ssm", **keys)
    mine.put_parameter(Name="/mine/a", Value="x", Type="String")
    assert [one["Name"] for one in mine.get_parameters_by_path(Path="/mine")["Parameters"]] == ["/mine/a"]
    denied = "AccessDeniedException"
    assert code_of(mine.put_parameter, Name="/other", Value="x", Type="String") == denied
    assert code_of(mine.get_parameters, Names=["/mine/a", "/other"]) == denied
    assert code_of(mine.delete_parameter, Name="/mine/a") == denied
    tags = [{"Key": "a", "Value": "b"}]
    assert code_of(mine.put_parameter, Name="/mine/b", Value="x", Type="String", Tags=tags) == denied
    assert code_of(ssm.get_parameter, Name="/other") == "ParameterNotFound"
