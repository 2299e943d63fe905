"""Blocks into a snapshot and back: exactly those that must be, and the same bytes."""

from __future__ import annotations

import hashlib

import pytest

from builder.cloud import ebs
from builder.cloud.ledger import Entry, Fate, Ledger
from builder.cloud.snapshots import Publication, open_index, verify
from builder.digest import BLOCK
from builder.errors import CloudFailed, InputError
from builder.image.reader import open_image
from builder.image.write import content_digest

GIB = 1 << 30


@pytest.fixture
def publish(aws, tmp_path):
    """Publish a raw disk under a claim; return the snapshot id and what was sent."""

    def go(disk, claim, *, parent=None, cache=tmp_path / "cache", connections=8):
        started = aws.start_snapshot(claim, volume_size=1, description="", tags={}, parent=parent).snapshot_id
        with open_image(disk.path, "raw") as reader, Ledger(tmp_path / f"blocks-{started}", started) as ledger:
            publication = Publication(
                reader=reader, cloud=aws, snapshot_id=started, cache=cache, parent=parent, connections=connections
            )
            return started, publication.publish(ledger)

    return go


def assert_equal(aws, disk, snapshot_id) -> None:
    with open_image(disk.path, "raw") as reader:
        assert ebs.differences(reader, aws, snapshot_id) == []


@pytest.mark.parametrize("connections", [1, 8, 64])
def test_only_blocks_with_data_are_sent_and_each_once(aws, sandbox, disk, claim, publish, connections):
    made, sent = publish(disk, claim, connections=connections)
    assert sandbox.calls()["PutSnapshotBlock"] == sent.changed == sent.blocks == len(disk.data)
    assert [block.index for block in aws.list_blocks(made)] == list(disk.data)
    assert_equal(aws, disk, made)
    with open_image(disk.path, "raw") as reader:
        assert sent.content == content_digest(reader)
    checksum = hashlib.sha256(b"".join(hashlib.sha256(disk.block(index)).digest() for index in disk.data))
    assert sent.checksum == checksum.digest()


def test_reading_back_proves_the_bytes_and_goes_on_after_a_kill(aws, sandbox, disk, claim, publish, tmp_path):
    made, sent = publish(disk, claim)
    sandbox.forget()
    with Ledger(tmp_path / "read", made) as ledger:
        for index in disk.data[:5]:
            ledger.put(Entry(index, Fate.SENT, hashlib.sha256(disk.block(index)).digest()))
        verify(aws, made, sent.content, disk.size, ledger=ledger)
    assert sandbox.calls()["GetSnapshotBlock"] == len(disk.data) - 5


def test_one_wrong_bit_is_found(aws, disk, claim, publish, tmp_path):
    made, _ = publish(disk, claim)
    disk.write(9, b"\0" if disk.block(9)[0] else b"\1")
    disk.write(17, b"\1")
    disk.write(12, bytes(BLOCK))
    with open_image(disk.path, "raw") as reader:
        assert ebs.differences(reader, aws, made) == [9, 12, 17]
        content = content_digest(reader)
    with Ledger(tmp_path / "read", made) as ledger, pytest.raises(CloudFailed, match="does not hold what was sent"):
        verify(aws, made, content, disk.size, ledger=ledger)


@pytest.mark.parametrize("index_kept", [True, False], ids=["index kept", "index lost"])
def test_an_incremental_upload_sends_what_changed_and_zeros_over_what_is_gone(
    aws, sandbox, disk, claim, publish, tmp_path, index_kept
):
    parent, _ = publish(disk, claim)
    disk.write(2, b"changed")
    disk.write(16, b"new")
    disk.write(5, bytes(BLOCK))  # allocated, now zero
    disk.write(18, bytes(BLOCK))  # never had data
    sandbox.forget()
    child_claim = type(claim)(claim.key, 1)
    cache = tmp_path / ("cache" if index_kept else "another")
    child, sent = publish(disk, child_claim, parent=parent, cache=cache)
    assert (sent.changed, sent.blocks) == (3, len(disk.data) + 1 - 1)
    assert sandbox.calls()["PutSnapshotBlock"] == 3
    assert sandbox.calls()["GetSnapshotBlock"] == (0 if index_kept else len(disk.data))
    assert_equal(aws, disk, child)
    with Ledger(tmp_path / "read", child) as ledger:
        verify(aws, child, sent.content, disk.size, ledger=ledger)
    # The child is a parent in its turn, its zeros included.
    disk.write(5, b"data again")
    sandbox.forget()
    third, sent = publish(disk, type(claim)(claim.key, 2), parent=child)
    assert sent.changed == 1
    assert_equal(aws, disk, third)


def test_reading_an_index_back_goes_on_after_a_kill(aws, sandbox, disk, claim, publish, tmp_path):
    made, _ = publish(disk, claim)
    cache = tmp_path / "another"
    cache.mkdir()
    with Ledger(cache / f"{made}.part", made) as ledger:
        ledger.put(Entry(0, Fate.SENT, hashlib.sha256(disk.block(0)).digest()))
    sandbox.forget()
    for _ in range(2):
        with open_index(aws, made, cache=cache, connections=4) as index:
            assert [entry.index for entry in index.entries() if entry.has_data] == list(disk.data)
        assert sandbox.calls()["GetSnapshotBlock"] == len(disk.data) - 1
        assert [path.name for path in cache.iterdir()] == [made]


@pytest.mark.parametrize(
    ("virtual_size", "wanted", "size"),
    [(1, None, 1), (GIB, None, 1), (GIB + 1, None, 2), (3 * GIB, None, 3), (GIB, 5, 5), (3 * GIB, 3, 3)],
)
def test_the_volume_holds_the_image(virtual_size, wanted, size):
    assert ebs.volume_size(virtual_size, wanted) == size


def test_a_volume_that_is_too_small_is_refused():
    with pytest.raises(InputError, match="needs a volume of 3 GiB; the recipe allows 2 GiB"):
        ebs.volume_size(2 * GIB + 1, 2)
