"""S3's Signature Version 2, as boto3 signs with it by name and presigns by default: taken when right, by effect."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import re
import time
from email.utils import formatdate
from urllib.parse import quote, urlencode, urlsplit

import pytest
from botocore.config import Config  # noqa: TID251 - the client that users bring

from builder.sandbox import lifecycle

SIGNATURES = "Access: signatures"
HEADER, QUERY = "Signature Version 2 of S3, header", "Signature Version 2 of S3, presigned"
MISSING = [
    (SIGNATURES, "Signature Version 2 over a path /snapshots/snap-…", "taken for a call of EBS direct, and refused"),
]  # fmt: skip
_NUMBERS = itertools.count()
KEYS = ["plain", "a b", "ü/日本", "a+b", "a%2Fb", "q?x=1&acl", "~!*'()", "double//slash", "snapshots/of mine"]


@pytest.fixture(scope="module")
def old(sandbox):
    """S3 of a client that signs with Version 2."""
    return old_client(sandbox)


def old_client(sandbox, **options):
    return sandbox.client("s3", config=Config(signature_version="s3", retries={"total_max_attempts": 1}), **options)


@pytest.fixture(scope="module")
def presigner(sandbox):
    """S3 of a client that is told nothing of signatures."""
    return sandbox.client("s3")


@pytest.fixture
def bucket(old):
    name = f"version-2-{next(_NUMBERS)}"
    old.create_bucket(Bucket=name)
    return name


def fetch(url, method="GET", body=None, headers=None):
    """Return (status, error code, headers, body) of one request, with no header of the client's own but its Host."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers or {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    code = re.search(rb"<Code>(.*?)</Code>", data)
    return answer.status, code and code[1].decode(), answer.headers, data


def by_hand(sandbox, resource, method="GET", *, secret=None, headers=None):
    """Return headers signed as the user guide says it, `resource` and the headers being what is signed."""
    headers = {"Date": formatdate(usegmt=True), **(headers or {})}
    low = {name.lower(): value for name, value in headers.items()}
    date = "" if "x-amz-date" in low else low["date"]
    amz = "".join(f"{name}:{low[name]}\n" for name in sorted(low) if name.startswith("x-amz-"))
    text = f"{method}\n{low.get('content-md5', '')}\n{low.get('content-type', '')}\n{date}\n{amz}{resource}"
    digest = hmac.digest((secret or sandbox.endpoint.secret_key).encode(), text.encode(), "sha1")
    return {**headers, "Authorization": f"AWS {sandbox.endpoint.access_key}:{base64.b64encode(digest).decode()}"}


@pytest.mark.behaviour(
    SIGNATURES, HEADER, "what boto3 puts with signature_version s3 comes back, under keys that need encoding too, "
                        "with metadata, tags, in parts, and deleted many at a time"
)  # fmt: skip
@pytest.mark.parametrize("key", KEYS)
def test_boto3_with_version_2(sandbox, bucket, key):
    sent, old = [], old_client(sandbox)
    old.meta.events.register("before-send.s3", lambda request, **_: sent.append(dict(request.headers)))
    data = key.encode() * 1000
    old.put_object(Bucket=bucket, Key=key, Body=data, Metadata={"one": "two  three"}, ContentType="a/b")
    got = old.get_object(Bucket=bucket, Key=key, ResponseContentDisposition="attachment; filename=a b+c.txt")
    assert got["Body"].read() == data
    assert (got["Metadata"], got["ContentType"]) == ({"one": "two  three"}, "a/b")
    assert got["ContentDisposition"] == "attachment; filename=a b+c.txt"
    old.put_object_tagging(Bucket=bucket, Key=key, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert old.get_object_tagging(Bucket=bucket, Key=key)["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert [one["Key"] for one in old.list_objects_v2(Bucket=bucket, Prefix=key[0])["Contents"]] == [key]
    upload = old.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    named = {"Bucket": bucket, "Key": key, "UploadId": upload}
    part = old.upload_part(**named, PartNumber=1, Body=b"part")["ETag"]
    old.complete_multipart_upload(**named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
    assert old.get_object(Bucket=bucket, Key=key)["Body"].read() == b"part"
    old.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]})
    assert "Contents" not in old.list_objects_v2(Bucket=bucket)
    assert all(re.match(rb"AWS [A-Z0-9]+:", one["Authorization"]) for one in sent)
    assert len(sent) == 11


@pytest.mark.behaviour(
    SIGNATURES, HEADER, "the bucket's name counts when the Host header has it, and the path does not"
)
def test_virtual_host_style(sandbox, old, bucket):
    old.put_object(Bucket=bucket, Key="a b", Body=b"bytes")
    url = sandbox.endpoint.url
    host = f"{bucket}.s3.localhost:{urlsplit(url).port}"
    for path, resource, expected in (
        ("/a%20b", f"/{bucket}/a%20b", b"bytes"),
        ("/", f"/{bucket}/", b"ListBucketResult"),
        ("/?acl", f"/{bucket}/?acl", b"AccessControlPolicy"),
        ("/?acl=", f"/{bucket}/?acl", b"AccessControlPolicy"),
    ):
        right = fetch(url + path, headers={"Host": host, **by_hand(sandbox, resource)})
        assert expected in right[3]
        wrong = fetch(url + path, headers={"Host": host, **by_hand(sandbox, path)})
        assert wrong[:2] == (403, "SignatureDoesNotMatch")


# What was signed, and what is sent in its place
CHANGES = [
    ({}, {}, None),
    ({"secret": "not the secret"}, {}, "SignatureDoesNotMatch"),
    ({}, {"method": "DELETE"}, "SignatureDoesNotMatch"),
    ({}, {"path": "/other"}, "SignatureDoesNotMatch"),
    ({}, {"path": "?tagging"}, "SignatureDoesNotMatch"),
    ({}, {"path": "?response-content-type=x/y"}, "SignatureDoesNotMatch"),
    ({"query": "?response-content-type=x/y"}, {"path": "?response-content-type=x%2Fy"}, None),
    ({"query": "?response-content-type=x/y"}, {"path": "?response-content-type=x%2Fz"}, "SignatureDoesNotMatch"),
    ({}, {"path": "?x-id=GetObject"}, None),  # of no account, and never signed
    ({}, {"headers": {"x-amz-meta-a": "b"}}, "SignatureDoesNotMatch"),
    ({}, {"headers": {"Content-Type": "a/b"}}, "SignatureDoesNotMatch"),
    ({}, {"headers": {"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}}, "SignatureDoesNotMatch"),
    ({"headers": {"x-amz-meta-a": "b"}}, {"headers": {"x-amz-meta-a": "c"}}, "SignatureDoesNotMatch"),
    ({}, {"minutes": -1}, "SignatureDoesNotMatch"),  # another Date, told when the test runs
    ({}, {"headers": {"Range": "bytes=0-1"}}, None),
]


@pytest.mark.behaviour(
    SIGNATURES,
    HEADER,
    "a wrong secret, another method, key, sub-resource, response-…, x-amz-… header, Content-Type, Content-MD5 or Date "
    "than was signed: SignatureDoesNotMatch; what is not signed may change",
)
@pytest.mark.parametrize(("signed", "sent", "expected"), CHANGES)
def test_what_was_signed_counts(sandbox, old, bucket, signed, sent, expected):
    old.put_object(Bucket=bucket, Key="key", Body=b"bytes")
    headers = by_hand(
        sandbox, f"/{bucket}/key{signed.get('query', '')}", secret=signed.get("secret"), headers=signed.get("headers")
    )
    if "minutes" in sent:
        headers["Date"] = formatdate(time.time() + 60 * sent["minutes"], usegmt=True)
    url = f"{sandbox.endpoint.url}/{bucket}/key{sent.get('path', '')}"
    status, code, _, data = fetch(url, sent.get("method", "GET"), headers={**headers, **sent.get("headers", {})})
    assert code == expected
    assert b"bytes".startswith(data) == (expected is None)
    assert status == (403 if expected else 206 if "Range" in sent.get("headers", {}) else 200)
    assert old.get_object(Bucket=bucket, Key="key")["Body"].read() == b"bytes"


@pytest.mark.behaviour(SIGNATURES, HEADER, "a clock 16 minutes off: RequestTimeTooSkewed; x-amz-date counts before "
                       "Date; without either AccessDenied, without a colon InvalidArgument")  # fmt: skip
def test_the_clock(sandbox):
    def listed(headers):
        return fetch(sandbox.endpoint.url + "/", headers=headers)[:2]

    for minutes in (-16, 16, -14, 14):
        date = formatdate(time.time() + minutes * 60, usegmt=True)
        expected = (200, None) if abs(minutes) < 15 else (403, "RequestTimeTooSkewed")
        assert listed(by_hand(sandbox, "/", headers={"Date": date})) == expected
        assert listed(by_hand(sandbox, "/", headers={"x-amz-date": date})) == expected
    off, now = formatdate(0, usegmt=True), formatdate(usegmt=True)
    assert listed(by_hand(sandbox, "/", headers={"Date": off, "x-amz-date": now})) == (200, None)
    assert listed(by_hand(sandbox, "/", headers={"Date": now, "x-amz-date": off})) == (403, "RequestTimeTooSkewed")
    assert listed(by_hand(sandbox, "/", headers={"Date": ""})) == (403, "AccessDenied")
    assert listed(by_hand(sandbox, "/", headers={"Date": "yesterday"})) == (403, "AccessDenied")
    assert listed({"Authorization": "AWS nothing", "Date": now}) == (400, "InvalidArgument")
    assert listed({"Authorization": "AWS AKIAIOSFODNN7EXAMPLE:x", "Date": now}) == (403, "InvalidAccessKeyId")


@pytest.mark.behaviour(
    SIGNATURES,
    QUERY,
    "what boto3 presigns unless told otherwise puts, gets, heads and deletes for a client that signs nothing, under "
    "keys that need encoding",
)
@pytest.mark.parametrize("key", KEYS)
def test_presigned_by_default(presigner, bucket, key):
    def url(call, **more):
        made = presigner.generate_presigned_url(call, Params={"Bucket": bucket, "Key": key, **more})
        assert "AWSAccessKeyId=" in made
        return made

    data = key.encode() * 10_000
    assert fetch(url("put_object"), "PUT", data)[:2] == (200, None)
    assert presigner.get_object(Bucket=bucket, Key=key)["Body"].read() == data
    assert fetch(url("get_object"))[3] == data
    typed = fetch(url("get_object", ResponseContentType="x/y", ResponseContentDisposition="inline; filename=a b&c"))
    assert (typed[2]["Content-Type"], typed[2]["Content-Disposition"]) == ("x/y", "inline; filename=a b&c")
    assert fetch(url("head_object"), "HEAD")[2]["Content-Length"] == str(len(data))
    assert fetch(url("delete_object"), "DELETE")[0] == 204
    assert fetch(url("get_object"))[:2] == (404, "NoSuchKey")


@pytest.mark.behaviour(
    SIGNATURES,
    QUERY,
    "a Content-Type or Content-MD5 that was signed must be sent; x-amz-… parameters of the URL count as headers",
)
def test_presigned_headers(presigner, bucket):
    right = base64.b64encode(hashlib.md5(b"bytes").digest()).decode()
    put = presigner.generate_presigned_url(
        "put_object",
        Params={"Bucket": bucket, "Key": "k", "ContentType": "a/b", "ContentMD5": right, "Metadata": {"one": "two"}},
    )
    headers = {"Content-Type": "a/b", "Content-MD5": right}
    for wrong in ({}, {**headers, "Content-Type": "a/c"}, {"Content-Type": "a/b"}, {**headers, "x-amz-acl": "private"},
                  {**headers, "x-amz-meta-one": "three"}):  # fmt: skip
        assert fetch(put, "PUT", b"bytes", wrong)[:2] == (403, "SignatureDoesNotMatch")
    assert fetch(put, "PUT", b"other", headers)[:2] == (400, "BadDigest")
    assert "Contents" not in presigner.list_objects_v2(Bucket=bucket)
    assert fetch(put, "PUT", b"bytes", headers)[:2] == (200, None)
    found = presigner.head_object(Bucket=bucket, Key="k")
    assert (found["Metadata"], found["ContentType"], found["ContentLength"]) == ({"one": "two"}, "a/b", 5)


@pytest.mark.behaviour(
    SIGNATURES,
    QUERY,
    "after Expires AccessDenied with `Request has expired`; another Expires, key, method, version or response-… than "
    "was signed: SignatureDoesNotMatch; without one of its three parameters AccessDenied",
)
def test_presigned_and_bent(sandbox, presigner, bucket):
    presigner.put_object(Bucket=bucket, Key="k", Body=b"bytes")
    where = {"Bucket": bucket, "Key": "k"}
    url = presigner.generate_presigned_url("get_object", Params=where)
    assert fetch(url)[3] == b"bytes"
    late = presigner.generate_presigned_url("get_object", Params=where, ExpiresIn=-1)
    status, code, _, data = fetch(late)
    assert (status, code) == (403, "AccessDenied")
    assert b"<Message>Request has expired</Message>" in data
    expires = re.search(r"Expires=(\d+)", late)[1]
    for bent in (
        late.replace(expires, str(int(expires) + 1000)),
        url.replace("/k?", "/l?"),
        url + "&versionId=null",
        url + "&response-content-type=x%2Fy",
        re.sub("Signature=...", "Signature=abc", url),
    ):
        assert fetch(bent)[:2] == (403, "SignatureDoesNotMatch")
    assert fetch(url, "DELETE")[:2] == (403, "SignatureDoesNotMatch")
    for name in ("AWSAccessKeyId", "Signature", "Expires"):
        less = re.sub(rf"{name}=[^&]*&?", "", url)
        assert fetch(less)[:2] == (403, "AccessDenied")
    assert fetch(url.replace("Expires=", "Expires=x"))[:2] == (403, "AccessDenied")
    liar = sandbox.client("s3", aws_secret_access_key="not the secret")
    assert fetch(liar.generate_presigned_url("get_object", Params=where))[:2] == (403, "SignatureDoesNotMatch")
    assert fetch(url)[3] == b"bytes"


@pytest.mark.behaviour(
    SIGNATURES, "Signature Version 2 of S3, sessions", "the session's token counts as a header and in a URL: without "
    "it, or with another, InvalidToken, and nothing is read"
)  # fmt: skip
def test_sessions(sandbox, old, bucket):
    old.put_object(Bucket=bucket, Key="k", Body=b"bytes")
    given = sandbox.client("sts").get_session_token()["Credentials"]
    keys = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"]}
    where = {"Bucket": bucket, "Key": "k"}
    mine = {**keys, "aws_session_token": given["SessionToken"]}
    assert old_client(sandbox, **mine).get_object(**where)["Body"].read() == b"bytes"
    url = sandbox.client("s3", **mine).generate_presigned_url("get_object", Params=where)
    assert fetch(url)[3] == b"bytes"
    token = quote(given["SessionToken"], safe="-_.~")
    assert token in url
    assert fetch(url.replace(token, "x" + token))[:2] == (400, "InvalidToken")
    for wrong in ({}, {"aws_session_token": "x"}):
        liar = sandbox.client("s3", **keys, **wrong)
        assert fetch(liar.generate_presigned_url("get_object", Params=where))[:2] == (400, "InvalidToken")


@pytest.mark.behaviour(
    SIGNATURES,
    "Signature Version 2 of S3, regions",
    "it names no region, so a bucket is answered for wherever it is; CreateBucket makes one in any, us-east-1 when "
    "none is said",
)
def test_every_region(sandbox, old):
    for number, region in enumerate((None, "eu-west-1", "ap-southeast-2")):
        place = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region else {}
        client = old_client(sandbox, region_name=region or "sa-east-1")
        name = f"placed-{number}"
        client.create_bucket(Bucket=name, **place)
        assert old.head_bucket(Bucket=name)["BucketRegion"] == (region or "us-east-1")
        client.put_object(Bucket=name, Key="k", Body=b"bytes")
        assert old.get_object(Bucket=name, Key="k")["Body"].read() == b"bytes"
        presigned = old.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "k"})
        assert fetch(presigned)[3] == b"bytes"


@pytest.mark.behaviour(
    SIGNATURES, "Signature Version 2 of S3, policies", "a bucket policy on s3:signatureversion refuses Version 2 and "
    "lets Version 4 through; one on s3:authType refuses presigned URLs"
)  # fmt: skip
@pytest.mark.parametrize(
    ("key", "value", "refused"),
    [("s3:signatureversion", "AWS", {"header", "url"}), ("s3:authType", "REST-QUERY-STRING", {"url"})],
)
def test_policies_know_the_version(sandbox, old, bucket, key, value, refused):
    new = sandbox.client("s3", config=Config(signature_version="s3v4"))
    new.put_object(Bucket=bucket, Key="k", Body=b"bytes")
    denied = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*",
              "Condition": {"StringEquals": {key: value}}}  # fmt: skip
    new.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [denied]}))
    assert new.get_object(Bucket=bucket, Key="k")["Body"].read() == b"bytes"
    by_header = fetch(f"{sandbox.endpoint.url}/{bucket}/k", headers=by_hand(sandbox, f"/{bucket}/k"))
    by_url = fetch(old.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))
    assert {name for name, one in (("header", by_header), ("url", by_url)) if one[1] == "AccessDenied"} == refused
    assert all((one[3] == b"bytes") == (one[1] is None) for one in (by_header, by_url))


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
OTHERS = [
    ("POST", "/", "Action=DescribeImages&Version=2016-11-15", FORM, b"IncompleteSignature"),
    ("GET", "/?Action=GetCallerIdentity&Version=2011-06-15", "", {}, b"IncompleteSignature"),
    ("POST", "/", "Action=ListUsers&Version=2010-05-08", FORM, b"IncompleteSignature"),
    ("GET", "/snapshots/snap-0123456789abcdef0/blocks", "", {}, b"IncompleteSignatureException"),
    ("POST", "/snapshots", '{"VolumeSize": 1}', {}, b"IncompleteSignatureException"),
    ("POST", "/", "{}", {"X-Amz-Target": "AmazonSSM.DescribeParameters"}, b"IncompleteSignatureException"),
]


@pytest.mark.behaviour(SIGNATURES, "Signature Version 2 of S3, other services", "EC2, STS, IAM, EBS direct and SSM "
                       "refuse S3's forms of it as incomplete")  # fmt: skip
@pytest.mark.parametrize(("method", "path", "body", "headers", "expected"), OTHERS)
def test_other_services_refuse_it(sandbox, method, path, body, headers, expected):
    signed = by_hand(sandbox, path, method, headers=headers)
    answer = fetch(sandbox.endpoint.url + path, method, body, signed)
    assert answer[0] in {400, 403}
    assert expected in answer[3] + answer[2].get("x-amzn-ErrorType", "").encode()


def test_a_bucket_named_as_the_paths_of_ebs(sandbox, old):
    old.create_bucket(Bucket="snapshots")
    old.put_object(Bucket="snapshots", Key="of mine", Body=b"bytes")
    assert [one["Key"] for one in old.list_objects(Bucket="snapshots")["Contents"]] == ["of mine"]
    url = old.generate_presigned_url("get_object", Params={"Bucket": "snapshots", "Key": "of mine"})
    assert fetch(url)[3] == b"bytes"
    assert fetch(f"{sandbox.endpoint.url}/snapshots/of%20mine")[:2] == (403, "AccessDenied")  # S3's, unsigned


def test_a_user_without_permission_is_refused(sandbox, bucket):
    """The signature says who it is, not what they may."""
    iam = sandbox.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    url = sandbox.client("s3", **keys).generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"})
    assert fetch(url, "PUT", b"bytes")[:2] == (403, "AccessDenied")
    other = lifecycle.add_account(sandbox.directory, "other")
    keys = {"aws_access_key_id": other.access_key, "aws_secret_access_key": other.secret_key}
    assert old_client(sandbox, **keys).list_buckets()["Buckets"] == []
    assert bucket in [one["Name"] for one in old_client(sandbox).list_buckets()["Buckets"]]


def test_a_body_is_held_against_a_stated_hash(sandbox, old, bucket):
    """Not of this process, but signed as every x-amz-… header is."""
    for data, expected in ((b"other", (400, "XAmzContentSHA256Mismatch")), (b"bytes", (200, None))):
        headers = {"x-amz-content-sha256": hashlib.sha256(b"bytes").hexdigest(), **FORM}
        signed = by_hand(sandbox, f"/{bucket}/k", "PUT", headers=headers)
        query = urlencode({"x-id": "PutObject"})
        assert fetch(f"{sandbox.endpoint.url}/{bucket}/k?{query}", "PUT", data, signed)[:2] == expected
    found = old.get_object(Bucket=bucket, Key="k")
    assert (found["Body"].read(), found["ContentType"]) == (b"bytes", FORM["Content-Type"])
