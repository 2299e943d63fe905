"""Downloads on both servers: the same bytes, the same holes, and nothing fetched twice."""

from __future__ import annotations

import random

import pytest

from builder.cloud.s3 import Origin, Target, download, upload_file
from builder.digest import file_sha256
from builder.errors import CloudConflict, CloudNotFound, CloudTrouble

MIB = 1 << 20
PART = 5 * MIB


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    """Five parts and a page: data, nothing at all, data with holes of its own, nothing, data, and a page of data."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    numbers = random.Random(5)
    with open(path, "wb") as file:
        file.truncate(5 * PART + 4096)
        for offset, size in ((0, PART), (2 * PART + MIB + 5, 70_000), (4 * PART, 100), (5 * PART, 4096)):
            file.seek(offset)
            file.write(numbers.randbytes(size))
    return path


@pytest.fixture
def stored(place, disk):
    upload_file(place.s3, Target(bucket=place.bucket, key="disk"), disk, part=PART)
    place.calls.clear()
    return Origin(bucket=place.bucket, key="disk")


def left_beside(path):
    return [found.name for found in path.parent.iterdir() if found != path]


def test_bytes_and_holes_arrive(place, stored, disk, tmp_path):
    path = tmp_path / "here.raw"
    found = download(place.s3, stored, path)
    assert path.read_bytes() == disk.read_bytes()
    assert path.stat().st_blocks * 512 < 7 * MIB
    assert found.verified == "md5"
    assert place.calls == {"HeadObject": 1, "GetObject": 6}
    assert left_beside(path) == []


def test_the_digest_that_was_written_beside_it_is_held_against_it(place, disk, tmp_path):
    digest = file_sha256(disk)
    upload_file(place.s3, Target(bucket=place.bucket, key="disk", digest=digest), disk, part=PART)
    path = tmp_path / "here.raw"
    assert download(place.s3, Origin(bucket=place.bucket, key="disk"), path).verified == "sha256"
    wrong = Origin(bucket=place.bucket, key="disk", digest=digest[:-1] + "x")
    with pytest.raises(CloudTrouble, match="sha256 differs"):
        download(place.s3, wrong, tmp_path / "other.raw")
    assert left_beside(path) == []


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1])
def test_sizes_around_a_part(place, tmp_path, size):
    source, path = tmp_path / "source", tmp_path / "here"
    source.write_bytes(random.Random(size).randbytes(size))
    place.s3.put(place.bucket, "one", source.read_bytes())
    assert download(place.s3, Origin(bucket=place.bucket, key="one", part=PART), path).verified == "md5"
    assert path.read_bytes() == source.read_bytes()


def test_other_tools_parts_are_found_out_or_said_to_be_unknown(place, tmp_path):
    source, path = tmp_path / "source", tmp_path / "here"
    source.write_bytes(random.Random(6).randbytes(17 * MIB))
    for part, verified in ((8 * MIB, "md5"), (7 * MIB + 1, "length")):
        begun = place.s3.begin_upload(place.bucket, "theirs", known=())
        named = {"Bucket": place.bucket, "Key": "theirs", "UploadId": begun.upload_id}
        parts = []
        for number in range(3):
            body = source.read_bytes()[number * part : (number + 1) * part]
            answer = place.s3.call("UploadPart", **named, PartNumber=number + 1, Body=body)
            parts.append({"PartNumber": number + 1, "ETag": answer["ETag"]})
        place.s3.call("CompleteMultipartUpload", **named, MultipartUpload={"Parts": parts})
        assert download(place.s3, Origin(bucket=place.bucket, key="theirs"), path).verified == verified
        assert path.read_bytes() == source.read_bytes()


def interrupted(place, stored, path, *, at):
    """Begin a download that is interrupted before the request number `at`."""

    def stop():
        raise KeyboardInterrupt

    place.calls.clear()
    place.before["GetObject", at] = stop
    with pytest.raises(KeyboardInterrupt):
        download(place.s3, stored, path, workers=1)
    assert not path.exists()
    place.before.clear()
    place.calls.clear()


def test_what_arrived_is_not_fetched_again(place, stored, disk, tmp_path):
    path = tmp_path / "here.raw"
    interrupted(place, stored, path, at=4)
    download(place.s3, stored, path)
    assert place.calls == {"HeadObject": 1, "GetObject": 3}
    assert path.read_bytes() == disk.read_bytes()
    assert left_beside(path) == []


def test_what_was_damaged_on_the_disk_is_fetched_again(place, stored, disk, tmp_path):
    path = tmp_path / "here.raw"
    interrupted(place, stored, path, at=6)
    with open(tmp_path / ".here.raw.part", "r+b") as file:
        for offset in (PART + 17, 4 * PART):  # where zeros belong, and where data does
            file.seek(offset)
            file.write(b"rotten")
    download(place.s3, stored, path)
    assert place.calls["GetObject"] == 3
    assert path.read_bytes() == disk.read_bytes()


def test_a_torn_line_of_the_journal_costs_one_range(place, stored, disk, tmp_path):
    path, journal = tmp_path / "here.raw", tmp_path / ".here.raw.parts"
    interrupted(place, stored, path, at=6)
    journal.write_bytes(journal.read_bytes()[:-20])
    interrupted(place, stored, path, at=2)
    download(place.s3, stored, path)
    assert place.calls["GetObject"] == 1 + 1  # the torn line's range was fetched before the interruption
    assert path.read_bytes() == disk.read_bytes()


def test_another_object_of_that_name_begins_anew(place, stored, tmp_path):
    path = tmp_path / "here.raw"
    interrupted(place, stored, path, at=6)
    place.s3.put(place.bucket, "disk", b"another")
    download(place.s3, stored, path)
    assert path.read_bytes() == b"another"
    assert left_beside(path) == []


def test_an_object_that_changes_meanwhile_is_a_conflict(place, stored, tmp_path):
    place.before["GetObject", 2] = lambda: place.again().s3.put(place.bucket, "disk", b"another")
    with pytest.raises(CloudConflict, match="changed while it was being downloaded"):
        download(place.s3, stored, tmp_path / "here.raw", workers=1)
    assert not (tmp_path / "here.raw").exists()


def test_what_is_not_there(place, tmp_path):
    with pytest.raises(CloudNotFound):
        download(place.s3, Origin(bucket=place.bucket, key="none"), tmp_path / "here")
    assert list(tmp_path.iterdir()) == []
