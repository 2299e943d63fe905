"""The relay between a guest's connection and a place on this host, as the process that qemu starts."""

from __future__ import annotations

import socket
import subprocess  # noqa: TID251 - as qemu starts it
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from builder import pool
from builder.sandbox.machines import relay


@contextmanager
def relayed(place: str) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    ours, its = socket.socketpair()
    with ours, subprocess.Popen([sys.executable, "-I", "-S", relay.__file__, place], stdin=its, stdout=its) as process:
        its.close()
        yield ours, process
        process.kill()


def read(end: socket.socket) -> bytes:
    return b"".join(iter(lambda: end.recv(1 << 16), b""))


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_bytes_pass_both_ways_and_ends_are_passed_on(tmp_path, kind):
    if kind == "unix":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "place"))
        server.listen()
        place = f"unix:{tmp_path}/place"
    else:
        server = socket.create_server(("127.0.0.1", 0))
        place = f"tcp:127.0.0.1:{server.getsockname()[1]}"
    with server, relayed(place) as (guest, process):
        peer, _ = server.accept()
        with peer:
            sending = pool.Background(lambda: (guest.sendall(b"x" * 3_000_000), guest.shutdown(socket.SHUT_WR)))
            assert read(peer) == b"x" * 3_000_000
            sending.result()
            answering = pool.Background(lambda: (peer.sendall(b"y" * 3_000_000), peer.shutdown(socket.SHUT_WR)))
            assert read(guest) == b"y" * 3_000_000
            answering.result()
        assert process.wait(60) == 0


def test_it_ends_with_qemu():
    server = socket.create_server(("127.0.0.1", 0))
    with server, relayed(f"tcp:127.0.0.1:{server.getsockname()[1]}") as (guest, process):
        peer, _ = server.accept()
        with peer:
            guest.sendall(b"begun")
            assert peer.recv(5) == b"begun"
            guest.close()
            assert process.wait(60) in (0, 1)
            assert read(peer) == b""


def test_where_nobody_listens_it_ends_at_once(tmp_path):
    with relayed(f"unix:{tmp_path}/nobody") as (guest, process):
        assert process.wait(60) == 1
        assert read(guest) == b""
