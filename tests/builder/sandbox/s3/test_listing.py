"""Listings: order, prefixes, delimiters and pages, held against what a plain sort says."""

from __future__ import annotations

import itertools
import time

import pytest
from botocore.config import Config  # noqa: TID251 - the client that users bring
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

AREA = "S3 objects"
KEYS = [
    "a", "a/", "a/b", "a/b/c", "a0", "b", "b/1", "b/2", "b/3/x", "c//d", "c//e", "z", "ü", "日本", "🙂",
    "\ue000", "\ud7ff", "plus+ space", "per%cent", "a\x01", "x" * 1024,
]  # fmt: skip


def model(keys, prefix="", delimiter="", after=""):
    """Return (keys, common prefixes) as S3's documentation has it."""
    shown, common = [], []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if end < 0 else key[: end + len(delimiter)]
        if entry.encode() <= after.encode() and after:
            continue
        if end < 0:
            shown.append(key)
        elif entry not in common:
            common.append(entry)
    return shown, common


@pytest.fixture(scope="module")
def full(s3):
    """A bucket with KEYS."""
    s3.create_bucket(Bucket="full")
    for key in KEYS:
        s3.put_object(Bucket="full", Key=key, Body=key.encode())
    return "full"


def pages(call, token, field, **options):
    """Return (keys, common prefixes) of all pages, and how many entries each page had."""
    shown, common, sizes = [], [], []
    while True:
        page = call(**options)
        shown += [entry["Key"] for entry in page.get("Contents", [])]
        common += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        sizes.append(len(page.get("Contents", [])) + len(page.get("CommonPrefixes", [])))
        if not page["IsTruncated"]:
            return (shown, common), sizes
        options[token] = page.get(field) or page["Contents"][-1]["Key"]


@pytest.mark.behaviour(
    AREA, "ListObjectsV2", "keys in the order of their UTF-8 bytes; prefix, delimiter, pages of any size"
)
@pytest.mark.parametrize("prefix", ["", "a", "a/", "b/", "c/", "c//", "missing", "ü"])
@pytest.mark.parametrize("delimiter", ["", "/", "//", "b"])
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_v2(s3, full, prefix, delimiter, size):
    options = {"Bucket": full, "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": size}
    found, sizes = pages(s3.list_objects_v2, "ContinuationToken", "NextContinuationToken", **options)
    assert found == model(KEYS, prefix, delimiter)
    assert all(count == size for count in sizes[:-1])
    assert sizes[-1] <= size


@pytest.mark.behaviour(AREA, "ListObjects", "the same pages by marker and NextMarker")
@pytest.mark.parametrize("prefix", ["", "a/", "c/"])
@pytest.mark.parametrize("delimiter", ["", "/"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_v1(s3, full, prefix, delimiter, size):
    options = {"Bucket": full, "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": size}
    assert pages(s3.list_objects, "Marker", "NextMarker", **options)[0] == model(KEYS, prefix, delimiter)


@pytest.mark.behaviour(AREA, "ListObjectsV2 with StartAfter", "begins after the key, whether there is one or not")
@pytest.mark.parametrize("after", ["", "a", "a/b", "aa", "b/", "zzz", "🙂"])
def test_start_after(s3, full, after):
    found = pages(s3.list_objects_v2, "ContinuationToken", "NextContinuationToken", Bucket=full, StartAfter=after)[0]
    assert found == model(KEYS, after=after)


@pytest.mark.behaviour(AREA, "ListObjectsV2 with encoding-type=url", "any key survives XML")
def test_encoding(http_call, full, s3):
    status, _, body = http_call("GET", f"/{full}?list-type=2&encoding-type=url&prefix=p")
    assert status == 200
    assert "<Key>per%25cent</Key>" in body.decode()
    assert "<Key>plus%2B+space</Key>" in body.decode()
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=full, Prefix="a\x01")["Contents"]] == ["a\x01"]


@pytest.mark.behaviour(AREA, "ListObjectsV2", "each entry has size, ETag, time and storage class; the owner on demand")
def test_entries(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"data", StorageClass="STANDARD_IA")
    (entry,) = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    assert (entry["Size"], entry["ETag"], entry["StorageClass"]) == (4, put["ETag"], "STANDARD_IA")
    assert abs(entry["LastModified"].timestamp() - time.time()) < 600
    assert len(entry["Owner"]["ID"]) == 64
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    (version,) = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert (version["Key"], version["VersionId"], version["IsLatest"]) == ("k", "null", True)


@pytest.mark.behaviour(AREA, "ListObjectsV2", "InvalidArgument for a wrong token, number or encoding")
def test_wrong_arguments(s3, bucket, refused, http_call):
    for wrong in ({"ContinuationToken": "!"}, {"MaxKeys": -1}, {"EncodingType": "base64"}):
        assert refused(s3.list_objects_v2, Bucket=bucket, **wrong)["Code"] == "InvalidArgument"
    assert http_call("GET", f"/{bucket}?list-type=2&max-keys=ten")[0] == 400
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["IsTruncated"] is False


@pytest.mark.behaviour(AREA, "ListObjectsV2", "what is put and deleted between two pages moves nobody")
def test_pages_survive_changes(s3, bucket):
    for number in range(10):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=b"")
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=4)
    for key in ("k0", "k3"):
        s3.delete_object(Bucket=bucket, Key=key)
    s3.put_object(Bucket=bucket, Key="k1a", Body=b"")
    rest = s3.list_objects_v2(Bucket=bucket, ContinuationToken=page["NextContinuationToken"])
    assert [entry["Key"] for entry in rest["Contents"]] == [f"k{number}" for number in range(4, 10)]


_PIECES = st.text(st.sampled_from("ab/\ud7ff\ue000🙂"), min_size=1, max_size=5)


@given(keys=st.sets(_PIECES, max_size=12), prefix=_PIECES | st.just(""), size=st.integers(1, 4))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_keys(sandbox, keys, prefix, size):
    """Small alphabets, so that keys share prefixes and sit at the edges of UTF-8."""
    client = sandbox.client("s3", config=Config(retries={"total_max_attempts": 1}))
    name = f"any-{next(_NUMBERS)}"
    client.create_bucket(Bucket=name)
    for key in keys:
        client.put_object(Bucket=name, Key=key, Body=b"")
    options = {"Bucket": name, "Prefix": prefix, "Delimiter": "/", "MaxKeys": size}
    found = pages(client.list_objects_v2, "ContinuationToken", "NextContinuationToken", **options)[0]
    assert found == model(keys, prefix, "/")


_NUMBERS = itertools.count()
