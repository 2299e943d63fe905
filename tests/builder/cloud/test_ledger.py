"""The ledger: ordered, idempotent, and never believing a torn slot."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from builder.cloud.ledger import Entry, Fate, Ledger

SHA = hashlib.sha256(b"x").digest()
ENTRIES = [
    Entry(0, Fate.SENT, SHA),
    Entry(7, Fate.ZERO, SHA),
    Entry(5000, Fate.KEPT, SHA),
    Entry(1 << 27, Fate.CLEARED, SHA),
]


def write(path: Path, snapshot: str = "snap-1") -> None:
    with Ledger(path, snapshot) as ledger:
        for entry in reversed(ENTRIES):
            ledger.put(entry)


def read(path: Path, snapshot: str = "snap-1") -> list[Entry]:
    with Ledger(path, snapshot) as ledger:
        return list(ledger.entries())


def test_entries_come_back_in_order_whatever_order_they_came_in(tmp_path):
    write(tmp_path / "l")
    assert read(tmp_path / "l") == ENTRIES
    with Ledger(tmp_path / "l", "snap-1") as ledger:
        assert ledger.get(5000) == ENTRIES[2]
        assert ledger.get(5001) is None
        assert ledger.get(1 << 40) is None


def test_a_huge_image_costs_little_disk(tmp_path):
    write(tmp_path / "l")  # the last entry is that of a 64 TiB image
    assert (tmp_path / "l").stat().st_size > 8 << 30
    assert (tmp_path / "l").stat().st_blocks * 512 < 1 << 20


def test_another_snapshots_ledger_is_emptied_not_believed(tmp_path):
    write(tmp_path / "l")
    assert Ledger.belongs(tmp_path / "l", "snap-1")
    assert not Ledger.belongs(tmp_path / "l", "snap-2")
    assert not Ledger.belongs(tmp_path / "l", "snap-")
    assert not Ledger.belongs(tmp_path / "none", "snap-1")
    assert read(tmp_path / "l", "snap-2") == []
    assert read(tmp_path / "l", "snap-1") == []


@pytest.mark.parametrize("content", [b"", b"emi bl", b"garbage" * 1000])
def test_a_torn_or_foreign_file_is_begun_anew(tmp_path, content):
    (tmp_path / "l").write_bytes(content)
    write(tmp_path / "l")
    assert read(tmp_path / "l") == ENTRIES


def test_a_ledger_cut_at_any_byte_holds_a_prefix(tmp_path):
    with Ledger(tmp_path / "l", "snap-1") as ledger:
        for index in range(6):
            ledger.put(Entry(index, Fate.SENT, SHA))
    whole = (tmp_path / "l").read_bytes()
    for cut in range(64, len(whole)):
        (tmp_path / "l").write_bytes(whole[:cut])
        assert [entry.index for entry in read(tmp_path / "l")] == list(range(max(0, cut // 64 - 2)))


@given(where=some.integers(128, 128 + 6 * 64 - 1), bits=some.integers(1, 255))
def test_a_damaged_slot_is_absent_or_was_only_padding(tmp_path_factory, where, bits):
    path = tmp_path_factory.mktemp("flip") / "l"
    with Ledger(path, "snap-1") as ledger:
        for index in range(6):
            ledger.put(Entry(index, Fate.SENT, SHA))
    damaged = bytearray(path.read_bytes())
    damaged[where] ^= bits
    path.write_bytes(damaged)
    hit = (where - 128) // 64
    found = [entry.index for entry in read(path)]
    assert found == [index for index in range(6) if index != hit or (where % 64) >= 48]


def test_how_far_the_sealing_is_survives(tmp_path):
    write(tmp_path / "l")
    with Ledger(tmp_path / "l", "snap-1") as ledger:
        assert ledger.sealing() is None
        ledger.seal(Fate.SEALING, 3, SHA)
    with Ledger(tmp_path / "l", "snap-1") as ledger:
        assert ledger.sealing() is Fate.SEALING
        ledger.seal(Fate.SEALED, 3, SHA)
        assert ledger.sealing() is Fate.SEALED
        assert list(ledger.entries()) == ENTRIES
