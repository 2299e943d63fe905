"""The object storage of Eucalyptus: what it drops, what it has not, how requests to it are signed."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest
from botocore.config import Config  # noqa: TID251 - the client that users bring

AREA = "Eucalyptus: object storage"


@pytest.mark.behaviour(AREA, "PutObject over boto3's defaults", "over TLS its STREAMING-UNSIGNED-PAYLOAD-TRAILER is "
                       "refused: only a hash, UNSIGNED-PAYLOAD and signed chunks are known")  # fmt: skip
def test_how_payloads_are_stated(make_sandbox, eucalyptus_config, refusal):
    running = make_sandbox("tls", personality="eucalyptus", tls=True)
    plain = running.client("s3", config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}))
    told = running.client("s3", config=eucalyptus_config)
    told.create_bucket(Bucket="bucket")
    code, status, message = refusal(plain.put_object, Bucket="bucket", Key="key", Body=b"bytes")
    assert (code, status, message) == ("AccessDenied", 403, "x-amz-content-sha256 header is invalid.")
    told.put_object(Bucket="bucket", Key="key", Body=b"bytes")
    assert plain.get_object(Bucket="bucket", Key="key")["Body"].read() == b"bytes"


@pytest.mark.behaviour(AREA, "object tagging", "is not there: `?tagging` is dropped, so that the call puts, gets or "
                       "deletes the object itself; tags of a PutObject are dropped")  # fmt: skip
@pytest.mark.behaviour(AREA, "PutObject with If-None-Match", "the condition is dropped: the object is replaced")
def test_what_is_dropped(cloud):
    bucket, s3 = cloud.bucket(), cloud.s3
    s3.put_object(Bucket=bucket, Key="one", Body=b"first", Tagging="a=b")
    assert "TagCount" not in s3.head_object(Bucket=bucket, Key="one")
    s3.put_object(Bucket=bucket, Key="one", Body=b"second", IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="one")["Body"].read() == b"second"
    s3.put_object_tagging(Bucket=bucket, Key="one", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert b"<TagSet>" in s3.get_object(Bucket=bucket, Key="one")["Body"].read()
    s3.delete_object_tagging(Bucket=bucket, Key="one")
    assert "Contents" not in s3.list_objects(Bucket=bucket)


@pytest.mark.behaviour(AREA, "PutPublicAccessBlock, GetBucketEncryption and their like", "501 for what is put, 404 "
                       "for what is asked for")  # fmt: skip
@pytest.mark.behaviour(AREA, "CreateBucket", "ACLs are on and the public is not kept out; any location constraint is "
                       "kept; 100 buckets of an account")  # fmt: skip
def test_what_buckets_are(second, cloud, refusal):
    bucket = "located-bucket"
    cloud.s3.create_bucket(Bucket=bucket, ACL="public-read", CreateBucketConfiguration={"LocationConstraint": "here"})
    assert cloud.s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] == "here"
    block = {"BlockPublicAcls": True}
    found = refusal(cloud.s3.put_public_access_block, Bucket=bucket, PublicAccessBlockConfiguration=block)
    assert found[:2] == ("NotImplemented", 501)
    assert refusal(cloud.s3.get_bucket_encryption, Bucket=bucket)[1] == 404
    for number in range(100):
        second.s3.create_bucket(Bucket=f"of-a-hundred-{number}")
    assert refusal(second.s3.create_bucket, Bucket="one-too-many")[0] == "TooManyBuckets"


@pytest.mark.behaviour(AREA, "PutObject presigned", "with more than 300 KiB it is refused: every parameter but a "
                       "part's makes it a metadata call")  # fmt: skip
def test_a_presigned_put_is_small(cloud):
    bucket = cloud.bucket()
    for size, status in ((300 << 10, 200), ((300 << 10) + 1, 400)):
        url = cloud.s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "key"})
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        connection.request("PUT", f"{parts.path}?{parts.query}", b"x" * size)
        assert connection.getresponse().status == status
        connection.close()


@pytest.mark.behaviour(AREA, "every call", "Signature Version 2 with the service's path signed or not; Version 4 from "
                       "4.4 on")  # fmt: skip
@pytest.mark.behaviour(AREA, "ListObjectsV2", "from 5.0 on; before it is answered as ListObjects; UploadPartCopy from "
                       "5.1 on")  # fmt: skip
def test_what_the_release_decides(cloud_of, refusal):
    old = cloud_of("4.3.1")
    found = refusal(old.s3.list_buckets)
    assert found[:2] == ("InvalidRequest", 400)
    client = old.running.client("s3", config=Config(signature_version="s3", s3={"addressing_style": "path"}))
    client.create_bucket(Bucket="a-bucket")
    client.create_bucket(Bucket="snapshots")
    client.put_object(Bucket="snapshots", Key="snap-01234567", Body=b"no call of EBS direct")
    client.put_object(Bucket="a-bucket", Key="a key", Body=b"bytes")
    assert client.get_object(Bucket="a-bucket", Key="a key")["Body"].read() == b"bytes"
    assert [one["Name"] for one in client.list_buckets()["Buckets"]] == ["a-bucket", "snapshots"]
    answer = client.list_objects_v2(Bucket="a-bucket")
    assert ("KeyCount" in answer, [one["Key"] for one in answer["Contents"]]) == (False, ["a key"])
    upload = client.create_multipart_upload(Bucket="a-bucket", Key="b")["UploadId"]
    place = {"Bucket": "a-bucket", "Key": "b", "UploadId": upload, "PartNumber": 1}
    assert refusal(client.upload_part_copy, CopySource="a-bucket/a key", **place)[1] == 501


def test_the_old_path_is_answered(cloud):
    walrus = cloud.running.client("s3", endpoint_url=f"{cloud.running.endpoint.url}/services/Walrus")
    bucket = cloud.bucket()
    assert bucket in [one["Name"] for one in walrus.list_buckets()["Buckets"]]
    assert cloud.s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
