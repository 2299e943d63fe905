"""Which links of a guest a boot menu may follow to its newest kernel."""

from __future__ import annotations

import pytest

from builder.errors import GuestError
from builder.guest.disk import Root
from builder.guest.facts import Filesystem, KnownFacts
from builder.guest.kernels import choose, find
from builder.guest.own_kernel import links_to, require_whole

BOTH = {"/boot/vmlinuz-6.1.0-9": b"old", "/boot/initrd.img-6.1.0-9": b"old"}
BOTH |= {"/boot/vmlinuz-6.1.0-10": b"new", "/boot/initrd.img-6.1.0-10": b"new"}
SUSE = {"/boot/vmlinuz-6.4.0-default": b"new", "/boot/initrd-6.4.0-default": b"new"}


@pytest.mark.parametrize(
    ("files", "links"),
    [
        (BOTH, None),
        (
            BOTH | {"/vmlinuz": "boot/vmlinuz-6.1.0-10", "/initrd.img": "boot/initrd.img-6.1.0-10"},
            ("/vmlinuz", "/initrd.img"),
        ),
        (
            BOTH | {"/boot/vmlinuz": "vmlinuz-6.1.0-10", "/boot/initrd.img": "initrd.img-6.1.0-10"},
            ("/boot/vmlinuz", "/boot/initrd.img"),
        ),
        (SUSE | {"/boot/vmlinuz": "vmlinuz-6.4.0-default", "/boot/initrd": "initrd-6.4.0-default"},
         ("/boot/vmlinuz", "/boot/initrd")),
        # to the old kernel, to two that do not belong together, to nothing, and only one of the two
        (BOTH | {"/vmlinuz": "boot/vmlinuz-6.1.0-9", "/initrd.img": "boot/initrd.img-6.1.0-9"}, None),
        (BOTH | {"/vmlinuz": "boot/vmlinuz-6.1.0-10", "/initrd.img": "boot/initrd.img-6.1.0-9"}, None),
        (BOTH | {"/vmlinuz": "boot/vmlinuz-6.1.0-11", "/initrd.img": "boot/initrd.img-6.1.0-10"}, None),
        (BOTH | {"/vmlinuz": "boot/vmlinuz-6.1.0-10"}, None),
    ],
)  # fmt: skip
def test_links_count_that_lead_to_the_newest_kernel_and_its_initramfs(files, links):
    facts = KnownFacts(files=files)
    assert links_to(choose(find(facts), None), facts) == links


@pytest.mark.parametrize(("type_", "follows"), [("ext2", True), ("ext4", True), ("xfs", False), ("btrfs", False)])
def test_they_are_followed_where_grub_reads_the_filesystem(type_, follows):
    files = BOTH | {"/vmlinuz": "boot/vmlinuz-6.1.0-10", "/initrd.img": "boot/initrd.img-6.1.0-10"}
    facts = KnownFacts(files=files, filesystems=(Filesystem(device="/dev/sda", type=type_),), root="/dev/sda")
    assert (links_to(choose(find(facts), None), facts) is not None) == follows


def test_a_root_in_a_subvolume_must_be_the_one_that_is_mounted():
    require_whole(Root(device="/dev/sda"))
    with pytest.raises(GuestError, match="subvol=@") as caught:
        require_whole(Root(device="/dev/sda", options=("subvol=@",)))
    assert "extract" in caught.value.hint
