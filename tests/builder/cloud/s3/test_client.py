"""The single calls, on both servers: buckets, objects, listings, presigned URLs, what is sent and what is not."""

from __future__ import annotations

import hashlib
import http.client
import random
import urllib.error
import urllib.request
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from builder import pool
from builder.cloud.s3 import S3, Target, upload_stream
from builder.cloud.s3.conditional import PROBE
from builder.cloud.settings import S3Dialect
from builder.errors import CloudConflict, CloudDenied, CloudError, CloudNotFound

DATA = random.Random(1).randbytes(300_000)


def test_a_bucket_is_made_once(place):
    assert place.s3.ensure_bucket(place.bucket) is False
    assert place.calls == {"HeadBucket": 1}
    other = f"{place.bucket}-more"
    assert place.s3.ensure_bucket(other) is True
    assert {place.bucket, other} <= place.s3.buckets()


def test_a_location_that_does_not_exist_is_refused_only_when_asked_for(place):
    with pytest.raises(CloudError) as caught:
        place.s3.ensure_bucket(f"{place.bucket}-there", location="nowhere-at-all-9")
    assert caught.value.code in ("InvalidLocationConstraint", "MalformedXML")
    assert not caught.value.retryable
    assert f"{place.bucket}-there" not in place.s3.buckets()


def test_an_object_comes_back_as_it_was_sent_and_is_sent_once(place):
    stored = place.s3.put(place.bucket, "a/b c+d&e=ü.bin", DATA, metadata={"origin": "here"})
    assert stored.md5 == hashlib.md5(DATA).hexdigest()
    found = place.s3.head(place.bucket, stored.key)
    assert (found.size, found.etag) == (len(DATA), stored.etag)
    assert found.metadata == {"origin": "here", "emi-digest": f"md5:{stored.md5}"}
    assert place.s3.read(place.bucket, stored.key) == DATA
    place.calls.clear()
    assert place.s3.put(place.bucket, stored.key, DATA) == found
    assert place.calls == {"HeadObject": 1}
    place.s3.put(place.bucket, stored.key, DATA[1:])
    assert place.calls["PutObject"] == 1
    assert place.s3.read(place.bucket, stored.key) == DATA[1:]


def test_an_empty_object(place):
    place.s3.put(place.bucket, "empty", b"")
    assert place.s3.head(place.bucket, "empty").size == 0
    assert place.s3.read(place.bucket, "empty") == b""


def test_what_is_not_there(place):
    assert place.s3.head(place.bucket, "none") is None
    with pytest.raises(CloudNotFound, match=f"s3://{place.bucket}/none"):
        place.s3.read(place.bucket, "none")
    place.s3.delete(place.bucket, "none")
    with pytest.raises(CloudNotFound) as caught:
        place.s3.put("emi-no-such-bucket-at-all", "k", b"")
    assert caught.value.code == "NoSuchBucket"
    assert list(place.s3.uploads(place.bucket)) == []


def test_a_large_object_is_not_read_into_memory(place):
    place.s3.put(place.bucket, "large", DATA)
    with pytest.raises(CloudError, match="300000 bytes"):
        place.s3.read(place.bucket, "large", most=1000)


def test_keys_are_listed_by_prefix_beyond_one_page_and_deleted_together(place):
    names = [f"many/{number:04} ü+" for number in range(1003)]

    def put(name: str) -> None:
        place.s3.call("PutObject", Bucket=place.bucket, Key=name, Body=b"1")

    pool.drain(put, [*names, "other"], workers=8)
    place.calls.clear()
    assert [found.key for found in place.s3.objects(place.bucket, "many/")] == names
    assert place.calls == {"ListObjects": 2}
    place.s3.delete_many(place.bucket, [*names, "many/none"])
    assert place.calls["DeleteObjects"] == 2
    assert [found.key for found in place.s3.objects(place.bucket)] == ["other"]


def test_a_created_object_is_never_replaced(place):
    honoured = place.s3.conditional(place.bucket)
    assert honoured.put is True
    assert list(place.s3.objects(place.bucket, PROBE)) == []
    assert list(place.s3.uploads(place.bucket, PROBE)) == []
    place.s3.put(place.bucket, "mine", DATA, if_absent=True)
    place.s3.put(place.bucket, "mine", DATA, if_absent=True)  # the same bytes are no conflict
    with pytest.raises(CloudConflict, match=r"mine exists and holds other bytes"):
        place.s3.put(place.bucket, "mine", b"other", if_absent=True)
    assert place.s3.read(place.bucket, "mine") == DATA


def test_of_many_writers_one_creates(place, together):
    place.s3.conditional(place.bucket)

    def write(number: int):
        def run() -> bool:
            try:
                place.s3.put(place.bucket, "one", str(number).encode(), if_absent=True)
            except CloudConflict:
                return False
            return True

        return run

    won = together(*(write(number) for number in range(8)))
    assert won.count(True) == 1
    assert place.s3.read(place.bucket, "one") == str(won.index(True)).encode()


def test_a_presigned_url_reads_without_credentials_until_it_is_altered(place):
    place.s3.put(place.bucket, "shared", DATA)
    url = place.s3.presigned(place.bucket, "shared", seconds=60)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == DATA
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("shared", "other"))
    caught.value.close()
    assert caught.value.code == 403


def test_an_acl_is_set_with_the_bytes_and_remembered(place):
    acl = "public-read" if place.server.quirky else "aws-exec-read"  # each server knows one that grants something
    bucket = f"{place.bucket}-acls"
    place.s3.ensure_bucket(bucket, acls=True)
    closed = place.s3.put(bucket, "closed", DATA)
    before = place.s3.call("GetObjectAcl", Bucket=bucket, Key="closed")["Grants"]
    place.s3.put(bucket, "open", DATA, acl=acl)
    after = place.s3.call("GetObjectAcl", Bucket=bucket, Key="open")["Grants"]
    assert [grant["Permission"] for grant in after if grant not in before] == ["READ"]
    place.calls.clear()
    place.s3.put(bucket, "open", DATA, acl=acl)
    assert place.calls == {"HeadObject": 1}
    assert place.s3.put(bucket, closed.key, DATA, acl=acl).etag == closed.etag
    assert place.calls["PutObjectAcl"] == 1
    assert place.s3.call("GetObjectAcl", Bucket=bucket, Key="closed")["Grants"] == after


def test_a_bucket_that_takes_no_acls_says_so(sandbox_s3, place_on):
    place = place_on(sandbox_s3)
    with pytest.raises(CloudError) as caught:
        place.s3.put(place.bucket, "part.0", DATA, acl="aws-exec-read")
    assert caught.value.code == "AccessControlListNotSupported"
    assert "BucketOwnerPreferred" in caught.value.hint
    assert place.s3.head(place.bucket, "part.0") is None


def test_wrong_credentials_are_said_to_be_wrong(server, place):
    stranger = S3(replace(server.settings, secret_key="wrong"))
    with pytest.raises(CloudDenied) as caught:
        list(stranger.objects(place.bucket))
    assert caught.value.code == "SignatureDoesNotMatch"


def test_a_stream_with_more_checksums(server, place):
    s3 = S3(replace(server.settings, s3=S3Dialect(checksums="when_supported")))
    s3.put(place.bucket, "crc", DATA)
    assert s3.read(place.bucket, "crc") == DATA
    part = 5 << 20
    data = random.Random(2).randbytes(part + 9)
    upload_stream(s3, Target(bucket=place.bucket, key="crcs"), iter([data]), most=len(data), part=part)
    assert s3.read(place.bucket, "crcs") == data


def test_virtual_host_style_names_the_bucket_in_the_host(radosgw, rados):
    place = rados
    place.s3.put(place.bucket, "k", DATA)
    port = urlsplit(radosgw.settings.endpoint_url).port
    dialect = S3Dialect(addressing="virtual")
    s3 = S3(replace(radosgw.settings, endpoint_url=f"http://s3.test:{port}", s3=dialect))
    url = urlsplit(s3.presigned(place.bucket, "k", seconds=60))
    assert url.netloc == f"{place.bucket}.s3.test:{port}"
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"{url.path}?{url.query}", headers={"Host": url.netloc})
    assert connection.getresponse().read() == DATA
    connection.close()
