"""Multipart uploads on both servers: what is sent, what is not sent again, and what is there afterwards."""

from __future__ import annotations

import hashlib
import random

import pytest

from builder import pool
from builder.cloud.s3 import Target, upload_file, upload_stream
from builder.cloud.s3.upload import LARGEST_PART, MIB, MOST_PARTS, PART, part_size
from builder.digest import file_sha256
from builder.errors import CloudConflict, InputError

SMALL = 5 * MIB  # the least that S3 takes for a part that is not the last


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    """Three parts and 77 bytes, no two of them the same."""
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(random.Random(3).randbytes(3 * SMALL + 77))
    return path


def target(place, **more) -> Target:
    return Target(bucket=place.bucket, key="dir/file", **more)


def same(place, path, key="dir/file") -> bool:
    return place.s3.read(place.bucket, key, most=1 << 30) == path.read_bytes()


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (0, PART),
        (PART * MOST_PARTS, PART),
        (PART * MOST_PARTS + 1, PART + MIB),
        (1 << 40, 105 * MIB),
        (LARGEST_PART * MOST_PARTS, LARGEST_PART),
    ],
)
def test_ten_thousand_parts_suffice(size, wanted):
    assert part_size(size) == wanted
    assert -(-size // wanted) <= MOST_PARTS


def test_what_no_ten_thousand_parts_hold_is_refused():
    with pytest.raises(InputError):
        part_size(LARGEST_PART * MOST_PARTS + 1)


def test_parts_are_sent_once_and_the_object_is_known_again(place, file):
    stored = upload_file(place.s3, target(place), file, part=SMALL)
    assert (stored.size, stored.parts) == (file.stat().st_size, 4)
    assert same(place, file)
    assert place.calls["UploadPart"] == 4
    assert list(place.s3.uploads(place.bucket)) == []
    place.calls.clear()
    assert upload_file(place.s3, target(place), file, part=SMALL) == stored
    assert place.calls == {"HeadObject": 1}


def test_other_bytes_of_the_same_size_replace_the_object(place, file, tmp_path):
    upload_file(place.s3, target(place), file, part=SMALL)
    other = tmp_path / "other"
    other.write_bytes(file.read_bytes()[:-1] + b"!")
    upload_file(place.s3, target(place), other, part=SMALL)
    assert same(place, other)


def test_a_known_digest_spares_reading(place, file, tmp_path):
    digest = file_sha256(file)
    upload_file(place.s3, target(place, digest=digest), file, part=SMALL)
    other = tmp_path / "other"
    other.write_bytes(bytes(file.stat().st_size))  # whoever read it would send it
    upload_file(place.s3, target(place, digest=digest), other, part=SMALL)
    assert place.s3.head(place.bucket, "dir/file").digest == digest
    assert same(place, file)


def test_a_file_of_one_part_goes_in_one_request(place, tmp_path):
    for size in (0, 1, SMALL):
        path = tmp_path / "small"
        path.write_bytes(random.Random(size).randbytes(size))
        place.calls.clear()
        upload_file(place.s3, target(place), path, part=SMALL)
        assert place.calls["PutObject"] == 1
        assert place.calls["CreateMultipartUpload"] == 0
        assert same(place, path)


def test_parts_that_are_held_are_not_sent_again(place, file):
    s3 = place.s3
    begun = s3.begin_upload(place.bucket, "dir/file", known=())
    data = file.read_bytes()
    held = {1: data[:SMALL], 2: b"?" * SMALL, 4: data[3 * SMALL :]}  # the second is not what the file holds
    for number, body in held.items():
        named = {"Bucket": place.bucket, "Key": "dir/file", "UploadId": begun.upload_id}
        s3.call("UploadPart", **named, PartNumber=number, Body=body)
    place.calls.clear()
    upload_file(s3, target(place), file, part=SMALL)
    assert (place.calls["UploadPart"], place.calls["CreateMultipartUpload"]) == (2, 0)
    assert same(place, file)
    assert s3.unfinished(place.bucket, "dir/file") == []


def test_parts_past_the_thousandth_are_seen(place):
    """The mistake of a known tool: it lists one page and sends the rest again (what-hurts-users, section 4)."""
    begun = place.s3.begin_upload(place.bucket, "many", known=())
    named = {"Bucket": place.bucket, "Key": "many", "UploadId": begun.upload_id}

    def send(number: int) -> None:
        place.s3.call("UploadPart", **named, PartNumber=number, Body=b"%d" % number)

    pool.drain(send, range(1, 1003), workers=8)
    found = list(place.s3.parts(begun))
    assert [part.number for part in found] == list(range(1, 1003))
    assert found[1001].etag == hashlib.md5(b"1002").hexdigest()
    place.s3.abort(begun)
    place.s3.abort(begun)
    assert list(place.s3.uploads(place.bucket)) == []


def test_uploads_of_longer_keys_are_not_taken_for_ours(place, file):
    other = place.s3.begin_upload(place.bucket, "dir/file.sig", known=())
    upload_file(place.s3, target(place), file, part=SMALL)
    assert [found.upload_id for found in place.s3.uploads(place.bucket, "dir/")] == [other.upload_id]
    assert list(place.s3.uploads(place.bucket, "else")) == []


def test_a_file_that_is_cut_meanwhile_is_refused_and_dropped_when_asked(place, tmp_path):
    path = tmp_path / "shrinking"
    path.write_bytes(bytes(3 * SMALL))
    place.before["CreateMultipartUpload", 1] = lambda: path.write_bytes(bytes(SMALL))
    with pytest.raises(InputError, match="shrinking ends at byte"):
        upload_file(place.s3, target(place, abort=True), path, part=SMALL)
    assert place.s3.head(place.bucket, "dir/file") is None
    assert list(place.s3.uploads(place.bucket)) == []


def test_a_failure_leaves_the_parts_for_the_next_attempt(place, file):
    def pieces(count):
        data = file.read_bytes()
        for number in range(count):
            yield data[number * SMALL : (number + 1) * SMALL]
        if count < 4:
            raise InputError("the source broke")

    with pytest.raises(InputError):
        upload_stream(place.s3, target(place), pieces(2), most=0, part=SMALL)
    (left,) = place.s3.unfinished(place.bucket, "dir/file")
    assert len(list(place.s3.parts(left))) <= 2
    sent = place.calls["UploadPart"]
    upload_stream(place.s3, target(place), pieces(4), most=0, part=SMALL)
    assert place.calls["UploadPart"] == 4
    assert sent >= 1
    assert same(place, file)


def test_a_stream_in_odd_pieces(place, file):
    data = file.read_bytes()
    sizes = random.Random(4)

    def pieces():
        at = 0
        while at < len(data):
            step = sizes.choice((1, 1000, SMALL - 1, 2 * SMALL))
            yield data[at : at + step]
            at += step

    digest = file_sha256(file)
    stored = upload_stream(place.s3, target(place, digest=digest), pieces(), most=len(data), part=SMALL)
    assert (stored.size, stored.parts, stored.digest) == (len(data), 4, digest)
    assert same(place, file)

    def never():
        raise AssertionError("read although the object is there")
        yield b""

    assert upload_stream(place.s3, target(place, digest=digest), never(), most=len(data), part=SMALL) == stored


@pytest.mark.parametrize("data", [b"", b"short"])
def test_a_short_stream_goes_in_one_request(place, data):
    upload_stream(place.s3, target(place), iter([data]), most=1 << 40)
    assert place.s3.read(place.bucket, "dir/file") == data
    assert place.calls["CreateMultipartUpload"] == 0


def test_a_created_object_is_kept_when_it_holds_other_bytes(place, file, tmp_path):
    upload_file(place.s3, target(place, if_absent=True), file, part=SMALL)
    upload_file(place.s3, target(place, if_absent=True), file, part=SMALL)
    other = tmp_path / "other"
    other.write_bytes(bytes(3 * SMALL))
    with pytest.raises(CloudConflict):
        upload_file(place.s3, target(place, if_absent=True), other, part=SMALL)
    assert same(place, file)
    assert list(place.s3.uploads(place.bucket)) == []


@pytest.mark.parametrize("moment", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_an_object_that_appears_meanwhile_is_kept(place, file, moment):
    """Whether 412 says so or a look before the last call; only in the last call itself a look comes too late."""
    if moment == "CompleteMultipartUpload" and not place.s3.conditional(place.bucket).complete:
        moment = "UploadPart"
    place.calls.clear()
    place.before[moment, 1] = lambda: place.again().s3.put(place.bucket, "dir/file", b"theirs")
    with pytest.raises(CloudConflict):
        upload_file(place.s3, target(place, if_absent=True), file, part=SMALL)
    assert place.s3.read(place.bucket, "dir/file") == b"theirs"
    assert list(place.s3.uploads(place.bucket)) == []
