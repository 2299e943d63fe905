"""Export, import, reset: a whole state is carried elsewhere byte by byte, and takes another's place whole or not."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
import time
from pathlib import Path

import pytest
import zstandard

from builder import pool, proc
from builder.errors import ArchiveRefused, BusyError, HostError, InputError
from builder.sandbox import archive, lifecycle, replacing, settings
from builder.sandbox.pause import Pause

ROOT = Path(__file__).parents[3]


def export(running, file):
    with lifecycle.still(running.directory) as check:
        archive.write(running.directory, file, check)
    return file


def take_in(running, file):
    with lifecycle.at_rest(running.directory):
        archive.read(file, running.directory)
    running.endpoint = lifecycle.start(running.directory)


def images(running):
    return {one["Name"]: one["ImageId"] for one in running.client("ec2").describe_images(Owners=["self"])["Images"]}


def fill(running, blocks):
    """Put a snapshot, its copy and an image into it; return what they are to be like afterwards."""
    ec2, raw = running.client("ec2"), running.raw()
    held = {0: blocks("a"), 7: blocks("b"), 2047: blocks("c")}
    first = raw.snapshot(held)
    copy = ec2.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=first)["SnapshotId"]
    raw.wait(copy)
    device = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": first}}
    ec2.register_image(Name="kept", RootDeviceName="/dev/xvda", BlockDeviceMappings=[device])
    return {first: held, copy: held}


@pytest.mark.behaviour("Operation", "emi sandbox export, import", "every block is equal, ids and keys too; holes stay")
def test_a_state_is_carried_to_another_directory(make_sandbox, blocks, tmp_path):
    one, two = make_sandbox("one"), make_sandbox("two")
    held, registered = fill(one, blocks), images(one)
    two.raw().start(Description="to be replaced")
    own = two.endpoint
    file = export(one, tmp_path / "state.tar.zst")
    assert file.stat().st_size < 2 << 20  # three random blocks, once: not two volumes of a gibibyte
    take_in(two, file)
    assert (two.endpoint.url, two.endpoint.access_key) == (own.url, one.endpoint.access_key)
    assert images(two) == registered
    raw = two.raw()
    assert {name: raw.read(name) for name in held} == held
    assert {one["SnapshotId"] for one in two.client("ec2").describe_snapshots()["Snapshots"]} == set(held)
    for name in held:
        data = two.directory / "disks" / name / "data"
        assert (data.stat().st_size, data.stat().st_blocks * 512 <= 2 << 20) == (1 << 30, True)
    raw.snapshot({1: blocks("d")}, ParentSnapshotId=next(iter(held)))  # and it lives on
    assert one.raw().read(next(iter(held))) == next(iter(held.values()))


def test_gnu_tar_reads_an_export_too(make_sandbox, blocks, tmp_path):
    running = make_sandbox()
    (name, *_) = fill(running, blocks)
    file, place = export(running, tmp_path / "state.tar.zst"), tmp_path / "place"
    place.mkdir()
    proc.run(["tar", "--zstd", "-xf", file, "-C", place])
    data = (place / "disks" / name / "data").read_bytes()
    assert data == (running.directory / "disks" / name / "data").read_bytes()


@pytest.mark.behaviour(
    "Operation", "export under load", "the file holds every call answered before it, and none by half"
)
def test_an_export_is_what_lay_between_two_calls(make_sandbox, blocks, tmp_path):
    """Clients tag two snapshots alike, one after the other; a copy shows no call without those before it."""
    one, two = make_sandbox("one"), make_sandbox("two")
    raw = one.raw()
    ids = [raw.snapshot({0: blocks("a")}), raw.snapshot({0: blocks("b")})]
    done, over = [], []

    def work():
        client = one.raw()
        for number in range(100_000):
            if over:
                return
            for name in ids:
                form = {"Action": "CreateTags", "ResourceId.1": name, "Tag.1.Key": "n", "Tag.1.Value": str(number)}
                assert client.ec2(**form)[0] == 200
            done.append(number)

    working = pool.Background(work)
    while len(done) < 20:
        time.sleep(0.01)
    before = done[-1]
    file = export(one, tmp_path / "state.tar.zst")
    after = done[-1]
    while done[-1] < after + 5:  # calls went on afterwards
        time.sleep(0.01)
    over.append(True)
    working.result(60)
    take_in(two, file)
    tags = {one["SnapshotId"]: one["Tags"] for one in two.client("ec2").describe_snapshots()["Snapshots"]}
    first, second = (int(tags[name][0]["Value"]) for name in ids)
    assert before <= second <= first <= second + 1
    assert second <= after
    assert two.raw().read(ids[0]) == {0: blocks("a")}


def test_an_export_of_one_that_is_stopped(make_sandbox, blocks, tmp_path):
    one, two = make_sandbox("one"), make_sandbox("two")
    held = fill(one, blocks)
    lifecycle.stop(one.directory)
    take_in(two, export(one, tmp_path / "state.tar.zst"))
    assert lifecycle.status(one.directory) is None
    assert {name: two.raw().read(name) for name in held} == held


def test_calls_wait_while_the_state_is_copied_and_go_on_afterwards(make_sandbox):
    running = make_sandbox()
    with lifecycle.still(running.directory) as check:
        waiting = pool.Background(lambda: running.raw().start())
        with pytest.raises(BusyError, match="in progress"), lifecycle.still(running.directory, timeout=0.1):
            pass
        time.sleep(0.2)
        assert not waiting.done()
        check()
    assert waiting.result(30).startswith("snap-")


def test_a_copy_of_a_server_that_died_is_none(make_sandbox, tmp_path):
    running = make_sandbox()

    def check():
        os.kill(running.endpoint.pid, signal.SIGKILL)
        still()

    with lifecycle.still(running.directory) as still, pytest.raises(HostError, match="went on before"):
        archive.write(running.directory, tmp_path / "state.tar.zst", check)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["own"]


def test_a_pause_belongs_to_one_and_ends_by_itself():
    pause = Pause()
    assert pause.hold("a", 0.2)
    assert not pause.hold("b", 1)
    assert not pause.renew("b", 1)
    assert pause.renew("a", 0.1)
    with pause.passing():  # waits until the lease is over
        assert not pause.renew("a", 1)
        assert not pause.hold("b", 0.05)  # a call is in progress
    assert pause.hold("b", 1)
    assert pause.renew("b", 0)
    assert pause.hold("a", 1)


def pack(members, *, version=1, digests=None):
    """Return an archive of (name or TarInfo, bytes), with the digests that are right unless others are given."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:

        def add(info, data):
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        add("emi-sandbox.json", json.dumps({"version": version}).encode())
        for info, data in members:
            add(info, data)
        add("digests.json", json.dumps(digests or {}).encode())
    return zstandard.ZstdCompressor().compress(packed.getvalue())


def link(kind, name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


REFUSED = {
    "no zstd": (b"hello", "no export of a sandbox, or damaged"),
    "no tar": (zstandard.ZstdCompressor().compress(b"hello" * 1000), "no export of a sandbox, or damaged"),
    "empty": (b"", "no export"),
    "another tar": (pack([]).replace(b"", b""), "are not those"),
    "a later version": (pack([], version=2), "it is of version 2, and this emi reads version 1"),
    "outside": (pack([("../evil", b"x")]), "the member '../evil' has no place"),
    "outside, deeper": (pack([("disks/../../evil", b"x")]), "has no place"),
    "absolute": (pack([("/tmp/w/evil", b"x")]), "has no place"),
    "symlink": (pack([link(tarfile.SYMTYPE, "disks", "/etc")]), "the member 'disks' has no place"),
    "link outside": (pack([link(tarfile.LNKTYPE, "disks", "/etc/passwd")]), "is a link to '/etc/passwd'"),
    "device": (pack([link(tarfile.CHRTYPE, "disks", "")]), "has no place"),
    "fifo": (pack([link(tarfile.FIFOTYPE, "disks", "")]), "has no place"),
    "the directory's own": (pack([("serving.lock", b"")]), "the member 'serving.lock' has no place"),
    "hidden": (pack([(".x", b"")]), "has no place"),
    "wrong digest": (pack([("settings.json", b"{}")], digests={"settings.json": "0"}), "are not those"),
    "twice": (pack([("x", b"1"), ("x", b"2")]), "damaged"),
    "no directory": (pack([("x/y", b"1")]), "damaged"),
}


@pytest.mark.behaviour(
    "Operation", "emi sandbox import", "a damaged, newer or hostile file is refused; the old state stays"
)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_export_is_refused(tmp_path, case):
    data, words = REFUSED[case]
    directory, file = tmp_path / "own", tmp_path / "file"
    directory.mkdir()
    (directory / "state.sqlite").write_bytes(b"old")
    file.write_bytes(data)
    with pytest.raises(ArchiveRefused) as caught:
        archive.read(file, directory)
    assert words in caught.value.message
    assert str(file) in caught.value.message
    assert "untouched" in caught.value.hint
    assert [(entry.name, entry.read_bytes()) for entry in directory.iterdir() if entry.is_file()] == [
        ("state.sqlite", b"old")
    ]
    assert not (tmp_path / "evil").exists()


def test_a_flipped_or_missing_byte_is_found(make_sandbox, blocks, tmp_path):
    one, two = make_sandbox("one"), make_sandbox("two")
    fill(one, blocks)
    kept = two.raw().start()
    whole = export(one, tmp_path / "state.tar.zst").read_bytes()
    for number in range(0, len(whole) * 9 // 10, len(whole) // 12):  # (the very last bytes are zstd's, not the state's)
        for broken in (whole[:number], whole[:number] + bytes([whole[number] ^ 4]) + whole[number + 1 :]):
            (tmp_path / "broken").write_bytes(broken)
            with pytest.raises(ArchiveRefused), lifecycle.at_rest(two.directory):
                archive.read(tmp_path / "broken", two.directory)
    two.endpoint = lifecycle.start(two.directory)
    assert [one["SnapshotId"] for one in two.client("ec2").describe_snapshots()["Snapshots"]] == [kept]


def test_a_file_that_is_not_there_is_said(tmp_path):
    (tmp_path / "own").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*none: No such file"):
        archive.read(tmp_path / "none", tmp_path / "own")


@pytest.mark.behaviour(
    "Operation", "kill during reset and import", "the old state or the new one, whole, wherever it struck"
)
def test_a_crash_leaves_the_old_state_or_the_new(tmp_path):
    """Every call that makes something durable or changes a name is where it is cut off; the next start carries on."""
    outcomes = []
    for cut in range(40):
        directory = tmp_path / str(cut)
        for name, text in (("state.sqlite", "old"), ("disks/a/data", "old"), ("objects/x", "old"), ("ca.pem", "mine")):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        status = dying(directory, cut)
        replacing.finish(directory)
        found = {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}
        assert found.pop("ca.pem") == "mine"
        old = {"state.sqlite": "old", "disks/a/data": "old", "objects/x": "old"}
        new = {"state.sqlite": "new", "disks/b/data": "new", "settings.json": "new"}
        assert found in (old, new)
        outcomes.append((found == new, status))
        if status == 0:
            break
    assert outcomes[-1] == (True, 0)  # the last one was not cut off at all
    assert [new for new, _ in outcomes] == sorted(new for new, _ in outcomes)  # old up to the commit point
    assert sum(not new for new, _ in outcomes) >= 2
    assert sum(new for new, _ in outcomes) >= 8


def dying(directory, cut):
    """Replace the state in a process that is killed before its change number `cut` of a name; return how it ended."""
    script = """
import os, signal, sys, pathlib
from builder.sandbox import replacing
directory, left = pathlib.Path(sys.argv[1]), int(sys.argv[2])
def dies(real):
    def call(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*arguments, **options)
    return call
place = replacing.prepare(directory)
for name, text in (("state.sqlite", "new"), ("disks/b/data", "new"), ("settings.json", "new")):
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(text)
for name in ("fsync", "rename", "replace", "rmdir", "unlink"):
    setattr(os, name, dies(getattr(os, name)))
replacing.commit(directory)
"""
    command = [sys.executable, "-c", script, str(directory), str(cut)]
    return proc.start(command, environment={"PYTHONPATH": str(ROOT)}).wait(60)


def test_a_state_that_was_cut_off_is_finished_by_the_next_start(make_sandbox, blocks):
    running = make_sandbox()
    running.raw().snapshot({0: blocks("a")})
    lifecycle.stop(running.directory)
    place = replacing.prepare(running.directory)
    place.rename(running.directory / replacing.INCOMING)  # as far as the commit point
    running.restart()
    assert running.client("ec2").describe_snapshots()["Snapshots"] == []
    assert list((running.directory / "disks").iterdir()) == []
    assert settings.load(running.directory).access_key == running.endpoint.access_key
