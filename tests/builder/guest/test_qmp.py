"""The conversation with qemu: a real one, that may be silent for a while."""

from __future__ import annotations

import signal
import socket
import subprocess  # noqa: TID251 - a qemu of the test's own
from collections.abc import Iterator

import pytest

from builder.errors import GuestError
from builder.guest.qmp import Monitor


@pytest.fixture
def talk() -> Iterator[tuple[Monitor, subprocess.Popen[bytes]]]:
    ours, its = socket.socketpair()
    chardev = f"socket,id=qmp,fd={its.fileno()}"
    command = ["qemu-system-x86_64", "-machine", "none", "-display", "none", "-chardev", chardev, "-qmp", "chardev:qmp"]
    with subprocess.Popen(command, pass_fds=[its.fileno()]) as qemu:
        its.close()
        monitor = Monitor(ours, patience=2)
        yield monitor, qemu
        monitor.close()
        qemu.kill()


def test_after_a_silence_the_conversation_goes_on_with_the_answers_that_belong_to_it(talk) -> None:
    monitor, qemu = talk
    qemu.send_signal(signal.SIGSTOP)
    with pytest.raises(GuestError, match="said nothing for 2 s"):
        monitor.execute("query-version")
    qemu.send_signal(signal.SIGCONT)
    assert monitor.execute("query-status")["status"] == "running"
    assert "qemu" in monitor.execute("query-version")
    with pytest.raises(GuestError, match="qemu refused no-such-thing: "):
        monitor.execute("no-such-thing")


def test_a_qemu_that_is_gone_is_told_as_such(talk) -> None:
    monitor, qemu = talk
    qemu.kill()
    qemu.wait()
    with pytest.raises(GuestError, match=r"qemu (is gone|ended)"):
        monitor.execute("query-status")
