"""Lines of authorized_keys, real ones made by ssh-keygen, and ones that are damaged."""

import base64
import re
import struct

import pytest

from builder import proc
from builder.guest.sshkeys import Key, added, keys, parse

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx2gVvS5nBqzE8vHc0V0yM7b9cO5v0mT7x3tq1bVd3y"


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(field)) + field for field in fields)).decode()


@pytest.mark.parametrize(
    "arguments", ["-t ed25519", "-t rsa -b 2048", "-t ecdsa -b 256", "-t ecdsa -b 384", "-t ecdsa -b 521"]
)
def test_what_ssh_keygen_makes_is_a_key(arguments, tmp_path):
    proc.run(["ssh-keygen", "-q", "-N", "", "-C", "ann@host", *arguments.split(), "-f", tmp_path / "key"])
    line = (tmp_path / "key.pub").read_text()
    assert isinstance(parse(line), Key)
    assert str(parse(line)).endswith(" ann@host")
    for prefix in ("no-pty ", 'command="echo \\"a b\\"",no-pty ', 'from="10.0.0.0/8" '):
        assert parse(prefix + line).blob == parse(line).blob
    whole = parse(line).blob
    for damaged in (whole[: len(whole) // 2 // 4 * 4], whole[:-1], whole[4:]):
        assert "damaged" in parse(line.replace(whole, damaged))
    private = (tmp_path / "key").read_text()
    assert parse(private.splitlines()[0]) == parse("-----BEGIN RSA PRIVATE KEY-----")
    assert parse(private.splitlines()[0]).startswith("a private key")


def test_ssh_keygen_reads_a_file_that_was_added_to(tmp_path):
    proc.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", tmp_path / "key"])
    key = parse((tmp_path / "key.pub").read_text())
    text, new = added("# mine\nno-pty " + ED25519 + " old", [key, parse(ED25519), key])
    assert new == [key]
    assert text.startswith("# mine\nno-pty " + ED25519 + " old\nssh-ed25519 ")
    assert added(text, [key]) == (text, [])
    file = tmp_path / "authorized_keys"
    file.write_text(text)
    assert len(proc.run(["ssh-keygen", "-l", "-f", file]).stdout.splitlines()) == len(keys(text)) == 2


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "no line of authorized_keys"),
        ("ssh-ed25519", "no line of"),
        (f"ssh-rsa {ED25519.split()[1]}", "a damaged ssh-rsa key: what it holds is of another kind"),
        (f"ssh-rsa {blob(b'ssh-rsa', b'', b'')}", "an RSA key of 0 bits"),
        (f"ssh-rsa {blob(b'ssh-rsa', bytes([3]), bytes([255]) * 64)}", "an RSA key of 512 bits"),
        (f"ssh-ed25519 {blob(b'ssh-ed25519', bytes(31))}", "a damaged ssh-ed25519 key"),
        (f"ecdsa-sha2-nistp256 {blob(b'ecdsa-sha2-nistp256', b'nistp384', bytes(97))}", "a damaged ecdsa"),
        (f"ssh-ed25519 {blob(b'ssh-ed25519', bytes(32), b'more')}", "what it holds is of another kind"),
        (f"ssh-dss {blob(b'ssh-dss')}", "of the kind ssh-dss, which sshd does not take"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "of the kind ssh-ed25519-cert-v01@openssh.com"),
        ("---- BEGIN SSH2 PUBLIC KEY ----", "another notation"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "a private key"),
        (f"{ED25519} a\x1b[2Jb", "control characters"),
        (f"{ED25519}\n{ED25519}", "control characters"),
        ("password123", "no line of"),
    ],
)
def test_what_is_no_key_says_why(line, why):
    assert re.search(re.escape(why), parse(line))


def test_a_private_key_is_never_repeated():
    assert "c2VjcmV0" not in parse("-----BEGIN OPENSSH PRIVATE KEY----- c2VjcmV0")


def test_bytes_that_are_no_text_are_no_keys_and_stay():
    text = "\udcff\udcfe\n" + ED25519
    assert len(keys(text)) == 1
    assert added(text, [parse(ED25519)]) == (text, [])
