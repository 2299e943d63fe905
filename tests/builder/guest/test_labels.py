import pytest

from builder.errors import GuestError
from builder.guest import labels
from builder.guest.facts import Filesystem, KnownFacts

ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs")
DATA = Filesystem(device="/dev/sda2", type="xfs", label="data")
FACTS = KnownFacts(root="/dev/sda1", filesystems=(ROOT, DATA))


@pytest.mark.parametrize(
    ("kind", "label", "expected"),
    [
        ("ext4", "a" * 16, None),
        ("ext4", "a" * 17, "has 17 bytes, and ext4 takes at most 16"),
        ("ext3", "\u00e4" * 9, "has 18 bytes"),
        ("ext2", "my root", None),
        ("xfs", "a" * 12, None),
        ("xfs", "a" * 13, "xfs takes at most 12"),
        ("btrfs", "a" * 255, None),
        ("btrfs", "a" * 256, "btrfs takes at most 255"),
        ("vfat", "UEFI_1-2 34", None),
        ("vfat", "UEFI12345678", "vfat takes at most 11"),
        ("vfat", "uefi", "capital ASCII"),
        ("vfat", "EFI+1", "capital ASCII"),
        ("vfat", "\u00c4", "capital ASCII"),
        ("swap", "a" * 15, None),
        ("swap", "a" * 16, "swap takes at most 15"),
        ("squashfs", "a", "labels of squashfs cannot be set; these can: ext2,"),
        ("", "a", "an unknown type"),
        ("ext4", "", "cannot be empty"),
        ("ext4", "-n", "leading '-'"),
        ("ext4", " a", "no blanks around it"),
        ("ext4", "a\nb", "no control characters"),
        ("ext4", "a\0", "no control characters"),
        ("ext4", "a/b", "no '/'"),
        ("ext4", 'a"b', "/etc/fstab"),
    ],
)
def test_what_a_label_may_be(kind, label, expected):
    problem = labels.problem(kind, label)
    assert problem is None if expected is None else expected in problem


def test_every_limit_is_the_tool_s_own():
    assert all(labels.problem(kind, "A" * limit) is None for kind, limit in labels.LIMITS.items())
    assert all(labels.problem(kind, "A" * (limit + 1)) for kind, limit in labels.LIMITS.items())


def test_relabelling_says_what_was():
    assert labels.relabel(FACTS, ROOT, "new").why == "/dev/sda1 labelled new (was rootfs)"
    assert labels.relabel(FACTS, ROOT, "rootfs") is None


@pytest.mark.parametrize(
    ("filesystem", "label", "expected"),
    [(ROOT, "data", "/dev/sda2 is labelled data already"), (DATA, "thirteenbytes", "/dev/sda2: the label")],
)
def test_relabelling_is_refused(filesystem, label, expected):
    with pytest.raises(GuestError, match=expected) as caught:
        labels.relabel(FACTS, filesystem, label)
    assert caught.value.hint
