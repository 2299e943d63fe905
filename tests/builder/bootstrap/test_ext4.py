"""The filesystem holds what the tree says, and its bytes depend on nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path

import pytest

from builder import proc
from builder.bootstrap import ext4
from builder.errors import ArchiveRefused, UsageError

MIB = 1 << 20
UUID = "12345678-1234-4234-8234-123456789012"


@pytest.fixture
def make(tmp_path):
    """Write a tree to a filesystem 1 MiB into a disk; return how debugfs names it."""

    def make(tree, *, size=64 * MIB, name="disk.raw"):
        disk = tmp_path / name
        with open(disk, "wb") as out:
            out.truncate(MIB + size)
        scratch = tmp_path / f"scratch-{name}"
        scratch.mkdir()
        place = ext4.Place(disk=disk, offset=MIB, size=size)
        ext4.make(tree, place, label="root", uuid=UUID, epoch=1_700_000_000, scratch=scratch)
        return f"{disk}?offset={MIB}"

    return make


def ask(filesystem, question):
    return proc.run(["debugfs", "-R", question, filesystem]).stdout.decode(errors="surrogateescape")


def test_every_file_is_there_with_its_content_and_attributes(make, make_tree, tmp_path, capability):
    tree = make_tree()
    filesystem = make(tree)
    out = tmp_path / "out"
    assert len(tree) > 35
    for node in tree:
        path = "/" + node.path.replace('"', '""')
        said = ask(filesystem, f'stat "{path}"')
        assert f"Type: {node.kind.replace('file', 'regular')}" in said, said
        assert re.search(rf"Mode:  0?{node.mode:04o} ", said), said
        assert re.search(rf"User: +{node.uid} +Group: +{node.gid} ", said), said
        assert f"mtime: 0x{node.mtime:08x}" in said, said
        assert "ctime: 0x6553f100" in said, said
        if node.kind == "file":
            out.unlink(missing_ok=True)
            ask(filesystem, f'dump "{path}" {out}')
            assert out.read_bytes() == node.source.read_bytes(), path
        if node.kind == "symlink" and len(node.target) < 60:
            assert f'Fast link dest: "{node.target}"' in said
    assert "Links: 2" in ask(filesystem, "stat /usr/bin/perl5.36.0")
    assert capability.hex() in ask(filesystem, "ea_get -x /usr/bin/ping security.capability").replace(" ", "")


def test_the_same_tree_gives_the_same_bytes_whatever_the_host_did(make, make_tree):
    one, two = make_tree(), make_tree()
    disks = [make(one, name="one")]
    time.sleep(1.1)  # another second on the host's clock
    for node in two:
        if node.source:
            os.utime(node.source, (1, 1))
    disks.append(make(two, name="two"))
    digests = {hashlib.sha256(Path(disk.partition("?")[0]).read_bytes()).hexdigest() for disk in disks}
    assert len(digests) == 1


def test_other_content_gives_other_bytes(make, make_tree, entry):
    trees = make_tree(entry("./a", b"1")), make_tree(entry("./a", b"2"))
    disks = [make(tree, name=f"{number}").partition("?")[0] for number, tree in enumerate(trees)]
    with open(disks[0], "rb") as one, open(disks[1], "rb") as two:
        assert one.read() != two.read()


def test_holes_stay_holes(make, make_tree):
    disk = make(make_tree(), size=1024 * MIB).partition("?")[0]
    assert Path(disk).stat().st_blocks * 512 < 24 * MIB


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (60 * MIB, "the system needs 60.0 MiB and 2 inodes; its partition has 64 MiB and 4096 inodes"),
        (None, "the system needs .* and 5001 inodes"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(make, make_tree, entry, content, message):
    entries = [entry("./big", bytes(content))] if content else [entry(f"./{number}") for number in range(5000)]
    with pytest.raises(UsageError, match=message) as caught:
        make(make_tree(*entries))
    assert caught.value.hint == "Raise `size`, or leave out packages."


def test_a_line_break_in_a_name_is_refused(make, make_tree, entry):
    with pytest.raises(ArchiveRefused, match="holds a line break"):
        make(make_tree(entry("./a\nsif / mode 0", b"")))
