"""A bundle's key: what openssl and we make of each other's, wrong keys, and keys that are derived."""

from __future__ import annotations

import subprocess  # noqa: TID251 - openssl opens and encrypts, with none of our code
from dataclasses import replace

import pytest

from builder.bundle import keys
from builder.bundle.manifest import read
from builder.bundle.records import ContentKey, Encrypted, Manifest, Shape
from builder.errors import BundleRefused

SHAPE = Shape(name="debian-12.img")


def openssl(*arguments: object, data: bytes) -> bytes:
    command = ["openssl", "pkeyutl", *map(str, arguments), "-pkeyopt", "rsa_padding_mode:pkcs1"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def test_openssl_opens_what_we_encrypt(user, cloud, content_key: ContentKey) -> None:
    for who in (user, cloud):
        fields = keys.encrypt(content_key, who.certificate)
        for half, wanted in ((fields.key, content_key.key), (fields.iv, content_key.iv)):
            assert half == half.lower()
            opened = openssl("-decrypt", "-inkey", who.key_file, data=bytes.fromhex(half))
            assert opened == wanted.hex().encode()


def test_we_open_what_openssl_encrypts(manifest: Manifest, user) -> None:
    """Upper case too, though no tool writes it."""
    made = [
        openssl("-encrypt", "-certin", "-inkey", user.certificate_file, data=half).hex()
        for half in (b"00112233445566778899aabbccddeeff", b"FFEEDDCCBBAA99887766554433221100")
    ]
    found = keys.decrypt(replace(manifest, for_user=Encrypted(key=made[0], iv=made[1])), user.key)
    assert found.key.hex() == "00112233445566778899aabbccddeeff"
    assert found.iv.hex() == "ffeeddccbbaa99887766554433221100"


def test_encrypting_is_another_text_each_time(user, content_key: ContentKey) -> None:
    assert keys.encrypt(content_key, user.certificate) != keys.encrypt(content_key, user.certificate)


def test_the_old_tools_keys_are_opened_by_those_who_should(made, user, cloud, other) -> None:
    manifest = read(made.data, where="x")
    opened = {who: pair.key for who, pair in (("user", user), ("cloud", cloud)) if who in made.expected["opened_by"]}
    found = {keys.decrypt(manifest, key).key for key in opened.values()}
    assert len(found) == 1
    for key in {"user": user.key, "cloud": cloud.key, "other": other.key}.items() - opened.items():
        with pytest.raises(
            BundleRefused, match=f"^the private key {key[0]}.key does not open the bundle {manifest.name}:"
        ):
            keys.decrypt(manifest, key[1])


def test_a_wrong_key_is_named_and_the_right_one_if_it_is_known(manifest: Manifest, user, other) -> None:
    with pytest.raises(BundleRefused) as refusal:
        keys.decrypt(manifest, other.key, fitting=user.certificate)
    assert refusal.value.message == (
        "the private key other.key does not open the bundle debian-12.img: neither user_encrypted_* nor "
        "ec2_encrypted_* hold 32 hex digits for it; "
        f"the one that belongs to user.crt ({user.certificate.fingerprint}) should"
    )


def test_the_cloud_key_alone_is_of_another_size(manifest: Manifest, user) -> None:
    with pytest.raises(BundleRefused, match="it has 2048 bits, the bundle's key is encrypted for 1024 bits"):
        keys.decrypt(replace(manifest, for_user=Encrypted()), user.key)


def test_a_bundle_without_keys_says_so(manifest: Manifest, user) -> None:
    with pytest.raises(BundleRefused, match="the manifest holds no encrypted key at all"):
        keys.decrypt(replace(manifest, for_user=Encrypted(), for_cloud=Encrypted()), user.key)


INSIDE = [
    b"00112233445566778899aabbccddeef",  # 31
    b"00112233445566778899aabbccddeeff0",  # 33
    b"00112233445566778899aabbccddeeff\n",
    bytes(range(16)),  # the bytes themselves
    b"0x112233445566778899aabbccddeeff",
    b"",
]


@pytest.mark.parametrize("inside", INSIDE)
def test_only_32_hex_digits_count(manifest: Manifest, user, content_key: ContentKey, inside) -> None:
    right = keys.encrypt(content_key, user.certificate)
    wrong = user.certificate.encrypt(inside).hex()
    for fields in (Encrypted(key=wrong, iv=right.iv), Encrypted(key=right.key, iv=wrong)):
        assert keys.opened(fields, user.key) is None
        with pytest.raises(BundleRefused, match="hold 32 hex digits"):
            keys.decrypt(replace(manifest, for_user=fields), user.key)


@pytest.mark.parametrize("half", ["00", "ff" * 256, "01" * 300])
def test_what_is_no_ciphertext_does_not_open(user, half) -> None:
    assert keys.opened(Encrypted(key=half, iv=half), user.key) is None


def test_key_and_vector_come_from_the_same_fields(manifest: Manifest, user, cloud, content_key: ContentKey) -> None:
    """Two fields that each half open are not one key."""
    users = keys.encrypt(content_key, user.certificate)
    garbage = "00" * 256
    with pytest.raises(BundleRefused, match="hold 32 hex digits"):
        keys.decrypt(
            replace(
                manifest,
                for_user=Encrypted(key=users.key, iv=garbage),
                for_cloud=Encrypted(key=garbage, iv=users.iv),
            ),
            user.key,
        )


def test_a_derived_key_is_the_same_again(user, cloud) -> None:
    certificates = [user.certificate, cloud.certificate]
    for secret in (None, user.key):
        once, again = (
            keys.derived(b"blocks:1234", certificates=certificates, shape=SHAPE, secret=secret) for _ in range(2)
        )
        assert once == again
        assert (len(once.key), len(once.iv)) == (16, 16)
        assert once.key != once.iv


def test_a_derived_key_is_another_for_all_that_it_depends_on(user, cloud, other) -> None:
    certificates = [user.certificate, cloud.certificate]
    found = {
        keys.derived(seed, certificates=given, shape=shape, secret=secret)
        for seed in (b"blocks:1234", b"blocks:1235", b"")
        for given in (certificates, certificates[::-1], certificates[:1], [])
        for shape in (SHAPE, Shape(name="debian-12.im"), Shape(name=SHAPE.name, compression="small"),
                      Shape(name=SHAPE.name, part_size=1 << 20))
        for secret in (None, user.key, other.key)
    }  # fmt: skip
    assert len(found) == 3 * 4 * 4 * 3


def test_a_derived_key_never_changes() -> None:
    """A release that derives another key would send every reproducible bundle again. openssl kdf computes it too."""
    found = keys.derived(b"blocks:" + b"0" * 64, certificates=[], shape=SHAPE)
    told = b"".join(len(word).to_bytes(8, "big") + word for word in (
        b"blocks:" + b"0" * 64, b"debian-12.img", b"10485760", b"fast"))  # fmt: skip
    options = {"digest": "SHA256", "hexkey": (b"blocks:" + b"0" * 64).hex(), "hexinfo": told.hex()}
    options["hexsalt"] = b"emi bundle content key, version 1".hex()
    command = ["openssl", "kdf", "-keylen", "32", "-binary"]
    for name, value in options.items():
        command += ["-kdfopt", f"{name}:{value}"]
    theirs = subprocess.run([*command, "HKDF"], capture_output=True, check=True).stdout
    assert found.key + found.iv == theirs


def test_keys_do_not_show(user, content_key: ContentKey) -> None:
    assert content_key.key.hex() not in repr(content_key)
    assert repr(content_key.key) not in repr(content_key)
    assert repr(user.key) == "PrivateKey(where='user.key')"
