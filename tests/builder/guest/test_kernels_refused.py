"""What kernels cannot be told apart or lack their initramfs, and how names lead to files."""

import pytest

from builder.errors import GuestError
from builder.guest.facts import KnownFacts
from builder.guest.kernels import choose, find, real_file

K = b"kernel"
R = b"initramfs"
MACHINE = "0123456789abcdef0123456789abcdef"
NUMBERED = {"/boot/vmlinuz-6.1.0-10-amd64": K, "/boot/initrd.img-6.1.0-9-amd64": R}

REFUSED = {
    "nothing": ({}, None, "the guest has no kernel in /boot or /lib/modules$"),
    "only rescue": (
        {f"/boot/vmlinuz-0-rescue-{MACHINE}": K, f"/boot/initramfs-0-rescue-{MACHINE}.img": R},
        None,
        "the guest has no kernel",
    ),
    "only empty and dangling names": (
        {"/boot/vmlinuz-1": b"", "/boot/vmlinuz-2": "gone", "/boot/vmlinuz-3": "vmlinuz-3"},
        None,
        "no kernel in /boot or /lib/modules; /boot/vmlinuz-1, /boot/vmlinuz-2, /boot/vmlinuz-3: empty, or a link",
    ),
    "a directory named like a kernel": ({"/boot/vmlinuz-6.1/x": K}, None, "no kernel"),
    "names that would move a terminal's cursor": (
        {"/boot/vmlinuz-\x1b[2J": K, "/boot/vmlinuz-a\nb": K},
        None,
        "no ker",
    ),
    "no initramfs: both are named": (
        NUMBERED,
        None,
        "^/boot/vmlinuz-6.1.0-10-amd64 has no initramfs beside it: there is none of /boot/initrd.img-6.1.0-10-amd64, ",
    ),
    "an empty initramfs": (
        {"/boot/vmlinuz-6.1": K, "/boot/initrd.img-6.1": b""},
        None,
        "^/boot/vmlinuz-6.1 has no initramfs",
    ),
    "kdump's and the fallback are none": (
        {"/boot/vmlinuz-6.1": K, "/boot/initramfs-6.1kdump.img": R, "/boot/initramfs-6.1-fallback.img": R},
        None,
        "^/boot/vmlinuz-6.1 has no initramfs",
    ),
    "another version": (NUMBERED, "6.1.0-9-amd64", "no kernel of version 6.1.0-9-amd64; it has 6.1.0-10-amd64"),
    "flavours, and nothing tells": (
        {"/boot/vmlinuz-6.1.0-18-cloud-amd64": K, "/boot/vmlinuz-6.1.0-18-amd64": K},
        None,
        "in several flavours: 6.1.0-18-amd64, 6.1.0-18-cloud-amd64",
    ),
    "names without versions": (
        {"/boot/vmlinuz-linux": K, "/boot/vmlinuz-linux-lts": K},
        None,
        "which of the guest's kernels is the newest cannot be told: /boot/vmlinuz-linux, ",
    ),
    "flatcar's two": ({"/boot/flatcar/vmlinuz-a": K, "/boot/flatcar/vmlinuz-b": K}, None, "cannot be told"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused_with_what_is_there(name):
    files, wanted, says = REFUSED[name]
    with pytest.raises(GuestError, match=says):
        choose(find(KnownFacts(files=files)), wanted)


def test_a_kernel_without_initramfs_names_those_that_have_one():
    files = NUMBERED | {"/boot/vmlinuz-6.1.0-9-amd64": K}
    with pytest.raises(GuestError) as caught:
        choose(find(KnownFacts(files=files)), None)
    assert caught.value.hint is not None
    assert "`version:` (6.1.0-9-amd64)" in caught.value.hint


@pytest.mark.parametrize(
    "modules",
    [
        {"/lib/modules/6.6.1\x1b[2J-virt/modules.dep": b""},
        {"/lib/modules/6.6.1-0-virt/modules.dep": b"", "/lib/modules/6.6.2-0-virt/modules.dep": b""},
        {"/lib/modules/6.6.1/pkgbase": b"virt\n" + b" " * 1000},
        {"/lib/modules/6.6.1/pkgbase": b"\xff\xfe"},
        {"/lib/modules/6.6.1/pkgbase": "pkgbase"},
    ],
)
def test_a_version_that_the_modules_do_not_tell_plainly_is_not_known(modules):
    files = {"/boot/vmlinuz-virt": K, "/boot/initramfs-virt": R}
    assert [kernel.version for kernel in find(KnownFacts(files=files | modules)).kernels] == ["virt"]


def test_a_thousand_kernels_make_a_short_message():
    files = {f"/boot/vmlinuz-6.1.{number}": K for number in range(1000)}
    with pytest.raises(GuestError) as caught:
        choose(find(KnownFacts(files=files)), "7")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/a", "/x/file"),
        ("/b", "/x/file"),
        ("/x/up", "/x/file"),
        ("/x/far", "/x/file"),
        ("/loop", None),
        ("/x", None),
        ("/empty", None),
        ("/out", "/x/file"),
        ("/absent", None),
    ],
)
def test_links_are_followed_within_the_guest(path, leads):
    files = {
        "/x/file": b"x",
        "/a": "/x/file",
        "/b": "a",
        "/x/up": "../b",
        "/x/far": "./../x/../b",
        "/loop": "loop",
        "/empty": "x/nothing",
        "/x/nothing": b"",
        "/out": "../../../x/file",
    }
    assert real_file(KnownFacts(files=files), path) == leads
