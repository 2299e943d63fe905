"""Many connections, much data: nothing waits for ever, memory stays flat."""

from __future__ import annotations

import time

import pytest

from builder import pool
from builder.digest import BLOCK


@pytest.mark.parametrize("tls", [False, True])
def test_64_keep_alive_connections_at_once(make_sandbox, tls):
    running = make_sandbox(tls=tls)
    snapshot_id = running.raw().start()
    data = [number.to_bytes(4, "big") * (BLOCK // 4) for number in range(64)]
    connections = [running.raw() for _ in range(64)]
    sockets = []
    for connection in connections:  # all are open before the first works, and stay open
        assert connection.call("GET", "/_sandbox/status", service=None)[0] == 200
        sockets.append(connection.connection.sock)

    def work(number):
        statuses = [connections[number].put(snapshot_id, 64 * turn + number, data[number])[0] for turn in range(2)]
        return statuses, connections[number].connection.sock

    results = list(pool.in_order(work, range(64), workers=64))
    assert all(statuses == [201] * 2 for statuses, _ in results)
    assert [sock for _, sock in results] == sockets  # kept alive: never connected again
    raw = connections[0]
    assert raw.complete(snapshot_id, 128)[0] == 202
    raw.wait(snapshot_id)
    assert raw.read(snapshot_id) == {64 * turn + number: data[number] for turn in range(2) for number in range(64)}


def test_memory_is_flat_over_a_gibibyte(make_sandbox, blocks):
    running = make_sandbox()
    raw = running.raw()
    data = [blocks(seed) for seed in range(4)]

    def fill(snapshot_id, first, last):
        def put(worker):
            connection = running.raw()
            return all(
                connection.put(snapshot_id, index, data[index % 4])[0] == 201
                for index in range(first + worker, last, 4)
            )

        assert all(pool.in_order(put, range(4), workers=4))

    snapshot_id = raw.start()
    fill(snapshot_id, 0, 256)  # every thread has its buffer by now
    before, _ = running.resident()
    fill(snapshot_id, 256, 2048)
    assert raw.complete(snapshot_id, 2048)[0] == 202
    raw.wait(snapshot_id)
    tokens = raw.list(f"/snapshots/{snapshot_id}/blocks")
    assert len(tokens) == 2048
    now, highest = running.resident()
    assert now - before < 48
    assert highest - before < 64
    assert running.client("ec2").delete_snapshot(SnapshotId=snapshot_id)
    assert list((running.directory / "disks").iterdir()) == []


def test_a_large_body_that_is_refused_is_not_held_in_memory(make_sandbox):
    running = make_sandbox()
    raw = running.raw()
    running.client("ec2").describe_regions()  # what the server loads in the background is there now
    assert raw.call("GET", "/vault", service="glacier")[0] == 400
    before, _ = running.resident()
    status, _, said = raw.call("PUT", "/vault/archive", bytes(256 << 20), service="glacier")
    assert (status, b"does not support glacier" in said) == (400, True)
    assert running.resident()[1] - before < 48
    assert raw.call("GET", "/vault", service="glacier")[0] == 400  # on the same connection


def test_a_client_that_stalls_holds_nobody_up(make_sandbox, blocks, headers_for):
    """More clients stop amid a block than there are threads to wait for them all at once would be fatal."""
    running = make_sandbox()
    raw = running.raw()
    snapshot_id = raw.start()
    stalled = [running.raw() for _ in range(20)]
    for number, connection in enumerate(stalled):
        path = f"/snapshots/{snapshot_id}/blocks/{number}"
        connection.connection.putrequest("PUT", path, skip_host=True)
        signed = connection.signed("PUT", path, blocks(0), headers_for(blocks(0)))
        for name, value in {**signed, "Content-Length": str(BLOCK)}.items():
            connection.connection.putheader(name, value)
        connection.connection.endheaders(blocks(0)[:1000])
    started = time.monotonic()
    assert raw.put(snapshot_id, 100, blocks(1))[0] == 201
    assert time.monotonic() - started < 10  # a bound against waiting for the stalled ones, not a speed
    for connection in stalled:
        connection.connection.close()
    assert raw.complete(snapshot_id, 1)[0] == 202  # what was cut off left nothing
    raw.wait(snapshot_id)
    assert raw.read(snapshot_id) == {100: blocks(1)}
