"""The step `initramfs`: when it makes one anew, how each program is told and run, and one time for real."""

from __future__ import annotations

import pytest

from builder.errors import GuestError
from builder.guest.edits import Command, RequireDrivers, Unchanged, WriteFile
from builder.guest.facts import KnownFacts
from pipelines.steps.initramfs import Initramfs, InitramfsOptions
from tests.builder.guest import archives

STEP = Initramfs()
MODULES = ("virtio_blk", "virtio_scsi", "virtio_net", "ena", "xen-blkfront", "xen-netfront")
DEP = b"".join(f"kernel/drivers/x/{name}.ko.xz: kernel/y.ko.xz\n".encode() for name in MODULES)
BUILTIN = b"kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/nvme/host/nvme.ko\n"
MKINITRAMFS = {"/usr/sbin/mkinitramfs": b"#!/bin/sh\n"}


def packed(*modules: str) -> bytes:
    return archives.zstd(archives.newc("init", *(f"lib/modules/x/kernel/{name}.ko" for name in modules)))


def guest(images: dict[str, bytes], *, name: str = "/boot/initrd.img-{}", **more: bytes) -> KnownFacts:
    """A guest with kernels, by version their initramfs."""
    files: dict[str, bytes | str] = dict(more)
    for version, data in images.items():
        files[f"/lib/modules/{version}/modules.dep"] = DEP
        files[f"/lib/modules/{version}/modules.builtin"] = BUILTIN
        files[name.format(version)] = data
    return KnownFacts(files=files)


DRACUT = """\
any=$(/usr/bin/dracut --help 2>&1 | grep -q -e --no-hostonly && echo --no-hostonly)
exec /usr/bin/dracut --force $any /boot/initramfs-6.1-x.img 6.1-x
"""
WITHOUT_ENA = packed("virtio_blk", "virtio_scsi", "virtio_net", "xen-blkfront", "xen-netfront")
WHOLE = packed(*MODULES)


def test_all_there_is_no_edit_and_it_says_where():
    found = STEP.edits(InitramfsOptions(), guest({"6.1.0-9": WHOLE}, **MKINITRAMFS), {})
    assert found == Unchanged(
        why="6.1.0-9: virtio_pci nvme built in, virtio_blk virtio_scsi virtio_net ena xen_blkfront xen_netfront "
        "in the initramfs"
    )


@pytest.mark.parametrize(
    ("options", "images", "more", "why"),
    [
        ({"drivers": ("ixgbevf",)}, {"6.1": packed()}, {}, "6.1: ixgbevf not in this kernel"),
        ({"drivers": ("nvme", "virtio-pci")}, {"6.1": b"\x89LZO"}, {}, "6.1: nvme virtio_pci built in"),
        ({"kernels": "newest"}, {"6.9": packed(), "6.10": WHOLE}, {}, "6.10: virtio_pci nvme built in, "),
        ({}, {}, {}, "the guest has no kernel with modules"),
        ({}, {}, {"/lib/modules/6.1/modules.dep": DEP}, "kernel 6.1 has no initramfs"),
    ],
)
def test_nothing_to_do_says_why(options, images, more, why):
    found = STEP.edits(InitramfsOptions(**options), guest(images, **more), {})
    assert isinstance(found, Unchanged)
    assert found.why.startswith(why)


def test_only_kernels_that_lack_something_are_made_anew():
    facts = guest({"6.1.0-9": WITHOUT_ENA, "6.1.0-10": WHOLE, "6.1.0-11": packed("ena")}, **MKINITRAMFS)
    config, *made = STEP.edits(InitramfsOptions(drivers=("virtio_blk", "ena", "nvme"), limit=99), facts, {})
    assert config == WriteFile(
        path="/etc/initramfs-tools/modules",
        data=b"virtio_blk\nena\n",
        why="/etc/initramfs-tools/modules: added virtio_blk, ena",
    )
    assert made == [
        Command(
            script=b"exec update-initramfs -u -k 6.1.0-9\n",
            why="made /boot/initrd.img-6.1.0-9 anew for ena, by initramfs-tools",
            limit=99,
        ),
        RequireDrivers(version="6.1.0-9", modules=("virtio_blk", "ena")),
        Command(
            script=b"exec update-initramfs -u -k 6.1.0-11\n",
            why="made /boot/initrd.img-6.1.0-11 anew for virtio_blk, by initramfs-tools",
            limit=99,
        ),
        RequireDrivers(version="6.1.0-11", modules=("virtio_blk", "ena")),
    ]


def test_what_is_configured_already_is_not_written_again():
    facts = guest({"6.1": WITHOUT_ENA}, **MKINITRAMFS, **{"/etc/initramfs-tools/modules": b"# x\nena\n"})
    edits = STEP.edits(InitramfsOptions(drivers=("ena",)), facts, {})
    assert [type(edit) for edit in edits] == [Command, RequireDrivers]


@pytest.mark.parametrize(
    ("tool", "image", "before", "config", "after", "script"),
    [
        (
            "/usr/sbin/mkinitramfs",
            "/boot/initrd.img-{}",
            b"# List of modules\nloop",
            "/etc/initramfs-tools/modules",
            b"# List of modules\nloop\nena\n",
            "exec update-initramfs -u -k 6.1-x\n",
        ),
        (
            "/usr/bin/dracut",
            "/boot/initramfs-{}.img",
            None,
            "/etc/dracut.conf.d/90-emi.conf",
            b'add_drivers+=" ena "\n',
            DRACUT,
        ),
        (
            "/sbin/dracut",
            "/boot/initramfs-{}.img",
            b'add_drivers+=" nvme "\n',
            "/etc/dracut.conf.d/90-emi.conf",
            b'add_drivers+=" nvme "\nadd_drivers+=" ena "\n',
            None,
        ),
        (
            "/usr/bin/mkinitcpio",
            "/boot/initramfs-{}.img",
            b"# MODULES=(x)\nMODULES=(btrfs)\nHOOKS=(base)\n",
            "/etc/mkinitcpio.conf",
            b"# MODULES=(x)\nMODULES=(btrfs ena)\nHOOKS=(base)\n",
            "exec /usr/bin/mkinitcpio -k 6.1-x -g /boot/initramfs-6.1-x.img -S autodetect\n",
        ),
        (
            "/usr/bin/mkinitcpio",
            "/boot/initramfs-{}.img",
            b"MODULES=(\n  btrfs # root\n)\n",
            "/etc/mkinitcpio.conf",
            b"MODULES=(\n  btrfs # root\nena)\n",
            None,
        ),
        (
            "/usr/bin/mkinitcpio",
            "/boot/initramfs-{}.img",
            b'MODULES=""',
            "/etc/mkinitcpio.conf",
            b'MODULES="ena"',
            None,
        ),
        (
            "/lib/mkinitrd/scripts",
            "/boot/initrd-{}",
            b'INITRD_MODULES="ext3 jbd"\n',
            "/etc/sysconfig/kernel",
            b'INITRD_MODULES="ext3 jbd ena"\n',
            "exec mkinitrd -k vmlinuz-6.1-x -i initrd-6.1-x\n",
        ),
        (
            "/sbin/mkinitrd",
            "/boot/initrd-{}.img",
            None,
            None,
            None,
            "exec /sbin/mkinitrd -f --with=ena /boot/initrd-6.1-x.img 6.1-x\n",
        ),
    ],
)
def test_each_program_is_told_and_run(tool, image, before, config, after, script):
    more = {tool: b"x"} | ({config: before} if before is not None else {})
    facts = guest({"6.1-x": WITHOUT_ENA}, name=image, **more)
    edits = list(STEP.edits(InitramfsOptions(drivers=("ena",)), facts, {}))
    written = edits.pop(0) if config else None
    assert (written is None) == (after is None)
    assert written is None or (written.path, written.data) == (config, after)
    assert [type(edit) for edit in edits] == [Command, RequireDrivers]
    assert script is None or edits[0].script.decode() == script


def test_a_version_is_a_word_whatever_is_in_it():
    facts = guest({"6.1;reboot $(x)": WITHOUT_ENA}, **MKINITRAMFS)
    _, made, _ = STEP.edits(InitramfsOptions(), facts, {})
    assert made.script == b"exec update-initramfs -u -k '6.1;reboot $(x)'\n"


@pytest.mark.parametrize(
    ("image", "more", "message"),
    [
        (
            WITHOUT_ENA,
            {},
            "/boot/initrd.img-6.1 lacks ena, and the guest has no program to make another: none of init",
        ),
        (b"\x89LZO", MKINITRAMFS, "cannot be told: /boot/initrd.img-6.1 is compressed with lzo"),
        (archives.newc("squashfs-root.img"), MKINITRAMFS, "keeps its files in squashfs-root.img"),
    ],
)
def test_what_cannot_be_done_is_an_error(image, more, message):
    with pytest.raises(GuestError, match=message):
        STEP.edits(InitramfsOptions(), guest({"6.1": image}, **more), {})


@pytest.mark.parametrize("given", ["", "a b", "--force", "x;y", "ena\n"])
def test_options_are_checked(given):
    problems = STEP.check(InitramfsOptions(drivers=(given,)))
    assert len(problems) == 1
