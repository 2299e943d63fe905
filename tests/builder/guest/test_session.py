"""An appliance's end, however it comes. None of these waits for a launch to finish."""

import os
import re
import sys
import time
from pathlib import Path

import pytest

from builder import proc
from builder.errors import GuestError
from builder.guest.session import Session

ROOT = Path(__file__).parents[3]
# A process of ours that says which qemu it launches, and then waits to be killed.
LAUNCHES = """
import sys, time
from builder.guest.session import Session
session = Session()
while (pid := session._read_pid()) is None:
    time.sleep(0.05)
print(pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def qemu_of(session: Session) -> int:
    wait_until(lambda: session._read_pid() is not None)
    pid = session._read_pid()
    assert pid is not None
    return pid


def sockets_of(pid: int) -> Path:
    """Return libguestfs' own directory of sockets, as its qemu was told."""
    command = Path(f"/proc/{pid}/cmdline").read_text()
    found = re.search(r"path=([^,\0]*)/guestfsd\.sock", command)
    assert found
    return Path(found[1])


def test_kill_9_of_ours_leaves_no_qemu_and_the_next_session_removes_the_rest(tmp_path, tmp_path_factory, monkeypatch):
    said, place = tmp_path / "said", tmp_path_factory.mktemp("k")
    monkeypatch.setenv("LIBGUESTFS_TMPDIR", str(place))
    with open(said, "wb") as out:
        process = proc.start([sys.executable, "-c", LAUNCHES], stdout=out.fileno(), directory=ROOT)
    try:
        wait_until(lambda: said.read_text().strip())
        pid = int(said.read_text())
        sockets = sockets_of(pid)
        process.kill()
        process.wait()
        wait_until(lambda: not alive(pid))
    finally:
        proc.end(process)
    assert [left.name[:7] for left in place.iterdir()] == ["emi-vm-"]
    assert sockets.parent in (Path("/tmp"), *place.iterdir())
    if sockets.exists():  # by root, outside of what we chose
        os.utime(sockets, (0, 0))  # as if an hour had passed
    with Session() as session:
        qemu_of(session)
        assert list(place.iterdir()) == [session._directory]
        assert not sockets.exists()
    assert not list(place.iterdir())


def test_a_launch_that_takes_too_long_is_ended(capfd):
    with Session(launch_limit=0.5) as session:
        pid = qemu_of(session)
        with pytest.raises(GuestError, match="did not start within"):
            session.launched()
        wait_until(lambda: not alive(pid))
    assert capfd.readouterr().err == ""


def test_leaving_early_ends_the_launch_and_cleans_up():
    with Session() as session:
        pid = qemu_of(session)
        directory = session._directory
    assert not alive(pid)
    assert not directory.exists()
    with pytest.raises(GuestError, match="closed"):
        session.launched()
    session.close()


def test_a_qemu_that_dies_is_told():
    with Session() as session:
        os.kill(qemu_of(session), 9)
        with pytest.raises(GuestError, match="the appliance did not start") as caught:
            session.launched()
        assert "doctor" in caught.value.hint
