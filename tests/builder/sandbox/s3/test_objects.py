"""Objects: put, read, copied, tagged and deleted, judged by their bytes."""

from __future__ import annotations

import hashlib
import http.client
import subprocess  # noqa: TID251 - curl is a client of its own
import time
from urllib.parse import urlsplit

import pytest
from botocore.config import Config  # noqa: TID251 - as above

AREA = "S3 objects"
MISSING = [
    (AREA, "PutObject, CopyObject with SSE-KMS or SSE-C", "NotImplemented"),
    (AREA, "Object Lock, legal holds, retention", "NotImplemented"),
    (AREA, "SelectObjectContent, RestoreObject, GetObjectTorrent, RenameObject, annotations", "NotImplemented"),
    (AREA, "POST of a browser's form", "NotImplemented"),
    (AREA, "storage classes of archives (GLACIER, DEEP_ARCHIVE)", "NotImplemented"),
    (AREA, "a key that begins with / in virtual-host style", "refused by the HTTP server with 400"),
]


@pytest.mark.behaviour(AREA, "PutObject, GetObject", "the bytes come back; the ETag is their MD5")
@pytest.mark.parametrize("size", [0, 1, 1000, (512 << 10) - 1, 512 << 10, (512 << 10) + 1, 3_000_000])
def test_what_is_put_comes_back(s3, bucket, noise, size):
    data = noise(size)
    put = s3.put_object(Bucket=bucket, Key="key", Body=data)
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="key")
    assert got["Body"].read() == data
    assert (got["ETag"], got["ContentLength"]) == (put["ETag"], size)


KEYS = [
    "plain", "with space", "a/b/c", "/leading", "trailing/", "double//slash", "../../etc/passwd", "..", ".", "./x",
    "a%2Fb", "a%252Fb", "plus+plus", "per%cent", "ü", "日本語/ファイル", "emoji 🙂", "a&b=c?d#e", "<tag>", '"quoted"',
    "tab\there", "x" * 1024, "~tilde", "!*'()", "new\nline", "a\x01b",
]  # fmt: skip


@pytest.mark.behaviour(AREA, "PutObject", "every UTF-8 key up to 1024 bytes is itself, and none becomes a file's name")
def test_every_key_is_itself(s3, sandbox, stored, bucket):
    before = {entry for entry in sandbox.directory.parent.rglob("*") if "s3/data" not in str(entry)}
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in KEYS:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert listed == sorted(KEYS, key=str.encode)
    after = {entry for entry in sandbox.directory.parent.rglob("*") if "s3/data" not in str(entry)}
    assert after == before
    assert all(len(name) == 32 and name.isalnum() for name in stored())
    for key in KEYS:
        s3.delete_object(Bucket=bucket, Key=key)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.behaviour(AREA, "PutObject", "KeyTooLongError beyond 1024 bytes of UTF-8")
def test_a_key_too_long(s3, bucket, refused):
    error = refused(s3.put_object, Bucket=bucket, Key="ü" * 513, Body=b"x")
    assert (error["Code"], error["Status"], error["Size"]) == ("KeyTooLongError", 400, "1026")


@pytest.mark.behaviour(AREA, "GetObject, HeadObject", "headers, metadata and storage class come back as they were put")
def test_traits_come_back(s3, bucket):
    said = {
        "CacheControl": "max-age=60",
        "ContentDisposition": 'attachment; filename="x"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "ContentType": "text/plain; charset=utf-8",
        "WebsiteRedirectLocation": "/elsewhere",
        "StorageClass": "STANDARD_IA",
        "Metadata": {"one": "1", "two-words": "b c"},
    }
    s3.put_object(Bucket=bucket, Key="key", Body=b"data", **said)
    for call in (s3.head_object, s3.get_object):
        got = call(Bucket=bucket, Key="key")
        assert {name: got[name] for name in said} == said
        assert got["ServerSideEncryption"] == "AES256"
    s3.put_object(Bucket=bucket, Key="bare", Body=b"data")
    got = s3.head_object(Bucket=bucket, Key="bare")
    assert (got["ContentType"], got["Metadata"], "StorageClass" in got) == ("binary/octet-stream", {}, False)


@pytest.mark.behaviour(AREA, "GetObject", "response-* parameters override headers, for signed requests only")
def test_overrides(s3, sandbox, bucket):
    s3.put_object(Bucket=bucket, Key="key", Body=b"data", ContentType="text/plain")
    got = s3.get_object(
        Bucket=bucket,
        Key="key",
        ResponseContentType="image/png",
        ResponseCacheControl="no-store",
        ResponseContentDisposition="inline",
    )
    assert (got["ContentType"], got["CacheControl"], got["ContentDisposition"]) == ("image/png", "no-store", "inline")
    assert s3.head_object(Bucket=bucket, Key="key")["ContentType"] == "text/plain"


@pytest.mark.behaviour(AREA, "GetObject", "NoSuchKey with the key, 404; HeadObject says 404 without a body")
def test_a_missing_key(s3, bucket, refused):
    error = refused(s3.get_object, Bucket=bucket, Key="missing")
    assert (error["Code"], error["Status"], error["Key"]) == ("NoSuchKey", 404, "missing")
    assert refused(s3.head_object, Bucket=bucket, Key="missing")["Code"] == "404"
    error = refused(s3.get_object, Bucket="no-such-bucket", Key="missing")
    assert (error["Code"], error["Status"], error["BucketName"]) == ("NoSuchBucket", 404, "no-such-bucket")


@pytest.mark.behaviour(AREA, "every error", "Code, Message, Resource, RequestId and HostId in S3's XML")
def test_an_error_has_its_fields(http_call, bucket):
    status, headers, body = http_call("GET", f"/{bucket}/missing")
    text = body.decode()
    assert (status, headers["Content-Type"]) == (404, "application/xml")
    for name in ("Code", "Message", "Key", "Resource", "RequestId", "HostId"):
        assert f"<{name}>" in text
    assert headers["x-amz-request-id"] in text
    assert headers["x-amz-id-2"] in text


@pytest.mark.behaviour(AREA, "DeleteObject", "the object is gone; deleting again is a success too")
def test_delete(s3, stored, bucket, refused):
    before = stored()
    s3.put_object(Bucket=bucket, Key="key", Body=b"data")
    assert len(stored() - before) == 1
    for _ in range(2):
        assert s3.delete_object(Bucket=bucket, Key="key")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refused(s3.get_object, Bucket=bucket, Key="key")["Code"] == "NoSuchKey"
    assert stored() == before  # its bytes are gone as well


@pytest.mark.behaviour(AREA, "DeleteObjects", "each key is answered by itself; Quiet leaves the successes out")
def test_delete_many(s3, bucket, refused):
    for name in "abc":
        s3.put_object(Bucket=bucket, Key=name, Body=b"data")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "missing"}]})
    assert [one["Key"] for one in answer["Deleted"]] == ["a", "missing"]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    assert "Deleted" not in answer
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["c"]
    assert refused(s3.delete_objects, Bucket=bucket, Delete={"Objects": []})["Code"] == "MalformedXML"


@pytest.mark.behaviour(AREA, "DeleteObjects", "InvalidRequest without Content-MD5 or a checksum of its body")
def test_delete_many_wants_a_checksum(http_call, s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"data")
    body = b"<Delete><Object><Key>a</Key></Object></Delete>"
    status, _, answer = http_call("POST", f"/{bucket}?delete", body)
    assert (status, b"<Code>InvalidRequest</Code>" in answer) == (400, True)
    assert s3.head_object(Bucket=bucket, Key="a")["ContentLength"] == 4


@pytest.mark.behaviour(AREA, "CopyObject", "bytes, metadata and tags are the source's, in another bucket too")
def test_copy(s3, bucket, noise):
    data = noise(700_000)
    s3.create_bucket(Bucket=f"{bucket}-b")
    s3.put_object(Bucket=bucket, Key="a ü+%", Body=data, Metadata={"m": "1"}, ContentType="text/x", Tagging="t=1")
    copied = s3.copy_object(Bucket=f"{bucket}-b", Key="copy", CopySource={"Bucket": bucket, "Key": "a ü+%"})
    assert copied["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    s3.delete_object(Bucket=bucket, Key="a ü+%")  # the copy does not need it any more
    got = s3.get_object(Bucket=f"{bucket}-b", Key="copy")
    assert got["Body"].read() == data
    assert (got["Metadata"], got["ContentType"], got["TagCount"]) == ({"m": "1"}, "text/x", 1)


@pytest.mark.behaviour(AREA, "CopyObject", "MetadataDirective REPLACE replaces; onto itself it must change something")
def test_copy_replaces_metadata(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="a", Body=b"data", Metadata={"old": "1"}, ContentType="text/x")
    source = {"Bucket": bucket, "Key": "a"}
    assert refused(s3.copy_object, Bucket=bucket, Key="a", CopySource=source)["Code"] == "InvalidRequest"
    s3.copy_object(Bucket=bucket, Key="a", CopySource=source, MetadataDirective="REPLACE", Metadata={"new": "2"})
    got = s3.get_object(Bucket=bucket, Key="a")
    assert (got["Metadata"], got["ContentType"], got["Body"].read()) == ({"new": "2"}, "binary/octet-stream", b"data")


@pytest.mark.behaviour(AREA, "GetObjectAttributes", "ETag, checksum, size and storage class of what was put")
def test_attributes(s3, bucket, refused):
    put = s3.put_object(Bucket=bucket, Key="a", Body=b"data", ChecksumAlgorithm="SHA256")
    wanted = ["ETag", "Checksum", "ObjectSize", "StorageClass", "ObjectParts"]
    got = s3.get_object_attributes(Bucket=bucket, Key="a", ObjectAttributes=wanted)
    assert got["ETag"] == put["ETag"].strip('"')
    assert got["Checksum"] == {"ChecksumSHA256": put["ChecksumSHA256"], "ChecksumType": "FULL_OBJECT"}
    assert (got["ObjectSize"], got["StorageClass"], "ObjectParts" in got) == (4, "STANDARD", False)
    got = s3.get_object_attributes(Bucket=bucket, Key="a", ObjectAttributes=["ObjectSize"])
    assert (got["ObjectSize"], "ETag" in got) == (4, False)


@pytest.mark.behaviour(AREA, "PutObjectTagging", "tags are kept, counted, replaced and removed; bad ones InvalidTag")
def test_tags(s3, bucket, refused):
    def tags():
        return {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"]}

    s3.put_object(Bucket=bucket, Key="a", Body=b"data", Tagging="one=1&two=b%20c")
    assert tags() == {"one": "1", "two": "b c"}
    s3.put_object_tagging(Bucket=bucket, Key="a", Tagging={"TagSet": [{"Key": "three", "Value": "3"}]})
    assert tags() == {"three": "3"}
    assert s3.head_object(Bucket=bucket, Key="a")["TagCount"] == 1
    s3.delete_object_tagging(Bucket=bucket, Key="a")
    assert tags() == {}
    double = [{"Key": "x", "Value": "1"}, {"Key": "x", "Value": "2"}]
    assert refused(s3.put_object_tagging, Bucket=bucket, Key="a", Tagging={"TagSet": double})["Code"] == "InvalidTag"
    many = [{"Key": f"k{number}", "Value": ""} for number in range(11)]
    assert refused(s3.put_object_tagging, Bucket=bucket, Key="a", Tagging={"TagSet": many})["Code"] == "BadRequest"


@pytest.mark.behaviour(AREA, "PutObject", "what the sandbox does not have is NotImplemented, and nothing is kept")
@pytest.mark.parametrize(
    "asked",
    [
        {"ServerSideEncryption": "aws:kms"},
        {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32},
        {"StorageClass": "GLACIER"},
        {"ObjectLockLegalHoldStatus": "ON"},
    ],
)
def test_what_is_not_there(sandbox, bucket, refused, asked):
    s3 = sandbox.client("s3")
    if "SSECustomerKey" in asked:  # boto3 itself wants TLS for these
        s3.meta.events.unregister("before-parameter-build.s3.PutObject")
    error = refused(s3.put_object, Bucket=bucket, Key="a", Body=b"x", **asked)
    assert (error["Code"], error["Status"]) == ("NotImplemented", 501)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.behaviour(AREA, "PutObject", "too much metadata is MetadataTooLarge, an unknown storage class refused")
def test_refused_traits(s3, bucket, refused):
    error = refused(s3.put_object, Bucket=bucket, Key="a", Body=b"x", Metadata={"big": "x" * 2100})
    assert error["Code"] == "MetadataTooLarge"
    assert refused(s3.put_object, Bucket=bucket, Key="a", StorageClass="CHEAP")["Code"] == "InvalidStorageClass"
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.behaviour(AREA, "GetObject", "who reads an object that is replaced or deleted gets the whole old one")
@pytest.mark.parametrize("end", ["replaced", "deleted"])
def test_a_reader_keeps_what_it_reads(s3, stored, bucket, noise, end):
    data = noise(64 << 20)
    before = stored()
    s3.put_object(Bucket=bucket, Key="big", Body=data)
    before = stored() - before
    assert len(before) == 1
    body = s3.get_object(Bucket=bucket, Key="big")["Body"]
    start = body.read(1 << 20)
    if end == "replaced":
        s3.put_object(Bucket=bucket, Key="big", Body=b"new")
    else:
        s3.delete_object(Bucket=bucket, Key="big")
    assert start + body.read() == data
    deadline = time.monotonic() + 30
    while before & stored():
        assert time.monotonic() < deadline  # the old bytes go with their last reader
        time.sleep(0.02)


def curl(*words):
    return subprocess.run(["curl", "-sS", *words], capture_output=True, check=True).stdout


@pytest.mark.behaviour(AREA, "GetObject, PutObject", "presigned URLs work for a client that signs nothing (curl)")
def test_presigned_urls(sandbox, bucket, noise, tmp_path):
    s3 = sandbox.client("s3", config=Config(signature_version="s3v4"))
    data = noise(100_000)
    (tmp_path / "data").write_bytes(data)
    where = {"Bucket": bucket, "Key": "a b/ü"}
    put = s3.generate_presigned_url("put_object", Params=where)
    assert curl("-T", tmp_path / "data", put) == b""
    assert curl(s3.generate_presigned_url("get_object", Params=where)) == data
    bent = s3.generate_presigned_url("get_object", Params=where).replace("a%20b", "a%20c")
    assert b"<Code>SignatureDoesNotMatch</Code>" in curl(bent)
    typed = s3.generate_presigned_url("get_object", Params={**where, "ResponseContentType": "a/b"})
    assert b"content-type: a/b" in curl("-i", typed).lower()


@pytest.mark.behaviour(AREA, "PutObject", "Expect: 100-continue: a body is not asked for when the request is refused")
def test_a_refused_body_is_not_asked_for(sandbox, s3, bucket):
    raw = sandbox.raw()
    answers = []
    for name in ("no-such-bucket", bucket):
        headers = {**raw.signed("PUT", f"/{name}/k", b"x" * 70_000, service="s3"), "Expect": "100-continue"}
        connection = http.client.HTTPConnection(urlsplit(sandbox.endpoint.url).netloc, timeout=30)
        connection.putrequest("PUT", f"/{name}/k", skip_host=True)
        connection.putheader("Host", urlsplit(sandbox.endpoint.url).netloc)
        for header, value in {**headers, "Content-Length": "70000"}.items():
            if header.lower() not in ("host", "content-length") or header == "Content-Length":
                connection.putheader(header, value)
        connection.endheaders()
        answers.append(connection.sock.recv(4096).split(b"\r\n")[0])
        if b"100" in answers[-1]:
            connection.sock.sendall(b"x" * 70_000)
            answers.append(connection.sock.recv(4096).split(b"\r\n")[0])
        connection.close()
    assert [answer.split()[1] for answer in answers] == [b"404", b"100", b"200"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x" * 70_000
