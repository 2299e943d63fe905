"""The EBS direct APIs, judged by bytes, states and errors."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import sqlite3
import time
from urllib.parse import urlencode

import pytest

from builder.digest import BLOCK
from builder.sandbox import lifecycle

FOREIGN = "snap-0123456789abcdef0"


@pytest.mark.behaviour("EBS direct", "StartSnapshot to GetSnapshotBlock", "every block comes back byte for byte with "
                       "its checksum; fields, progress, tags, expiry; the waiter snapshot_completed ends")  # fmt: skip
def test_a_round_trip_through_boto3(ebs, ec2, blocks, checksum):
    data = {index: blocks(index) for index in (3, 1, 2047)}
    started = ebs.start_snapshot(VolumeSize=1, Description="by boto3", Tags=[{"Key": "emi:claim", "Value": "1"}])
    snapshot_id = started["SnapshotId"]
    assert (started["Status"], started["VolumeSize"], started["BlockSize"]) == ("pending", 1, BLOCK)
    assert (started["OwnerId"], started["Tags"]) == ("123456789012", [{"Key": "emi:claim", "Value": "1"}])
    for index, content in data.items():
        answer = ebs.put_snapshot_block(
            SnapshotId=snapshot_id, BlockIndex=index, BlockData=content, DataLength=BLOCK,
            Checksum=checksum(content), ChecksumAlgorithm="SHA256", Progress=40,
        )  # fmt: skip
        assert (answer["Checksum"], answer["ChecksumAlgorithm"]) == (checksum(content), "SHA256")
    (described,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert (described["State"], described["Progress"], described["VolumeId"]) == ("pending", "40%", "vol-ffffffff")
    linear = hashlib.sha256(b"".join(hashlib.sha256(data[index]).digest() for index in sorted(data))).digest()
    sealed = ebs.complete_snapshot(
        SnapshotId=snapshot_id, ChangedBlocksCount=3, Checksum=base64.b64encode(linear).decode(),
        ChecksumAlgorithm="SHA256", ChecksumAggregationMethod="LINEAR",
    )  # fmt: skip
    assert sealed["Status"] in ("pending", "completed")
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot_id], WaiterConfig={"Delay": 1})
    (described,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert (described["Progress"], described["Description"]) == ("100%", "by boto3")
    assert described["FullSnapshotSizeInBytes"] == 3 * BLOCK
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)
    assert (listed["VolumeSize"], listed["BlockSize"]) == (1, BLOCK)
    assert 6.9 < (listed["ExpiryTime"].timestamp() - time.time()) / 86400 < 7.1
    assert [entry["BlockIndex"] for entry in listed["Blocks"]] == [1, 3, 2047]
    for entry in listed["Blocks"]:
        got = ebs.get_snapshot_block(SnapshotId=snapshot_id, **entry)
        assert (got["DataLength"], got["ChecksumAlgorithm"]) == (BLOCK, "SHA256")
        content = got["BlockData"].read()
        assert content == data[entry["BlockIndex"]]
        assert got["Checksum"] == checksum(content)


@pytest.mark.behaviour("EBS direct", "CompleteSnapshot", "`pending` is seen before `completed`, and cannot be read")
def test_a_sealed_snapshot_is_pending_before_it_is_completed(make_sandbox, blocks):
    running = make_sandbox(settle=2)
    raw, ec2 = running.raw(), running.client("ec2")
    snapshot_id = raw.start()
    raw.put(snapshot_id, 0, blocks(0))
    assert raw.complete(snapshot_id, 1)[::3] == (202, {"Status": "pending"})
    assert ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["State"] == "pending"
    assert raw.ebs("GET", f"/snapshots/{snapshot_id}/blocks")[:3] == (400, "ValidationException", "INVALID_SNAPSHOT_ID")
    raw.wait(snapshot_id)
    assert raw.read(snapshot_id) == {0: blocks(0)}


@pytest.mark.behaviour("EBS direct", "PutSnapshotBlock", "the same block twice counts once, the last bytes stay")
def test_a_block_put_twice_counts_once_and_the_last_bytes_stay(raw, blocks):
    snapshot_id = raw.start()
    for seed in ("first", "first", "second"):
        assert raw.put(snapshot_id, 5, blocks(seed))[0] == 201
    assert raw.complete(snapshot_id, 1)[0] == 202
    raw.wait(snapshot_id)
    assert raw.read(snapshot_id) == {5: blocks("second")}


@pytest.mark.behaviour("EBS direct", "PutSnapshotBlock", "a block of zeros that was put is a block")
def test_a_written_block_of_zeros_is_a_block(raw):
    assert raw.read(raw.snapshot({4: bytes(BLOCK)})) == {4: bytes(BLOCK)}


@pytest.mark.behaviour("EBS direct", "CompleteSnapshot", "a snapshot without blocks completes")
def test_a_snapshot_without_blocks_completes(raw):
    assert raw.read(raw.snapshot({})) == {}


@pytest.mark.behaviour("EBS direct", "PutSnapshotBlock", "wrong index, length, checksum, algorithm, progress or "
                       "snapshot: refused with the model's reason, and nothing is kept")  # fmt: skip
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"index": "2048"}, (400, "ValidationException", "INVALID_PARAMETER_VALUE")),
        ({"index": "x"}, (400, "ValidationException", "INVALID_PARAMETER_VALUE")),
        ({"snapshot": FOREIGN}, (404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")),
        ({"snapshot": "vol-1"}, (400, "ValidationException", "INVALID_SNAPSHOT_ID")),
        ({"data": b"x" * 100}, (400, "ValidationException", "INVALID_PARAMETER_VALUE")),
        ({"data": b"x" * 100, "x-amz-Data-Length": str(BLOCK)}, (400, "ValidationException", "INVALID_BLOCK")),
        ({"x-amz-Data-Length": "512"}, (400, "ValidationException", "INVALID_PARAMETER_VALUE")),
        ({"x-amz-Checksum": "AAAA"}, (400, "ValidationException", "INVALID_BLOCK")),
        ({"x-amz-Checksum": ""}, (400, "ValidationException", "INVALID_PARAMETER_VALUE")),
        ({"x-amz-Checksum-Algorithm": "MD5"}, (400, "ValidationException", "INVALID_PARAMETER_VALUE")),
        ({"x-amz-Progress": "101"}, (400, "ValidationException", "INVALID_PARAMETER_VALUE")),
    ],
)
def test_a_put_that_is_refused_leaves_nothing(raw, blocks, headers_for, change, expected):
    snapshot_id = raw.start()
    data = change.pop("data", blocks("data"))
    path = f"/snapshots/{change.pop('snapshot', snapshot_id)}/blocks/{change.pop('index', '0')}"
    assert raw.ebs("PUT", path, data, {**headers_for(data), **change})[:3] == expected
    assert raw.complete(snapshot_id, 0)[0] == 202  # on the same connection: the refused body was read to its end


@pytest.mark.behaviour("EBS direct", "PutSnapshotBlock", "a sealed or completed snapshot takes no block")
def test_a_sealed_snapshot_takes_no_block(raw, blocks, completed):
    fresh = raw.start()
    assert raw.complete(fresh, 0)[0] == 202
    for snapshot_id in (fresh, completed):
        expected = (400, "ValidationException", "INVALID_SNAPSHOT_ID")
        assert raw.put(snapshot_id, 1, blocks("late"))[:3] == expected
    assert 1 not in raw.read(completed)


@pytest.mark.behaviour("EBS direct", "CompleteSnapshot", "a wrong count or linear checksum is refused and the "
                       "snapshot stays pending")  # fmt: skip
@pytest.mark.parametrize(
    ("count", "headers", "status"),
    [
        (2, {}, 202),
        (1, {}, 400),
        (3, {}, 400),
        ("x", {}, 400),
        (2, {"x-amz-Checksum": "linear"}, 400),
        (2, {"x-amz-Checksum": "linear", "x-amz-Checksum-Algorithm": "SHA256"}, 400),
        (2, {"x-amz-Checksum": "linear", "x-amz-Checksum-Aggregation-Method": "LINEAR"}, 400),
        (2, {"x-amz-Checksum": "AAAA", "x-amz-Checksum-Algorithm": "SHA256",
             "x-amz-Checksum-Aggregation-Method": "LINEAR"}, 400),
        (2, {"x-amz-Checksum": "linear", "x-amz-Checksum-Algorithm": "SHA256",
             "x-amz-Checksum-Aggregation-Method": "LINEAR"}, 202),
    ],
)  # fmt: skip
def test_completing_checks_count_and_checksum(raw, blocks, count, headers, status):
    data = {0: blocks("a"), 9: blocks("b")}
    snapshot_id = raw.start()
    for index, content in data.items():
        raw.put(snapshot_id, index, content)
    linear = hashlib.sha256(b"".join(hashlib.sha256(data[index]).digest() for index in sorted(data))).digest()
    headers = {name: value.replace("linear", base64.b64encode(linear).decode()) for name, value in headers.items()}
    answered, kind, reason, _ = raw.complete(snapshot_id, count, **headers)
    assert answered == status
    if status == 400:
        assert (kind, reason) == ("ValidationException", "INVALID_PARAMETER_VALUE")
        assert raw.put(snapshot_id, 9, data[9])[0] == 201  # it is still pending
        assert raw.complete(snapshot_id, 2)[0] == 202
    raw.wait(snapshot_id)
    assert raw.read(snapshot_id) == data


@pytest.mark.behaviour("EBS direct", "CompleteSnapshot", "again with the same count: a retry, answered with the "
                       "present status")  # fmt: skip
def test_completing_again_with_the_same_count_is_a_retry(raw, completed):
    assert raw.complete(completed, 3)[::3] == (202, {"Status": "completed"})
    assert raw.complete(completed, 4)[0] == 400


@pytest.mark.behaviour("EBS direct", "ListSnapshotBlocks, ListChangedBlocks, GetSnapshotBlock", "a pending snapshot "
                       "cannot be read")  # fmt: skip
def test_a_pending_snapshot_cannot_be_read(raw, blocks):
    snapshot_id = raw.start()
    raw.put(snapshot_id, 0, blocks("a"))
    expected = (400, "ValidationException", "INVALID_SNAPSHOT_ID")
    for path in ("blocks", "blocks/0?blockToken=AAAA", "changedblocks"):
        assert raw.ebs("GET", f"/snapshots/{snapshot_id}/{path}")[:3] == expected


@pytest.mark.behaviour("EBS direct", "StartSnapshot, ClientToken", "at once from eight connections: one snapshot; "
                       "other parameters: ConflictException; both also when it is deleted; per region")  # fmt: skip
def test_the_same_client_token_makes_one_snapshot(raw, ec2, together, sandbox):
    wish = {"VolumeSize": 2, "ClientToken": "one", "Tags": [{"Key": "a", "Value": "b"}], "Description": "d"}
    starts = [lambda: sandbox.raw().start(**wish)] * 8
    (snapshot_id,) = set(together(*starts))
    same = raw.ebs("POST", "/snapshots", wish)
    assert same[0] == 201
    assert same[3]["SnapshotId"] == snapshot_id
    changes = [{"VolumeSize": 3}, {"Description": "e"}, {"Tags": []}, {"Timeout": 10}, {"ParentSnapshotId": FOREIGN}]
    for change in changes:
        assert raw.ebs("POST", "/snapshots", {**wish, **change})[:2] == (409, "ConflictException")
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    assert raw.ebs("POST", "/snapshots", wish)[3] == same[3]  # a token outlives its resource
    assert raw.ebs("POST", "/snapshots", {**wish, "VolumeSize": 3})[:2] == (409, "ConflictException")
    assert raw.ebs("GET", f"/snapshots/{snapshot_id}/blocks")[:2] == (404, "ResourceNotFoundException")
    assert raw.start(**{**wish, "ClientToken": "two"}) != snapshot_id
    assert sandbox.raw(region="eu-west-1").start(**wish) != snapshot_id  # tokens are per region


@pytest.mark.behaviour("EBS direct", "StartSnapshot", "sizes, timeouts, tags, keys and unknown parameters that the "
                       "model forbids are refused with its reasons")  # fmt: skip
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"VolumeSize": 0}, "INVALID_VOLUME_SIZE"),
        ({"VolumeSize": 65537}, "INVALID_VOLUME_SIZE"),
        ({"VolumeSize": "1"}, "INVALID_VOLUME_SIZE"),
        ({"VolumeSize": None}, "INVALID_VOLUME_SIZE"),
        ({"Timeout": 9}, "INVALID_PARAMETER_VALUE"),
        ({"Timeout": 4321}, "INVALID_PARAMETER_VALUE"),
        ({"Description": "x" * 256}, "INVALID_PARAMETER_VALUE"),
        ({"Encrypted": "yes"}, "INVALID_PARAMETER_VALUE"),
        ({"Encrypted": False, "ParentSnapshotId": FOREIGN}, "INVALID_PARAMETER_VALUE"),
        ({"KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/1"}, "INVALID_CUSTOMER_KEY"),
        ({"Encrypted": True, "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/1"}, "INVALID_CUSTOMER_KEY"),
        ({"Size": 1}, "INVALID_PARAMETER_VALUE"),
        ({"Tags": [{"Key": "aws:x", "Value": "1"}]}, "INVALID_TAG"),
        ({"Tags": [{"Key": "x", "Value": "1"}, {"Key": "x", "Value": "2"}]}, "INVALID_TAG"),
        ({"Tags": [{"Key": "", "Value": "1"}]}, "INVALID_TAG"),
        ({"Tags": [{"Key": "x", "Value": "1" * 256}]}, "INVALID_TAG"),
        ({"Tags": [{"Key": str(number), "Value": ""} for number in range(51)]}, "INVALID_TAG"),
        ({"Tags": "x"}, "INVALID_TAG"),
    ],
)
def test_a_start_that_is_refused(raw, values, expected):
    assert raw.ebs("POST", "/snapshots", {"VolumeSize": 1, **values})[:3] == (400, "ValidationException", expected)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff"])
def test_a_start_that_is_no_json(raw, body):
    assert raw.ebs("POST", "/snapshots", body)[:2] == (400, "SerializationException")


@pytest.mark.behaviour("EBS direct", "StartSnapshot, ParentSnapshotId", "the child has its parent's blocks and what "
                       "was put over them, counts only what was put, and outlives its parent")  # fmt: skip
def test_a_child_starts_with_its_parents_blocks_and_sends_what_changed(raw, ec2, blocks):
    first = raw.snapshot({0: blocks("a"), 1: blocks("b"), 2: blocks("c")})
    child = raw.start(VolumeSize=2, ParentSnapshotId=first)
    for index, seed in ((1, "B"), (2, "c"), (4000, "new")):
        assert raw.put(child, index, blocks(seed))[0] == 201
    assert raw.complete(child, 4)[0] == 400  # inherited blocks do not count, rewritten ones do
    assert raw.complete(child, 3)[0] == 202
    raw.wait(child)
    ec2.delete_snapshot(SnapshotId=first)  # the child owns its bytes
    assert raw.read(child) == {0: blocks("a"), 1: blocks("B"), 2: blocks("c"), 4000: blocks("new")}


@pytest.mark.behaviour("EBS direct", "ListChangedBlocks", "exactly the blocks whose bytes differ, with the tokens of "
                       "the side that has them")  # fmt: skip
def test_changed_blocks_are_those_whose_bytes_differ(raw, blocks):
    first = raw.snapshot({0: blocks("a"), 1: blocks("b"), 2: blocks("c")})
    second = raw.snapshot({1: blocks("B"), 2: blocks("c"), 9: blocks("new")}, ParentSnapshotId=first)
    answer = raw.ebs("GET", f"/snapshots/{second}/changedblocks?firstSnapshotId={first}")[3]
    assert (answer["VolumeSize"], answer["BlockSize"]) == (1, BLOCK)
    assert [(one["BlockIndex"], sorted(set(one) - {"BlockIndex"})) for one in answer["ChangedBlocks"]] == [
        (1, ["FirstBlockToken", "SecondBlockToken"]),
        (9, ["SecondBlockToken"]),
    ]
    for snapshot_id, name, seed in ((first, "FirstBlockToken", "b"), (second, "SecondBlockToken", "B")):
        query = urlencode({"blockToken": answer["ChangedBlocks"][0][name]})
        assert raw.call("GET", f"/snapshots/{snapshot_id}/blocks/1?{query}")[2] == blocks(seed)
    back = raw.ebs("GET", f"/snapshots/{first}/changedblocks?firstSnapshotId={second}")[3]["ChangedBlocks"]
    assert [sorted(one) for one in back][1] == ["BlockIndex", "FirstBlockToken"]  # only the first one has block 9
    alone = raw.ebs("GET", f"/snapshots/{second}/changedblocks")[3]["ChangedBlocks"]
    assert [one["BlockIndex"] for one in alone] == [0, 1, 2, 9]


@pytest.mark.behaviour("EBS direct", "ListChangedBlocks", "snapshots without a common origin: UNRELATED_SNAPSHOTS")
def test_snapshots_without_a_common_parent_cannot_be_compared(raw, completed):
    other = raw.snapshot({})
    expected = (400, "ValidationException", "UNRELATED_SNAPSHOTS")
    assert raw.ebs("GET", f"/snapshots/{other}/changedblocks?firstSnapshotId={completed}")[:3] == expected


@pytest.mark.behaviour("EBS direct", "StartSnapshot, ParentSnapshotId", "an unknown, pending or larger parent is "
                       "refused")  # fmt: skip
@pytest.mark.parametrize(
    ("parent", "size", "expected"),
    [
        (FOREIGN, 2, (404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")),
        ("pending", 2, (400, "ValidationException", "INVALID_SNAPSHOT_ID")),
        ("two", 1, (400, "ValidationException", "INVALID_VOLUME_SIZE")),
    ],
)
def test_a_parent_that_is_refused(raw, parent, size, expected):
    if parent == "pending":
        parent = raw.start()
    elif parent == "two":
        parent = raw.snapshot({}, VolumeSize=2)
    assert raw.ebs("POST", "/snapshots", {"VolumeSize": size, "ParentSnapshotId": parent})[:3] == expected


@pytest.mark.behaviour("EBS direct", "GetSnapshotBlock", "a block token reads its own block of its own snapshot only")
def test_a_block_token_reads_its_own_block_only(raw, completed):
    tokens = dict(raw.list(f"/snapshots/{completed}/blocks"))
    refused = (400, "ValidationException", "INVALID_BLOCK_TOKEN")
    for index, token in ((0, tokens[7]), (0, "AAAA"), (0, ""), (0, "%"), (1, tokens[0])):
        query = urlencode({"blockToken": token})
        assert raw.ebs("GET", f"/snapshots/{completed}/blocks/{index}?{query}")[:3] == refused
    assert raw.ebs("GET", f"/snapshots/{completed}/blocks/0")[:3] == refused
    other = raw.snapshot({0: bytes(BLOCK)})
    assert raw.ebs("GET", f"/snapshots/{other}/blocks/0?{urlencode({'blockToken': tokens[0]})}")[:3] == refused


@pytest.mark.behaviour("EBS direct", "regions", "a snapshot is seen in its own region only")
def test_regions_do_not_see_each_other(raw, sandbox, completed):
    elsewhere = sandbox.raw(region="eu-central-1")
    assert elsewhere.ebs("GET", f"/snapshots/{completed}/blocks")[:2] == (404, "ResourceNotFoundException")
    assert elsewhere.ec2(Action="DescribeSnapshots", **{"SnapshotId.1": completed})[1] == "InvalidSnapshot.NotFound"
    assert completed not in elsewhere.ec2(Action="DescribeSnapshots")[2]


def test_a_call_that_ebs_does_not_have(raw):
    assert raw.ebs("DELETE", "/snapshots/snap-1")[:2] == (400, "UnsupportedOperation")


@pytest.mark.behaviour("EBS direct", "PutSnapshotBlock", "24 puts of one block at once leave one of them, whole")
def test_puts_of_one_block_at_once_leave_one_of_them_whole(raw, sandbox, blocks, together):
    snapshot_id = raw.start()
    contents = [blocks(seed) for seed in range(8)]
    puts = [lambda data=data: sandbox.raw().put(snapshot_id, 0, data)[0] for data in contents * 3]
    assert set(together(*puts)) == {201}
    assert raw.complete(snapshot_id, 1)[0] == 202
    raw.wait(snapshot_id)
    assert raw.read(snapshot_id)[0] in contents


@pytest.mark.behaviour("EBS direct", "CompleteSnapshot", "amid puts it seals exactly those that were acknowledged")
def test_completing_amid_puts_seals_exactly_what_was_acknowledged(sandbox, blocks, together):
    snapshot_id = sandbox.raw().start()
    data = [blocks(seed) for seed in range(16)]

    def put(index):
        connection = sandbox.raw()
        return [connection.put(snapshot_id, number, data[number])[0] for number in range(index, 16, 4)]

    def seal():
        connection = sandbox.raw()
        while True:
            answer = connection.complete(snapshot_id, 0)
            if answer[0] == 202:
                return 0
            count = int(re.search(r"but (\d+) blocks", json.dumps(answer[3]))[1])
            if connection.complete(snapshot_id, count)[0] == 202:
                return count

    *results, sealed = together(*(lambda index=index: put(index) for index in range(4)), seal)
    accepted = {number for index, statuses in enumerate(results) for number, status in
                zip(range(index, 16, 4), statuses, strict=True) if status == 201}  # fmt: skip
    raw = sandbox.raw()
    raw.wait(snapshot_id)
    assert raw.read(snapshot_id) == {number: data[number] for number in accepted}
    assert len(accepted) == sealed


@pytest.mark.behaviour("EBS direct", "StartSnapshot, Timeout", "a snapshot nobody writes to ends in `error`, says "
                       "why, and refuses puts with WRITE_REQUEST_TIMEOUT")  # fmt: skip
def test_a_snapshot_that_nobody_writes_to_ends_in_error(make_sandbox, blocks, code_of):
    """Timeout is ten minutes at least, so the record is made older while nobody serves it."""
    running = make_sandbox()
    snapshot_id = running.raw().start(Timeout=10)
    running.raw().put(snapshot_id, 0, blocks(0))
    lifecycle.stop(running.directory)
    long_ago = time.time() - 601
    with contextlib.closing(sqlite3.connect(running.directory / "state.sqlite")) as database, database:
        database.execute("update record set body = json_set(body, '$.start_time', ?)", (long_ago,))
    os.utime(running.directory / "disks" / snapshot_id / "data", (long_ago, long_ago))
    running.restart()
    raw, ec2 = running.raw(), running.client("ec2")
    (snapshot,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert (snapshot["State"], snapshot["StateMessage"]) == ("error", "No block was written for 10 minutes.")
    for answer in (raw.put(snapshot_id, 1, blocks(1)), raw.complete(snapshot_id, 1)):
        assert answer[:3] == (400, "ValidationException", "WRITE_REQUEST_TIMEOUT")
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    assert lifecycle.status(running.directory).snapshots == 0
