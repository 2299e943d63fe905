"""Certificates and private keys as people have them: PEM with things around it, DER, too old; and the wrong ones."""

from __future__ import annotations

import datetime as dt
import re
import subprocess  # noqa: TID251 - openssl makes and converts, with none of our code
from pathlib import Path

import pytest

from builder.bundle.certificates import Certificate, PrivateKey
from builder.errors import UsageError


def openssl(*arguments: object, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, check=True).stdout


def test_the_fingerprint_is_the_one_that_openssl_prints(user) -> None:
    printed = openssl("x509", "-noout", "-fingerprint", "-sha1", "-in", user.certificate_file).decode()
    assert printed.strip().partition("=")[2] == user.certificate.fingerprint
    printed = openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", user.certificate_file).decode()
    assert printed.strip().partition("=")[2].replace(":", "").lower() == user.certificate.sha256


def test_a_certificate_that_ran_out_is_used(user, content_key) -> None:
    assert user.certificate.expires < dt.datetime.now(dt.UTC)
    assert user.certificate.expires.year == 2010
    assert user.key.decrypt(user.certificate.encrypt(b"words")) == b"words"


def test_what_a_certificate_says_is_there_to_be_shown(user, cloud) -> None:
    assert user.certificate.subject == "CN=emi test fixture, user".replace(",", "\\,")
    assert (user.certificate.bits, cloud.certificate.bits) == (2048, 1024)
    assert "BEGIN" not in repr(user.certificate)


def forms_of_a_certificate(file: Path) -> dict[str, bytes]:
    pem = file.read_bytes()
    return {
        "PEM": pem,
        "with its text before": openssl("x509", "-text", "-in", file),
        "CRLF": pem.replace(b"\n", b"\r\n"),
        "no final newline": pem.strip(),
        "after its key": file.with_suffix(".key").read_bytes() + pem,
        "a chain": pem + (file.parent / "other.crt").read_bytes(),
        "DER": openssl("x509", "-in", file, "-outform", "DER"),
        "indented notes": b"# my certificate\n\n" + pem + b"\nnotes\n",
    }


def test_a_certificate_in_every_form_is_the_same(user) -> None:
    forms = forms_of_a_certificate(user.certificate_file)
    found = {form: Certificate.load(data, form) for form, data in forms.items()}
    assert len(found) == 8
    for form, certificate in found.items():
        assert certificate.fingerprint == user.certificate.fingerprint, form
        assert certificate.pem == user.certificate.pem, form
        assert certificate.where == form


OLD_WAYS = [
    (b"\x02\x01\x01\x30", b"\x02\x01\x00\x30", "CN=emi test fixture\\, user"),  # the serial number 0
    (b"\x06\x03\x55\x04\x03", b"\x06\x03\x55\x04\x06", "C=emi test fixture\\, user"),  # no country has so long a code
    (b"fixture, user", b"fixture, us\xff\xff", ""),  # a subject in no encoding
]


@pytest.mark.parametrize(("old", "new", "subject"), OLD_WAYS)
def test_what_only_people_read_in_a_certificate_does_not_matter(user, old, new, subject) -> None:
    der = openssl("x509", "-in", user.certificate_file, "-outform", "DER")
    assert old in der
    odd = Certificate.load(der.replace(old, new), "odd.crt")  # a warning would fail the test
    assert odd.subject == subject
    assert odd.matches(user.key)


def forms_of_a_key(file: Path) -> dict[str, bytes]:
    pem = file.read_bytes()
    return {
        "PKCS#1": pem,
        "PKCS#8": openssl("pkcs8", "-topk8", "-nocrypt", "-in", file),
        "PKCS#1 DER": openssl("rsa", "-in", file, "-outform", "DER", "-traditional"),
        "PKCS#8 DER": openssl("pkcs8", "-topk8", "-nocrypt", "-in", file, "-outform", "DER"),
        "after its certificate": file.with_suffix(".crt").read_bytes() + pem,
        "CRLF": pem.replace(b"\n", b"\r\n"),
        "with words": b"Bag Attributes\n    friendlyName: me\n" + pem,
    }


def test_a_key_in_every_form_is_the_same(user) -> None:
    forms = forms_of_a_key(user.key_file)
    assert len(forms) == 7
    for form, data in forms.items():
        assert user.certificate.matches(PrivateKey.load(data, form)), form


def test_a_key_with_a_passphrase_is_refused_with_what_to_do(user) -> None:
    locked = [
        openssl("rsa", "-in", user.key_file, "-aes128", "-passout", "pass:secret", "-traditional"),
        openssl("pkcs8", "-topk8", "-in", user.key_file, "-passout", "pass:secret"),
        openssl("pkcs8", "-topk8", "-in", user.key_file, "-passout", "pass:secret", "-outform", "DER"),
    ]
    for data in locked:
        with pytest.raises(UsageError, match=r"^pk\.pem is a private key with a passphrase$") as refusal:
            PrivateKey.load(data, "pk.pem")
        assert "openssl pkey -in" in refusal.value.hint


def test_what_is_no_private_key_is_refused(user, tmp_path) -> None:
    ec = openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout")
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", tmp_path / "id"], check=True)
    damaged = user.key_file.read_bytes().replace(b"a", b"b")
    wrong = [
        (b"", "pk.pem holds no private key: no PEM block, and it is not DER"),
        (b"words", "pk.pem holds no private key: no PEM block"),
        (user.certificate_file.read_bytes(), "pk.pem holds no private key: CERTIFICATE"),
        (ec, "pk.pem is another kind of private key"),
        ((tmp_path / "id").read_bytes(), "pk.pem is an OpenSSH private key"),
        (damaged, "pk.pem holds a damaged private key"),
        (b"\x30\x82\x01", "pk.pem holds a damaged private key"),
    ]
    for data, why in wrong:
        with pytest.raises(UsageError, match=f"^{why}") as refusal:
            PrivateKey.load(data, "pk.pem")
        lines = data.splitlines()[1:-1]
        assert not any(line.decode("latin-1") in refusal.value.message for line in lines)
        assert refusal.value.__cause__ is None


def test_what_is_no_certificate_is_refused(user, tmp_path) -> None:
    (tmp_path / "ec").write_bytes(openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout"))
    ec = openssl("req", "-x509", "-key", tmp_path / "ec", "-subj", "/CN=ec", "-days", "1")
    pem = user.certificate_file.read_bytes()
    damaged = re.sub(rb"(?m)^MII.", b"AAAA", pem)
    assert damaged != pem
    wrong = [
        (b"", "cert.pem holds no certificate: no PEM block, and it is not DER"),
        (user.key_file.read_bytes(), "cert.pem holds no certificate: RSA PRIVATE KEY"),
        (openssl("x509", "-in", user.certificate_file, "-trustout"), "cert.pem holds no certificate: TRUSTED CERT"),
        (ec, "cert.pem is a certificate of another kind of key"),
        (damaged, "cert.pem holds a damaged certificate"),
        (pem[: len(pem) // 2], "cert.pem holds no certificate"),
        (b"\x30\x82\x01", "cert.pem holds a damaged certificate"),
        (
            openssl("x509", "-in", user.certificate_file, "-outform", "DER").replace(b"100101", b"101301"),
            "cert.pem holds a dam",
        ),
    ]
    for data, why in wrong:
        with pytest.raises(UsageError, match=f"^{why}"):
            Certificate.load(data, "cert.pem")


def test_a_key_of_another_certificate_is_an_error(user, other) -> None:
    user.certificate.require(user.key)
    assert not user.certificate.matches(other.key)
    why = r"^the private key other\.key does not belong to user\.crt \(" + user.certificate.fingerprint
    with pytest.raises(UsageError, match=why):
        user.certificate.require(other.key)


def test_an_old_short_key_is_used(cloud) -> None:
    """EC2's own certificate has 1024 bits, and Eucalyptus' first ones too."""
    assert cloud.key.bits == 1024
    assert cloud.certificate.verifies(cloud.key.sign(b"text"), b"text")
    assert not cloud.certificate.verifies(cloud.key.sign(b"text"), b"texts")


def test_random_bytes_come_of_a_wrong_key_without_an_error(user, other) -> None:
    """Which is why callers must know what a message looks like; here it is shown that OpenSSL really does so."""
    found = {other.key.decrypt(user.certificate.encrypt(b"words")) for _ in range(20)}
    assert b"words" not in found
    assert any(found - {None})
