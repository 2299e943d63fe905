"""What real clouds did to people (the numbers are those of the table in docs/sandbox-faults.md): time and money.

Hangs and wrong timeouts (6 to 12), leaks (13 to 18). Wrong bytes, names, quotas and permissions are in
test_scenarios_content.py.
"""

from __future__ import annotations

import signal
import time

import pytest

UPLOAD = {"service": "ebs", "call": "PutSnapshotBlock"}


def emi_scenario(number: int, words: str):
    """Mark a test as the scenario of that number."""
    return pytest.mark.behaviour("Faults, what hurts users", f"{number}", words)


@emi_scenario(6, "an answer that never ends is given up within its limit, and the waiting is shown")
def test_06_nothing_hangs(subject):
    subject.put({"effect": "trickle", "rate": 1, "call": "DescribeSnapshots"})
    began = time.monotonic()
    done = subject.run(6, EMI_CLOUD_LIMITS="retry=3,answer=1")
    assert time.monotonic() - began < 30
    assert done.code == 7
    assert "ec2:DescribeSnapshots: no whole answer within 1 s; given up after" in done.err
    assert "cloud: attempt 1 failed" in done.err


@emi_scenario(6, "without credentials, outside EC2, the run ends at once and says so")
def test_06_no_credentials_outside_ec2(subject, tmp_path):
    nowhere = {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9/",
        "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "1",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }
    began = time.monotonic()
    done = subject.emi("run", subject.recipe, *subject.words(60), "--cloud", "aws", **nowhere)
    assert done.code == 7
    assert "credentials" in done.err
    assert time.monotonic() - began < 30


@emi_scenario(7, "a snapshot that the cloud does not know yet is waited for; no second one is started")
def test_07_the_snapshot_does_not_exist_for_a_while(subject):
    subject.put({"effect": "lag", "seconds": 4, "resource": "snap-*"})
    position = subject.position()
    done = subject.run(7, **subject.patient)
    assert done.code == 0, done.err
    assert subject.effects(position)["StartSnapshot"] == 1
    assert any(call.error == "ResourceNotFoundException" for call in subject.calls(position))
    subject.has_one_of_each(7)


@emi_scenario(8, "work that outlives the waiting is not lost: resuming waits on, for the same snapshot")
def test_08_work_that_outlives_the_wait(subject):
    subject.put({"effect": "stuck", "call": "CompleteSnapshot"})
    position = subject.position()
    done = subject.run(8, EMI_CLOUD_LIMITS="wait=2")
    assert done.code == 7
    assert "is not finished after 2 s" in done.err
    assert "EMI_CLOUD_LIMITS=wait=" in done.err
    (begun,) = subject.snapshots(8)
    assert begun["State"] == "pending"
    sent = subject.effects(position)["PutSnapshotBlock"]
    subject.clear()
    assert subject.resume().code == 0
    assert subject.effects(position)["PutSnapshotBlock"] == sent
    subject.has_one_of_each(8)
    assert subject.snapshots(8)[0]["SnapshotId"] == begun["SnapshotId"]


@emi_scenario(10, "a snapshot that failed ends the wait at once, with the cloud's reason")
def test_10_a_failure_ends_the_wait(subject):
    subject.put({"effect": "fail", "call": "CompleteSnapshot", "reason": "Client.InvalidParameter: the disk is cursed"})
    position = subject.position()
    done = subject.run(10)
    assert done.code == 7
    assert "failed: Client.InvalidParameter: the disk is cursed" in done.err
    after = [call.action for call in subject.calls(position)]
    assert len(after[after.index("CompleteSnapshot") :]) <= 4, after
    assert subject.snapshots(10) == []  # what failed is removed
    subject.clear()
    assert subject.resume().code == 0
    subject.has_one_of_each(10)


@emi_scenario(11, "credentials that expire in mid-upload end the run with that cause; resuming sends only the rest")
def test_11_credentials_expire_in_mid_run(subject):
    subject.put({"effect": "expired", **UPLOAD, "after": 20})
    position = subject.position()
    done = subject.run(11)
    assert done.code == 7
    assert "(ExpiredTokenException)" in done.err
    assert "renew them, then `emi resume`" in done.err
    assert subject.effects(position)["PutSnapshotBlock"] == 20
    assert sum(bool(call.fault) for call in subject.calls(position)) <= subject.connections
    subject.clear()
    assert subject.resume().code == 0
    whole = subject.position()
    assert subject.run(1100).code == 0
    assert subject.effects(position)["PutSnapshotBlock"] == 2 * subject.effects(whole)["PutSnapshotBlock"]
    subject.has_one_of_each(11)


@emi_scenario(12, "AccessDenied is never retried, and the message names the permission")
def test_12_a_denial_is_not_retried(subject):
    subject.put({"effect": "denied", "call": "StartSnapshot"})
    position = subject.position()
    done = subject.run(12)
    assert done.code == 7
    assert "Grant ebs:StartSnapshot to these credentials" in done.err
    assert [call.action for call in subject.calls(position) if call.fault] == ["StartSnapshot"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@emi_scenario(
    13, "an interrupted run names what it left in the cloud, tagged from its first moment; resuming adopts it"
)
def test_13_an_interrupted_run_leaves_nothing_unnamed(subject, number):
    own = 1300 + number
    subject.put({"effect": "stuck", "call": "CompleteSnapshot"})
    position = subject.position()
    process = subject.emi.start("run", subject.recipe, *subject.words(own))
    while not subject.effects(position)["CompleteSnapshot"]:
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (left,) = subject.snapshots(own)
    assert left["SnapshotId"] in err
    assert {"emi:claim", "emi:recipe"} <= {tag["Key"] for tag in left["Tags"]}
    subject.clear()
    assert subject.resume().code == 0
    assert [one["SnapshotId"] for one in subject.snapshots(own)] == [left["SnapshotId"]]
    subject.has_one_of_each(own)


@emi_scenario(15, "however often registering fails, one snapshot is behind it, not one for each attempt")
def test_15_16_failed_attempts_do_not_pile_up(subject):
    subject.put({"effect": "refuse", "code": "InvalidParameterValue", "call": "RegisterImage", "first": 3})
    position = subject.position()
    codes = [subject.run(15).code for _ in range(4)]
    assert codes == [7, 7, 7, 0]
    made = subject.effects(position)
    assert (made["StartSnapshot"], made["RegisterImage"]) == (1, 1)
    subject.has_one_of_each(15)


@emi_scenario(17, "a killed job that runs again from the start finds what it began")
def test_17_a_cancelled_job_runs_again(subject):
    done = subject.run(17, EMI_CRASH_AT="after ebs:PutSnapshotBlock@7")
    assert done.code == -signal.SIGKILL
    assert len(subject.snapshots(17)) == 1
    assert subject.run(17).code == 0
    subject.has_one_of_each(17)


@emi_scenario(18, "removing what failed removes that alone: images of the same recipe stay")
def test_18_only_what_failed_is_removed(subject):
    assert subject.run(18).code == 0
    subject.put({"effect": "fail", "call": "RegisterImage", "reason": "no"})
    position = subject.position()
    assert subject.run(180).code == 7
    assert subject.effects(position)["DeregisterImage"] == 1
    assert subject.images(180) == []
    subject.has_one_of_each(18)
    subject.has_one_of_each(0)


@emi_scenario(18, "if what failed cannot be removed, both are told, and the next run removes it")
def test_18_what_cannot_be_removed_is_told(subject):
    fail = {"effect": "fail", "call": "CompleteSnapshot", "reason": "the disk is cursed"}
    subject.put(fail, {"effect": "denied", "call": "DeleteSnapshot"})
    done = subject.run(181)
    assert done.code == 7
    (left,) = subject.snapshots(181)
    assert "the disk is cursed" in done.err
    assert f"{left['SnapshotId']} is still there: ec2:DeleteSnapshot" in done.err
    subject.clear()
    again = subject.resume()
    assert again.code == 7  # it looks, finds that it failed, and removes it
    assert "the disk is cursed" in again.err
    assert subject.snapshots(181) == []
    assert subject.resume().code == 0
    subject.has_one_of_each(181)
