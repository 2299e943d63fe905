"""Range: the bytes asked for and no others, also across the parts of an object."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

AREA = "S3 objects"
SIZE = 100_000

RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-99", 0, 100),
    ("bytes=100-", 100, SIZE),
    ("bytes=-1", SIZE - 1, SIZE),
    ("bytes=-999999", 0, SIZE),
    (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    ("bytes=99990-200000", 99990, SIZE),
    ("bytes=0-0,5-6", None, None),  # several ranges, other units, nonsense: the whole, as S3 answers
    ("items=0-1", None, None),
    ("bytes=9-3", None, None),
    ("bytes=-", None, None),
]


@pytest.fixture
def data(s3, bucket, noise):
    found = noise(SIZE)
    s3.put_object(Bucket=bucket, Key="key", Body=found)
    return found


@pytest.mark.behaviour(AREA, "GetObject with Range", "206 with these bytes and their Content-Range; suffixes too")
@pytest.mark.parametrize(("header", "start", "end"), RANGES)
def test_ranges(s3, bucket, data, header, start, end):
    got = s3.get_object(Bucket=bucket, Key="key", Range=header)
    status = got["ResponseMetadata"]["HTTPStatusCode"]
    if start is None:
        assert (status, got["Body"].read()) == (200, data)
        return
    assert got["Body"].read() == data[start:end]
    assert (status, got["ContentLength"]) == (206, end - start)
    assert got["ContentRange"] == f"bytes {start}-{end - 1}/{SIZE}"
    head = s3.head_object(Bucket=bucket, Key="key", Range=header)
    assert (head["ResponseMetadata"]["HTTPStatusCode"], head["ContentLength"]) == (206, end - start)


@pytest.mark.behaviour(AREA, "GetObject with Range", "416 InvalidRange with the object's size when none of it exists")
@pytest.mark.parametrize("header", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
def test_outside(s3, bucket, data, refused, header):
    error = refused(s3.get_object, Bucket=bucket, Key="key", Range=header)
    assert (error["Code"], error["Status"], error["ActualObjectSize"]) == ("InvalidRange", 416, str(SIZE))
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert refused(s3.get_object, Bucket=bucket, Key="empty", Range="bytes=0-")["Code"] == "InvalidRange"


@pytest.mark.behaviour(AREA, "GetObject with If-Range", "the range of the version that is named, else the whole")
def test_if_range(http_call, s3, bucket, data):
    etag = s3.head_object(Bucket=bucket, Key="key")["ETag"]
    moment = http_call("HEAD", f"/{bucket}/key")[1]["Last-Modified"]
    for condition, whole in ((etag, False), (moment, False), ('"0123"', True), ("Sat, 01 Jan 2000 00:00:00 GMT", True)):
        headers = {"Range": "bytes=5-9", "If-Range": condition}
        status, _, body = http_call("GET", f"/{bucket}/key", b"", headers)
        assert (status, body) == ((200, data) if whole else (206, data[5:10]))


@pytest.mark.behaviour(AREA, "GetObject with Range", "the server reads only the range, of a large object too")
def test_only_the_range_is_read(s3, sandbox, bucket):
    size = 256 << 20
    s3.put_object(Bucket=bucket, Key="large", Body=bytes(size))

    def read():
        text = Path(f"/proc/{sandbox.endpoint.pid}/io").read_text()
        return int(dict(line.split(": ") for line in text.splitlines())["rchar"])

    s3.get_object(Bucket=bucket, Key="large", Range="bytes=0-9")["Body"].read()
    before = read()
    for start in range(0, size, size // 16):
        got = s3.get_object(Bucket=bucket, Key="large", Range=f"bytes={start}-{start + 999}")["Body"].read()
        assert got == bytes(1000)
    assert read() - before < 4 << 20  # requests and records included: 16 of 16 MiB would be 256


@pytest.mark.behaviour(AREA, "GetObject with Range", "ranges across parts are what the whole has there")
def test_ranges_across_parts(s3, bucket, noise):
    parts = [noise(5 << 20, 1), noise((5 << 20) + 7, 2), noise(1000, 3)]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    named = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    listed = [
        {"PartNumber": number, "ETag": s3.upload_part(**named, PartNumber=number, Body=part)["ETag"]}
        for number, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": listed})
    whole = b"".join(parts)
    dice = random.Random(7)
    edges = [0, 5 << 20, (10 << 20) + 7, len(whole)]
    for _ in range(40):
        start = min(len(whole) - 1, max(0, dice.choice(edges) + dice.randrange(-20, 20)))
        end = min(len(whole) - 1, max(start, dice.choice(edges) + dice.randrange(-20, 20)))
        got = s3.get_object(Bucket=bucket, Key="parts", Range=f"bytes={start}-{end}")
        assert got["Body"].read() == whole[start : end + 1], (start, end)
    for number, part in enumerate(parts, 1):
        got = s3.get_object(Bucket=bucket, Key="parts", PartNumber=number)
        assert got["Body"].read() == part
        assert got["PartsCount"] == 3
    assert s3.head_object(Bucket=bucket, Key="parts", PartNumber=2)["ContentLength"] == len(parts[1])


@pytest.mark.behaviour(AREA, "GetObject", "a reader that goes away in the middle harms nobody")
def test_a_reader_goes_away(s3, sandbox, bucket, noise):
    data = noise(32 << 20)
    s3.put_object(Bucket=bucket, Key="big", Body=data)
    for _ in range(50):  # more often than the server has threads
        raw = sandbox.raw()
        raw.connection.request("GET", f"/{bucket}/big", headers=raw.signed("GET", f"/{bucket}/big", service="s3"))
        response = raw.connection.getresponse()
        assert response.read(1000) == data[:1000]
        response.close()
        raw.connection.close()
    assert s3.get_object(Bucket=bucket, Key="big")["Body"].read() == data
