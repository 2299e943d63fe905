"""Buckets: made, found, listed and removed; where they are, and how they are set."""

from __future__ import annotations

import re

import pytest

AREA = "S3 buckets"
MISSING = [
    (
        AREA,
        "PutBucketVersioning, PutBucketCors, PutBucketWebsite, PutBucketReplication, PutBucketLogging",
        "NotImplemented",
    ),
    (AREA, "PutBucketEncryption", "NotImplemented: every object says AES256, none is encrypted"),
    (AREA, "directory buckets, access points, object lambda", "NotImplemented"),
]


@pytest.mark.behaviour(AREA, "CreateBucket, HeadBucket, ListBuckets, DeleteBucket", "it is there until it is deleted")
def test_life(s3, refused):
    assert s3.create_bucket(Bucket="life")["Location"] == "/life"
    assert s3.head_bucket(Bucket="life")["BucketRegion"] == "us-east-1"
    assert "life" in [one["Name"] for one in s3.list_buckets()["Buckets"]]
    s3.delete_bucket(Bucket="life")
    assert refused(s3.head_bucket, Bucket="life")["Code"] == "404"
    error = refused(s3.delete_bucket, Bucket="life")
    assert (error["Code"], error["Status"], error["BucketName"]) == ("NoSuchBucket", 404, "life")


@pytest.mark.behaviour(AREA, "CreateBucket", "again: BucketAlreadyOwnedByYou; in another account: BucketAlreadyExists")
def test_names_are_everybody_s(s3, other, bucket, refused):
    for client, code in ((s3, "BucketAlreadyOwnedByYou"), (other, "BucketAlreadyExists")):
        error = refused(client.create_bucket, Bucket=bucket)
        assert (error["Code"], error["Status"]) == (code, 409)
    assert bucket not in [one["Name"] for one in other.list_buckets()["Buckets"]]


@pytest.mark.behaviour(AREA, "CreateBucket", "InvalidBucketName for what the naming rules forbid")
@pytest.mark.parametrize(
    "name", ["ab", "Upper", "under_score", "-dash", "dash-", "two..dots", "192.168.1.1", "x" * 64, "xn--a", "a-s3alias"]
)
def test_names(http_call, name):
    status, _, body = http_call("PUT", f"/{name}")
    assert (status, b"<Code>InvalidBucketName</Code>" in body) == (400, True)


@pytest.mark.behaviour(AREA, "DeleteBucket", "BucketNotEmpty while it has objects; unfinished uploads go with it")
def test_not_empty(s3, bucket, refused, stored):
    before = stored()
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert refused(s3.delete_bucket, Bucket=bucket)["Code"] == "BucketNotEmpty"
    s3.delete_object(Bucket=bucket, Key="k")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    s3.delete_bucket(Bucket=bucket)
    assert stored() == before
    s3.create_bucket(Bucket=bucket)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.behaviour(AREA, "CreateBucket", "LocationConstraint says where; a regional endpoint takes only its own")
def test_locations(s3, sandbox, refused):
    s3.create_bucket(Bucket="frankfurt", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    assert s3.get_bucket_location(Bucket="frankfurt")["LocationConstraint"] == "eu-central-1"
    s3.create_bucket(Bucket="virginia")
    assert s3.get_bucket_location(Bucket="virginia")["LocationConstraint"] is None
    regional = sandbox.client("s3", region_name="eu-west-1")
    for asked in ({}, {"CreateBucketConfiguration": {"LocationConstraint": "eu-central-1"}}):
        error = refused(regional.create_bucket, Bucket="wrong", **asked)
        assert error["Code"] == "IllegalLocationConstraintException"
    regional.create_bucket(Bucket="ireland", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert regional.head_bucket(Bucket="ireland")["BucketRegion"] == "eu-west-1"
    for wrong in ("us-east-1", "Atlantis"):
        asked = {"LocationConstraint": wrong}
        error = refused(s3.create_bucket, Bucket="wrong", CreateBucketConfiguration=asked)
        assert error["Code"] == "InvalidLocationConstraint"


@pytest.mark.behaviour(
    AREA, "every call", "AuthorizationHeaderMalformed with the right region for one signed for another"
)
def test_the_wrong_region(s3, http_call):
    s3.create_bucket(Bucket="ohio", CreateBucketConfiguration={"LocationConstraint": "us-east-2"})
    status, headers, body = http_call("GET", "/ohio?list-type=2", region="us-east-1")
    text = body.decode()
    assert (status, headers["x-amz-bucket-region"]) == (400, "us-east-2")
    assert "<Code>AuthorizationHeaderMalformed</Code>" in text
    assert "<Region>us-east-2</Region>" in text
    status, headers, _ = http_call("HEAD", "/ohio", region="us-east-1")
    assert (status, headers["x-amz-bucket-region"]) == (400, "us-east-2")
    assert http_call("GET", "/ohio?list-type=2", region="us-east-2")[0] == 200


@pytest.mark.behaviour(AREA, "every call", "a boto3 client of another region finds the right one by itself")
def test_boto3_follows(sandbox, s3, noise):
    s3.create_bucket(Bucket="oregon", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    sandbox.client("s3", region_name="us-west-2").put_object(Bucket="oregon", Key="k", Body=b"data")
    assert s3.get_object(Bucket="oregon", Key="k")["Body"].read() == b"data"


@pytest.mark.behaviour(
    AREA, "every call", "virtual-host style by the Host header, 301 PermanentRedirect in another region"
)
def test_virtual_hosts(s3, sandbox, bucket):
    s3.put_object(Bucket=bucket, Key="a b/c", Body=b"data")
    raw = sandbox.raw()
    for host, path, status in (
        (f"{bucket}.s3.localhost:1", "/a%20b/c", 200),
        (f"{bucket}.s3.us-east-1.amazonaws.com", "/a%20b/c", 200),
        ("s3.localhost", f"/{bucket}/a%20b/c", 200),
        (f"{bucket}.s3.localhost", "/missing", 404),
        (f"{bucket}.s3.eu-west-1.amazonaws.com", "/a%20b/c", 301),
    ):
        raw._host, raw._signers = host, {}
        got, _, body = raw.call("GET", path, service="s3")
        assert got == status, body
        assert (body == b"data") == (status == 200)
        assert (b"<Code>PermanentRedirect</Code>" in body) == (status == 301)


@pytest.mark.behaviour(AREA, "ListBuckets", "page by page, by prefix and region")
def test_list_buckets(s3, refused):
    names = [f"paged-{number}" for number in range(5)]
    for name in names:
        s3.create_bucket(Bucket=name)
    found, token = [], {}
    while True:
        page = s3.list_buckets(Prefix="paged-", MaxBuckets=2, **token)
        found += [one["Name"] for one in page["Buckets"]]
        if "ContinuationToken" not in page:
            break
        token = {"ContinuationToken": page["ContinuationToken"]}
    assert found == names
    assert s3.list_buckets(Prefix="paged-", BucketRegion="eu-north-1")["Buckets"] == []
    assert refused(s3.list_buckets, MaxBuckets=0)["Code"] == "InvalidArgument"


@pytest.mark.behaviour(AREA, "PutBucketTagging", "tags are kept, told, replaced and removed; none is NoSuchTagSet")
def test_tags(s3, bucket, refused):
    assert refused(s3.get_bucket_tagging, Bucket=bucket)["Code"] == "NoSuchTagSet"
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "1"}]
    s3.delete_bucket_tagging(Bucket=bucket)
    assert refused(s3.get_bucket_tagging, Bucket=bucket)["Code"] == "NoSuchTagSet"


RULES = [
    {
        "ID": "old",
        "Status": "Enabled",
        "Filter": {"And": {"Prefix": "logs/", "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]}},
        "Expiration": {"Days": 30},
        "Transitions": [{"Days": 7, "StorageClass": "STANDARD_IA"}],
    },
    {
        "ID": "uploads",
        "Status": "Disabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
    },
]


@pytest.mark.behaviour(
    AREA, "PutBucketLifecycleConfiguration", "rules come back as they were put; wrong ones are refused"
)
def test_lifecycle(s3, bucket, refused):
    assert refused(s3.get_bucket_lifecycle_configuration, Bucket=bucket)["Code"] == "NoSuchLifecycleConfiguration"
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": RULES})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == RULES
    for wrong in ([{**RULES[0], "Status": "Maybe"}], [RULES[0], RULES[0]], [{"ID": "x", "Status": "Enabled"}]):
        configuration = {"Rules": wrong}
        code = refused(s3.put_bucket_lifecycle_configuration, Bucket=bucket, LifecycleConfiguration=configuration)[
            "Code"
        ]
        assert code in ("MalformedXML", "InvalidArgument")
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert refused(s3.get_bucket_lifecycle_configuration, Bucket=bucket)["Code"] == "NoSuchLifecycleConfiguration"


@pytest.mark.behaviour(AREA, "GetBucket*", "a bucket that was never set tells what S3's new buckets tell")
def test_defaults(s3, bucket, refused):
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    controls = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert controls == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    for call, code in (
        (s3.get_bucket_policy, "NoSuchBucketPolicy"),
        (s3.get_bucket_cors, "NoSuchCORSConfiguration"),
        (s3.get_bucket_website, "NoSuchWebsiteConfiguration"),
        (s3.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
        (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
    ):
        assert refused(call, Bucket=bucket)["Code"] == code


@pytest.mark.behaviour(AREA, "PutBucketVersioning and what else is missing", "NotImplemented, 501, and nothing changes")
def test_what_is_missing(s3, bucket, refused):
    wanted = {"VersioningConfiguration": {"Status": "Enabled"}}
    error = refused(s3.put_bucket_versioning, Bucket=bucket, **wanted)
    assert (error["Code"], error["Status"]) == ("NotImplemented", 501)
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert refused(s3.get_object, Bucket=bucket, Key="k", VersionId="abc")["Code"] == "InvalidArgument"


@pytest.mark.behaviour(AREA, "every call", "a malformed body is MalformedXML")
@pytest.mark.parametrize("body", [b"", b"<Tagging>", b"<Other/>", b"<Tagging><Unknown/></Tagging>", b"\xff\xfe"])
def test_malformed(http_call, bucket, body, checksum_of):
    status, _, answer = http_call("PUT", f"/{bucket}?tagging", body, {"Content-MD5": checksum_of(body)})
    assert (status, re.search(b"<Code>(.*?)</Code>", answer)[1]) == (400, b"MalformedXML")


@pytest.mark.behaviour(AREA, "every call", "x-amz-expected-bucket-owner of another account: AccessDenied")
def test_expected_owner(s3, bucket, refused):
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="123456789012")
    error = refused(s3.list_objects_v2, Bucket=bucket, ExpectedBucketOwner="999999999999")
    assert (error["Code"], error["Status"]) == ("AccessDenied", 403)
