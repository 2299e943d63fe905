"""euca2ools' files: which are read, how names are looked up, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cloud.config import ini
from builder.errors import UsageError

LAB = """\
# a comment
[global]
default-region = lab:one

[region lab:*]
user = boss
verify-ssl = yes
certificate: ~/lab-cloud.pem
[region lab:one]
ec2-url = http://lab.test:8773/services/compute ; in the cellar
s3-url = http://lab.test:8773/services/objectstorage
[region lab:two]
name = second
ec2-url = https://two.test:8773/
iam-url = https://iam.two.test:8773/
verify-ssl = false
s3-force-sigv4 = true
s3-location-constraint = cellar

[user boss]
key-id = AKIABOSS
secret-key = use keys boss-secret
account-id = 0001-2345-6789
certificate = /boss-cert.pem
private-key = /boss-pk.pem
[user keys]
boss-secret = s3cr3t;x
[user *]
key-id = AKIAANY
secret-key = any
"""


def read(place: Path, *texts: str) -> ini.Ini:
    paths = []
    for number, text in enumerate(texts):
        paths.append(place / f"{number}.ini")
        paths[-1].write_text(text)
    return ini.read(paths)


def configured(place: Path, wanted: str, environment: dict[str, str] | None = None, text: str = LAB):
    return ini.configured(read(place, text), wanted, environment or {})


@pytest.mark.parametrize(
    ("wanted", "environment", "user", "region"),
    [
        ("", {}, "boss", "lab:one"),
        ("lab:two", {}, "boss", "lab:two"),
        ("other@", {}, "other", "lab:one"),
        ("other@lab:two", {}, "other", "lab:two"),
        ("", {"AWS_DEFAULT_REGION": "a@lab:two"}, "a", "lab:two"),
        ("", {"AWS_DEFAULT_REGION": "x", "EUCA_DEFAULT_REGION": "lab:two"}, "boss", "lab:two"),
        ("other@", {"EUCA_DEFAULT_REGION": "a@lab:two"}, "other", "lab:two"),
        ("lab:two", {"EUCA_DEFAULT_REGION": "a@lab:one"}, "a", "lab:two"),
    ],
)
def test_user_and_region_come_from_the_name_the_environment_and_the_files(tmp_path, wanted, environment, user, region):
    assert ini.choose(read(tmp_path, LAB), wanted, environment) == (user, region)


def test_a_region_is_a_whole_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = configured(tmp_path, "")
    assert found.settings.endpoints == {
        "ec2": "http://lab.test:8773/services/compute",
        "s3": "http://lab.test:8773/services/objectstorage",
        "iam": "http://lab.test:8773/services/Euare",
        "sts": "http://lab.test:8773/services/Tokens",
        "bootstrap": "http://lab.test:8773/services/Empyrean",
    }
    settings = found.settings
    assert (settings.region, settings.access_key, settings.secret_key) == ("one", "AKIABOSS", "s3cr3t;x")
    assert (settings.verify, settings.location, settings.s3.signature) == (True, "", "s3")
    assert found.warnings == ()
    assert found.sources.cloud_certificate.value == "/home/me/lab-cloud.pem"
    assert found.sources.cloud_certificate.where == f"{tmp_path}/0.ini:8"
    assert found.sources.account.value == "0001-2345-6789"
    assert (found.sources.user_certificate.value, found.sources.private_key.value) == ("/boss-cert.pem", "/boss-pk.pem")
    assert "s3cr3t" not in repr(found)


def test_what_a_region_says_of_tls_signatures_and_places_is_followed(tmp_path: Path) -> None:
    found = configured(tmp_path, "lab:two")
    assert found.settings.endpoints == {"ec2": "https://two.test:8773/", "iam": "https://iam.two.test:8773/"}
    assert (found.settings.region, found.settings.location) == ("second", "cellar")
    assert (found.settings.verify, found.settings.s3.signature) == (False, "s3v4")
    assert "certificates are not verified" in found.warnings[0]


def test_without_verify_ssl_nothing_is_verified_and_that_is_said(tmp_path: Path) -> None:
    text = "[region r]\nec2-url = https://r.test/\n[user *]\nkey-id = a\nsecret-key = b\n"
    found = configured(tmp_path, "u@r", text=text)
    assert not found.settings.verify
    assert "false by default" in found.warnings[0]
    plain = configured(tmp_path, "u@r", text=text.replace("https", "http"))
    assert plain.warnings == ()


def test_the_environment_s_certificates_come_first(tmp_path: Path) -> None:
    said = {"EC2_USER_ID": "000000000009", "EUCA_CERT": "/c", "EC2_PRIVATE_KEY": "/k", "EUCALYPTUS_CERT": "/e"}
    sources = configured(tmp_path, "", said).sources
    found = (sources.account, sources.user_certificate, sources.private_key, sources.cloud_certificate)
    assert [(one.value, one.where) for one in found] == [
        ("000000000009", "EC2_USER_ID"),
        ("/c", "EUCA_CERT"),
        ("/k", "EC2_PRIVATE_KEY"),
        ("/e", "EUCALYPTUS_CERT"),
    ]


def test_keys_of_the_environment_are_only_for_a_user_without(tmp_path: Path) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "env"}
    assert configured(tmp_path, "", environment).settings.access_key == "AKIABOSS"
    text = "[region r]\nec2-url = http://r.test/\n"
    assert configured(tmp_path, "r", environment, text).settings.access_key == "ENV"
    with pytest.raises(UsageError, match="no `key-id` and `secret-key` are configured for anybody"):
        configured(tmp_path, "r", {"AWS_ACCESS_KEY_ID": "ENV"}, text)
    with pytest.raises(UsageError, match="for the user u"):
        configured(tmp_path, "u@r", {}, text)


# Names, sections in the order of their files, and what `x` is then.
LOOKED_UP = [
    ("a", "[region a]\nx = 1\n[region *]\nx = 2\n", "1"),
    ("b", "[region a]\nx = 1\n[region *]\nx = 2\n", "2"),
    ("a:b", "[region a:*]\nx = 1\n[region *:b]\nx = 2\n[region *]\nx = 3\n", "1"),
    ("c:b", "[region a:*]\nx = 1\n[region *:b]\nx = 2\n[region *]\nx = 3\n", "2"),
    ("c:d", "[region *:*]\nx = 1\n[region *]\nx = 3\n", "1"),
    ("b", "[region a:b]\nx = 1\n", "1"),
    ("b", "[region a:b]\nx = 1\n[region z:a:b]\nx = 2\n", "1"),
    ("b", "[region a:b]\ny = 1\n[region a:*]\nx = 2\n", "2"),
    ("a", "[region a]\nx = use b\n[region b]\nx = 1\n", "1"),
    ("a", "[region a]\nx = use b y\n[region b]\ny = 1\n", "1"),
    ("a", "[region *]\nx = use b y\n[region b]\ny = 1\n", "1"),
    ("a", "[region a]\nx = user\n", "user"),
    ("a", "[region a]\nx = 1\n[region a]\ny = 2\n", "1"),
    ("a", "[region a]\nx = 1\n  2\n", "1\n2"),
    ("a", "[region a]\nX: 1\n", "1"),
    ("a", "[something else]\nx = 2\n[region a]\nx = 1\n", "1"),
    ("a", "[region b]\nx = 1\n", None),
]


@pytest.mark.parametrize(("name", "text", "value"), LOOKED_UP)
def test_an_option_is_looked_up_by_the_nearest_name(tmp_path: Path, name: str, text: str, value: str | None) -> None:
    found = read(tmp_path, text).option("region", name, "x")
    assert (found.value if found else None) == value


def test_the_last_file_wins_option_by_option(tmp_path: Path) -> None:
    found = read(tmp_path, "[user a]\nx = 1\ny = 1\n", "[user a]\nx = 2\n")
    assert (found.option("user", "a", "x").value, found.option("user", "a", "y").value) == ("2", "1")
    assert found.option("user", "a", "x").where == f"{tmp_path}/1.ini:2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[region a]\nx = use a\n", r"0\.ini:2: `use` leads back to `x` of the region a"),
        ("[region a]\nx = use b\n[region b]\nx = use a\n", r"0\.ini:2: `use` leads back"),
        ("[region *]\nx = use c y\ny = use d x\n", r"0\.ini:[23]: `use` leads back"),
        ("[region a]\nx = use\n", r"0\.ini:2: `use` needs a region"),
        ("[region a]\nx = use b c d\n", r"0\.ini:2: `use` needs a region"),
        ("[region z:a]\nx = 1\n[region y:a]\nx = 2\n", r"the region a is ambiguous: it may be y:a or z:a"),
    ],
)
def test_names_that_lead_nowhere_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(tmp_path, text).option("region", "a", "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", r"0\.ini:1: this line is neither"),
        ("[region a]\nwhat\n", r"0\.ini:2: this line is neither"),
        ("[region]\n", r"0\.ini:1: '' cannot name a region"),
        ("[region a::b]\n", r"0\.ini:1: 'a::b' cannot name a region"),
        ("[user a@b]\n", r"0\.ini:1: 'a@b' cannot name a user"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("wanted", "text", "words"),
    [
        ("", "[region a]\nec2-url = http://a/\n", "no region is named"),
        ("b", "[region a]\nec2-url = http://a/\n", r"no `ec2-url` is configured for the region b .*0\.ini"),
        ("u@a", "[region a]\nec2-url = a\n[user *]\nkey-id=a\nsecret-key=b\n", r"0\.ini:2: 'a' is no URL"),
        (
            "u@a",
            "[region a]\nec2-url = http://a/\nverify-ssl = maybe\n[user *]\nkey-id=a\nsecret-key=b\n",
            r"0\.ini:3: 'maybe'",
        ),
    ],
)
def test_a_cloud_that_cannot_be_told_is_refused(tmp_path: Path, wanted: str, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        configured(tmp_path, wanted, text=text)


def test_which_files_are_read_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.ini", "a.ini", ".euca/z.ini", ".euca/no.conf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ini.files({})[-1] == tmp_path / ".euca/z.ini"
    chosen = ini.files({"EUCA_CONFIG_PATH": f"{tmp_path}/*.ini:$HOME/.euca/no.conf:/missing"})
    assert chosen == (tmp_path / "a.ini", tmp_path / "b.ini", tmp_path / ".euca/no.conf")
