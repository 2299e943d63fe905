"""What superblocks say against their filesystems: made clean by the real tools, and marred."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import proc
from builder.guest.unclean import HEAD, unclean

MIB = 1 << 20


def make(path: Path, kind: str) -> Path:
    """Make a filesystem with the real tool."""
    with open(path, "xb") as file:
        file.truncate(320 * MIB)
    tool = {"xfs": ["mkfs.xfs", "-q"], "vfat16": ["mkfs.vfat", "-F16"], "vfat32": ["mkfs.vfat", "-F32"]}
    proc.run([*tool.get(kind, [f"mkfs.{kind}", "-q", "-F"]), path])
    return path


def head(path) -> bytearray:
    with open(path, "rb") as file:
        return bytearray(file.read(HEAD))


@pytest.mark.parametrize("kind", ["ext2", "ext4", "xfs", "vfat16", "vfat32"])
def test_a_new_filesystem_is_clean(tmp_path, kind):
    assert unclean(kind.removesuffix("16").removesuffix("32"), bytes(head(make(tmp_path / "image", kind)))) == ""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ssv state 0", "it was not unmounted"),
        ("ssv state 3", "errors: the kernel found some"),
        ("feature needs_recovery", "its journal holds what was never written back"),
        ("ssv state 1", ""),
    ],
)
def test_ext_as_debugfs_mars_it(tmp_path, command, expected):
    path = make(tmp_path / "image", "ext4")
    proc.run(["debugfs", "-w", "-R", command, path])
    found = unclean("ext4", bytes(head(path)))
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("kind", "at", "byte", "expected"),
    [
        ("vfat16", 0x25, 1, "it was not unmounted"),
        ("vfat16", 0x25, 2, "errors: the system"),
        ("vfat32", 0x41, 1, "it was not unmounted"),
        ("vfat32", 0x25, 1, ""),
        ("xfs", 219, 0x10, "errors: it is marked"),
    ],
)
def test_marks_at_their_places(tmp_path, kind, at, byte, expected):
    data = head(make(tmp_path / "image", kind))
    data[at] |= byte
    found = unclean(kind.removesuffix("16").removesuffix("32"), bytes(data))
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "vfat", "btrfs", "swap", ""])
def test_any_bytes_are_read(kind):
    for data in (b"", b"\xff" * 100, b"\xff" * HEAD, bytes(HEAD)):
        assert isinstance(unclean(kind, data), str)
