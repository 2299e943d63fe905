"""Start, adopt, find, stop: who runs is decided by a lock, never by a stale file."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess  # noqa: TID251 - a process of another kind under a recorded id
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builder import proc
from builder.errors import HostError
from builder.sandbox import lifecycle, settings


def answers(endpoint):
    return lifecycle.status(endpoint.directory).endpoint == endpoint


def running_command(pid):
    """Return the process's command line: empty once it has ended, even if nobody has collected it yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


def test_a_start_answers_and_a_second_start_adopts_it(make_sandbox, tmp_path):
    first = make_sandbox().endpoint
    assert answers(first)
    assert lifecycle.start(first.directory) == first
    assert lifecycle.start(first.directory, tls=True, port=1, tls_port=2) == first  # adopted as it is
    assert (first.plain_url, first.tls_url) == (first.url, None)
    assert first.url.startswith("http://127.0.0.1:")
    assert (first.region, first.ca_file, first.directory) == ("us-east-1", None, tmp_path / "own")


@pytest.mark.behaviour("Operation", "emi sandbox start", "six at once make one server")
def test_starts_at_once_make_one_server(tmp_path, together):
    starts = [lambda: lifecycle.start(tmp_path / "own")] * 6
    try:
        assert len(set(together(*starts))) == 1
    finally:
        assert lifecycle.stop(tmp_path / "own")


@pytest.mark.behaviour("Operation", "emi sandbox stop", "its process is gone; a second stop says that none ran")
def test_stop_ends_it_and_says_so(make_sandbox):
    endpoint = make_sandbox().endpoint
    assert lifecycle.stop(endpoint.directory) is True
    assert not running_command(endpoint.pid)
    assert lifecycle.status(endpoint.directory) is None
    assert lifecycle.stop(endpoint.directory) is False


def test_nothing_runs_in_a_directory_that_is_not_there(tmp_path):
    assert lifecycle.status(tmp_path / "none") is None
    assert lifecycle.stop(tmp_path / "none") is False
    assert not (tmp_path / "none").exists()


def test_it_outlives_who_started_it(tmp_path):
    script = "import sys, pathlib; from builder.sandbox import lifecycle; lifecycle.start(pathlib.Path(sys.argv[1]))"
    proc.run([sys.executable, "-c", script, tmp_path / "own"], environment={"PYTHONPATH": str(Path.cwd())})
    try:
        assert lifecycle.status(tmp_path / "own").images == 0
    finally:
        assert lifecycle.stop(tmp_path / "own")


@pytest.mark.behaviour("Operation", "start after kill -9", "the same port, keys and region as before")
def test_port_and_keys_stay_over_stop_and_kill(make_sandbox):
    running = make_sandbox()
    first, open_one = running.endpoint, running.raw()
    open_one.ec2(Action="DescribeRegions")
    lifecycle.stop(first.directory)
    running.restart()
    os.kill(running.endpoint.pid, signal.SIGKILL)
    running.restart()
    assert open_one.connection.sock is not None  # a client that holds on to its connection does not move the server
    kept = ("url", "access_key", "secret_key", "region")
    assert [getattr(running.endpoint, name) for name in kept] == [getattr(first, name) for name in kept]
    assert running.endpoint.pid != first.pid


def test_a_server_that_is_dying_is_not_adopted(make_sandbox):
    running = make_sandbox()
    for _ in range(5):
        os.kill(running.endpoint.pid, signal.SIGKILL)
        running.restart()
        assert answers(running.endpoint)


def test_a_server_that_hangs_is_ended(make_sandbox):
    endpoint = make_sandbox().endpoint
    os.kill(endpoint.pid, signal.SIGSTOP)
    assert lifecycle.stop(endpoint.directory) is True
    assert lifecycle.status(endpoint.directory) is None


@pytest.mark.behaviour("Operation", "a directory that is removed", "its server ends by itself")
def test_a_server_ends_with_its_directory(make_sandbox):
    running = make_sandbox()
    ended = os.pidfd_open(running.endpoint.pid)
    running.directory.rename(running.directory.with_name("moved"))
    assert select.select([ended], [], [], 30)[0]
    os.close(ended)
    running.directory.with_name("moved").rename(running.directory)
    running.restart()
    assert answers(running.endpoint)


def test_a_port_taken_meanwhile_is_replaced_and_a_wanted_one_is_an_error(make_sandbox):
    running = make_sandbox()
    port = int(running.endpoint.url.rpartition(":")[2])
    lifecycle.stop(running.directory)
    with socket.create_server(("127.0.0.1", port)):
        running.restart()
        assert int(running.endpoint.url.rpartition(":")[2]) != port
        lifecycle.stop(running.directory)
        with pytest.raises(HostError, match=f"port {port} on 127.0.0.1 is taken") as caught:
            lifecycle.start(running.directory, port=port)
        assert "another port" in caught.value.hint
    assert lifecycle.start(running.directory, port=port).url == f"http://127.0.0.1:{port}"


def test_a_stale_process_id_is_neither_believed_nor_hit(make_sandbox):
    running = make_sandbox()
    os.kill(running.endpoint.pid, signal.SIGKILL)
    assert lifecycle.status(running.directory) is None
    bystander = proc.start(["sleep", "60"])
    try:
        file = running.directory / settings.ENDPOINT
        file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": bystander.pid}))
        assert lifecycle.status(running.directory) is None
        assert lifecycle.stop(running.directory) is False
        running.restart()
        assert running.endpoint.pid != bystander.pid
        # Even a running server's file cannot send a signal to somebody else.
        file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": bystander.pid}))
        with pytest.raises(HostError, match="is not the sandbox"):
            lifecycle.stop(running.directory)
        with pytest.raises(subprocess.TimeoutExpired):
            bystander.wait(0.2)
        file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": running.endpoint.pid}))
    finally:
        proc.end(bystander)


def test_status_counts_what_is_there(make_sandbox, blocks):
    running = make_sandbox()
    raw = running.raw()
    raw.snapshot({0: blocks(0), 1: blocks(1)})
    raw.start(VolumeSize=2)
    status = lifecycle.status(running.directory)
    assert (status.images, status.snapshots, status.pending_snapshots) == (0, 2, 1)
    assert (status.volume_bytes, status.allocated_bytes) == (3 << 30, 1 << 20)


@pytest.mark.behaviour(
    "Operation", "two sandboxes", "side by side, with keys of their own; neither knows the other's snapshots"
)
def test_two_sandboxes_side_by_side(make_sandbox):
    one, two = make_sandbox("one"), make_sandbox("two")
    snapshot_id = one.raw().start()
    assert two.raw().ebs("GET", f"/snapshots/{snapshot_id}/blocks")[0] == 404
    assert one.endpoint.access_key != two.endpoint.access_key


def test_a_broken_state_is_named(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "state.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(HostError, match=r"failed to start; see .*server\.log: .*not a database"):
        lifecycle.start(tmp_path / "own")
    assert lifecycle.status(tmp_path / "own") is None


def test_a_missing_extra_is_named_with_its_cure(tmp_path, monkeypatch):
    broken = tmp_path / "shadow"
    broken.mkdir()
    (broken / "cheroot.py").write_text("raise ImportError('no cheroot', name='cheroot')")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(HostError, match="cheroot") as caught:
        lifecycle.start(tmp_path / "own")
    assert caught.value.hint == "pip install 'emi-pipelines[sandbox]'"


def test_the_command_line_need_not_wait_for_the_import():
    script = "import sys, builder.sandbox.lifecycle; print(*sys.modules)"
    loaded = (
        proc.run([sys.executable, "-c", script], environment={"PYTHONPATH": str(Path.cwd())}).stdout.decode().split()
    )
    assert "builder.sandbox.lifecycle" in loaded
    assert not {"moto", "boto3", "botocore", "cheroot", "cryptography", "sqlite3", "werkzeug"} & set(loaded)


@pytest.mark.behaviour("Operation", "start --tls", "plain and TLS port at once: bytes put on one are read on the other")
def test_a_plain_and_a_tls_port_are_two_ways_into_one_cloud(make_sandbox, blocks, tmp_path):
    running = make_sandbox("tls", tls=True)
    end = running.endpoint
    assert (end.url, end.ca_file) == (end.tls_url, tmp_path / "tls" / "ca.pem")
    assert (end.tls_url[:18], end.plain_url[:17]) == ("https://127.0.0.1:", "http://127.0.0.1:")
    secure, plain = running.client("ec2"), running.client("ec2", endpoint_url=end.plain_url, verify=None)
    snapshot_id = running.raw().snapshot({5: blocks(5)})
    running.endpoint = replace(end, url=end.plain_url, ca_file=None)
    assert running.raw().read(snapshot_id) == {5: blocks(5)}
    plain.create_tags(Resources=[snapshot_id], Tags=[{"Key": "by", "Value": "plain"}])
    assert secure.describe_snapshots()["Snapshots"][0]["Tags"] == [{"Key": "by", "Value": "plain"}]


@pytest.mark.behaviour("Operation", "start --tls", "both ports and the directory's own authority stay over restarts")
def test_both_ports_and_the_authority_stay_over_a_restart(make_sandbox):
    running = make_sandbox("tls", tls=True)
    end, authority = running.endpoint, running.endpoint.ca_file.read_bytes()
    lifecycle.stop(running.directory)
    again = lifecycle.start(running.directory)  # nobody need say --tls again
    assert replace(again, pid=end.pid) == end
    assert again.ca_file.read_bytes() == authority  # who copied it keeps trusting
    lifecycle.stop(running.directory)
    plain = lifecycle.start(running.directory, tls=False)
    assert (plain.url, plain.tls_url, plain.ca_file) == (end.plain_url, None, None)
    lifecycle.stop(running.directory)
    assert lifecycle.start(running.directory, tls=True).tls_url == end.tls_url
    lifecycle.stop(running.directory)
    with socket.create_server(("127.0.0.1", int(end.tls_url.rpartition(":")[2]))) as other:
        port = other.getsockname()[1]
        with pytest.raises(HostError, match=f"port {port} on 127.0.0.1 is taken"):
            lifecycle.start(running.directory, tls=True, tls_port=port)
