import time
from pathlib import Path

import pytest

from builder.errors import RemoteDenied, RemoteFailed
from builder.remote import abilities


def gone(pid):
    """Say whether the process has ended, perhaps a moment from now; nobody may have asked for its status yet."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] in "ZX":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_words_arrive_as_they_are(server):
    words = ["a b", "$HOME", "'", '"', "`id`", "a\nb", "*", "ü", ""]
    said = server.shell().run(["printf", r"%s\0", *words])
    assert said.stdout.decode().split("\0")[:-1] == words


def test_a_failure_shows_the_command_its_status_and_last_words(server):
    with pytest.raises(RemoteFailed) as raised:
        server.shell().script("echo out; echo 'what went wrong' >&2; exit 3")
    assert "exit status 3 from: echo out" in raised.value.message
    assert raised.value.message.endswith("what went wrong")
    assert server.shell().script("exit 3", allowed=(0, 3)).status == 3


def test_a_killed_command_is_no_cut(server):
    for text in ("kill -9 $$", "sh -c 'kill -9 $$'; exit $?"):
        with pytest.raises(RemoteFailed, match="killed") as raised:
            server.shell().script(text)
        assert raised.value.killed


@pytest.mark.parametrize("user", ["root", "bob"])
@pytest.mark.parametrize("stdin", [None, b""])
def test_a_command_that_takes_too_long_is_ended_there(server, user, stdin):
    shell = server.shell(user)
    file = server.directory / f"home/{user}/pid"
    with pytest.raises(RemoteFailed, match=r"no end after 5 s: echo"):
        shell.script(f"echo $$ >{file}; sleep 60; true", root=True, stdin=stdin, timeout=5)
    assert gone(file.read_text().strip())


def test_a_command_without_input_dies_with_its_connection(server, proxy):
    shell = server.shell(port=proxy.port)
    file = server.directory / "pid"
    running = shell.start(f"echo $$ >{file}; echo up; sleep 60; true", streams=False)
    assert running.receive() == b"up\n"
    proxy.cut()
    assert gone(file.read_text().strip())


def test_much_in_and_out_at_once(server):
    data = bytes(range(256)) * 20000
    said = server.shell().script("cat; yes | head -c 3000000 >&2", stdin=data)
    assert said.stdout == data
    assert len(said.stderr) <= 2000


def test_what_a_chatty_shell_prints_is_not_the_command_s(server):
    shell = server.shell("carl")
    said = shell.script("echo one; echo two >&2")
    assert (said.stdout, said.stderr) == (b"one\n", "two")
    assert shell.run(["id", "-u"], root=True).stdout == b"0\n"
    assert shell.script("cat", stdin=b"in").stdout == b"in"


def test_sudo_is_used_only_when_needed(server):
    assert server.shell("bob").run(["id", "-u"]).stdout != b"0\n"
    assert server.shell("bob").run(["id", "-u"], root=True).stdout == b"0\n"
    assert server.shell().script("echo ${SUDO_USER-none}", root=True).stdout == b"none\n"


def test_sudo_that_asks_for_a_password_says_so(server):
    with pytest.raises(RemoteDenied, match="without a password: sudo: a password is required") as raised:
        server.shell("alice").run(["id"], root=True)
    assert "NOPASSWD" in raised.value.hint


def test_a_login_that_runs_no_commands_is_quoted(server):
    with pytest.raises(RemoteFailed, match=r"did not run the command.*Please login as the user") as raised:
        server.shell("dora").run(["id"])
    assert "ubuntu" in raised.value.hint


def test_what_a_machine_has_is_found_in_one_round_trip(server, bare):
    able = abilities.ask(server.shell())
    assert able.tools >= {"zstd", "gzip", "dd", "qemu-img", "sha256sum", "blockdev"}
    assert (able.uid, able.root, able.python) == (0, True, "python3")
    able = abilities.ask(server.shell("alice"))
    assert not able.root
    assert "a password is required" in able.sudo_said
    able = abilities.ask(bare.shell("bob"))
    assert able.root
    assert able.python == ""
    assert not able.tools & {"zstd", "gzip", "curl", "qemu-img"}
