import socket
import time

import pytest
from machine import ADDRESS, free_port, machine

from builder import pool, proc
from builder.errors import HostKeyWrong, InputError, RemoteAway, RemoteDenied, RemoteTrouble
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair, fingerprint


def test_a_wrong_host_key_is_refused_with_both_fingerprints(server):
    other = KeyPair.generate()
    with pytest.raises(HostKeyWrong) as raised:
        server.shell(pinned=(other.public,)).run(["true"])
    assert fingerprint(other.public) in raised.value.message
    assert fingerprint(server.host_key.public) in raised.value.message
    assert "known key" in raised.value.hint


@pytest.mark.parametrize("hashed", [False, True])
def test_a_known_hosts_file_is_asked(server, tmp_path, hashed):
    known = tmp_path / "known_hosts"
    known.write_text(f"[{ADDRESS}]:{server.port} {server.host_key.public}\n")
    if hashed:
        proc.run(["ssh-keygen", "-q", "-H", "-f", known])
    assert server.shell(pinned=(), known_hosts=known).run(["echo", "in"]).stdout == b"in\n"
    known.write_text(f"[{ADDRESS}]:{server.port} {KeyPair.generate().public}\n")
    with pytest.raises(HostKeyWrong):
        server.shell(pinned=(), known_hosts=known).run(["true"])
    known.write_text(f"elsewhere {server.host_key.public}\n")
    for asked in (known, tmp_path / "none"):
        with pytest.raises(InputError, match=r"no host key of .* is known in") as raised:
            server.shell(pinned=(), known_hosts=asked).run(["true"])
        assert f"ssh-keyscan -p {server.port} {ADDRESS}" in raised.value.hint


def test_nobody_is_trusted_unseen(server):
    with pytest.raises(InputError, match="known or pinned"):
        server.shell(pinned=()).run(["true"])


def test_a_key_that_is_not_let_in_is_named(server):
    stranger = KeyPair.generate()
    with pytest.raises(RemoteDenied) as raised:
        server.shell(key=stranger).run(["true"])
    assert fingerprint(stranger.public) in raised.value.message


@pytest.mark.parametrize(("kind", "size"), [("rsa", ["-b", "2048"]), ("ecdsa", []), ("ed25519", [])])
def test_users_key_files_of_each_kind_let_in(server, tmp_path, kind, size):
    file = tmp_path / "key"
    proc.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-f", file])
    pair = KeyPair.read(file)
    assert pair.public.split()[1] == file.with_suffix(".pub").read_text().split()[1]
    allowed = server.directory / "authorized_root"
    before = allowed.read_text()
    allowed.write_text(f"{before}{pair.public}\n")
    try:
        assert server.shell(key=pair).run(["echo", "in"]).stdout == b"in\n"
    finally:
        allowed.write_text(before)


def test_key_files_with_a_passphrase_and_others_are_refused(tmp_path):
    file = tmp_path / "key"
    proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", file])
    with pytest.raises(InputError, match="passphrase"):
        KeyPair.read(file)
    with pytest.raises(InputError, match="not a private key"):
        KeyPair.load(b"hello", "there")
    with pytest.raises(InputError, match="cannot be read"):
        KeyPair.read(tmp_path / "none")


def test_our_keys_and_fingerprints_are_openssh_s(tmp_path):
    pair = KeyPair.generate()
    file = tmp_path / "key"
    file.write_bytes(pair.private)
    file.chmod(0o600)
    told = proc.run(["ssh-keygen", "-y", "-f", file]).stdout.decode()
    assert told.split()[:2] == pair.public.split()
    assert fingerprint(pair.public) in proc.run(["ssh-keygen", "-l", "-f", file]).stdout.decode()
    assert "PRIVATE" not in repr(pair)


def test_a_machine_that_boots_is_waited_for(tmp_path, server):
    port = free_port()
    login = Login(host=ADDRESS, port=port, user="root", key=server.key, pinned=(server.host_key.public,))
    with Remote(login, patience=30) as remote:
        said = pool.Background(lambda: Shell(remote).run(["echo", "up"]))
        with socket.create_server((ADDRESS, port)) as listener:  # a port forwarder that is there before its machine
            listener.accept()[0].close()
            first, _ = listener.accept()
        first.close()
        pool.Background(lambda: _forward(port, server.port))  # ends with its connection, or with this process
        assert said.result(30).stdout == b"up\n"
        remote.close()


def test_the_time_that_a_machine_takes_to_answer_is_not_the_command_s(server):
    port = free_port()
    with server.remote(port=port, patience=30) as remote:
        said = pool.Background(lambda: Shell(remote).run(["echo", "up"], timeout=1))
        time.sleep(1.5)
        pool.Background(lambda: _forward(port, server.port))
        assert said.result(30).stdout == b"up\n"
        remote.close()


def _forward(port, target):
    with socket.create_server((ADDRESS, port)) as listener:
        client, _ = listener.accept()
        with client, socket.create_connection((ADDRESS, target)) as server:
            there = pool.Background(lambda: _copy(client, server))
            _copy(server, client)
            there.result(10)


def _copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_patience_ends(server):
    with pytest.raises(RemoteAway, match=r"no SSH with root@.*given up after"):
        Shell(Remote(server.login(port=free_port()), patience=1.5)).run(["true"])


def test_a_key_that_is_not_installed_yet_is_tried_again_while_the_machine_settles(tmp_path, server):
    pair = KeyPair.generate()
    allowed = server.directory / "authorized_eve"
    remote = Remote(server.login("eve", key=pair), patience=20, settling=20)
    with remote:
        said = pool.Background(lambda: Shell(remote).run(["id", "-un"]))
        with pytest.raises(TimeoutError):
            said.result(0.5)
        allowed.write_text(pair.public + "\n")
        assert said.result(20).stdout == b"eve\n"
    allowed.unlink()


def test_a_cut_connection_is_made_anew(server, proxy):
    shell = server.shell(port=proxy.port)
    assert shell.run(["echo", "1"]).stdout == b"1\n"
    proxy.cut()
    assert shell.run(["echo", "2"]).stdout == b"2\n"
    assert proxy.connections == 2


def test_a_command_that_was_cut_says_so(server, proxy):
    shell = server.shell(port=proxy.port)
    shell.run(["true"])
    running = pool.Background(lambda: shell.run(["sleep", "60"]))
    with pytest.raises(TimeoutError):
        running.result(0.5)
    proxy.cut()
    with pytest.raises(RemoteTrouble, match="was cut during: sleep 60"):
        running.result(20)


def test_the_fast_cipher_is_used_and_small_messages_do_not_wait(server):
    remote = server.remote()
    remote.session().close()
    transport = remote._transport
    assert transport.remote_cipher == "aes128-gcm@openssh.com"
    assert transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    with machine(server.directory / "another") as other, pytest.raises(HostKeyWrong):
        other.shell(pinned=(server.host_key.public,)).run(["true"])
