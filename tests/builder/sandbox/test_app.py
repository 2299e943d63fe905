"""What lies outside the set: every other call is refused in its service's own words; every call is written down."""

from __future__ import annotations

import json
import re

import pytest

from builder.sandbox import audit


@pytest.mark.parametrize(
    ("service", "call", "parameters", "code"),
    [
        ("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/8"}, "UnsupportedOperation"),
        ("ec2", "describe_nat_gateways", {}, "UnsupportedOperation"),
        ("ec2", "request_spot_instances", {}, "UnsupportedOperation"),
        ("iam", "list_saml_providers", {}, "UnsupportedOperation"),
        ("s3", "get_bucket_analytics_configuration", {"Bucket": "bucket", "Id": "x"}, "NotImplemented"),
        ("ssm", "list_documents", {}, "UnsupportedOperation"),
        ("lambda", "list_functions", {}, "UnsupportedOperation"),
    ],
)
def test_a_call_outside_the_set(sandbox, code_of, service, call, parameters, code):
    before = audit.position(sandbox.directory)
    client = sandbox.client(service)
    assert code_of(getattr(client, call), **parameters) == code
    (made,) = audit.read_calls(sandbox.directory, start=before)
    assert made.service == service
    assert made.error in {code, "UnsupportedOperation"}
    assert made.status == (501 if service == "s3" else 400)
    if service not in {"s3", "lambda"}:
        assert made.action == re.sub(r"(?:^|_)(\w)", lambda match: match[1].upper(), call).replace("Saml", "SAML")


def test_ec2_refuses_in_its_own_xml(raw):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = "Action=CreateVpc&Version=2016-11-15&CidrBlock=10.0.0.0/8"
    status, answered, data = raw.call("POST", "/", body, headers, service="ec2")
    assert (status, answered["Content-Type"]) == (400, "text/xml;charset=UTF-8")
    assert re.fullmatch(
        rb'<\?xml version="1.0" encoding="UTF-8"\?>\n<Response><Errors><Error><Code>UnsupportedOperation</Code>'
        rb"<Message>The sandbox does not support CreateVpc.</Message></Error></Errors>"
        rb"<RequestID>[0-9a-f-]{36}</RequestID></Response>",
        data,
    )


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"Action": "MakeCoffee"}, "InvalidAction"),
        ({"Action": ""}, "InvalidAction"),
        ({"Action": "DescribeImages", "Colour": "red"}, "UnknownParameter"),
        ({"Action": "DescribeImages", "MaxResults": "many"}, "InvalidParameterValue"),
        ({"Action": "DeleteSnapshot"}, "MissingParameter"),
        ({"Action": "RegisterImage", "Name": "", "RootDeviceName": "/dev/xvda"}, "MissingParameter"),
        ({"Action": "CreateTags", "ResourceId.1": "ami-1"}, "MissingParameter"),
        ({"Action": "DescribeImages", "Filter.1.Name": "name", "Filter.1.Value.1": "<&>"}, None),
        ({"Action": "MakeCoffee<&>"}, "InvalidAction"),
    ],
)
def test_parameters_are_held_against_the_model(raw, form, code):
    status, found, text = raw.ec2(**form)
    assert (status, found) == ((400, code) if code else (200, None)), text


def test_a_request_without_signature_is_refused(raw):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, data = raw.call("POST", "/", "Action=DescribeImages&Version=2016-11-15", headers, service=None)
    assert status == 403
    assert b"<Code>MissingAuthenticationToken</Code>" in data
    status, answered, _ = raw.call("PUT", "/snapshots/snap-1/blocks/0", b"x" * 600_000, service=None)
    assert (status, answered["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")
    assert raw.call("GET", "/_sandbox/status", service=None)[0] == 200  # on the same connection


def test_a_control_request_is_bounded(raw):
    assert raw.ebs("POST", "/snapshots", b" " * (2 << 20))[:2] == (413, "RequestEntityTooLarge")
    assert raw.ebs("POST", "/snapshots", {"VolumeSize": 1})[0] == 201


def test_who_we_are(sandbox):
    identity = sandbox.client("sts").get_caller_identity()
    assert identity["Account"] == "123456789012"
    assert identity["Arn"] == "arn:aws:iam::123456789012:root"


def test_every_call_is_written_down(sandbox, raw, ec2, blocks):
    before = audit.position(sandbox.directory)
    snapshot_id = raw.start()
    raw.put(snapshot_id, 0, blocks(1))
    raw.put(snapshot_id, 9999, blocks(1))
    raw.complete(snapshot_id, 1)
    ec2.describe_images(Owners=["self"])
    raw.ebs("PATCH", "/nowhere")
    expected = [
        ("ebs", "StartSnapshot", 201, ""),
        ("ebs", "PutSnapshotBlock", 201, ""),
        ("ebs", "PutSnapshotBlock", 400, "ValidationException"),
        ("ebs", "CompleteSnapshot", 202, ""),
        ("ec2", "DescribeImages", 200, ""),
        ("ebs", "PATCH /nowhere", 400, "UnsupportedOperation"),
    ]
    calls = list(audit.read_calls(sandbox.directory, start=before))
    assert [(call.service, call.action, call.status, call.error) for call in calls] == expected
    assert {call.region for call in calls} == {"us-east-1"}
    assert calls == sorted(calls, key=lambda call: call.time)
    answer = json.loads(raw.call("GET", f"/_sandbox/calls?from={before}", service=None)[2])
    assert [(one["service"], one["action"], one["status"], one["error"]) for one in answer["calls"]] == expected
    assert answer["next"] == audit.position(sandbox.directory)
    rest = json.loads(raw.call("GET", f"/_sandbox/calls?from={answer['next']}", service=None)[2])
    assert rest == {"calls": [], "next": answer["next"]}


def test_the_set_is_told(raw):
    told = json.loads(raw.call("GET", "/_sandbox/actions", service=None)[2])
    assert {"ebs", "ec2", "s3", "sts"} <= set(told)
    assert sorted(told) == ["ebs", "ec2", "iam", "s3", "ssm", "sts"]
    assert {"StartSnapshot", "PutSnapshotBlock"} <= set(told["ebs"])
    assert {"RegisterImage", "DescribeImages"} <= set(told["ec2"])
    assert raw.call("GET", "/_sandbox/nothing", service=None)[0] == 404
    assert raw.call("GET", "/_sandbox/calls?from=x", service=None)[0] == 400


def test_no_answer_names_an_address_of_others(raw, ec2, completed, sandbox):
    """Every call of the set, answered or refused: what looks like an IPv4 address is in 127/8, or means anybody."""
    told = json.loads(raw.call("GET", "/_sandbox/actions", service=None)[2])
    texts = [raw.ec2(Action=action)[2] for action in told["ec2"]]
    texts += [str(ec2.describe_regions()), str(ec2.describe_images()), str(ec2.describe_snapshots())]
    texts += [(sandbox.directory / audit.FILE).read_text()]
    assert len(texts) > 10
    found = {address for text in texts for address in re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b(?:/\d+)?", text)}
    assert {address for address in found if not address.startswith("127.")} == {"0.0.0.0/0"}
    assert "127.0.0.1" in found
