"""A directory is like one cloud for good; its pairs for bundles go where its state goes."""

from __future__ import annotations

import json

import pytest

from builder.errors import HostError, UsageError
from builder.sandbox import archive, lifecycle, replacing, settings

OPERATION = "Operation"


@pytest.mark.behaviour(OPERATION, "emi sandbox start --personality", "fixed at the first start; another one is "
                       "refused, running or not; a release may change at a start")  # fmt: skip
def test_a_personality_is_for_good(make_sandbox, tmp_path):
    running = make_sandbox("like", personality="eucalyptus", release="4.4")
    assert (running.endpoint.personality, running.endpoint.release) == ("eucalyptus", "4.4")
    assert running.endpoint.region == "eucalyptus"
    for _ in range(2):
        with pytest.raises(UsageError, match="has the personality eucalyptus for good, not aws"):
            lifecycle.start(running.directory, personality="aws")
        lifecycle.stop(running.directory)
    assert lifecycle.start(running.directory).release == "4.4"  # nobody need say it again
    assert lifecycle.start(running.directory, release="5.1").release == "4.4"  # one that runs is adopted as it is
    lifecycle.stop(running.directory)
    assert lifecycle.start(running.directory, release="5.1").release == "5.1"
    aws = tmp_path / "aws"
    for words in ({"personality": "openstack"}, {"release": "5.1"}, {"personality": "eucalyptus", "release": "3.4"}):
        with pytest.raises(UsageError):
            lifecycle.start(aws, **words)
    assert not (aws / settings.SETTINGS).exists()


@pytest.mark.behaviour(OPERATION, "emi sandbox export, import, reset", "the personality and the pairs for bundles are "
                       "carried along; a reset keeps them, and other accounts' go")  # fmt: skip
def test_pairs_and_personality_are_carried(make_sandbox, tmp_path):
    one = make_sandbox("one", personality="eucalyptus")
    other = lifecycle.add_account(one.directory, "other").account
    files = {account: lifecycle.identity(one.directory, account) for account in (None, other)}
    kept = {name: (one.directory / name).read_bytes() for name in settings.BUNDLING}
    theirs = files[other].certificate.read_bytes()
    with lifecycle.still(one.directory) as check:
        archive.write(one.directory, tmp_path / "state.tar.zst", check)
    two = make_sandbox("two")
    lifecycle.identity(two.directory)  # its own are replaced
    with lifecycle.at_rest(two.directory):
        archive.read(tmp_path / "state.tar.zst", two.directory)
    end = lifecycle.start(two.directory)
    assert (end.personality, end.release, end.region) == ("eucalyptus", "5.1", "eucalyptus")
    assert {name: (two.directory / name).read_bytes() for name in settings.BUNDLING} == kept
    assert lifecycle.identity(two.directory, other).certificate.read_bytes() == theirs
    for name in (*settings.BUNDLING, settings.SETTINGS, f"accounts/{other}-key.pem"):
        assert (two.directory / name).stat().st_mode & 0o077 == 0
    with lifecycle.at_rest(two.directory):
        replacing.prepare(two.directory)
        replacing.commit(two.directory)
    assert {name: (two.directory / name).read_bytes() for name in settings.BUNDLING} == kept
    assert lifecycle.start(two.directory).personality == "eucalyptus"
    with pytest.raises(HostError, match="404"):
        lifecycle.identity(two.directory, other)


def test_a_directory_of_an_earlier_emi_is_like_aws(make_sandbox):
    running = make_sandbox()
    lifecycle.stop(running.directory)
    file = running.directory / settings.SETTINGS
    known = json.loads(file.read_text())
    file.write_text(
        json.dumps({name: value for name, value in known.items() if name not in ("personality", "release")})
    )
    assert lifecycle.start(running.directory).personality == "aws"


def test_services_have_urls(tmp_path):
    keys = {"access_key": "A", "secret_key": "s", "ca_file": None, "pid": 1, "directory": tmp_path, "tls_url": None}
    here = "http://127.0.0.1:1"
    like = lifecycle.Endpoint(url=here, plain_url=here, region="eucalyptus", personality="eucalyptus", **keys)
    assert like.service("s3") == f"{here}/services/objectstorage"
    with pytest.raises(KeyError):
        like.service("ebs")
    aws = lifecycle.Endpoint(url=here, plain_url=here, region="us-east-1", **keys)
    assert aws.service("s3") == aws.service("bootstrap") == here
