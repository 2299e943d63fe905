"""AWS's client against the sandbox: what is adopted, what is refused, what is called."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import sys
from collections import Counter
from pathlib import Path

import pytest

from builder import proc
from builder.cloud.api import BlockDevice, Call, ImageSpec, Lack
from builder.cloud.aws import CAPABILITIES, Aws
from builder.cloud.claims import TAG, Claim, only
from builder.cloud.cleanup import deregister
from builder.cloud.images import wait_available
from builder.cloud.snapshots import wait_completed
from builder.digest import BLOCK
from builder.errors import CloudConflict, CloudDenied, CloudError, CloudNotFound, UsageError

ROOT = Path(__file__).parents[3]
DATA = b"\x17" * BLOCK
SHA = hashlib.sha256(DATA).digest()


def snapshot(aws: Aws, claim: Claim, **more) -> str:
    """Make a completed snapshot of one block."""
    request = {"volume_size": 1, "description": "a test", "tags": {"Name": "one"}, "parent": None} | more
    started = aws.start_snapshot(claim, **request).snapshot_id
    aws.put_block(started, 0, DATA, SHA)
    aws.complete_snapshot(started, changed_blocks=1, checksum=hashlib.sha256(SHA).digest())
    wait_completed(aws, started)
    return started


def spec(snapshot_id: str, claim: Claim, **more) -> ImageSpec:
    device = BlockDevice(device_name="/dev/xvda", snapshot_id=snapshot_id)
    return ImageSpec(name=f"test-{claim.token[:16]}", block_devices=(device,), **more)


def test_the_account_is_asked_once(aws, sandbox):
    assert aws.account() == aws.account() == "123456789012"
    assert sandbox.calls()["GetCallerIdentity"] == 1


def test_the_same_claim_starts_one_snapshot_however_often(aws, claim):
    request = {"volume_size": 1, "description": "", "tags": {"a": "b"}, "parent": None}
    first = aws.start_snapshot(claim, **request)
    assert aws.start_snapshot(claim, **request).snapshot_id == first.snapshot_id
    (found,) = aws.find_snapshots(claim)
    assert found.snapshot_id == first.snapshot_id
    assert found.status == "pending"
    assert found.tags == {"a": "b", TAG: claim.token}
    with pytest.raises(CloudConflict):
        aws.start_snapshot(claim, **request | {"volume_size": 2})
    other = Claim(claim.key, claim.generation + 1)
    assert aws.find_snapshots(other) == []
    assert aws.start_snapshot(other, **request).snapshot_id != first.snapshot_id


def test_an_image_is_registered_with_every_field_and_its_claim(aws, claim):
    made = snapshot(aws, claim)
    wanted = spec(
        made, claim, description="d", boot_mode="uefi", tpm_support="v2.0", imds_support="v2.0", tags={"Name": "n"}
    )
    image = aws.register_image(claim, wanted)
    record = wait_available(aws, image)
    assert (record.name, record.architecture, record.boot_mode) == (wanted.name, "x86_64", "uefi")
    assert (record.root_device_name, record.owner_id) == ("/dev/xvda", aws.account())
    assert list(record.snapshot_ids) == [made]
    assert record.tags == {"Name": "n", TAG: claim.token}
    assert [found.image_id for found in aws.find_images(claim)] == [image]
    assert aws.image_by_name(wanted.name) == record
    with pytest.raises(CloudConflict):
        aws.delete_snapshot(made)
    assert deregister(aws, image) == (made,)
    assert aws.describe_image(image) is None
    assert aws.describe_snapshot(made) is None
    assert deregister(aws, image) == ()


def test_a_taken_name_is_adopted_when_ours_and_refused_by_name_when_not(aws, claim):
    made = snapshot(aws, claim)
    image = aws.register_image(claim, spec(made, claim))
    assert aws.register_image(claim, spec(made, claim)) == image
    other = Claim(claim.key, 1)
    with pytest.raises(CloudConflict) as caught:
        aws.register_image(other, spec(made, claim))
    assert image in caught.value.message
    assert aws.account() in caught.value.message
    assert spec(made, claim).name in caught.value.message
    deregister(aws, image)


def test_a_snapshot_that_another_image_uses_is_kept(aws, claim):
    made = snapshot(aws, claim)
    first = aws.register_image(claim, spec(made, claim))
    other = Claim(claim.key, 1)
    second = aws.register_image(other, spec(made, other))
    assert deregister(aws, first) == ()
    assert aws.describe_snapshot(made) is not None
    assert deregister(aws, second) == (made,)


def test_what_does_not_exist_is_none_and_may_be_deleted(aws, monkeypatch):
    monkeypatch.setenv("EMI_CLOUD_LIMITS", "settle=0.3")  # how long it might only be new
    assert aws.describe_snapshot("snap-00000000000000000") is None
    assert aws.describe_image("ami-00000000000000000") is None
    assert aws.image_by_name("nobody has this name") is None
    aws.delete_snapshot("snap-00000000000000000")
    aws.deregister_image("ami-00000000000000000")
    with pytest.raises(CloudNotFound):
        aws.put_block("snap-00000000000000000", 0, DATA, SHA)


def test_two_that_carry_one_claim_are_named_not_guessed():
    with pytest.raises(CloudConflict, match="snap-1, snap-2") as caught:
        only(Claim("k"), ["snap-2", "snap-1"], "snapshot")
    assert "`emi resume`" in caught.value.hint
    assert only(Claim("k"), ["snap-2"], "snapshot") == "snap-2"
    assert only(Claim("k"), [], "snapshot") is None


def said(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    """Return a refusal in EC2's XML."""
    body = f"<Response><Errors><Error><Code>{code}</Code><Message>the words</Message></Error></Errors></Response>"
    return status, {"Content-Type": "text/xml"}, body.encode()


NONE = (200, {"Content-Type": "text/xml"}, b"<DescribeSnapshotsResponse><snapshotSet/></DescribeSnapshotsResponse>")


@pytest.fixture
def scripted(sandbox, script):
    """A cloud whose every answer is given; what it called, and what it was asked."""

    def make(*scenes):
        server, calls = script(*scenes), []
        settings = dataclasses.replace(sandbox.settings, endpoint_url=server.url, ca_file=None)
        return Aws(settings, on_call=lambda call: calls.append(str(call))), calls

    return make


def test_trouble_is_retried_and_every_attempt_reported(scripted, claim):
    cloud, calls = scripted(said(503, "Unavailable"), said(400, "RequestLimitExceeded"), "cut", NONE)
    assert cloud.find_snapshots(claim) == []
    assert calls == ["ec2:DescribeSnapshots"] * 4


def test_a_put_is_retried_by_the_same_rule(scripted):
    checksum = base64.b64encode(SHA).decode()
    throttled = (400, {"x-amzn-ErrorType": "RequestThrottledException"}, b"{}")
    cloud, calls = scripted(throttled, "cut", (201, {"x-amz-Checksum": checksum}, b""))
    cloud.put_block("snap-1", 0, DATA, SHA)
    cloud.close()
    # The cut met a connection that had been used before: that is no attempt, it may have been closed while idle.
    assert calls == ["ebs:PutSnapshotBlock"] * 2


@pytest.mark.parametrize(
    ("scene", "error"),
    [
        (said(401, "AuthFailure"), CloudDenied),
        (said(403, "UnauthorizedOperation"), CloudDenied),
        (said(400, "InvalidParameterValue"), CloudError),
        ((200, {}, b"<html>Please log in to this network"), CloudError),
    ],
)
def test_what_will_not_pass_is_not_retried(scripted, claim, scene, error):
    cloud, calls = scripted(scene)
    with pytest.raises(error, match="ec2:DescribeSnapshots") as caught:
        cloud.find_snapshots(claim)
    assert type(caught.value) is error
    assert calls == ["ec2:DescribeSnapshots"]


def test_every_call_is_reported_as_the_cloud_counted_it(sandbox, claim):
    made: Counter[str] = Counter()
    calls: list[Call] = []
    cloud = Aws(sandbox.settings, on_call=lambda call: (calls.append(call), made.update([call.action])))
    snapshot(cloud, claim)
    cloud.close()
    assert made == sandbox.calls()
    assert Call("ebs", "PutSnapshotBlock") in calls
    assert Call("ec2", "DescribeSnapshots") in calls


def test_nothing_of_botocore_is_loaded_before_the_first_call():
    code = (
        "import sys; from builder.cloud.aws import Aws, Settings; Aws(Settings(region='r'));"
        "print([name for name in sys.modules if name.startswith(('boto', 'urllib3'))])"
    )
    assert proc.run([sys.executable, "-c", code], directory=ROOT).stdout == b"[]\n"


def test_what_the_cloud_cannot_do_is_refused_with_why_and_what_to_do_instead() -> None:
    start = Call("ebs", "StartSnapshot")
    without = dataclasses.replace(CAPABILITIES, lacks={start: Lack(why="it has no such API.", instead="Bundle it.")})
    assert not without.ebs_direct
    without.require(Call("ec2", "RegisterImage"))
    with pytest.raises(UsageError, match=r"ebs:StartSnapshot: it has no such API") as caught:
        without.require(Call("ec2", "RegisterImage"), start)
    assert caught.value.hint == "Bundle it."


@pytest.mark.parametrize(("name", "admitted"), [("a b@[c]", True), ("ab", False), ("a" * 129, False), ("a+b", False)])
def test_which_names_an_image_may_have_is_told_before_any_call(name, admitted) -> None:
    assert CAPABILITIES.ebs_direct
    assert CAPABILITIES.image_name.admits(name) == admitted
