"""Which clouds --cloud finds on a machine, and what `emi clouds` shows of them; against real servers and files."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cloud.claims import Claim
from builder.cloud.eucalyptus import Eucalyptus
from builder.errors import CloudDenied, UsageError
from builder.sandbox import lifecycle
from pipelines import cli, configured, targets
from pipelines.home import Home
from pipelines.verbs import clouds as verb

SECRET = "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's home of its own, and no variable of a cloud."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_DEFAULT_REGION", "EC2_URL", "EUCA_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EMI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def euca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lifecycle.Endpoint]:
    directory = tmp_path_factory.mktemp("euca")
    yield lifecycle.start(directory, personality="eucalyptus")
    lifecycle.stop(directory)


@pytest.fixture
def everywhere(tmp_path: Path, euca: lifecycle.Endpoint) -> lifecycle.Endpoint:
    """The sandbox of Eucalyptus' kind is in each file, the last time with a wrong secret."""
    ec2 = euca.service("ec2")
    away = "http://127.0.0.1:1/services/compute"
    for_each = "kind: eucalyptus, profile: lab"
    write(
        tmp_path / "config/emi/clouds.yaml",
        f"clouds:\n  mine: {{{for_each}, endpoints: {{ec2: '{ec2}'}}, release: '5.1'}}\n"
        f"  away: {{{for_each}, endpoints: {{ec2: '{away}'}}}}\n",
    )
    keys = f"aws_access_key_id = {euca.access_key}\naws_secret_access_key = {euca.secret_key}\n"
    other = f"aws_access_key_id = A\naws_secret_access_key = {SECRET}\n"
    write(tmp_path / ".aws/credentials", f"[lab]\n{keys}[default]\n{other}")
    user = f"[user me]\nkey-id = {euca.access_key}\nsecret-key = {euca.secret_key}\n"
    write(tmp_path / ".euca/lab.ini", f"[region lab]\nec2-url = {ec2}\nuser = me\n{user}")
    write(
        tmp_path / ".euca/eucarc",
        f"export EC2_URL={ec2}\nexport EC2_ACCESS_KEY={euca.access_key}\nexport EC2_SECRET_KEY={SECRET}\n",
    )
    return euca


NAMES = ["mine", "away", "aws", "aws:lab", "euca:lab", "eucarc"]


def test_all_that_is_configured_is_listed_with_its_place(tmp_path: Path, everywhere) -> None:
    found = {one.name: one.origin for one in configured.everything()}
    assert sorted(found) == sorted(NAMES)
    assert found["mine"] == f"{tmp_path}/config/emi/clouds.yaml:2"
    assert found["euca:lab"] == f"{tmp_path}/.euca/lab.ini:2"
    assert found["eucarc"] == f"{tmp_path}/.euca/eucarc"
    assert [configured.find(name).name for name in NAMES] == NAMES


def test_the_verb_asks_each_and_tells_no_secret(tmp_path: Path, everywhere, capsys: pytest.CaptureFixture[str]) -> None:
    verb.clouds(check=True, timeout=60, as_json=True)
    out = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(out)}
    account = lifecycle.identity(everywhere.directory).account
    assert [rows["sandbox"]["answers"], rows["sandbox:eucalyptus"]["answers"]] == [None, None]
    for name in ("mine", "euca:lab"):
        assert (rows[name]["answers"], rows[name]["account"], rows[name]["problem"]) == (True, account, "")
        assert rows[name]["place"] == everywhere.service("ec2")
    assert "Could not connect" in rows["away"]["problem"]
    assert "SignatureDoesNotMatch" in rows["eucarc"]["problem"] or "AuthFailure" in rows["eucarc"]["problem"]
    assert "no region is configured" in rows["aws"]["problem"]
    assert "no region is configured for the profile lab" in rows["aws:lab"]["problem"]
    verb.clouds(check=False, timeout=0, as_json=False)
    text = capsys.readouterr()
    assert text.out.count("not asked") == 6
    for secret in (SECRET, everywhere.secret_key):
        assert secret not in out + text.out + text.err


def test_the_command_line_has_it(emi, everywhere) -> None:
    done = emi("clouds", "--no-check")
    assert done.code == 0, done.err
    heading, *lines = done.out.splitlines()
    assert heading.split("\t") == ["name", "answers", "at", "from"]
    assert {line.split("\t")[0] for line in lines} == {"sandbox", "sandbox:eucalyptus", *NAMES}


def test_one_that_cannot_be_read_is_shown_with_its_problem() -> None:
    found = configured.Found(name="slow", origin="here", load=lambda: configured.find("nowhere").load())
    row = verb.ask([found], 5)[0]
    assert (row.answers, row.problem) == (False, "no cloud named `nowhere`")


def test_one_that_never_answers_costs_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/services/compute"
        for name, value in {"EC2_URL": url, "EC2_ACCESS_KEY": "A", "EC2_SECRET_KEY": SECRET}.items():
            monkeypatch.setenv(name, value)
        began = time.monotonic()
        rows = verb.ask([configured.find("eucarc")] * 3, 1)
        assert time.monotonic() - began < 10
    assert {row.problem for row in rows} == {"no answer within 1 s"}


def test_a_file_that_is_broken_hides_no_other(tmp_path: Path, everywhere, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "config/emi/clouds.yaml", "clouds: 1\nmore: 2\n")
    write(tmp_path / ".euca/lab.ini", "what\n")
    verb.clouds(check=False, timeout=0, as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert "clouds.yaml:1:9" in rows["clouds.yaml"]["problem"]
    assert "lab.ini:1" in rows["euca"]["problem"]
    assert rows["eucarc"]["problem"] == ""


@pytest.mark.parametrize("name", ["mine", "euca:lab", "euca:me@lab"])
def test_a_name_opens_its_cloud_with_all_that_bundles_need(tmp_path: Path, everywhere, name: str) -> None:
    target = targets.open_target(targets.choose(name), Home(tmp_path / "home"))
    files = lifecycle.identity(everywhere.directory)
    host = everywhere.url.partition("//")[2]
    region = {"mine": "eucalyptus"}.get(name, "lab")
    assert target.identity == f"eucalyptus/{host}/{files.account}/{region}"
    assert isinstance(target.cloud, Eucalyptus)
    assert target.cloud.find_images(Claim("nothing")) == []
    made = target.bundling()
    assert (made.account, made.user_certificate) == (files.account, None)
    assert made.cloud_certificate.strip() == files.cloud_certificate.read_bytes().strip()


def test_the_sandboxes_make_bundles_with_their_own_files(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    try:
        for name, directory in (("sandbox", home.sandbox), ("sandbox:eucalyptus", home.sandbox_eucalyptus)):
            target = targets.open_target(targets.choose(name), home)
            files = lifecycle.identity(directory)
            made = target.bundling()
            assert made.private_key == files.private_key.read_bytes()
            assert made.cloud_certificate == files.cloud_certificate.read_bytes()
            assert target.cloud.capabilities.ebs_direct == (name == "sandbox")
            assert target.cloud.s3.buckets() == set()
    finally:
        lifecycle.stop(home.sandbox)
        lifecycle.stop(home.sandbox_eucalyptus)


def test_keys_of_its_own_need_no_profile(everywhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of-another-cloud")
    assert targets.cloud(configured.find("euca:lab").load(), retry=0).answer()


def test_what_is_dangerous_is_said_when_a_cloud_is_opened(tmp_path: Path, everywhere) -> None:
    entry = "{kind: eucalyptus, domain: x.test, access_key: A, secret_key: B, verify: false, account: '000000000001'}"
    write(tmp_path / "config/emi/clouds.yaml", f"clouds:\n  open: {entry}\n").chmod(0o644)
    said: list[str] = []
    target = targets.open_target("open", Home(tmp_path / "home"), warn=said.append)
    assert target.identity == "eucalyptus/ec2.x.test:8773/000000000001/eucalyptus"
    assert [line.partition(":")[0] for line in said] == ["open", "open"]
    assert "chmod 600" in said[0]
    assert "certificates are not verified" in said[1]


def test_a_verb_without_a_run_advises_no_resume(everywhere) -> None:
    with pytest.raises(CloudDenied) as caught:
        cli.app(["fetch-bundle", "images/web.manifest.xml", "--cloud", "eucarc"], standalone_mode=False)
    assert caught.value.hint == "Check the access key, its secret and the region, then the same command again."


def test_a_certificate_that_anybody_could_have_sent_is_warned_of(tmp_path: Path, everywhere) -> None:
    said: list[str] = []
    target = targets.open_target("mine", Home(tmp_path / "home"), warn=said.append)
    assert said == []  # of nothing that nobody asked for
    given = target.bundling().cloud_certificate
    assert len(said) == 1
    assert said[0].startswith(f"mine: the cloud's certificate for bundles came from {everywhere.service('bootstrap')}")
    write(tmp_path / "config/emi/cloud.pem", given.decode())
    clouds = tmp_path / "config/emi/clouds.yaml"
    write(clouds, clouds.read_text().replace("release:", "cloud_certificate: cloud.pem, release:"))
    assert targets.open_target("mine", Home(tmp_path / "home"), warn=said.append).bundling().cloud_certificate == given
    assert len(said) == 1


@pytest.mark.parametrize("name", ["nimbus", "sandbox:other", "eucarc", "Aws", "sandbox2"])
def test_a_cloud_that_is_not_configured_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"no cloud named|there is no eucarc"):
        targets.choose(name)


def test_an_eucarc_is_named_for_good(tmp_path: Path, everywhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / ".euca")
    assert targets.choose("eucarc:eucarc") == f"eucarc:{tmp_path}/.euca/eucarc"
    monkeypatch.setenv("EC2_URL", "http://elsewhere.test/")
    assert configured.find("eucarc").origin == "EC2_URL"


def test_certificates_for_aws_are_those_of_its_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = "aws_access_key_id = A\naws_secret_access_key = B\n"
    write(tmp_path / ".aws/credentials", f"[default]\n{keys}")
    for name, value in {"EC2_AMITOOL_HOME": "/tools", "EUCALYPTUS_CERT": "/other-cloud", "EC2_CERT": "/mine"}.items():
        monkeypatch.setenv(name, value)
    sources = {region: configured.find(f"aws:@{region}").load().sources for region in ("eu-west-1", "cn-north-1")}
    files = [one.cloud_certificate.value for one in sources.values()]
    assert files == [f"/tools/etc/ec2/amitools/cert-ec2{end}.pem" for end in ("", "-cn-north-1")]
    assert sources["eu-west-1"].user_certificate.value == "/mine"
