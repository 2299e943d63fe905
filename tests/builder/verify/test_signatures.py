"""Signatures by real gpg keys, checked by gpgv."""

import re

import pytest

from builder.errors import InputError, SignatureInvalid, UsageError
from builder.verify import Keyring

DATA = b"0123  disk.img\n"


@pytest.fixture
def keyring(gpg, tmp_path):
    def make(*users, armour=False):
        path = tmp_path / "keys.gpg"
        path.write_bytes(gpg.public(*users, armour=armour))
        return Keyring(path)

    return make


@pytest.mark.parametrize("armoured_keyring", [False, True])
@pytest.mark.parametrize("words", [(), ("--armor",)])
def test_a_good_signature_names_its_signer(armoured_keyring, words, gpg, keyring, tmp_path):
    ring = keyring("publisher", armour=armoured_keyring)
    signature = gpg.sign(DATA, "publisher", words=words)
    for data in (DATA, tmp_path / "file"):
        if data is not DATA:
            data.write_bytes(DATA)
        signer = ring.verify_detached(data, signature, what="SHA256SUMS")
        assert signer.user == "publisher <publisher@example.net>"
        assert len(signer.fingerprint) == 40


def test_armoured_keys_may_stand_one_after_the_other(gpg, tmp_path):
    path = tmp_path / "keys.asc"
    path.write_bytes(gpg.public("other", armour=True) + b"\n" + gpg.public("publisher", armour=True))
    assert Keyring(path).verify_detached(DATA, gpg.sign(DATA, "publisher"), what="x").user.startswith("publisher")


def test_of_a_clearsigned_text_only_what_is_signed_comes_back(gpg, keyring):
    signed = gpg.sign(b"- dashed\nHASH  name\n", "publisher", how="--clearsign")
    signer, text = keyring("publisher").verify_clearsigned(b"evil  before\n" + signed + b"evil  after\n", what="x")
    assert signer.user.startswith("publisher")
    assert text == b"- dashed\nHASH  name\n"


def test_an_unknown_second_signature_is_no_reason_to_refuse(gpg, keyring):
    both = gpg.sign(DATA, "publisher", "other")
    assert keyring("publisher").verify_detached(DATA, both, what="x").user.startswith("publisher")


THEN = ("--faked-system-time", "20200101T010000")
# name: (signers, keys in the ring, words for gpg, the data that is checked, reason)
REFUSED = {
    "changed data": (["publisher"], ["publisher"], (), b"changed", "the signature does not fit the data: key {} (pub"),
    "unknown key": (["other"], ["publisher"], (), DATA, "it is signed by key {}, which is not in the keyring"),
    "expired key": (["expired"], ["expired"], THEN, DATA, "the key has expired: key {} (expired <exp"),
    "revoked key": (["revoked"], ["revoked"], (), DATA, "the key has been revoked: key {} (revoked <rev"),
    "expired signature": (
        ["old"],
        ["old"],
        (*THEN, "--default-sig-expire", "1d"),
        DATA,
        "the signature has expired: key {} (old <old",
    ),
    "SHA-1": (
        ["publisher"],
        ["publisher"],
        ("--digest-algo", "SHA1"),
        DATA,
        "the signature rests on SHA-1, which can be forged",
    ),
    "one good, one of an expired key": (
        ["old", "expired"],
        ["old", "expired"],
        THEN,
        DATA,
        "the key has expired: key {} (expired <exp",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name, gpg, keyring):
    signers, keys, words, data, reason = REFUSED[name]
    signature = gpg.sign(DATA, *signers, words=words)
    if name == "revoked key":
        gpg.revoke("revoked")
    with pytest.raises(SignatureInvalid) as caught:
        keyring(*keys).verify_detached(data, signature, what="http://x/SHA256SUMS")
    said = re.sub(r"key [0-9A-F]{16}", "key {}", caught.value.message)
    assert said.startswith(f"http://x/SHA256SUMS, keyring {keyring(*keys).path}: {reason}")


def test_a_signed_text_that_was_changed_is_refused(gpg, keyring):
    signed = gpg.sign(b"HASH  name\n", "publisher", how="--clearsign").replace(b"HASH", b"EVIL")
    with pytest.raises(SignatureInvalid, match="the signature does not fit the data"):
        keyring("publisher").verify_clearsigned(signed, what="x")


@pytest.mark.parametrize("signature", [b"", b"nothing", b"-----BEGIN PGP", bytes(100)])
def test_what_is_no_signature(signature, keyring):
    with pytest.raises(SignatureInvalid, match="there is no signature in it"):
        keyring("publisher").verify_detached(DATA, signature, what="x")
    with pytest.raises(SignatureInvalid, match="there is no signature in it"):
        keyring("publisher").verify_clearsigned(signature, what="x")


def test_keyrings_that_are_none(gpg, tmp_path):
    armoured = gpg.public("publisher", armour=True)
    lines = armoured.splitlines()
    damaged = b"\n".join([*lines[:3], lines[3].swapcase(), *lines[4:]])
    table = {
        b"": "holds no public keys",
        b"SHA256 (x) = 00": "holds no public keys",
        gpg.sign(DATA, "publisher"): "holds no public keys",
        gpg("--armor", "--export-secret-keys", "publisher"): "holds a private key",
        gpg("--export-secret-keys", "publisher"): "holds no public keys",
        armoured[:-100]: "the PGP armour is damaged",
        damaged: "the PGP armour is damaged (its checksum does not fit)",
    }
    for content, message in table.items():
        (tmp_path / "keys").write_bytes(content)
        with pytest.raises((UsageError, InputError)) as caught:
            Keyring(tmp_path / "keys")
        assert caught.value.message.endswith(message)
        assert str(tmp_path / "keys") in caught.value.message
    with pytest.raises(UsageError) as caught:
        Keyring(tmp_path / "none")
    assert caught.value.message == f"keyring {tmp_path}/none: No such file or directory"
