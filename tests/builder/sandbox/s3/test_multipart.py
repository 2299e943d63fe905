"""Multipart uploads: parts in any order, again, copied, listed, completed, aborted; the whole judged by its bytes."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest
from awscrt import checksums as crt
from botocore.config import Config  # noqa: TID251 - the client that users bring

AREA = "S3 multipart"
MIB = 1 << 20
MISSING = [(AREA, "lifecycle rules", "kept and told, but nothing is expired or aborted by them")]


class Upload:
    """One upload, and what it was given."""

    def __init__(self, s3, bucket, key="k", **options):
        self.s3, self.named = s3, {"Bucket": bucket, "Key": key}
        self.made = s3.create_multipart_upload(**self.named, **options)
        self.named["UploadId"] = self.made["UploadId"]
        self.parts = {}

    def put(self, number, data, **options):
        answer = self.s3.upload_part(**self.named, PartNumber=number, Body=data, **options)
        self.parts[number] = {name: answer[name] for name in answer if name == "ETag" or name.startswith("Checksum")}
        return answer

    def listed(self, *numbers):
        return {"Parts": [{"PartNumber": number, **self.parts[number]} for number in numbers or sorted(self.parts)]}

    def complete(self, *numbers, **options):
        return self.s3.complete_multipart_upload(**self.named, MultipartUpload=self.listed(*numbers), **options)


@pytest.fixture
def start(s3, bucket):
    return lambda key="k", **options: Upload(s3, bucket, key, **options)


@pytest.fixture
def data(noise):
    return [noise(5 * MIB, 1), noise(5 * MIB + 1, 2), noise(10, 3)]


@pytest.mark.behaviour(AREA, "CompleteMultipartUpload", "parts sent in any order; the ETag is md5-of-md5s-N")
def test_parts_in_any_order(s3, bucket, start, data):
    upload = start(Metadata={"m": "1"}, ContentType="text/x", Tagging="t=1")
    for number in (3, 1, 2):
        assert upload.put(number, data[number - 1])["ETag"] == f'"{hashlib.md5(data[number - 1]).hexdigest()}"'
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0  # not yet
    done = upload.complete()
    etag = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in data)).hexdigest()
    assert (done["ETag"], done["Bucket"], done["Key"]) == (f'"{etag}-3"', bucket, "k")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"".join(data)
    assert (got["Metadata"], got["ContentType"], got["TagCount"]) == ({"m": "1"}, "text/x", 1)
    assert got["ETag"] == f'"{etag}-3"'
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.behaviour(AREA, "CompleteMultipartUpload", "moves no byte: the parts' files become the object")
def test_completing_moves_nothing(s3, sandbox, start, data, stored):
    before = stored()
    upload = start()
    for number, part in enumerate(data, 1):
        upload.put(number, part)
    files = {name: (sandbox.directory / "s3" / "data" / name).stat().st_ino for name in stored() - before}
    assert len(files) == 3
    upload.complete()
    assert {name: (sandbox.directory / "s3" / "data" / name).stat().st_ino for name in stored() - before} == files


@pytest.mark.behaviour(AREA, "UploadPart", "a part uploaded again replaces the first, and parts left out are dropped")
def test_again_and_left_out(s3, bucket, start, data, stored):
    before = stored()
    upload = start()
    upload.put(1, data[1])
    upload.put(1, data[0])
    upload.put(2, b"left out")
    upload.put(7, data[2])
    upload.complete(1, 7)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data[0] + data[2]
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"].endswith('-2"')
    assert len(stored() - before) == 2
    s3.delete_object(Bucket=bucket, Key="k")
    assert stored() == before


@pytest.mark.behaviour(AREA, "CompleteMultipartUpload", "InvalidPart, InvalidPartOrder, EntityTooSmall, MalformedXML")
def test_what_cannot_be_completed(s3, bucket, start, data, refused):
    upload = start()
    upload.put(1, data[0])
    upload.put(2, b"small")
    upload.put(3, data[2])
    good = upload.parts
    cases = [
        ([1, 4], {4: {"ETag": '"0123"'}}, "InvalidPart"),
        ([1, 2], {2: {"ETag": '"0123"'}}, "InvalidPart"),
        ([2, 1], {}, "InvalidPartOrder"),
        ([1, 1], {}, "InvalidPartOrder"),
        ([1, 2, 3], {}, "EntityTooSmall"),
    ]
    for numbers, other, code in cases:
        upload.parts = good | other
        assert refused(lambda numbers=numbers: upload.complete(*numbers))["Code"] == code
    upload.parts = good
    nothing = refused(s3.complete_multipart_upload, **upload.named, MultipartUpload={"Parts": []})
    assert nothing["Code"] == "MalformedXML"
    upload.complete(1, 2)  # all that failed harmed nothing; the last part may be small
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data[0] + b"small"


@pytest.mark.behaviour(AREA, "CompleteMultipartUpload", "completing again after a lost answer tells the same")
def test_completing_again(start, data, refused):
    upload = start()
    upload.put(1, data[2])
    first, second = upload.complete(), upload.complete()
    assert {name: first[name] for name in ("ETag", "Location", "Key")} == {
        name: second[name] for name in ("ETag", "Location", "Key")
    }
    upload.s3.put_object(Bucket=upload.named["Bucket"], Key="k", Body=b"another")
    assert refused(upload.complete)["Code"] == "NoSuchUpload"


@pytest.mark.behaviour(AREA, "AbortMultipartUpload", "the parts are gone, the upload is NoSuchUpload from then on")
def test_abort(s3, start, data, refused, stored):
    before = stored()
    upload = start()
    upload.put(1, data[0])
    s3.abort_multipart_upload(**upload.named)
    assert stored() == before
    for call in (
        lambda: upload.put(2, b"x"),
        upload.complete,
        lambda: s3.list_parts(**upload.named),
        lambda: s3.abort_multipart_upload(**upload.named),
    ):
        error = refused(call)
        assert (error["Code"], error["Status"]) == ("NoSuchUpload", 404)
    assert stored() == before


@pytest.mark.behaviour(
    AREA, "UploadPart", "InvalidArgument outside of 1 to 10000; another key's upload is NoSuchUpload"
)
def test_wrong_parts(s3, bucket, start, refused):
    upload = start()
    for number in (0, 10_001):
        assert refused(upload.put, number=number, data=b"x")["Code"] == "InvalidArgument"
    named = {"Bucket": bucket, "Key": "another", "UploadId": upload.named["UploadId"], "PartNumber": 1}
    assert refused(s3.upload_part, **named, Body=b"x")["Code"] == "NoSuchUpload"
    upload.put(10_000, b"x")
    upload.complete()


@pytest.mark.behaviour(AREA, "ListParts", "every part with size and ETag, page by page")
def test_list_parts(s3, start):
    upload = start()
    for number in (5, 1, 900, 20, 7):
        upload.put(number, bytes(number))
    found, marker = [], 0
    while True:
        page = s3.list_parts(**upload.named, MaxParts=2, PartNumberMarker=marker)
        found += [(part["PartNumber"], part["Size"], part["ETag"]) for part in page["Parts"]]
        assert len(page["Parts"]) <= 2
        if not page["IsTruncated"]:
            break
        marker = page["NextPartNumberMarker"]
    assert found == [(number, number, upload.parts[number]["ETag"]) for number in (1, 5, 7, 20, 900)]


@pytest.mark.behaviour(AREA, "ListMultipartUploads", "unfinished ones, by key and age, page by page")
def test_list_uploads(s3, bucket, start):
    made = [start(key) for key in ("a", "b/1", "b/2", "b/2", "c", "ü")]
    s3.abort_multipart_upload(**start("gone").named)
    expected = [(one.named["Key"], one.named["UploadId"]) for one in made]
    for size in (1, 2, 3, 1000):
        found, marker = [], {}
        while True:
            page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=size, **marker)
            found += [(one["Key"], one["UploadId"]) for one in page.get("Uploads", [])]
            if not page["IsTruncated"]:
                break
            marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        assert found == expected
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [one["Prefix"] for one in page["CommonPrefixes"]] == ["b/"]
    assert [one["Key"] for one in page["Uploads"]] == ["a", "c", "ü"]
    assert len(s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")["Uploads"]) == 3


@pytest.mark.behaviour(AREA, "UploadPartCopy", "a range or the whole of another object, also one of parts, as a part")
def test_copied_parts(s3, bucket, start, data, refused, noise):
    source = start("source")
    for number, part in enumerate(data, 1):
        source.put(number, part)
    source.complete()
    whole = b"".join(data)
    upload = start()
    first, last = 4 * MIB, 9 * MIB + 99  # across two parts
    for number, asked in ((1, {"CopySourceRange": f"bytes={first}-{last}"}), (2, {})):
        answer = s3.upload_part_copy(**upload.named, PartNumber=number, CopySource=f"{bucket}/source", **asked)
        upload.parts[number] = {"ETag": answer["CopyPartResult"]["ETag"]}
    assert upload.parts[1]["ETag"] == f'"{hashlib.md5(whole[first : last + 1]).hexdigest()}"'
    s3.delete_object(Bucket=bucket, Key="source")
    upload.complete()
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == whole[first : last + 1] + whole
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")["CopyObjectResult"]
    assert copied["ETag"] == f'"{hashlib.md5(whole[first : last + 1] + whole).hexdigest()}"'
    s3.delete_object(Bucket=bucket, Key="k")
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == whole[first : last + 1] + whole
    again = start("again")
    for asked in ("bytes=0-99999999", "bytes=5-1", "0-5"):
        named = {**again.named, "PartNumber": 1, "CopySource": f"{bucket}/copy", "CopySourceRange": asked}
        assert refused(s3.upload_part_copy, **named)["Code"] == "InvalidArgument"


def crc(algorithm, data):
    value, size = {
        "CRC32": (zlib.crc32(data), 4),
        "CRC32C": (crt.crc32c(data), 4),
        "CRC64NVME": (crt.crc64nvme(data), 8),
    }[algorithm]
    return base64.b64encode(value.to_bytes(size, "big")).decode()


@pytest.mark.behaviour(AREA, "CompleteMultipartUpload", "FULL_OBJECT checksums are those of the whole")
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_full_object(s3, bucket, start, data, refused, algorithm):
    upload = start(ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT")
    for number, part in enumerate(data, 1):
        upload.put(number, part, ChecksumAlgorithm=algorithm)
    name, whole = f"Checksum{algorithm}", crc(algorithm, b"".join(data))
    wrong = crc(algorithm, b"another")
    assert refused(upload.complete, **{name: wrong})["Code"] == "BadDigest"
    assert refused(upload.complete, MpuObjectSize=7)["Code"] == "InvalidRequest"
    done = upload.complete(**{name: whole})
    assert (done[name], done["ChecksumType"]) == (whole, "FULL_OBJECT")
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[name], head["ChecksumType"]) == (whole, "FULL_OBJECT")


@pytest.mark.behaviour(
    AREA, "CompleteMultipartUpload", "COMPOSITE checksums are those of the parts' checksums, with -N"
)
def test_composite(s3, bucket, start, data, refused):
    upload = start(ChecksumAlgorithm="SHA256")
    assert upload.made["ChecksumType"] == "COMPOSITE"
    for number, part in enumerate(data, 1):
        upload.put(number, part, ChecksumAlgorithm="SHA256")
    digests = b"".join(hashlib.sha256(part).digest() for part in data)
    whole = f"{base64.b64encode(hashlib.sha256(digests).digest()).decode()}-3"
    bare = {"Parts": [{"PartNumber": number, "ETag": upload.parts[number]["ETag"]} for number in (1, 2, 3)]}
    assert refused(s3.complete_multipart_upload, **upload.named, MultipartUpload=bare)["Code"] == "InvalidRequest"
    kept = upload.parts[2]
    upload.parts[2] = {**kept, "ChecksumSHA256": upload.parts[1]["ChecksumSHA256"]}
    assert refused(upload.complete)["Code"] == "InvalidPart"
    upload.parts[2] = kept
    assert upload.complete()["ChecksumSHA256"] == whole
    got = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ObjectParts", "ObjectSize"])
    assert got["Checksum"] == {"ChecksumSHA256": whole, "ChecksumType": "COMPOSITE"}
    assert [part["Size"] for part in got["ObjectParts"]["Parts"]] == [len(part) for part in data]
    assert got["ObjectParts"]["Parts"][1]["ChecksumSHA256"] == kept["ChecksumSHA256"]


@pytest.mark.behaviour(AREA, "UploadPart", "another algorithm than the upload's, or a wrong checksum, is refused")
def test_wrong_checksums(start, refused):
    upload = start(ChecksumAlgorithm="SHA256")
    assert refused(upload.put, number=1, data=b"x", ChecksumAlgorithm="CRC32")["Code"] == "InvalidRequest"
    wrong = base64.b64encode(bytes(32)).decode()
    assert refused(upload.put, number=1, data=b"x", ChecksumSHA256=wrong)["Code"] == "BadDigest"
    assert "Parts" not in upload.s3.list_parts(**upload.named)
    assert refused(start, ChecksumAlgorithm="SHA1", ChecksumType="FULL_OBJECT")["Code"] == "InvalidRequest"


@pytest.mark.behaviour(
    AREA, "boto3's upload_file and download_file", "whole files, by parts and ranges at the same time"
)
@pytest.mark.parametrize("calculation", ["when_supported", "when_required"])
def test_boto3_transfers(sandbox, bucket, noise, tmp_path, calculation):
    client = sandbox.client("s3", config=Config(request_checksum_calculation=calculation))
    data = noise(50 * MIB + 12_345)
    (tmp_path / "a").write_bytes(data)
    client.upload_file(str(tmp_path / "a"), bucket, "k")
    assert client.head_object(Bucket=bucket, Key="k")["ETag"].endswith('-7"')
    client.download_file(bucket, "k", str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == data
