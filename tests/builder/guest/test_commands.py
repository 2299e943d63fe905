"""Commands in a guest that can run some: what they are given, what is told of them, and that nothing of them stays."""

import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from builder import pool, proc
from builder.errors import GuestError
from builder.guest.edits import Command
from builder.guest.guest import Guest
from builder.guest.look import layer_of, look

MIB = 1 << 20
ARM = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01\x00\x00\x00" + bytes(40)


def rarely(*case):
    return pytest.param(*case, marks=pytest.mark.sweep)  # a command takes a second or two of an appliance


@pytest.fixture(scope="module")
def image(tmp_path_factory, runnable) -> Path:
    directory = tmp_path_factory.mktemp("commands")
    tree = directory / "tree"
    shutil.copytree(runnable, tree, symlinks=True)
    (tree / "etc" / "arm").write_bytes(ARM)
    path = directory / "image.raw"
    with open(path, "xb") as file:
        file.truncate(48 * MIB)
    proc.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path])
    return path


@pytest.fixture(scope="module")
def guest(image, appliance):
    """A guest whose appliance has the network, which its commands have only when they ask."""
    with look(layer_of(image), session=appliance) as opened:
        yield opened


def run(guest: Guest, script: str | bytes, **wanted) -> str:
    body = script.encode() if isinstance(script, str) else script
    return guest.apply(Command(script=body, **{"why": "the test's command", "limit": 60.0} | wanted))


@pytest.mark.parametrize(
    ("script", "wanted", "expected"),
    [
        ("echo one; echo two >&2; echo three", {}, "one\ntwo\nthree"),
        rarely("exit 0", {}, ""),
        ("cat", {}, ""),  # standard input is empty
        rarely("printf 'no newline'", {}, "no newline"),
        ("printf '\\n\\nlines between\\n\\nthem\\n\\n'", {}, "lines between\n\nthem"),
        ("#!/bin/bash\necho ${BASH_VERSION:+bash}", {}, "bash"),
        rarely("#!/usr/bin/env -S cat\nitself", {}, "#!/usr/bin/env -S cat\nitself"),
        ('printf "%s|" "$@"', {"arguments": ("a b", "'\"$(x)`", "", "\u00e4", "new\nline")},
         "a b|'\"$(x)`||\u00e4|new\nline|"),
        ("echo $A; echo $HOME; echo $TERM; echo ${PATH%%:*}", {"environment": (("A", "b c'd\""),)},
         "b c'd\"\n/root\ndumb\n/usr/local/sbin"),
        rarely("echo $LC_ALL $HOME", {"environment": (("HOME", "/x"),)}, "C /x"),
        ("printf 'a\\000\\001\\377\\033[31mred\\033[0m\\r\\nb'", {}, "a\N{REPLACEMENT CHARACTER}red\nb"),
        ("echo the s3cret word", {"secret": ("s3cret", "")}, "the *** word"),
        rarely("printf 's3\\000cret'", {"secret": ("s3cret",)}, "***"),
        ("[ -e /proc/self ] && [ -c /dev/null ] && pwd", {}, "/"),
        rarely("id -u", {}, "0"),
        (b"printf caf\xe9", {}, "caf\N{REPLACEMENT CHARACTER}"),
    ],
    ids=lambda value: ascii(value)[:30] if isinstance(value, (str, bytes)) else "",
)  # fmt: skip
def test_what_a_command_is_given_and_says(guest, script, wanted, expected):
    assert run(guest, script, **wanted) == expected
    assert guest.names("/.emi*") == ()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo why; exit 3", r"^the test's command: exit status 3, after\nwhy$"),
        rarely("exit 3", r"^the test's command: exit status 3$"),
        ("nonsense", r"exit status 127, after\n.*nonsense: not found$"),
        rarely("kill -9 $$", "exit status 137"),
        ("#!/usr/bin/python9\n", r"^the test's command: the guest has no /usr/bin/python9, which its first line asks"),
        ("i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); done; false", r"after\nline 28\n(.*\n)*line 39$"),
        ("echo password is s3cret; false", r"password is \*\*\*$"),
        ("printf '\\n0'; false", r"exit status 1, after\n0$"),  # a status of its own making
    ],
    ids=ascii,
)  # fmt: skip
def test_an_exit_status_is_obeyed(guest, script, expected):
    with pytest.raises(GuestError, match=expected):
        run(guest, script, secret=("s3cret",))
    assert guest.names("/.emi*") == ()


def test_of_much_output_the_end_is_told(guest):
    said = run(guest, "dd if=/dev/zero bs=1024 count=10240 2>/dev/null; echo; echo the end")
    assert said == "the end"  # what is no text is left out
    said = run(guest, "i=0; while [ $i -lt 9000 ]; do echo 123456789; i=$((i+1)); done; echo the end")
    assert said.endswith("123456789\nthe end")
    assert 65000 < len(said) <= 65536


def test_a_secret_that_the_cut_goes_through_is_not_told(guest):
    secret = "".join(f"{number:04}" for number in range(1000))
    said = run(guest, 'i=0; while [ $i -lt 30 ]; do printf %s "$S"; i=$((i+1)); done',
               environment=(("S", secret),), secret=(secret,))  # fmt: skip
    assert said == "***" * 16  # 65536 bytes, but for the status, have 16 of them and the end of another one


def test_what_it_leaves_behind_is_ended(guest):
    run(guest, "sleep 600 & setsid sleep 600 >/dev/null 2>&1 & echo begun")
    named = run(guest, "for p in /proc/[0-9]*; do [ $p/root -ef / ] && cat $p/comm; done; :").split()
    assert "tail" in named
    assert "sleep" not in named
    guest.disk.unmount()  # which fails as long as one of them has the filesystem in use
    assert guest.exists("/etc/fstab")


def test_a_name_of_ours_that_the_image_has_is_not_followed(guest):
    guest._call("ln_s", "/etc/fstab", "/.emi-command")
    guest._call("ln_s", "/etc/group", "/.emi-output")
    before = guest.read("/etc/fstab"), guest.read("/etc/group")
    assert run(guest, "echo hello") == "hello"
    assert (guest.read("/etc/fstab"), guest.read("/etc/group")) == before


CONNECT = "#!/bin/bash\nexec 3<>/dev/tcp/169.254.2.2/{port} && cat <&3"


def test_the_network_is_there_for_who_asks(guest):
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = CONNECT.format(port=server.getsockname()[1])

        def answer() -> None:
            # Also what the command without the network left in a queue, and comes as soon as there is a way.
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"from the host\n")

        with pytest.raises(GuestError, match=r"No route to host|Network is unreachable"):
            run(guest, script)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
        server.settimeout(60)
        answering = pool.Background(answer)
        assert run(guest, script, network=True) == "from the host"
        server.shutdown(socket.SHUT_RDWR)  # wakes up who accepts
        answering.result(60)


def test_a_shell_for_another_processor(guest):
    guest._call("mv", "/usr/bin/dash", "/usr/bin/kept")
    try:
        guest._call("cp", "/etc/arm", "/usr/bin/dash")
        guest._call("chmod", 0o755, "/usr/bin/dash")
        with pytest.raises(GuestError, match="/bin/sh is for another processor"):
            run(guest, "echo hello")
        guest._call("rm", "/usr/bin/dash")
        with pytest.raises(GuestError, match="the guest has no /bin/sh"):
            run(guest, "echo hello")
    finally:
        guest._call("mv", "/usr/bin/kept", "/usr/bin/dash")


def state_of(pid):
    """Return the letter of a process' state, or nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_a_command_that_does_not_end_is_ended_with_the_appliance(guest, image):
    """The last of this file, and the file the last of those with guests: the appliance is of no more use."""
    before = image.stat().st_mtime_ns
    pid = guest._session._pid
    with pytest.raises(GuestError, match=r"the test's command: no end within 2 s; the appliance was ended") as caught:
        run(guest, "echo begun; sleep 600", limit=2)
    assert "time limit" in caught.value.hint
    for _ in range(600):
        if (state := state_of(pid)) in ("Z", ""):
            break
        time.sleep(0.05)
    assert state in ("Z", "")  # dead, and perhaps seen to be so by libguestfs
    assert image.stat().st_mtime_ns == before
