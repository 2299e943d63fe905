"""What Ceph's radosgw 16 does otherwise than AWS, observed; and that emi's client comes through all of it."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cloud.s3 import Conditional, Origin, Target, download, upload_file
from builder.errors import CloudConflict, CloudError, CloudNotFound, CloudTrouble

MIB = 1 << 20
PART = 5 * MIB
AREA = "S3 client against radosgw"
DATA = random.Random(11).randbytes(1000)


def in_parts(place, key, *bodies, **condition):
    """Upload parts and complete them, without the help of what is to be tested."""
    begun = place.s3.begin_upload(place.bucket, key, known=())
    named = {"Bucket": place.bucket, "Key": key, "UploadId": begun.upload_id}
    parts = [
        {"PartNumber": number, "ETag": place.s3.call("UploadPart", **named, PartNumber=number, Body=body)["ETag"]}
        for number, body in enumerate(bodies, 1)
    ]
    completed = {"MultipartUpload": {"Parts": parts}, **condition}
    return named, completed, place.s3.call("CompleteMultipartUpload", **named, **completed)


@pytest.mark.behaviour(
    AREA,
    "CompleteMultipartUpload",
    "answers with an empty ETag; emi looks at the object, whose ETag is the MD5 over the parts' MD5s and their number",
)
def test_completing_gives_no_etag(rados, tmp_path):
    first, last = random.Random(12).randbytes(PART), b"tail"
    *_, answer = in_parts(rados, "plain", first, last)
    assert answer["ETag"] == ""
    md5s = hashlib.md5(first).digest() + hashlib.md5(last).digest()
    assert rados.s3.head(rados.bucket, "plain").etag == f"{hashlib.md5(md5s).hexdigest()}-2"
    source = tmp_path / "source"
    source.write_bytes(first + last)
    stored = upload_file(rados.s3, Target(bucket=rados.bucket, key="ours"), source, part=PART)
    assert stored.etag == rados.s3.head(rados.bucket, "plain").etag
    assert download(rados.s3, Origin(bucket=rados.bucket, key="ours"), tmp_path / "back").verified == "md5"


@pytest.mark.behaviour(
    AREA, "CompleteMultipartUpload again", "is answered as done, with the object's ETag: a lost answer costs nothing"
)
def test_completing_again_succeeds(rados):
    named, completed, _ = in_parts(rados, "again", b"one")
    answer = rados.s3.call("CompleteMultipartUpload", **named, **completed)
    assert answer["ETag"] == rados.s3.head(rados.bucket, "again").etag
    assert rados.s3.read(rados.bucket, "again") == b"one"


@pytest.mark.behaviour(
    AREA,
    "CompleteMultipartUpload with If-None-Match",
    "is ignored: the object is replaced; emi finds that out with an object of its own, and looks before it completes",
)
def test_completing_ignores_the_condition(rados):
    rados.s3.put(rados.bucket, "there", DATA)
    in_parts(rados, "there", b"replaced", IfNoneMatch="*")
    assert rados.s3.read(rados.bucket, "there") == b"replaced"
    assert rados.s3.conditional(rados.bucket) == Conditional(put=True, complete=False)


@pytest.mark.behaviour(AREA, "PutObject with If-None-Match", "is honoured: of two writers the second is refused")
def test_putting_honours_the_condition(rados):
    named = {"Bucket": rados.bucket, "Key": "one", "IfNoneMatch": "*"}
    rados.s3.call("PutObject", **named, Body=b"first")
    with pytest.raises(CloudConflict) as caught:
        rados.s3.call("PutObject", **named, Body=b"second")
    assert caught.value.code == "PreconditionFailed"
    assert rados.s3.read(rados.bucket, "one") == b"first"


@pytest.mark.behaviour(
    AREA,
    "PutObject with x-amz-checksum-sha256",
    "neither checks nor stores it: a wrong one is taken; emi trusts Content-MD5, and writes a digest into the metadata",
)
def test_checksums_are_neither_checked_nor_stored(rados):
    wrong = base64.b64encode(bytes(32)).decode()
    rados.s3.call("PutObject", Bucket=rados.bucket, Key="one", Body=DATA, ChecksumSHA256=wrong)
    answer = rados.s3.call("HeadObject", Bucket=rados.bucket, Key="one", ChecksumMode="ENABLED")
    assert [name for name in answer if name.startswith("Checksum")] == []
    rados.s3.put(rados.bucket, "two", DATA)
    assert rados.s3.head(rados.bucket, "two").digest == f"md5:{hashlib.md5(DATA).hexdigest()}"


@pytest.mark.behaviour(AREA, "PutObject with Content-MD5", "checks it: what arrives damaged is refused and not stored")
def test_content_md5_is_checked(radosgw, rados):
    wrong = base64.b64encode(bytes(16)).decode()
    session = rados.s3._session()
    with pytest.raises(CloudTrouble) as caught:
        session.call("s3", "PutObject", {"Bucket": rados.bucket, "Key": "bad", "Body": DATA, "ContentMD5": wrong})
    assert caught.value.code == "BadDigest"
    assert rados.s3.head(rados.bucket, "bad") is None


@pytest.mark.behaviour(
    AREA, "PutObject with the ACL aws-exec-read", "is refused as InvalidArgument, and nothing is stored"
)
def test_aws_exec_read_is_unknown(rados):
    with pytest.raises(CloudError) as caught:
        rados.s3.put(rados.bucket, "part.0", DATA, acl="aws-exec-read")
    assert caught.value.code == "InvalidArgument"
    assert "s3:PutObject" in caught.value.message
    assert not caught.value.retryable
    assert rados.s3.head(rados.bucket, "part.0") is None


@pytest.mark.behaviour(
    AREA,
    "CreateBucket with a region's name",
    "is InvalidLocationConstraint; emi leaves the constraint out unless the user gave it",
)
def test_regions_have_other_names(radosgw, rados):
    with pytest.raises(CloudError) as caught:
        rados.s3.ensure_bucket(f"{rados.bucket}-x", location="eu-west-1")
    assert caught.value.code == "InvalidLocationConstraint"
    elsewhere = replace(radosgw, settings=replace(radosgw.settings, region="eu-west-1"))
    assert elsewhere.client().ensure_bucket(f"{rados.bucket}-x") is True
    assert elsewhere.client().ensure_bucket(f"{rados.bucket}-y", location="default") is True
    assert {f"{rados.bucket}-x", f"{rados.bucket}-y"} <= rados.s3.buckets()


@pytest.mark.behaviour(AREA, "CreateBucket of our own bucket", "succeeds again, as AWS's us-east-1 does")
def test_our_own_bucket_again(rados):
    rados.s3.put(rados.bucket, "kept", DATA)
    rados.s3.call("CreateBucket", Bucket=rados.bucket)
    assert rados.s3.read(rados.bucket, "kept") == DATA


@pytest.mark.behaviour(AREA, "errors", "come without a message; emi says the call and the code")
def test_errors_have_no_message(rados):
    with pytest.raises(CloudNotFound) as caught:
        rados.s3.call("GetObjectAcl", Bucket=rados.bucket, Key="none")
    assert caught.value.message == "s3:GetObjectAcl: no message (NoSuchKey)"


def test_the_node_is_small_private_and_gone_with_its_process(ceph):
    assert ceph.resident() < 1024
    assert not (ceph.place / "osd" / "block").exists()
    open_files = [file for daemon in ceph.daemons for file in Path(f"/proc/{daemon.pid}/fd").iterdir()]
    sockets = {str(file.readlink()) for file in open_files if file.is_symlink()}
    addresses = set()
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        listening = [row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
        addresses |= {row[1].partition(":")[0] for row in listening}
    assert addresses == {"0100007F"}  # 127.0.0.1
