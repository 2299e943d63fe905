"""Faults of S3, whose bodies come out of files."""

from __future__ import annotations

import random
import time

import pytest
from botocore.config import Config  # noqa: TID251 - a client that users bring
from botocore.exceptions import FlexibleChecksumError, ResponseStreamingError  # noqa: TID251

DATA = random.Random(9).randbytes(3 << 20)


@pytest.fixture(scope="module")
def s3(sandbox):
    client = sandbox.client("s3")
    client.create_bucket(Bucket="faults")
    client.put_object(Bucket="faults", Key="data", Body=DATA, ChecksumAlgorithm="SHA256")
    return client


def read(client):
    return client.get_object(Bucket="faults", Key="data")["Body"].read()


@pytest.mark.behaviour("Faults", "corrupt", "an object's body differs from its checksum header, which the client sees")
def test_a_corrupted_body_does_not_fit_its_checksum(s3, faults):
    assert read(s3) == DATA
    faults({"effect": "corrupt", "call": "GetObject"})
    with pytest.raises(FlexibleChecksumError):
        read(s3)


@pytest.mark.behaviour("Faults", "corrupt", "with `matching` no checksum header contradicts the wrong body")
def test_a_corrupted_body_may_go_unnoticed(s3, faults):
    faults({"effect": "corrupt", "call": "GetObject", "matching": True})
    wrong = read(s3)
    assert sum(one != other for one, other in zip(wrong, DATA, strict=True)) == 1


@pytest.mark.behaviour("Faults", "reset-body", "an object's body is cut in its middle")
def test_a_body_out_of_a_file_is_cut(s3, faults):
    faults({"effect": "reset-body", "call": "GetObject"})
    with pytest.raises((ResponseStreamingError, ConnectionResetError)):
        read(s3)
    faults()
    assert read(s3) == DATA


@pytest.mark.behaviour("Faults", "trickle", "an object's body comes at the rate asked, whole")
def test_a_body_out_of_a_file_trickles(s3, faults):
    faults({"effect": "trickle", "call": "GetObject", "rate": 6 << 20})
    began = time.monotonic()
    assert read(s3) == DATA
    assert time.monotonic() - began >= 0.4


@pytest.mark.behaviour("Faults", "lost", "an object is stored though the answer is lost")
def test_an_object_is_stored_though_the_answer_is_lost(s3, faults):
    faults({"effect": "lost", "call": "PutObject", "resource": "/faults/lost", "first": 1})
    with pytest.raises(Exception, match="Connection was closed"):
        s3.put_object(Bucket="faults", Key="lost", Body=b"here")
    assert s3.get_object(Bucket="faults", Key="lost")["Body"].read() == b"here"


@pytest.mark.behaviour("Faults", "throttle", "SlowDown is got over by a client that retries")
def test_slow_down_is_got_over(sandbox, s3, faults, rows):
    faults({"effect": "throttle", "service": "s3", "call": "GetObject", "first": 2})
    patient = sandbox.client("s3", config=Config(retries={"total_max_attempts": 5}))
    assert read(patient) == DATA
    assert rows() == [(3, 2)]
