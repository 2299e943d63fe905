"""What the tests of volumes, snapshots and imports share."""

from __future__ import annotations

import pytest

from builder.sandbox import lifecycle

ZONE = "us-east-1a"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}  # seconds; botocore's own 15 would only make the tests slow


@pytest.fixture
def volume_file(sandbox):
    """Return where the bytes of a volume are, which a machine that it is attached to would write."""
    return lambda volume_id: sandbox.directory / "volumes" / volume_id / "data"


@pytest.fixture
def make_volume(ec2):
    """Make a volume and return its id when it is available."""

    def make(client=ec2, **values):
        volume_id = client.create_volume(**{"AvailabilityZone": ZONE, **values})["VolumeId"]
        client.get_waiter("volume_available").wait(VolumeIds=[volume_id], WaiterConfig=WAIT)
        return volume_id

    return make


@pytest.fixture
def completed_snapshot(ec2):
    """Wait for a snapshot and return its description."""

    def wait(snapshot_id, client=ec2):
        client.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot_id], WaiterConfig=WAIT)
        return client.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]

    return wait


@pytest.fixture(scope="module")
def second(sandbox):
    """The root keys of a second account as boto3 takes them, and its number."""
    made = lifecycle.add_account(sandbox.directory, "second")
    return {"aws_access_key_id": made.access_key, "aws_secret_access_key": made.secret_key}, made.account
