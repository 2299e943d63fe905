"""clouds.yaml: what it may say, and that every mistake in it is shown with its line and without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cloud.config.found import Configured
from builder.cloud.releases import Release
from builder.errors import UsageError
from pipelines import clouds

SECRET = "wJalrXUtnFEMI/K7MDENG"
KEYS = f"access_key: AKIA, secret_key: '{SECRET}'"
WHOLE = f"""\
clouds:
  lab:
    kind: eucalyptus
    domain: lab.test
    release: "5.1"
    {KEYS.replace(", ", chr(10) + "    ")}
    ca_file: lab-ca.pem
    user_certificate: cert.pem
    private_key: /abs/pk.pem
    location: cellar
  old:
    kind: eucalyptus
    endpoints: {{ec2: "http://clc.test:8773/services/compute", s3: "http://clc.test:8773/services/Walrus"}}
    release: "3.2"
    profile: old
    account: "000123456789"
    cloud_certificate: ~/cloud.pem
  like-aws:
    kind: aws
    region: here
    endpoint: http://minio.test:9000
    profile: minio
"""


def written(place: Path, text: str) -> Path:
    path = place / "clouds.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def loaded(place: Path, text: str = WHOLE) -> dict[str, Configured]:
    return {found.name: found.load() for found in clouds.read(written(place, text))}


def test_a_cloud_is_what_its_entry_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = loaded(tmp_path)
    assert list(found) == ["lab", "old", "like-aws"]
    lab, old, like = found.values()
    assert lab.settings.endpoints["bootstrap"] == "https://bootstrap.lab.test:8773/"
    assert (lab.settings.region, lab.settings.location, lab.settings.verify) == ("eucalyptus", "cellar", True)
    assert (lab.settings.access_key, lab.settings.secret_key) == ("AKIA", SECRET)
    assert lab.settings.ca_file == tmp_path / "lab-ca.pem"
    assert (lab.release, lab.settings.s3.signature, lab.settings.query.signature) == (Release((5, 1)), "s3v4", "v4")
    assert lab.sources.user_certificate.value == str(tmp_path / "cert.pem")
    assert lab.sources.private_key.value == "/abs/pk.pem"
    assert lab.sources.cloud_certificate is None
    assert old.settings.endpoints["s3"] == "http://clc.test:8773/services/Walrus"
    assert old.settings.endpoints["sts"] == "http://clc.test:8773/services/Tokens"
    assert (old.settings.s3.signature, old.settings.query.signature, old.settings.location) == ("s3", "v2", "")
    assert (old.sources.account.value, old.sources.cloud_certificate.value) == ("000123456789", "/home/me/cloud.pem")
    assert "`cloud_certificate` of the cloud lab in" in lab.sources.settable["cloud_certificate"]
    assert (like.kind, like.settings.region, like.settings.endpoint_url) == ("aws", "here", "http://minio.test:9000")
    assert [one.warnings for one in (lab, old, like)] == [(), (), ()]
    assert SECRET not in repr(found)


def test_keys_and_certificates_may_be_those_of_a_user_of_euca2ools(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "lab.ini"
    file.write_text(f"[user me]\nkey-id = AKIA\nsecret-key = {SECRET}\naccount-id = 000000000001\ncertificate = /c\n")
    monkeypatch.setenv("EUCA_CONFIG_PATH", str(file))
    found = loaded(tmp_path, entry(EUCA + "domain: x, user: me, account: '000000000002'"))["lab"]
    assert (found.settings.access_key, found.settings.secret_key) == ("AKIA", SECRET)
    assert (found.sources.account.value, found.sources.user_certificate.value) == ("000000000002", "/c")
    assert found.sources.user_certificate.where == f"{file}:5"
    with pytest.raises(UsageError, match="for the user you"):
        loaded(tmp_path, entry(EUCA + "domain: x, user: you"))


def test_its_place_is_the_user_s_configuration(tmp_path: Path) -> None:
    assert clouds.place({"XDG_CONFIG_HOME": "/x"}) == Path("/x/emi/clouds.yaml")
    assert clouds.place({}) == Path("~/.config/emi/clouds.yaml").expanduser()
    assert clouds.read(tmp_path / "none.yaml") == []
    for text in ("", "clouds:\n", "clouds: {}\n"):
        assert clouds.read(written(tmp_path, text)) == []


def entry(text: str) -> str:
    return "clouds:\n  lab: {" + text + "}\n"


EUCA = "kind: eucalyptus, "
MISTAKES = [
    ("cloud:\n", r"yaml:1:1: unknown key `cloud`; there is only `clouds`"),
    ("- clouds\n", r"yaml:1:1: the file is a mapping with the key `clouds`, not a list"),
    ("clouds: [lab]\n", r"yaml:1:9: `clouds` is a mapping of names to clouds, not a list"),
    ("clouds:\n  lab: x\n", r"yaml:2:8: the cloud `lab` is a mapping that begins with `kind`, not text"),
    ("clouds:\n  aws: {kind: aws}\n", r"yaml:2:3: `aws` means something already"),
    ("clouds:\n  a:b: {kind: aws}\n", r"yaml:2:3: `a:b` cannot name a cloud"),
    ("clouds:\n\tlab: {}\n", r"yaml:2:1: a tab stands in the indentation"),
    ("clouds:\n  lab: {kind: aws}\n  lab: {kind: aws}\n", r"yaml:3:3: .*lab"),
    (entry("region: x"), r"yaml:2:3: cloud `lab` needs `kind`: `aws` or `eucalyptus`"),
    (entry("kind: openstack"), r"yaml:2:15: cloud `lab` needs `kind`: `aws` or `eucalyptus`, not `openstack`"),
    (
        entry(EUCA + "domain: lab.test"),
        r"yaml:2:3: cloud `lab`: it needs `access_key` and `secret_key`, `profile` or `user`",
    ),
    (entry(EUCA + "profile: a"), r"yaml:2:3: cloud `lab`: it needs `domain` or `endpoints`, one of both"),
    (entry(EUCA + "domian: x, profile: a"), r"yaml:2:27: unknown key `domian` of cloud `lab`; did you mean `domain`"),
    (entry(EUCA + "domain: http://x/, profile: a"), r"yaml:2:35: `domain` cannot be `http://x/`"),
    (entry(EUCA + "release: 5.1, domain: x, profile: a"), r"`release` needs text, not the number 5.1; .*quotes: '5.1'"),
    (entry(EUCA + "release: new, domain: x, profile: a"), r"yaml:2:36: `release` cannot be `new`"),
    (entry(EUCA + "verify: no, domain: x, profile: a"), r"yaml:2:35: `no` is read as false by some"),
    (entry(EUCA + "account: 12, domain: x, profile: a"), r"`account` needs text, not the number 12"),
    (entry(EUCA + "endpoints: {s3: 'http://x'}, profile: a"), r"yaml:2:27: cloud `lab` needs `ec2`: compute"),
    (entry(EUCA + "endpoints: {ec2: 'ftp://x'}, profile: a"), r"yaml:2:44: `ec2` cannot be `ftp://x`"),
    (
        entry(EUCA + "endpoints: {ec2: 'http://x', walrus: y}, profile: a"),
        r"unknown key `walrus` of cloud `lab`; it has",
    ),
    (entry("kind: aws, access_key: A"), r"yaml:2:3: cloud `lab`: `access_key` and `secret_key` belong together"),
    (entry(EUCA + "domain: x, user: a, profile: b"), r"cloud `lab`: `user` excludes `profile`"),
    (entry(f"kind: aws, profile: a, {KEYS}"), r"`profile` and `access_key` exclude each other"),
    (entry("kind: aws, domain: x"), r"yaml:2:20: unknown key `domain` of cloud `lab`"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_a_mistake_is_shown_where_it_is(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        clouds.read(written(tmp_path, text))
    assert "docs/clouds.md" in caught.value.hint


def test_all_mistakes_are_shown_at_once_and_with_their_lines_where_nothing_is_secret(tmp_path: Path) -> None:
    text = "clouds:\n  one: {kind: aws, what: x}\n  two: {kind: awss}\n"
    with pytest.raises(UsageError) as caught:
        clouds.read(written(tmp_path, text))
    assert "    2 |   one: {kind: aws, what: x}" in caught.value.message
    assert "    3 |   two: {kind: awss}" in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        f"secret_key: {SECRET}, regoin: x",
        f"secret_key: [{SECRET}]",
        f"secret_key: '{SECRET}",
        f"session_token: {{a: {SECRET}}}",
        f"{SECRET}: secret_key",
        "secret_key: 1234567890123, session_token: false",
        f"secret_key: &a {SECRET}, region: {{x: *a}}",
        f"secret_key: {SECRET}, region: {SECRET}, release: {SECRET}",
        f"endpoint: 'https://me:{SECRET}@x/', profile: a",
    ],
)
def test_no_error_shows_a_secret(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        clouds.read(written(tmp_path, entry(f"kind: aws, {line}")))
    said = f"{caught.value.message} {caught.value.hint} {caught.value!r}"
    assert f"{tmp_path}/clouds.yaml:2:" in said or f"{tmp_path}/clouds.yaml:3:" in said
    for secret in (SECRET, "1234567890123"):
        assert secret not in said


def test_a_file_with_a_secret_that_others_may_read_is_warned_about(tmp_path: Path) -> None:
    path = written(tmp_path, entry(EUCA + f"domain: x, {KEYS}, verify: false"))
    path.chmod(0o644)
    warnings = clouds.read(path)[0].load().warnings
    assert [f"chmod 600 {path}" in warnings[0], f"`verify: false` of {path}:2" in warnings[1]] == [True, True]


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\xff\xfe\0", "UTF-16"), (b"clouds: \xff", "not UTF-8"), (b" " * (2 << 20), "limit for clouds.yaml")],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "clouds.yaml").write_bytes(data)
    with pytest.raises(UsageError, match=words):
        clouds.read(tmp_path / "clouds.yaml")
