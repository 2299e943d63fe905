"""What faults do to the connection and to the bytes on it, seen by a client that reads every one of them."""

from __future__ import annotations

import http.client
import socket
import time
from urllib.parse import urlencode, urlsplit

import pytest

from builder.sandbox.faults import client

QUERY = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
FORM = urlencode({"Action": "DescribeRegions", "Version": "2016-11-15"})


def ask(raw):
    """Return a DescribeRegions as `raw.call` does."""
    return raw.call("POST", "/", FORM, QUERY, service="ec2")


@pytest.fixture(scope="module")
def answer(sandbox):
    return ask(sandbox.raw())[2]


@pytest.mark.parametrize("effect", ["reset", "lost"])
@pytest.mark.behaviour("Faults", "reset", "a real RST comes in place of the answer; another connection is served")
def test_a_reset_is_a_real_one(sandbox, raw, faults, effect, calls):
    faults({"effect": effect, "call": "DescribeRegions"})
    with pytest.raises(ConnectionResetError):
        ask(raw)
    faults()
    assert ask(sandbox.raw())[0] == 200
    assert [call.fault for call in calls()] == [f"1:{effect}", ""]


@pytest.mark.parametrize("effect", ["reset", "lost", "reset-body"])
def test_a_reset_under_tls_breaks_the_connection(make_sandbox, effect):
    sandbox = make_sandbox(tls=True)
    client.put(sandbox.endpoint, [{"effect": effect, "first": 1}])
    raw = sandbox.raw()
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(raw)
    assert ask(sandbox.raw())[0] == 200
    assert "Traceback" not in (sandbox.directory / "server.log").read_text()


@pytest.mark.behaviour("Faults", "reset-body", "half of the body comes, then a real RST")
def test_a_body_is_cut_in_its_middle(raw, faults, answer, sandbox):
    faults({"effect": "reset-body", "call": "DescribeRegions"})
    sent = raw.signed("POST", "/", FORM, QUERY, service="ec2")
    address = urlsplit(sandbox.endpoint.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in {**QUERY, **sent}.items())
        length = f"Content-Length: {len(FORM)}\r\nHost: {address.netloc}\r\n"
        connection.sendall(f"POST / HTTP/1.1\r\n{length}{head}\r\n{FORM}".encode())
        received = b""
        try:
            while data := connection.recv(4096):
                received += data
            pytest.fail("an orderly end")
        except ConnectionResetError:
            pass
    body = received.partition(b"\r\n\r\n")[2]
    assert len(body) == len(answer) // 2


@pytest.mark.behaviour("Faults", "lost", "the call takes effect though its answer is lost")
def test_a_lost_acknowledgement_is_of_a_call_that_took_effect(sandbox, ec2, faults, calls):
    faults({"effect": "lost", "call": "StartSnapshot", "first": 1})
    wish = {"VolumeSize": 1, "ClientToken": "lost-1", "Description": "lost"}
    with pytest.raises(Exception, match="Connection was closed"):
        sandbox.client("ebs").start_snapshot(**wish)
    named = [{"Name": "description", "Values": ["lost"]}]
    (made,) = ec2.describe_snapshots(OwnerIds=["self"], Filters=named)["Snapshots"]
    assert sandbox.client("ebs").start_snapshot(**wish)["SnapshotId"] == made["SnapshotId"]
    first = next(call for call in calls() if call.action == "StartSnapshot")
    assert (first.status, first.error, first.fault) == (201, "", "1:lost")


@pytest.mark.behaviour("Faults", "slow", "the first byte comes as late as asked")
def test_a_slow_answer_is_late(raw, faults, answer):
    faults({"effect": "slow", "seconds": 0.4})
    began = time.monotonic()
    assert len(ask(raw)[2]) == len(answer)
    assert time.monotonic() - began >= 0.4


@pytest.mark.behaviour("Faults", "trickle", "the body comes at the rate asked, whole")
def test_a_trickle_is_slow_and_whole(raw, faults, answer):
    faults({"effect": "trickle", "rate": 2 * len(answer)})
    began = time.monotonic()
    assert len(ask(raw)[2]) == len(answer)
    assert time.monotonic() - began >= 0.4


@pytest.mark.behaviour("Faults", "corrupt", "GetSnapshotBlock's bytes differ from its checksum header in one byte")
def test_a_corrupted_block_does_not_fit_its_checksum(raw, faults, completed, checksum, blocks):
    found = block_of(raw, completed, 7)
    assert found == (blocks(7), checksum(blocks(7)))
    faults({"effect": "corrupt", "call": "GetSnapshotBlock"})
    wrong, stated = block_of(raw, completed, 7)
    assert stated == checksum(blocks(7))
    assert sum(one != other for one, other in zip(wrong, blocks(7), strict=True)) == 1


@pytest.mark.behaviour("Faults", "corrupt", "with `matching` the checksum header is that of the wrong bytes")
def test_a_corrupted_block_may_fit_its_checksum(raw, faults, completed, checksum, blocks):
    faults({"effect": "corrupt", "call": "GetSnapshotBlock", "matching": True})
    wrong, stated = block_of(raw, completed, 7)
    assert wrong != blocks(7)
    assert stated == checksum(wrong)


def block_of(raw, snapshot_id, index):
    """Return a block's bytes and the checksum that comes with them."""
    token = dict(raw.list(f"/snapshots/{snapshot_id}/blocks"))[index]
    path = f"/snapshots/{snapshot_id}/blocks/{index}?{urlencode({'blockToken': token})}"
    status, headers, data = raw.call("GET", path)
    assert status == 200
    return data, headers["x-amz-Checksum"]


def test_faults_together(raw, faults, calls):
    faults({"effect": "slow", "seconds": 0.1}, {"effect": "lost"})
    with pytest.raises(ConnectionResetError):
        ask(raw)
    assert calls()[0].fault == "1:slow 2:lost"
