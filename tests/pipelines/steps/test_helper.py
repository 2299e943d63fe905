"""The step kind `helper`: what it asks for, and an instance of the user's own, which is left as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.cloud.claims import Claim
from builder.errors import CloudDenied, UsageError
from builder.progress import SILENT
from builder.remote.keys import KeyPair
from builder.sandbox import lifecycle
from builder.sandbox.faults import client as faults
from pipelines.home import Home
from pipelines.kinds import load
from pipelines.step import Inputs, Outside, Work
from pipelines.store import FileStore
from pipelines.targets import SANDBOX, open_target

HOST_KEY = KeyPair.generate().public

STEP = load("helper")


def options(**told):
    return STEP.options(**told)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, "give one of"),
        ({"image": "a", "image_id": "ami-1"}, "give one of"),
        ({"image_id": "ami-1", "instance": "i-1", "private_key": "k"}, "give one of"),
        ({"instance": "i-1"}, "needs a `private_key`"),
        ({"instance": "i-1", "private_key": "k", "ssh_from": "127.0.0.1"}, "`ssh_from` is not for `instance`"),
        ({"instance": "i-1", "private_key": "k", "ends_after": 120}, "`ends_after` is not for `instance`"),
        ({"image_id": "ami-1", "private_key": "k"}, "are for `instance`"),
        ({"instance": "i-1", "private_key": "k", "host_key": "AAAA"}, "not a public key"),
        ({"instance": "i-1", "private_key": "k", "host_key": "foo bar"}, "not a public key"),
        ({"instance": "i-1", "private_key": "k", "host_key": f"there {HOST_KEY}"}, "without a machine's name"),
        ({"image_id": "ami-1", "tags": {"emi:x": "y"}}, "reserved"),
    ],
)
def test_what_is_wrong_with_the_options_is_told(told, said) -> None:
    assert any(said in problem for problem in STEP.check(options(**told)))


@pytest.mark.parametrize(
    "told",
    [
        {"image": "a"},
        {"image_id": "emi-1"},
        {"instance": "i-1", "private_key": "k"},
        {"instance": "i-1", "private_key": "k", "host_key": f"{HOST_KEY} of there"},
    ],
)
def test_each_way_to_name_one_is_enough(told) -> None:
    assert list(STEP.check(options(**told))) == []
    assert STEP.calls(options(**told))


def work(tmp_path: Path, claim: Claim) -> Work:
    outside = Outside(recipe_directory=tmp_path, cache=tmp_path, store=FileStore(tmp_path / "objects"))
    scratch = tmp_path / "leases" / "one"
    scratch.mkdir(parents=True, mode=0o700)
    return Work(scratch=scratch, outside=outside, pins={}, progress=SILENT, claim=claim)


def test_a_refused_launch_leaves_nothing_and_what_is_missing_is_told_first(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    cloud, claim = open_target(SANDBOX, home).cloud, Claim("refused")
    endpoint = lifecycle.start(home.sandbox)  # it runs already
    with pytest.raises(UsageError, match="ami-0123456789abcdef0 of the step `helper` does not exist"):
        STEP.preflight(options(image_id="ami-0123456789abcdef0"), cloud)
    (tmp_path / "key").write_bytes(KeyPair.generate().private)
    own = options(instance="i-0123456789abcdef0", private_key=str(tmp_path / "key"))
    with pytest.raises(UsageError, match="is not there"):
        STEP.preflight(own, cloud)
    STEP.release(own, "i-0123456789abcdef0", cloud, work(tmp_path / "own", claim))
    faults.put(endpoint, [{"effect": "denied", "service": "ec2", "call": "RunInstances"}])
    wanted = options(image_id="ami-0123456789abcdef0", instance_type="t3.small")
    with pytest.raises(CloudDenied) as caught:
        STEP.acquire(wanted, Inputs(), claim, cloud, work(tmp_path, claim))
    assert "zone" not in f"{caught.value.message} {caught.value.hint}"
    kept = replace(work(tmp_path / "kept", claim), zone="us-east-1a")
    with pytest.raises(CloudDenied) as caught:
        STEP.acquire(wanted, Inputs(), claim, cloud, kept)
    assert "launched in us-east-1a, where the volume is that an earlier run has kept" in caught.value.message
    assert "With a `zone:` of its own" in caught.value.hint
    assert cloud.find_key_pair(claim) is None
    assert cloud.find_security_group(claim) is None
    lifecycle.stop(home.sandbox)
