"""Signatures are verified: by botocore's signers as a user would, and each way to be wrong in each service's words."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import quote, urlencode, urlsplit

import botocore.auth  # noqa: TID251 - the signers that users bring
import pytest
from botocore.awsrequest import AWSRequest  # noqa: TID251 - as above
from botocore.credentials import Credentials  # noqa: TID251 - as above

from builder.cloud.sigv4 import Keys
from builder.sandbox.access import streaming
from builder.sandbox.access.verify import signing_key
from builder.sandbox.wire import Denied, Signature

SIGNATURES = "Access: signatures"
MISSING = [
    (SIGNATURES, "Signature Version 4A (AWS4-ECDSA-P256-SHA256)", "refused as malformed: one port is all regions"),
]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DESCRIBE = "Action=DescribeImages&Version=2016-11-15&Owner.1=self"


def code(answer):
    status, headers, data = answer
    found = re.search(rb"<Code>(.*?)</Code>", data) or re.search(rb'"__type": ?"([^"]*)"', data)
    return status, headers.get("x-amzn-ErrorType") or (found and found[1].decode())


# One call of each protocol: service, method, path, body, headers
CALLS = {
    "ec2": ("POST", "/", DESCRIBE, FORM),
    "sts": ("POST", "/", "Action=GetCallerIdentity&Version=2011-06-15", FORM),
    "ebs": ("GET", "/snapshots/snap-0123456789abcdef0/blocks", "", {}),
    "s3": ("GET", "/", "", {}),
    "ssm": ("POST", "/", "{}", {"X-Amz-Target": "AmazonSSM.DescribeParameters"}),
}
WRONG = {
    "unknown key": {
        "ec2": (401, "AuthFailure"),
        "sts": (403, "InvalidClientTokenId"),
        "ebs": (403, "UnrecognizedClientException"),
        "s3": (403, "InvalidAccessKeyId"),
        "ssm": (400, "UnrecognizedClientException"),
    },
    "wrong secret": {
        "ec2": (401, "AuthFailure"),
        "sts": (403, "SignatureDoesNotMatch"),
        "ebs": (403, "InvalidSignatureException"),
        "s3": (403, "SignatureDoesNotMatch"),
        "ssm": (400, "InvalidSignatureException"),
    },
    "a token of nobody": {
        "ec2": (401, "AuthFailure"),
        "sts": (403, "InvalidClientTokenId"),
        "ebs": (403, "UnrecognizedClientException"),
        "s3": (400, "InvalidToken"),
        "ssm": (400, "UnrecognizedClientException"),
    },
    "no signature": {
        "ec2": (403, "MissingAuthenticationToken"),
        "sts": (403, "MissingAuthenticationToken"),
        "ebs": (403, "MissingAuthenticationTokenException"),
        "ssm": (400, "MissingAuthenticationTokenException"),
    },
}


@pytest.mark.behaviour(
    SIGNATURES,
    "every call",
    "an unknown access key, a wrong secret, a session token that belongs to nobody and no signature at all are each "
    "refused with the service's own code and status",
)
@pytest.mark.parametrize(
    ("trouble", "service"), [(trouble, service) for trouble in WRONG for service in WRONG[trouble]]
)
def test_each_service_refuses_in_its_own_words(sandbox, trouble, service):
    key, secret = sandbox.endpoint.access_key, sandbox.endpoint.secret_key
    keys = {
        "unknown key": Keys(access_key="AKIAIOSFODNN7EXAMPLE", secret_key=secret),
        "wrong secret": Keys(access_key=key, secret_key=secret + "x"),
        "a token of nobody": Keys(access_key=key, secret_key=secret, token="FwoGZXIvYXdzEBYaD"),
    }.get(trouble)
    right, wrong = sandbox.raw(), sandbox.raw(keys=keys)
    method, path, body, headers = CALLS[service]
    asked = service if keys else None
    assert code(wrong.call(method, path, body, headers, service=asked)) == WRONG[trouble][service]
    assert code(right.call(method, path, body, headers, service=service)) not in WRONG[trouble].values()


SKEWED = {
    "ec2": (400, "RequestExpired"),
    "sts": (403, "SignatureDoesNotMatch"),
    "ebs": (403, "InvalidSignatureException"),
    "s3": (403, "RequestTimeTooSkewed"),
    "ssm": (400, "InvalidSignatureException"),
}


def signed(sandbox, service, *, at=None, signer=botocore.auth.SigV4Auth, url="/", method="GET", body=b"", headers=None):
    """Return (method, path, body, headers) as botocore's signer leaves the request, made at a time of our own."""
    keys = Credentials(sandbox.endpoint.access_key, sandbox.endpoint.secret_key)
    request = AWSRequest(method, sandbox.endpoint.url + url, headers=headers or {}, data=body)
    real, botocore.auth.get_current_datetime = botocore.auth.get_current_datetime, lambda: at or real()
    try:
        signer(keys, service, "us-east-1").add_auth(request)
    finally:
        botocore.auth.get_current_datetime = real
    parts = urlsplit(request.url)
    return method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, dict(request.headers)


@pytest.mark.behaviour(SIGNATURES, "every call", "a clock 16 minutes off is refused in either direction with the "
                       "service's own code, one 14 minutes off is not")  # fmt: skip
@pytest.mark.parametrize("service", SKEWED)
def test_a_clock_may_be_a_quarter_of_an_hour_off(sandbox, raw, service):
    method, url, body, headers = CALLS[service]
    signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    for minutes in (-16, 16, -14, 14):
        at = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=minutes)
        call = signed(
            sandbox, service, at=at, signer=signer, url=url, method=method, body=body.encode(), headers=headers
        )
        assert (code(raw.call(*call, service=None)) == SKEWED[service]) == (abs(minutes) > 15)


@pytest.mark.behaviour(SIGNATURES, "a presigned request", "is answered until its X-Amz-Expires has passed, and only as "
                       "it was signed: another parameter makes it a mismatch")  # fmt: skip
def test_a_presigned_request(sandbox, raw):
    url = "/?" + DESCRIBE
    now = datetime.now(UTC).replace(tzinfo=None)
    for ago, expected in ((0, (200, None)), (59, (200, None)), (70, (400, "RequestExpired"))):
        at, signer = now - timedelta(seconds=ago), partial(botocore.auth.SigV4QueryAuth, expires=65)
        _, path, _, _ = signed(sandbox, "ec2", at=at, url=url, signer=signer)
        answer = raw.call("GET", path, service=None)
        assert code(answer) == expected
    _, path, _, _ = signed(sandbox, "ec2", url=url, signer=botocore.auth.SigV4QueryAuth)
    assert code(raw.call("GET", path.replace("Owner.1=self", "Owner.1=amazon"), service=None)) == (401, "AuthFailure")
    assert b"DescribeImagesResponse" in raw.call("GET", path, service=None)[2]
    with_none = path.replace("X-Amz-Expires=3600", "X-Amz-Expires=0")
    assert code(raw.call("GET", with_none, service=None)) == (400, "IncompleteSignature")


@pytest.mark.behaviour(SIGNATURES, "a presigned GetCallerIdentity", "is answered, as those do who hand one on to prove "
                       "who they are")  # fmt: skip
def test_a_presigned_identity(sandbox, raw):
    path = "/?Action=GetCallerIdentity&Version=2011-06-15"
    _, path, _, _ = signed(sandbox, "sts", url=path, signer=botocore.auth.SigV4QueryAuth)
    assert b"<Account>123456789012</Account>" in raw.call("GET", path, service=None)[2]


@pytest.mark.behaviour(
    SIGNATURES,
    "Signature Version 2",
    "EC2's query API answers what Eucalyptus-era tools sign, with HmacSHA256 and HmacSHA1; one other parameter makes "
    "it AuthFailure",
)
@pytest.mark.parametrize("method", ["HmacSHA256", "HmacSHA1"])
def test_version_2(sandbox, raw, method):
    form = _version_2(sandbox, method, {"Action": "DescribeImages", "Version": "2014-10-01", "Filter.1.Name": "name",
                                        "Filter.1.Value.1": "a b*~ü"})  # fmt: skip
    assert code(raw.call("POST", "/", urlencode(form), FORM, service=None)) == (200, None)
    assert code(raw.call("GET", "/?" + urlencode({**form, "Owner.1": "self"}), service=None)) == (401, "AuthFailure")
    old = _version_2(sandbox, method, {"Action": "DescribeImages", "Version": "2014-10-01"}, ago=1000)
    assert code(raw.call("POST", "/", urlencode(old), FORM, service=None)) == (400, "RequestExpired")


def _version_2(sandbox, method, parameters, ago=0):
    """Sign as botocore's SigV2Auth does, whose only method is HmacSHA256, and by hand with the older one."""
    stamp = (datetime.now(UTC) - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    form = {**parameters, "AWSAccessKeyId": sandbox.endpoint.access_key, "SignatureVersion": "2",
            "SignatureMethod": method, "Timestamp": stamp}  # fmt: skip
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(form[name], safe='-_.~')}" for name in sorted(form))
    text = f"POST\n{urlsplit(sandbox.endpoint.url).netloc}\n/\n{query}"
    digest = hmac.digest(sandbox.endpoint.secret_key.encode(), text.encode(), method[4:].lower())
    return {**form, "Signature": base64.b64encode(digest).decode()}


@pytest.mark.behaviour(
    SIGNATURES,
    "every call over S3, EBS direct and the query protocols",
    "paths and queries with spaces, plus signs, slashes and letters beyond ASCII are verified as botocore signs them",
)
@pytest.mark.parametrize("path", ["/bucket/a b+c~é/(x)", "/bucket//double", "/bucket/a%2Fb", "/bucket/./dot"])
def test_paths_as_botocore_signs_them(sandbox, raw, path):
    sent = quote(path, safe="/~%")
    for service, signer in (("s3", botocore.auth.S3SigV4Auth), ("lambda", botocore.auth.SigV4Auth)):
        query = urlencode({"list-type": "2", "prefix": "a+b c/é", "empty": ""}, quote_via=quote)
        call = signed(sandbox, service, url=f"{sent}?{query}", signer=signer)
        answer = code(raw.call(*call, service=None))
        assert answer[1] not in {"SignatureDoesNotMatch", "InvalidSignatureException"}, answer
        changed = (call[0], call[1].replace("list-type=2", "list-type=3"), *call[2:])
        assert code(raw.call(*changed, service=None))[1] in {"SignatureDoesNotMatch", "InvalidSignatureException"}


@pytest.mark.behaviour(
    SIGNATURES,
    "PutSnapshotBlock",
    "a body hash that is stated, or signed without being stated, is held against the block's bytes; UNSIGNED-PAYLOAD "
    "leaves it to the block's own checksum; no wrong block is kept",
)
def test_a_blocks_hash_is_held_against_its_bytes(sandbox, raw, blocks, headers_for):
    snapshot_id = raw.start()
    path = f"/snapshots/{snapshot_id}/blocks/0"
    right, other = blocks(1), blocks(2)
    unstated = signed(sandbox, "ebs", url=path, method="PUT", body=right, headers=headers_for(right))
    assert "X-Amz-Content-SHA256" not in unstated[3]  # botocore over plain http
    assert code(raw.call("PUT", path, other, unstated[3], service=None)) == (403, "InvalidSignatureException")
    stated = {**headers_for(other), "X-Amz-Content-SHA256": hashlib.sha256(right).hexdigest()}
    call = signed(sandbox, "ebs", url=path, method="PUT", body=right, headers=stated)
    assert code(raw.call("PUT", path, other, call[3], service=None)) == (403, "InvalidSignatureException")
    wrong_checksum = signed(sandbox, "ebs", url=path, method="PUT", body=right, headers=headers_for(other))
    assert code(raw.call(*wrong_checksum, service=None)) == (400, "ValidationException")
    assert raw.complete(snapshot_id, 0)[0] == 202  # nothing was kept
    again = raw.start()
    path = f"/snapshots/{again}/blocks/0"
    assert raw.call(*signed(sandbox, "ebs", url=path, method="PUT", body=right, headers=headers_for(right)),
                    service=None)[0] == 201  # fmt: skip
    assert raw.complete(again, 1)[0] == 202
    raw.wait(again)
    assert raw.read(again) == {0: right}


@pytest.mark.behaviour(
    SIGNATURES, "calls of the query protocol", "a body that is not what its stated hash says is refused as a mismatch"
)
def test_a_form_is_held_against_its_hash(sandbox, raw):
    stated = {**FORM, "X-Amz-Content-SHA256": hashlib.sha256(DESCRIBE.encode()).hexdigest()}
    call = signed(sandbox, "ec2", method="POST", body=DESCRIBE.encode(), headers=stated)
    assert raw.call(*call, service=None)[0] == 200
    assert code(raw.call("POST", "/", DESCRIBE + "&x=y", call[3], service=None)) == (401, "AuthFailure")


HEADERS = [
    ("Authorization", "Basic eDp5", "IncompleteSignature"),
    ("Authorization", "AWS AKIAIOSFODNN7EXAMPLE:frJIUN8DYpKDtOLCwo", "IncompleteSignature"),
    ("Authorization", "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/ec2/aws4_request", "IncompleteSignature"),
    ("X-Amz-Date", "yesterday", "IncompleteSignature"),
    ("X-Amz-Date", "20200101T000000Z", "IncompleteSignature"),  # another day than the scope's
]


@pytest.mark.parametrize(("name", "value", "expected"), HEADERS)
def test_a_signature_that_cannot_be_read(sandbox, raw, name, value, expected):
    _, _, body, headers = signed(sandbox, "ec2", method="POST", body=DESCRIBE.encode(), headers=FORM)
    assert code(raw.call("POST", "/", body, headers, service=None)) == (200, None)
    assert code(raw.call("POST", "/", body, {**headers, name: value}, service=None)) == (400, expected)


def test_the_host_must_be_signed(sandbox, raw):
    _, _, body, headers = signed(sandbox, "sts", method="POST", body=CALLS["sts"][2].encode(), headers=FORM)
    unsigned = headers["Authorization"].replace(";host", "").replace("host;", "")
    assert unsigned != headers["Authorization"]
    answer = raw.call("POST", "/", body, {**headers, "Authorization": unsigned}, service=None)
    assert code(answer) == (403, "SignatureDoesNotMatch")


@pytest.mark.behaviour(
    SIGNATURES,
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "the chunk signatures of the S3 API reference's own example verify in order; another chunk, or another order, does "
    "not",
)
def test_chunk_signatures_of_the_reference():
    """The example of "Transferring payload in multiple chunks": 66,560 letters a, in two chunks and the last one."""
    key = signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3")
    seed = Signature(
        payload=streaming.SIGNED,
        key=key,
        stamp="20130524T000000Z",
        scope="20130524/us-east-1/s3/aws4_request",
        value="4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    )
    given = [
        ("ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648", 65536),
        ("0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497", 1024),
        ("b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9", 0),
    ]
    chunks = streaming.Chunks(seed)
    for signature, count in given:
        chunks.check(signature, hashlib.sha256(b"a" * count).hexdigest())
    for signature, count in (given[1], (given[0][0], 65535)):
        with pytest.raises(Denied):
            streaming.Chunks(seed).check(signature, hashlib.sha256(b"a" * count).hexdigest())


@pytest.mark.behaviour(
    SIGNATURES,
    "a presigned request of S3",
    "after its end AccessDenied, as is a header x-amz-… beside it that was not signed",
)
def test_a_presigned_object(sandbox, raw):
    sandbox.client("s3").create_bucket(Bucket="presigned")
    sandbox.client("s3").put_object(Bucket="presigned", Key="a b", Body=b"bytes")
    now = datetime.now(UTC).replace(tzinfo=None)
    for ago, expected in ((0, 200), (70, 403)):
        at, signer = now - timedelta(seconds=ago), partial(botocore.auth.S3SigV4QueryAuth, expires=65)
        _, path, _, _ = signed(sandbox, "s3", at=at, url="/presigned/a%20b", signer=signer)
        answer = raw.call("GET", path, service=None)
        assert answer[0] == expected
        assert (answer[2] == b"bytes") == (expected == 200)
        assert code(answer)[1] == (None if expected == 200 else "AccessDenied")
    _, path, _, _ = signed(sandbox, "s3", url="/presigned/a%20b", signer=botocore.auth.S3SigV4QueryAuth)
    assert raw.call("GET", path, service=None)[0] == 200
    unsigned = {"x-amz-checksum-mode": "ENABLED"}
    assert code(raw.call("GET", path, b"", unsigned, service=None)) == (403, "AccessDenied")


@pytest.mark.behaviour(SIGNATURES, "a presigned request of S3", "x-amz-… parameters of the URL count as headers, as "
                       "the Go and JavaScript SDKs write them there")  # fmt: skip
def test_headers_in_a_presigned_url(sandbox, raw):
    s3 = sandbox.client("s3")
    s3.create_bucket(Bucket="moved")
    query = urlencode({"x-amz-meta-one": "a b", "x-amz-tagging": "c=d", "x-amz-checksum-crc32": "AAAAAA=="})
    signer = botocore.auth.S3SigV4QueryAuth
    _, path, _, _ = signed(sandbox, "s3", url=f"/moved/k?{query}", method="PUT", signer=signer)
    assert code(raw.call("PUT", path.replace("c%3Dd", "c%3De"), b"", service=None)) == (403, "SignatureDoesNotMatch")
    assert code(raw.call("PUT", path, b"bytes", service=None)) == (400, "BadDigest")  # the checksum is of nothing
    assert "Contents" not in s3.list_objects_v2(Bucket="moved")
    assert raw.call("PUT", path, b"", service=None)[0] == 200
    assert s3.head_object(Bucket="moved", Key="k")["Metadata"] == {"one": "a b"}
    assert s3.get_object_tagging(Bucket="moved", Key="k")["TagSet"] == [{"Key": "c", "Value": "d"}]


@pytest.mark.parametrize(
    ("service", "expected"), [("s3", (400, "InvalidArgument")), ("ebs", (403, "InvalidSignatureException"))]
)
def test_a_payload_hash_that_is_none(sandbox, raw, service, expected):
    """Signed as stated, so that only the word itself is wrong: it would leave the body unchecked."""
    method, url, _, _ = CALLS[service]
    headers = {"X-Amz-Content-SHA256": "anything"}
    call = signed(sandbox, service, url=url, method=method, headers=headers)
    assert code(raw.call(*call, service=None)) == expected
