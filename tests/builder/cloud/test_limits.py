"""What a cloud may do to us within limits: lag, cut answers short, trickle; and how the limits are set."""

from __future__ import annotations

import hashlib
import time

import pytest

from builder.cloud.aws import Aws
from builder.cloud.limits import Limits, limits
from builder.digest import BLOCK
from builder.errors import CloudNotFound, CloudTrouble, UsageError
from builder.sandbox.faults import client

DATA = b"\x23" * BLOCK
SHA = hashlib.sha256(DATA).digest()
WISH = {"volume_size": 1, "description": "", "tags": {}, "parent": None}


@pytest.fixture
def faults(sandbox):
    yield lambda *table: client.put(sandbox.endpoint, table)
    client.clear(sandbox.endpoint)


@pytest.fixture
def within(monkeypatch):
    return lambda text: monkeypatch.setenv("EMI_CLOUD_LIMITS", text)


def test_limits_are_set_one_by_one(within):
    assert limits() == Limits(retry=120, answer=120, settle=120, wait=3600)
    within("wait=7200, retry=0.5")
    assert limits() == Limits(retry=0.5, wait=7200)


@pytest.mark.parametrize("text", ["wait", "wait=", "wait=long", "wait=-1", "wait=0", "wait=inf", "hope=3"])
def test_a_limit_that_cannot_be_read_is_refused(within, text):
    within(text)
    with pytest.raises(UsageError, match="EMI_CLOUD_LIMITS"):
        limits()


def test_a_snapshot_that_was_just_started_may_not_be_known_yet(aws, sandbox, claim, faults):
    faults({"effect": "lag", "seconds": 1})
    snapshot_id = aws.start_snapshot(claim, **WISH).snapshot_id
    aws.put_block(snapshot_id, 0, DATA, SHA)
    aws.complete_snapshot(snapshot_id, changed_blocks=1, checksum=hashlib.sha256(SHA).digest())
    assert [row.acted > 0 for row in client.rows(sandbox.endpoint)] == [True]


def test_a_snapshot_that_stays_unknown_is_gone(aws, claim, faults, within):
    within("settle=0.5")
    faults({"effect": "lag", "seconds": 60})
    snapshot_id = aws.start_snapshot(claim, **WISH).snapshot_id
    with pytest.raises(CloudNotFound):
        aws.put_block(snapshot_id, 0, DATA, SHA)


@pytest.mark.parametrize("first", [1, 3])
def test_an_answer_that_is_cut_is_asked_for_again(aws, claim, faults, first):
    faults({"effect": "reset-body", "first": first})
    snapshot_id = aws.start_snapshot(claim, **WISH).snapshot_id
    assert [one.snapshot_id for one in aws.find_snapshots(claim)] == [snapshot_id]


@pytest.mark.parametrize("call", ["DescribeSnapshots", "GetSnapshotBlock"])
def test_an_answer_that_trickles_is_given_up(sandbox, claim, faults, within, call):
    aws = Aws(sandbox.settings)
    snapshot_id = aws.start_snapshot(claim, **WISH).snapshot_id
    aws.put_block(snapshot_id, 0, DATA, SHA)
    aws.complete_snapshot(snapshot_id, changed_blocks=1, checksum=hashlib.sha256(SHA).digest())
    while aws.describe_snapshot(snapshot_id).status != "completed":
        time.sleep(0.05)
    (block,) = aws.list_blocks(snapshot_id)
    within("answer=0.5,retry=1")
    faults({"effect": "trickle", "call": call, "rate": 20})
    with pytest.raises(CloudTrouble, match=f"ebs:{call}.*no whole answer|ec2:{call}.*no whole answer"):
        aws.find_snapshots(claim) if call == "DescribeSnapshots" else aws.get_block(snapshot_id, block)
    faults()
    within("")
    assert aws.get_block(snapshot_id, block) == DATA
    aws.close()
