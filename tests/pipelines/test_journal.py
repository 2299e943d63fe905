"""The journal: words come back as they were said, survive kill -9, and say what a prune must keep."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess  # noqa: TID251 - a writer that can be killed
import sys
from pathlib import Path

import pytest

from builder.errors import HostError
from pipelines.artifact import File, ImageFile, MachineImage, Snapshot
from pipelines.journal import Held, Journal, Last
from pipelines.words import Abandon, Effect, Intent, Result, Word

FILE = File(digest="sha256:" + "1" * 64, size=3, name="a.raw")
IMAGE = ImageFile(digest="blocks:" + "2" * 64, format="raw", virtual_size=1 << 30)
OVERLAY = ImageFile(digest="sha256:" + "3" * 64, format="qcow2", virtual_size=1 << 30, backing=IMAGE)
SNAPSHOT = Snapshot(
    snapshot_id="snap-1", region="r", volume_size=1, content="blocks:" + "4" * 64, blocks=5, verified=True
)
AMI = MachineImage(image_id="ami-1", name="n", region="r", snapshot_ids=("snap-1",))

WORDS: list[Word] = [
    Intent(at=12.5),
    Effect(resource="snap-0123"),
    Abandon(why="gone from the cloud"),
    *[Result(artifact=artifact) for artifact in (FILE, IMAGE, OVERLAY, SNAPSHOT, AMI)],
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "journal.sqlite")


@pytest.mark.parametrize("word", WORDS, ids=lambda word: type(word).__name__)
def test_a_word_is_read_back_by_another_process(tmp_path: Path, journal: Journal, word: Word) -> None:
    journal.write("k", 3, word, run="r")
    assert Journal(tmp_path / "journal.sqlite").last("k") == Last(generation=3, word=word)


def test_the_last_word_counts(journal: Journal) -> None:
    assert journal.last("k") is None
    for word in WORDS:
        journal.write("k", 0, word, run="r")
        journal.write("other", 7, Intent(at=0), run="r")
        assert journal.last("k") == Last(generation=0, word=word)


def test_every_acknowledged_word_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert writer.stdout is not None
    with writer:
        said = [writer.stdout.readline() for _ in range(40)][-1]
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.readlines()[-1:] or [said]
    last = Journal(path).last("k")
    assert last is not None
    assert last.generation >= int(said[0])


WRITER = """
import sys
from pathlib import Path
from pipelines.journal import Journal
from pipelines.words import Effect
journal = Journal(Path(sys.argv[1]))
for number in range(100000):
    journal.write("k", number, Effect(resource="x"), run="r")
    print(number, flush=True)
"""


OPENER = """
import sys
from pathlib import Path
from pipelines.journal import Journal
from pipelines.words import Intent
print("ready", flush=True)
sys.stdin.readline()
for name in sys.argv[1:]:
    Journal(Path(name)).write("k", 0, Intent(at=0), run="r")
"""


def test_several_processes_may_be_the_first(tmp_path: Path) -> None:
    names = [tmp_path / f"{number}.sqlite" for number in range(10)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    openers = [subprocess.Popen([sys.executable, "-c", OPENER, *names], **pipes) for _ in range(4)]
    for opener in openers:
        opener.stdout.readline()
    for opener in openers:  # all are waiting: now
        opener.stdin.write("\n")
        opener.stdin.flush()
    assert [opener.communicate()[1] for opener in openers] == [""] * 4


def test_a_torn_log_costs_no_acknowledged_word(tmp_path: Path, journal: Journal) -> None:
    journal.write("k", 0, Intent(at=1), run="r")
    journal.close()
    log = tmp_path / "journal.sqlite-wal"
    log.write_bytes((log.read_bytes() if log.exists() else b"") + b"half a frame")
    assert Journal(tmp_path / "journal.sqlite").last("k") == Last(generation=0, word=Intent(at=1))


def test_a_prune_keeps_what_the_newest_and_the_unfinished_runs_use(journal: Journal) -> None:
    for run, key, artifact in (("old", "a", FILE), ("new", "b", OVERLAY), ("cut", "c", IMAGE), ("new", "d", AMI)):
        if journal.run(run) is None:
            recipe = "other" if run == "cut" else "same"
            journal.begin(run, recipe=recipe, target="t", request={})
        journal.use(run, key)
        journal.write(key, 0, Result(artifact=artifact), run=run)
    journal.end("old", "ok")
    journal.end("new", "ok")
    assert journal.kept_digests() == {OVERLAY.digest, IMAGE.digest}


def test_what_a_key_was_made_of_is_remembered_per_step(journal: Journal) -> None:
    assert journal.remembered("recipe", "step") is None
    journal.remember("recipe", "step", "k1", {"a": 1})
    journal.remember("recipe", "other", "k2", {"a": 2})
    journal.remember("recipe", "step", "k3", {"a": 3})
    assert journal.remembered("recipe", "step") == {"a": 3}


def test_a_lease_is_held_from_its_intent_to_its_abandon(journal: Journal) -> None:
    assert journal.held("k") is None
    journal.write("k", 0, Intent(at=1), run="r")
    assert journal.held("k") == Held(generation=0, intended=1, resource=None, place=1)
    journal.write("k", 0, Effect(resource="vol-1"), run="r")
    journal.write("other", 0, Intent(at=2), run="r")
    assert journal.held("k") == Held(generation=0, intended=1, resource="vol-1", place=2)
    journal.write("k", 0, Effect(resource="vol-1"), run="r")
    assert journal.held("k") == Held(generation=0, intended=1, resource="vol-1", place=4)
    assert journal.begun("r") == ["vol-1"]
    journal.write("k", 0, Abandon(why="released"), run="r")
    assert journal.held("k") is None
    journal.write("k", 1, Intent(at=3), run="s")
    assert journal.held("k") == Held(generation=1, intended=3, resource=None, place=6)


def test_a_journal_from_before_there_were_leases_is_read_on(tmp_path: Path, journal: Journal) -> None:
    journal.write("k", 0, Intent(at=1), run="r")
    journal.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    reopened = Journal(tmp_path / "journal.sqlite")
    assert reopened.last("k") == Last(generation=0, word=Intent(at=1))
    reopened.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is not a database, it only lies where one should be" * 100)
    with pytest.raises(HostError, match=r"the journal .*journal\.sqlite is damaged") as caught:
        Journal(path)
    assert "Move it away" in str(caught.value.hint)


def test_a_journal_of_a_later_version_is_left_alone(tmp_path: Path, journal: Journal) -> None:
    journal.write("k", 1, Intent(at=1), run="r")
    journal.close()
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(HostError, match="has version 3; this emi knows version 2"):
        Journal(path)
    assert path.read_bytes() == before


def test_damage_that_a_reader_meets_is_named(tmp_path: Path, journal: Journal) -> None:
    journal.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        connection.execute("ALTER TABLE words RENAME COLUMN body TO was_body")
    connection.close()
    with pytest.raises(HostError, match="another version's"):
        Journal(tmp_path / "journal.sqlite").last("k")


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory#b%20c" / "journal.sqlite"
    path.parent.mkdir()
    Journal(path).close()
    assert path.is_file()


def test_the_journal_is_durable_at_every_commit(tmp_path: Path, journal: Journal) -> None:
    journal.write("k", 0, Intent(at=1), run="r")
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_command_that_ends_leaves_one_file(emi) -> None:
    assert emi("status").code == 0
    assert [path.name for path in emi.home.glob("journal.sqlite*")] == ["journal.sqlite"]
