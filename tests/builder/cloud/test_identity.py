"""For whom and by whom bundles are made: read from files, asked where that can be, and named when it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import proc
from builder.cloud import identity
from builder.cloud.identity import BundlingIdentity, Said, Sources
from builder.errors import UsageError


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate and its key, made by openssl."""
    place = tmp_path_factory.mktemp("pems")
    words = "req -x509 -newkey rsa:2048 -nodes -subj /CN=user -keyout key.pem -out cert.pem -days 2"
    proc.run(["openssl", *words.split()], directory=place)
    return place


def sources(pems: Path, **changes: Said | None) -> Sources:
    said = {
        "account": Said("0001-2345-6789", "EC2_USER_ID"),
        "user_certificate": Said(str(pems / "cert.pem"), "EC2_CERT"),
        "private_key": Said(str(pems / "key.pem"), "EC2_PRIVATE_KEY"),
        "cloud_certificate": Said(str(pems / "cert.pem"), "EUCALYPTUS_CERT"),
    }
    return Sources(**said | changes, settable={"cloud_certificate": "`cloud_certificate` of the cloud lab"})


def never() -> str:
    raise AssertionError("nothing needs to be asked")


def test_all_that_is_said_is_read_and_nothing_is_asked(pems: Path) -> None:
    found = identity.read(sources(pems), ask_account=never, ask_certificate=never)  # type: ignore[arg-type]
    certificate = (pems / "cert.pem").read_bytes()
    key = (pems / "key.pem").read_bytes()
    assert found == BundlingIdentity(
        account="000123456789", user_certificate=certificate, private_key=key, cloud_certificate=certificate
    )
    assert "PRIVATE" not in repr(found)
    assert "0001-2345" not in repr(sources(pems))


def test_what_is_not_said_is_asked_of_the_cloud(pems: Path) -> None:
    bare = sources(pems, account=None, user_certificate=None, private_key=None, cloud_certificate=None)
    found = identity.read(bare, ask_account=lambda: "000000000007", ask_certificate=lambda: b"theirs")
    assert found == BundlingIdentity(account="000000000007", cloud_certificate=b"theirs")


@pytest.mark.parametrize(
    ("missing", "hint"), [("account", "EC2_USER_ID"), ("cloud_certificate", "`cloud_certificate` of the cloud lab")]
)
def test_what_nobody_says_is_named_with_where_to_say_it(pems: Path, missing: str, hint: str) -> None:
    with pytest.raises(UsageError, match="bundles need") as caught:
        identity.read(sources(pems, **{missing: None}))
    assert hint in caught.value.hint


@pytest.mark.parametrize("number", ["", "12345678901", "1234567890123", "12345678901x", "١٢٣٤٥٦٧٨٩٠١٢"])
def test_what_is_no_account_s_number_is_refused(pems: Path, number: str) -> None:
    with pytest.raises(UsageError, match=r"EC2_USER_ID: .* is no account's number"):
        identity.read(sources(pems, account=Said(number, "EC2_USER_ID")))


@pytest.mark.parametrize(
    ("name", "file", "words"),
    [
        ("user_certificate", "missing.pem", "EC2 names .*missing.pem, which cannot be read: No such file"),
        ("user_certificate", "", "EC2 names .*, which cannot be read: Is a directory"),
        ("user_certificate", "a\0b", "which cannot be read"),
        ("user_certificate", "key.pem", "in which there is no PEM of a certificate"),
        ("private_key", "cert.pem", "in which there is no PEM of a private key"),
        ("cloud_certificate", "key.pem", "in which there is no PEM of a certificate"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named_with_who_named_it(pems, name, file, words) -> None:
    with pytest.raises(UsageError, match=words):
        identity.read(sources(pems, **{name: Said(f"{pems}/{file}", "EC2")}))


def test_a_file_that_is_far_too_large_is_not_taken(pems: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.pem"
    large.write_bytes((pems / "cert.pem").read_bytes())
    with open(large, "r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(UsageError, match="no PEM of a certificate"):
        identity.read(sources(pems, cloud_certificate=Said(str(large), "EUCALYPTUS_CERT")))


def test_the_environment_s_variables_are_those_of_euca2ools() -> None:
    said = identity.said_in(
        {"EC2_CERT": "a", "EUCA_CERT": "b", "EUCA_PRIVATE_KEY": "c", "EC2_USER_ID": "", "HOME": "/"}
    )
    assert {name: (one.value, one.where) for name, one in said.items()} == {
        "user_certificate": ("a", "EC2_CERT"),
        "private_key": ("c", "EUCA_PRIVATE_KEY"),
    }
