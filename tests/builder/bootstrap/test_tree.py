"""A tar becomes values: every attribute kept, nothing of its paths followed on the host."""

from __future__ import annotations

import io
import tarfile

import pytest

from builder.bootstrap.system import finish
from builder.bootstrap.tree import Tree
from builder.errors import ArchiveRefused


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("etc/shadow", {"kind": "file", "mode": 0o640, "uid": 0, "gid": 42}),
        ("usr/bin/sudo", {"mode": 0o4755, "size": 6}),
        ("home/user", {"kind": "directory", "mode": 0o700, "uid": 1000, "gid": 100_000}),
        ("home", {"kind": "directory", "mode": 0o755, "uid": 0}),  # not in the tar: made
        ("bin", {"kind": "symlink", "target": "usr/bin"}),
        ("usr/bin/perl", {"mtime": 1_700_000_099}),
        ("", {"kind": "directory", "mode": 0o755}),
    ],
)
def test_attributes_are_kept(make_tree, path, wanted):
    node = make_tree().get(path)
    assert {name: getattr(node, name) for name in wanted} == wanted


def test_extended_attributes_are_kept_to_the_byte(make_tree, capability):
    assert make_tree().get("usr/bin/ping").xattrs == {"security.capability": capability}


def test_hard_links_share_an_inode(make_tree):
    tree = make_tree()
    assert tree.get("usr/bin/perl").inode == tree.get("usr/bin/perl5.36.0").inode
    assert tree.read("usr/bin/perl5.36.0") == b"perl" * 5000


def test_a_directory_comes_before_what_is_in_it_whatever_the_order_of_the_tar(make_tree, entry):
    forward = [entry("./a"), entry("./a-b"), entry("./c/d/e"), entry("./c.d")]
    one, two = make_tree(*forward), make_tree(*reversed(forward))
    paths = [node.path for node in one]
    assert paths == [node.path for node in two]
    assert all(paths.index(node.parent) < paths.index(node.path) for node in one if node.path)


def test_dev_stays_empty(make_tree):
    assert [node.path for node in make_tree() if node.path.startswith("dev")] == []


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_special_files_are_refused(make_tree, entry, kind):
    with pytest.raises(ArchiveRefused, match="/srv/thing in the system's tar is a device"):
        make_tree(entry("./srv/thing", kind=kind))


@pytest.mark.parametrize("keep", [0, 511, 3000])
def test_a_tar_that_is_cut_off_is_refused(make_tree, tmp_path, keep):
    make_tree()
    whole = (tmp_path / "1.tar").read_bytes()
    with pytest.raises(ArchiveRefused, match="cut off or damaged"):
        Tree(tmp_path / "contents-1").unpack(io.BytesIO(whole[:keep]))


def test_nothing_lands_outside_the_contents(make_tree, entry, tmp_path):
    make_tree(entry("./../../escaped", b"x"), entry("/absolute", b"x"), entry("./link", link="/tmp", kind=b"2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.tar", "contents-1"]


def test_what_tells_of_the_build_is_removed(make_tree, system):
    tree = make_tree()
    finish(system, tree)
    assert tree.get("etc/ssh/ssh_host_rsa_key") is None
    assert tree.get("var/log/apt.log") is None
    assert tree.get("var/log/wtmp") is not None  # empty files that programs expect stay
    assert tree.read("etc/machine-id") == b""
    assert tree.read("etc/apt/sources.list") == b"deb http://127.0.0.1/debian bookworm main\n"
    assert max(node.mtime for node in tree) == system.epoch
