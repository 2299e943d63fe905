"""The lease of a helper instance: launched, let in, killed anywhere, released without a trace."""

from __future__ import annotations

import pickle
import stat
import sys
from pathlib import Path

import pytest

from builder import proc
from builder.cloud import helper, keeper
from builder.cloud.claims import TAG, Claim
from builder.cloud.helper import SshPatience, Wish
from builder.errors import (
    CloudConflict,
    CloudDenied,
    CloudFailed,
    CloudNotFound,
    HostKeyWrong,
    RemoteDenied,
    UsageError,
)
from builder.remote.command import Shell
from builder.remote.connection import Remote
from builder.remote.keys import KeyPair
from builder.sandbox.faults import client as faults
from tests.builder.remote.machine import Notes

TAGS = {"Name": "one"}
MISSING = "ami-0123456789abcdef0"


def left(cloud, claim: Claim) -> list[object]:
    """Return what there is of a claim: instances that are not terminated, its group, its key pair."""
    instances = [one.instance_id for one in cloud.find_instances(claim) if one.state != "terminated"]
    return [one for one in (*instances, cloud.find_security_group(claim), cloud.find_key_pair(claim)) if one]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The directory of a lease's keys."""
    path = tmp_path / "lease"
    path.mkdir(mode=0o700)
    return path


def test_what_is_made_carries_the_claim_and_is_removed(place, claim, image, keys) -> None:
    cloud, wish = place.cloud, Wish(image_id=image, tags=TAGS)
    assert helper.find(cloud, claim) is None
    instance = helper.start(cloud, claim, wish, keys)
    assert helper.start(cloud, claim, wish, keys) == helper.find(cloud, claim) == instance
    assert {stat.S_IMODE(file.stat().st_mode) for file in keys.iterdir()} == {0o600}
    kind = KeyPair.read(keys / helper.LOGIN).public.split()[0]
    assert kind == ("ssh-ed25519" if "ed25519" in cloud.capabilities.key_kinds else "ssh-rsa")
    group = cloud.find_security_group(claim)
    assert group.ssh_from == ("127.0.0.1/32",)
    record = cloud.describe_instance(instance)
    assert record.security_group_ids == [group.group_id]
    assert record.tags == {**TAGS, TAG: claim.token}
    for _ in range(2):
        helper.release(cloud, claim)
        assert left(cloud, claim) == []
    with pytest.raises(CloudNotFound, match="was terminated"):
        helper.start(cloud, claim, wish, keys)
    helper.release(cloud, claim)
    assert left(cloud, claim) == []


STARTING = """
import pickle, sys
from pathlib import Path
from builder.cloud import helper
cloud, claim, wish, keys = pickle.loads(bytes.fromhex(sys.argv[1]))
getattr(helper, sys.argv[2])(cloud(), claim, *((wish, keys) if sys.argv[2] == "start" else ()))
"""
MOMENTS = [
    "before ec2:ImportKeyPair",
    "after ec2:ImportKeyPair",
    "after ec2:CreateSecurityGroup",
    "after ec2:AuthorizeSecurityGroupIngress",
    "after ec2:RunInstances",
]


def killed(place, claim: Claim, wish: Wish, keys: Path, what: str, moment: str) -> None:
    """Kill a process that starts, or releases, at a moment."""
    words = pickle.dumps((pickle.loads(bytes.fromhex(place.words)), claim, wish, keys)).hex()
    proc.run([sys.executable, "-c", STARTING, words, what], environment={"EMI_CRASH_AT": moment}, allowed=[-9])


def slow(*moments: str):
    """Moments that only the long sweeps go through."""
    return [pytest.param(moment, marks=pytest.mark.sweep) for moment in moments]


@pytest.mark.parametrize("moment", [MOMENTS[-1], *slow(*MOMENTS[:-1])])
def test_a_kill_while_it_is_made_leaves_what_the_next_attempt_takes(old_place, old_image, claim, keys, moment) -> None:
    """On the cloud that tags after it has created, where each window is wider than elsewhere."""
    cloud, wish = old_place.cloud, Wish(image_id=old_image)
    killed(old_place, claim, wish, keys, "start", moment)
    before = helper.find(cloud, claim)
    assert (before is not None) == (moment == "after ec2:RunInstances")
    instance = helper.start(cloud, claim, wish, keys)
    assert before in (None, instance)
    assert [one.instance_id for one in cloud.find_instances(claim)] == [instance]
    assert cloud.find_instances(claim)[0].tags == {TAG: claim.token}
    helper.release(cloud, claim)
    assert left(cloud, claim) == []


@pytest.mark.parametrize("moment", [MOMENTS[-1], *slow(*MOMENTS[1:-1], "after ec2:CreateTags@1")])
def test_a_kill_while_it_is_made_leaves_what_a_release_removes(old_place, old_image, claim, keys, moment) -> None:
    killed(old_place, claim, Wish(image_id=old_image), keys, "start", moment)
    assert left(old_place.cloud, claim)
    helper.release(old_place.cloud, claim)
    assert left(old_place.cloud, claim) == []


@pytest.mark.parametrize(
    "moment",
    ["after ec2:TerminateInstances", *slow("after ec2:DeleteSecurityGroup", "after ec2:DeleteKeyPair")],
)
def test_a_release_that_is_killed_is_finished_by_the_next(old_place, old_image, claim, keys, moment) -> None:
    wish = Wish(image_id=old_image)
    helper.start(old_place.cloud, claim, wish, keys)
    killed(old_place, claim, wish, keys, "release", moment)
    helper.release(old_place.cloud, claim)
    assert left(old_place.cloud, claim) == []


def test_keys_that_are_lost_are_made_anew_and_no_instance_of_the_old_ones_is_used(old_place, old_image, claim, keys):
    cloud, wish = old_place.cloud, Wish(image_id=old_image)
    killed(old_place, claim, wish, keys, "start", "after ec2:ImportKeyPair")
    old = cloud.find_key_pair(claim).fingerprint
    for file in keys.iterdir():
        file.unlink()
    instance = helper.start(cloud, claim, wish, keys)
    assert cloud.find_key_pair(claim).fingerprint != old
    (keys / helper.LOGIN).unlink()
    with pytest.raises(CloudFailed, match="nobody can log in"):
        helper.ready(cloud, claim, instance, wish, keys)
    helper.release(cloud, claim)


def test_a_refused_launch_and_a_group_in_use_are_told(aws, sandbox, claim, keys, monkeypatch) -> None:
    with pytest.raises(UsageError, match="no network"):
        helper.start(aws, claim, Wish(image_id=MISSING, ssh_from="me"), keys)
    assert list(keys.iterdir()) == []
    faults.put(sandbox.endpoint, [{"effect": "denied", "service": "ec2", "call": "RunInstances"}])
    with pytest.raises(CloudDenied):
        helper.start(aws, claim, Wish(image_id=MISSING), keys)
    monkeypatch.setenv("EMI_CLOUD_LIMITS", "settle=0.5")
    held = {"effect": "refuse", "service": "ec2", "call": "DeleteSecurityGroup", "code": "DependencyViolation"}
    faults.put(sandbox.endpoint, [held])
    with pytest.raises(CloudConflict, match="still in use"):
        helper.release(aws, claim)
    faults.clear(sandbox.endpoint)
    helper.release(aws, claim)
    assert left(aws, claim) == []


# With a machine behind the instance
def test_it_lets_us_in_and_is_known_from_the_first_connection(lit, claim, keys) -> None:
    place, image = lit
    cloud, wish = place.cloud, Wish(image_id=image)
    instance = helper.start(cloud, claim, wish, keys)
    ready = helper.ready(cloud, claim, instance, wish, keys, patience=SshPatience(total=120))
    assert ready.instance.instance_id == instance
    assert ready.login.host.startswith("127.")
    with Remote(ready.login) as remote:
        assert Shell(remote).run(["id", "-u"]).stdout == b"0\n"
        helper.extend(Shell(remote), 60)
    keeper.keep(instance, ready.login, 60)
    assert helper.ready(cloud, claim, instance, wish, keys).login == ready.login
    keeper.let_go(instance)
    helper.release(cloud, claim, instance_id=instance)
    with pytest.raises(CloudFailed, match=f"{instance} is terminated"):
        helper.ready(cloud, claim, instance, wish, keys)
    assert not helper.is_usable(cloud, instance)


def test_another_host_key_is_refused_and_the_console_is_in_the_error(lit, claim, keys) -> None:
    place, image = lit
    cloud, wish = place.cloud, Wish(image_id=image)
    instance = helper.start(cloud, claim, wish, keys)
    (keys / "host-ed25519").write_bytes(KeyPair.generate().private)
    (keys / "host-rsa").write_bytes(KeyPair.generate_rsa().private)
    with pytest.raises(HostKeyWrong, match=f"last lines of the console of {instance}"):
        helper.ready(cloud, claim, instance, wish, keys, patience=SshPatience(total=60))
    helper.release(cloud, claim)


def test_a_user_that_it_does_not_let_in_is_told_and_not_waited_for_to_the_end(lit, claim, keys) -> None:
    place, image = lit
    cloud, wish = place.cloud, Wish(image_id=image, user="somebody")
    instance = helper.start(cloud, claim, wish, keys)
    notes = Notes()
    with pytest.raises(RemoteDenied, match=f"(?s)somebody.*last lines of the console of {instance}"):
        helper.ready(cloud, claim, instance, wish, keys, patience=SshPatience(denied=3), progress=notes)
    assert any("at most 900 s" in note and "somebody" in note for note in notes.notes), notes.notes
    helper.release(cloud, claim)
