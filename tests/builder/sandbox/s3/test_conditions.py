"""Conditional reads and writes; of many conditional writers exactly one wins."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

AREA = "S3 objects"
PAST, FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)


@pytest.mark.behaviour(AREA, "GetObject, HeadObject", "If-Match, If-None-Match, If-(Un)Modified-Since: 200, 304 or 412")
@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"IfMatch": "ETAG"}, 200),
        ({"IfMatch": "*"}, 200),
        ({"IfMatch": '"other"'}, 412),
        ({"IfNoneMatch": "ETAG"}, 304),
        ({"IfNoneMatch": "*"}, 304),
        ({"IfNoneMatch": '"other"'}, 200),
        ({"IfModifiedSince": FUTURE}, 304),
        ({"IfModifiedSince": PAST}, 200),
        ({"IfUnmodifiedSince": PAST}, 412),
        ({"IfUnmodifiedSince": FUTURE}, 200),
        ({"IfMatch": "ETAG", "IfUnmodifiedSince": PAST}, 200),
        ({"IfNoneMatch": '"other"', "IfModifiedSince": FUTURE}, 200),
        ({"IfNoneMatch": "ETAG", "IfModifiedSince": PAST}, 304),
    ],
)
def test_reads(s3, bucket, refused, conditions, status):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"data")["ETag"]
    asked = {name: etag if value == "ETAG" else value for name, value in conditions.items()}
    if status == 200:
        assert s3.get_object(Bucket=bucket, Key="k", **asked)["Body"].read() == b"data"
        assert s3.head_object(Bucket=bucket, Key="k", **asked)["ContentLength"] == 4
        return
    error = refused(s3.get_object, Bucket=bucket, Key="k", **asked)
    assert (error["Status"], error["Code"]) == (status, {304: "304", 412: "PreconditionFailed"}[status])
    assert refused(s3.head_object, Bucket=bucket, Key="k", **asked)["Status"] == status


def put(s3, bucket, **conditions):
    return s3.put_object(Bucket=bucket, Key="k", Body=b"new", **conditions)


def copy(s3, bucket, **conditions):
    s3.put_object(Bucket=bucket, Key="source", Body=b"new")
    return s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/source", **conditions)


def complete(s3, bucket, **conditions):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    named = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    part = s3.upload_part(**named, PartNumber=1, Body=b"new")["ETag"]
    try:
        return s3.complete_multipart_upload(
            **named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}, **conditions
        )
    except s3.exceptions.ClientError:
        assert len(s3.list_parts(**named)["Parts"]) == 1  # the upload is still there
        raise


@pytest.mark.behaviour(AREA, "PutObject, CopyObject, CompleteMultipartUpload", "If-None-Match: * only where none is")
@pytest.mark.parametrize("write", [put, copy, complete])
def test_only_a_new_one(s3, bucket, refused, write):
    write(s3, bucket, IfNoneMatch="*")
    error = refused(write, s3=s3, bucket=bucket, IfNoneMatch="*")
    assert (error["Code"], error["Status"], error["Condition"]) == ("PreconditionFailed", 412, "If-None-Match")
    s3.delete_object(Bucket=bucket, Key="k")
    write(s3, bucket, IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"new"


@pytest.mark.behaviour(AREA, "PutObject, CopyObject, CompleteMultipartUpload", "If-Match only over that ETag, else 412")
@pytest.mark.parametrize("write", [put, copy, complete])
def test_only_over_that_one(s3, bucket, refused, write):
    error = refused(write, s3=s3, bucket=bucket, IfMatch='"0123"')
    assert (error["Code"], error["Status"]) == ("NoSuchKey", 404)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"old")["ETag"]
    assert refused(write, s3=s3, bucket=bucket, IfMatch='"0123"')["Code"] == "PreconditionFailed"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
    write(s3, bucket, IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"new"


@pytest.mark.behaviour(AREA, "PutObject", "an If-None-Match other than * is NotImplemented")
def test_other_conditions(s3, bucket, refused):
    assert refused(put, s3=s3, bucket=bucket, IfNoneMatch='"0123"')["Code"] == "NotImplemented"


@pytest.mark.behaviour(AREA, "DeleteObject, DeleteObjects", "If-Match deletes only that ETag, else 412")
def test_deletes(s3, bucket, refused):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"data")["ETag"]
    assert refused(s3.delete_object, Bucket=bucket, Key="k", IfMatch='"0123"')["Code"] == "PreconditionFailed"
    entries = [{"Key": "k", "ETag": '"0123"'}]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": entries})
    assert answer["Errors"][0]["Code"] == "PreconditionFailed"
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"] == etag
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.behaviour(AREA, "CopyObject", "x-amz-copy-source-if-* hold for the source, else 412")
def test_copy_sources(s3, bucket, refused):
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"data")["ETag"]
    named = {"Bucket": bucket, "Key": "b", "CopySource": f"{bucket}/a"}
    for conditions in (
        {"CopySourceIfMatch": '"0123"'},
        {"CopySourceIfNoneMatch": etag},
        {"CopySourceIfUnmodifiedSince": PAST},
        {"CopySourceIfModifiedSince": FUTURE},
    ):
        assert refused(s3.copy_object, **named, **conditions)["Code"] == "PreconditionFailed"
    s3.copy_object(**named, CopySourceIfMatch=etag, CopySourceIfUnmodifiedSince=PAST)
    assert s3.get_object(Bucket=bucket, Key="b")["Body"].read() == b"data"


@pytest.mark.behaviour(AREA, "PutObject with If-None-Match: *", "of 32 writers exactly one wins, and its bytes stay")
def test_one_winner(s3, sandbox, bucket, together, stored):
    clients = [sandbox.client("s3") for _ in range(32)]
    for round_ in range(5):
        before = stored()

        def write(number, key=f"k{round_}"):
            try:
                clients[number].put_object(Bucket=bucket, Key=key, Body=f"{number}".encode() * 1000, IfNoneMatch="*")
            except s3.exceptions.ClientError as error:
                return error.response["Error"]["Code"]
            return number

        ends = together(*(lambda number=number, write=write: write(number) for number in range(32)))
        (winner,) = [end for end in ends if isinstance(end, int)]
        assert set(ends) - {winner} == {"PreconditionFailed"}
        assert s3.get_object(Bucket=bucket, Key=f"k{round_}")["Body"].read() == f"{winner}".encode() * 1000
        assert len(stored() - before) == 1  # nothing stays of the losers


@pytest.mark.behaviour(AREA, "PutObject with If-Match", "a chain of compare-and-swap loses no update")
def test_compare_and_swap(s3, sandbox, bucket, together):
    s3.put_object(Bucket=bucket, Key="count", Body=b"0")
    clients = [sandbox.client("s3") for _ in range(8)]

    def add(client):
        done = 0
        while done < 5:
            got = client.get_object(Bucket=bucket, Key="count")
            value = int(got["Body"].read()) + 1
            try:
                client.put_object(Bucket=bucket, Key="count", Body=f"{value}".encode(), IfMatch=got["ETag"])
            except client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != "PreconditionFailed":
                    raise
            else:
                done += 1

    together(*(lambda client=client: add(client) for client in clients))
    assert s3.get_object(Bucket=bucket, Key="count")["Body"].read() == b"40"


@pytest.mark.behaviour(
    AREA, "PutObject with If-None-Match: *", "409 ConditionalRequestConflict when the object is deleted meanwhile"
)
def test_a_conflict(s3, sandbox, bucket, stored):
    before = stored()
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    raw = sandbox.raw()
    body = b"x" * 100_000
    headers = raw.signed("PUT", f"/{bucket}/k", body, {"If-None-Match": "*"}, service="s3")
    connection = raw.connection
    connection.putrequest("PUT", f"/{bucket}/k", skip_host="host" in {name.lower() for name in headers})
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(body[:50_000])
    deadline = time.monotonic() + 30
    while len(stored() - before) < 2:  # until the server writes
        assert time.monotonic() < deadline
        time.sleep(0.02)
    s3.delete_object(Bucket=bucket, Key="k")
    connection.send(body[50_000:])
    response = connection.getresponse()
    assert (response.status, b"<Code>ConditionalRequestConflict</Code>" in response.read()) == (409, True)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
