"""A snapshot is completed once, with the right bytes, however often and wherever its making is killed."""

from __future__ import annotations

import os
import signal
import subprocess  # noqa: TID251 - a process that kills itself, and its status
import sys
from pathlib import Path

import pytest

from builder.cloud import ebs
from builder.cloud.api import SnapshotRecord
from builder.cloud.aws import Aws
from builder.cloud.claims import Claim
from builder.cloud.ledger import Fate, Ledger
from builder.cloud.snapshots import Publication, complete, is_completed, verify, wait_completed
from builder.errors import CloudError, CloudFailed, CloudTrouble, InputError
from builder.image.reader import open_image

ROOT = Path(__file__).parents[3]
CONNECTIONS = 3

# What a run does between its Intent and its Result, as a process of its own: it may die anywhere.
PUBLISHER = """
import sys
from pathlib import Path
from builder.cloud.aws import Aws, Settings
from builder.cloud.claims import Claim, only
from builder.cloud.ledger import Ledger
from builder.cloud.snapshots import Publication
from builder.image.reader import open_image

url, ca_file, access_key, secret_key, key, disk, scratch = sys.argv[1:]
scratch = Path(scratch)
keys = {"access_key": access_key, "secret_key": secret_key}
cloud = Aws(Settings(region="us-east-1", endpoint_url=url, ca_file=Path(ca_file), **keys))
claim = Claim(key)
made = only(claim, [found.snapshot_id for found in cloud.find_snapshots(claim)], "snapshot")
if made is None:
    made = cloud.start_snapshot(claim, volume_size=1, description="", tags={"a": "b"}, parent=None).snapshot_id
with open_image(Path(disk), "raw") as reader, Ledger(scratch / "blocks", made) as ledger:
    done = Publication(
        reader=reader, cloud=cloud, snapshot_id=made, cache=scratch / "cache", connections=CONNECTIONS
    ).publish(ledger)
print(made, done.content, done.changed)
""".replace("CONNECTIONS", str(CONNECTIONS))


@pytest.fixture
def run(sandbox, disk, claim, tmp_path):
    """Run the publisher; return what it said, or None when it was killed."""

    def go(*, crash_at: str = "", log: Path | None = None) -> list[str] | None:
        end = sandbox.endpoint
        environment = {"EMI_CRASH_AT": crash_at, **({"EMI_CRASH_LOG": str(log)} if log else {})}
        words = [end.url, end.ca_file, end.access_key, end.secret_key, claim.key, disk.path, tmp_path]
        done = subprocess.run(
            [sys.executable, "-c", PUBLISHER, *map(str, words)],
            env={**os.environ, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode == -signal.SIGKILL:
            return None
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return go


MOMENTS = [
    "before ebs:StartSnapshot",
    "after ebs:StartSnapshot",
    "before ebs:PutSnapshotBlock@1",
    "after ebs:PutSnapshotBlock@1",
    "after ebs:PutSnapshotBlock@6",
    "before ebs:PutSnapshotBlock@9",
    "after ebs:PutSnapshotBlock@12",
    "before ebs:CompleteSnapshot",
    "after ebs:CompleteSnapshot",
    "before ec2:DescribeSnapshots@3",
    "after ec2:DescribeSnapshots@3",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_run_again_there_is_one_snapshot_and_little_is_sent_twice(run, aws, sandbox, disk, claim, moment):
    assert run(crash_at=moment) is None
    said = run()
    assert said
    made, _, changed = said
    (found,) = aws.find_snapshots(claim)
    assert (found.snapshot_id, found.status) == (made, "completed")
    assert int(changed) == len(disk.data)
    with open_image(disk.path, "raw") as reader:
        assert ebs.differences(reader, aws, made) == []
    calls = sandbox.calls()
    again = calls["PutSnapshotBlock"] - len(disk.data)
    assert 0 <= again <= CONNECTIONS
    assert calls["StartSnapshot"] <= 2


def test_run_once_more_nothing_is_sent(run, sandbox, disk):
    said = run()
    assert run() == said
    assert sandbox.calls()["PutSnapshotBlock"] == len(disk.data)
    assert sandbox.calls()["CompleteSnapshot"] == 1


def test_the_moments_above_are_all_there_are(run, tmp_path):
    assert run(log=tmp_path / "log")
    reached = {line.partition("@")[0] for line in (tmp_path / "log").read_text().splitlines()}
    assert {name for name in reached if name.partition(" ")[0] in ("before", "after")} <= {
        *(moment.partition("@")[0] for moment in MOMENTS)
    }


@pytest.fixture
def started(aws, claim):
    return aws.start_snapshot(claim, volume_size=1, description="", tags={}, parent=None).snapshot_id


def publication(aws: Aws, reader, snapshot_id: str, cache: Path, **more) -> Publication:
    return Publication(reader=reader, cloud=aws, snapshot_id=snapshot_id, cache=cache, **more)


def test_changed_bytes_are_noticed_before_anything_is_sealed(aws, disk, started, tmp_path):
    with open_image(disk.path, "raw") as reader, Ledger(tmp_path / "blocks", started) as ledger:
        task = publication(aws, reader, started, tmp_path / "cache", expected="blocks:" + "0" * 64)
        with pytest.raises(InputError, match="not those it is named by"):
            task.publish(ledger)
    record = aws.describe_snapshot(started)
    assert record
    assert record.status == "pending"


def test_a_completed_snapshot_whose_ledger_is_elsewhere_is_taken_as_it_is(aws, sandbox, disk, started, tmp_path):
    with open_image(disk.path, "raw") as reader:
        with Ledger(tmp_path / "here", started) as ledger:
            done = publication(aws, reader, started, tmp_path / "cache").publish(ledger)
        sandbox.forget()
        with Ledger(tmp_path / "there", started) as ledger:
            again = publication(aws, reader, started, tmp_path / "there-cache", expected=done.content).publish(ledger)
        assert (again.content, again.blocks) == (done.content, done.blocks)
        assert set(sandbox.calls()) == {"DescribeSnapshots"}


def test_a_lost_ledger_sends_again_and_still_completes(aws, disk, started, tmp_path):
    with open_image(disk.path, "raw") as reader:
        with Ledger(tmp_path / "lost", started) as ledger:
            ebs.upload(reader, aws, started, ledger=ledger)
        with Ledger(tmp_path / "new", started) as ledger:
            done = publication(aws, reader, started, tmp_path / "cache").publish(ledger)
            verify(aws, started, done.content, disk.size, ledger=Ledger(tmp_path / "read", started))


def test_a_refused_seal_is_an_error_unless_it_was_asked_for_before(aws, disk, started, tmp_path):
    with open_image(disk.path, "raw") as reader, Ledger(tmp_path / "blocks", started) as ledger:
        sent = ebs.upload(reader, aws, started, ledger=ledger)
        wrong = ebs.Uploaded(blocks=1, changed=1, content=sent.content, checksum=sent.checksum)
        with pytest.raises(CloudError, match="ChangedBlocksCount"):
            complete(aws, started, wrong, ledger=ledger)
        assert ledger.sealing() is Fate.SEALING
        complete(aws, started, sent, ledger=ledger)
        assert ledger.sealing() is Fate.SEALED
        complete(aws, started, wrong, ledger=ledger)  # sealed is sealed: nothing is asked any more
    assert wait_completed(aws, started).status == "completed"


def test_a_seal_refused_because_it_was_done_is_done(aws, disk, started, tmp_path):
    with open_image(disk.path, "raw") as reader, Ledger(tmp_path / "blocks", started) as ledger:
        sent = ebs.upload(reader, aws, started, ledger=ledger)
        ledger.seal(Fate.SEALING, sent.changed, sent.checksum)
        aws.complete_snapshot(started, changed_blocks=sent.changed, checksum=sent.checksum)
        wrong = ebs.Uploaded(blocks=1, changed=1, content=sent.content, checksum=sent.checksum)  # makes it refuse
        complete(aws, started, wrong, ledger=ledger)
        assert ledger.sealing() is Fate.SEALED


def test_a_failed_snapshot_is_reported_with_the_clouds_reason():
    record = SnapshotRecord(snapshot_id="snap-1", status="error", volume_size=1, status_message="key disabled")
    with pytest.raises(CloudFailed, match="snap-1 failed: key disabled"):
        is_completed(record)
    assert not is_completed(SnapshotRecord(snapshot_id="snap-1", status="pending", volume_size=1))


def test_an_error_in_one_thread_ends_the_upload_and_leaves_it_resumable(sandbox, aws, disk, started, tmp_path):
    class Reader:
        """The disk, unreadable at one place."""

        def __init__(self, inner) -> None:
            self.inner = inner
            self.virtual_size = inner.virtual_size
            self.extents = inner.extents

        def pread(self, length: int, offset: int) -> bytes:
            if offset == 10 * length:
                raise CloudTrouble("unreadable")
            return self.inner.pread(length, offset)

    with open_image(disk.path, "raw") as reader, Ledger(tmp_path / "blocks", started) as ledger:
        with pytest.raises(CloudTrouble, match="unreadable"):
            ebs.upload(Reader(reader), aws, started, ledger=ledger, connections=2)
        assert sandbox.calls()["PutSnapshotBlock"] > 0
        sent = ebs.upload(reader, aws, started, ledger=ledger, connections=2)
    assert sandbox.calls()["PutSnapshotBlock"] == sent.changed == len(disk.data)


def test_a_claim_is_64_hex_digits_and_differs_by_generation():
    tokens = {Claim("k", generation).token for generation in range(5)} | {Claim("l").token}
    assert len(tokens) == 6
    assert all(len(token) == 64 and set(token) <= set("0123456789abcdef") for token in tokens)
