"""Addresses are held by one at a time, also by different processes."""

from __future__ import annotations

import errno
import socket
import subprocess  # noqa: TID251 - another sandbox
import sys

import pytest

from builder.errors import HostError
from builder.sandbox.machines import addresses
from builder.sandbox.machines.addresses import Address

HOLDER = """\
import sys, time
from builder.sandbox.machines.addresses import Address
held = [Address.take() for _ in range(20)]
print(*(one.text for one in held), flush=True)
time.sleep(600)
"""


def test_what_another_process_holds_is_free_when_it_is_killed():
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as child:
        theirs = child.stdout.readline().split()
        ours = [Address.take() for _ in range(20)]
        texts = {one.text for one in ours}
        assert len(texts) == 20
        assert not texts & set(theirs)
        for text in theirs:
            assert text.startswith("127.77.")
            with pytest.raises(OSError, match=r".*") as caught:
                Address(text)
            assert caught.value.errno == errno.EADDRINUSE
        other = Address.take(theirs[0])
        assert other.text != theirs[0]
        child.kill()
    back = Address.take(theirs[0])
    assert back.text == theirs[0]
    for one in (back, other, *ours):
        one.release()
        one.release()
    Address.take(back.text).release()


def test_an_address_whose_port_is_taken_is_not_handed_out():
    with socket.create_server(("127.76.1.1", 22)):
        taken = Address.take("127.76.1.1")
        assert taken.text != "127.76.1.1"
        taken.release()


def test_why_no_address_can_be_had_is_said(monkeypatch):
    with socket.create_server(("127.76.1.2", 22)):
        monkeypatch.setattr(addresses, "_candidates", lambda _: iter(["127.76.1.2"]))
        with pytest.raises(HostError, match="port 22 is taken on every address") as caught:
            Address.take()
        assert "ListenAddress" in caught.value.hint
    monkeypatch.setattr(addresses, "_candidates", lambda _: iter(["192.0.2.1"]))
    with pytest.raises(HostError, match=r"192\.0\.2\.1 cannot be an address of a machine: "):
        Address.take()
