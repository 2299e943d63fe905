"""A whole disk from the small system: read back by the tools that others would use on it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest

from builder import proc
from builder.bootable import bootcode
from builder.bootstrap import disk, grub
from builder.errors import HostError, UsageError


@pytest.fixture
def write(tmp_path, make_tree):
    made = 0

    def write(system, tree=None):
        nonlocal made
        made += 1
        scratch = tmp_path / f"scratch-{made}"
        scratch.mkdir()
        target = tmp_path / f"disk-{made}.raw"
        disk.write(system, tree or make_tree(), target, scratch=scratch)
        return target

    return write


def test_the_table_is_sound_and_the_root_comes_last(write, system):
    image = write(system)
    assert b"No problems found" in proc.run(["sgdisk", "--verify", image]).stdout
    table = proc.run(["sgdisk", "--print", image]).stdout.decode()
    found = re.findall(r"^ +(\d+) +(\d+) +(\d+) .* (\w{4})  (\w+)$", table, re.M)
    assert found == [
        ("1", "262144", "1046527", "8304", "root"),
        ("14", "2048", "8191", "EF02", "bios"),
        ("15", "8192", "262143", "EF00", "esp"),
    ]


def test_both_kinds_of_firmware_find_their_code(write, system, make_tree):
    tree = make_tree()
    image = write(system, tree)
    with open(image, "rb") as file:
        assert file.read(512)[0x1FE:] == b"\x55\xaa"
        file.seek(1 << 20)
        assert file.read(40_004) == bootcode.embedded_core(tree.read(grub.CORE_IMAGE), 2048)[:40_004]
    loader = proc.run(["mtype", "-i", f"{image}@@4194304", "::/EFI/BOOT/BOOTX64.EFI"]).stdout
    assert loader == tree.read(grub.EFI_IMAGE)


def test_the_boot_menu_is_on_the_root(write, system):
    image = write(replace(system, kernel_arguments="quiet"))
    menu = proc.run(["debugfs", "-R", "cat /boot/grub/grub.cfg", f"{image}?offset=134217728"]).stdout.decode()
    assert "root=LABEL=rootfs ro quiet console=tty0 console=ttyS0,115200\n" in menu


def test_the_same_inputs_give_the_same_disk_and_others_another(write, system):
    def digest(of):
        return hashlib.sha256(write(of).read_bytes()).hexdigest()

    first = digest(system)
    assert digest(system) == first
    assert digest(replace(system, epoch=system.epoch + 1)) != first


def test_other_inputs_give_other_identifiers(make_tree, system):
    tree = make_tree()
    one, two = system.identity(tree), replace(system, packages=("x",)).identity(tree)
    tree.write("var/lib/dpkg/status", b"Package: newer\n", mtime=0)
    three = system.identity(tree)
    uuids = {identity.uuid(part) for identity in (one, two, three) for part in ("disk", "root", "volume")}
    assert len(uuids) == 9


@pytest.mark.parametrize(
    ("size", "message"),
    [((512 << 20) + 512, "must be whole MiB"), (511 << 20, "a disk of 511 MiB"), (0, "a disk of 0 bytes")],
)
def test_sizes_that_cannot_be(write, system, size, message):
    with pytest.raises(UsageError, match=message):
        write(replace(system, size=size))


@pytest.mark.parametrize("path", [grub.BOOT_IMAGE, grub.CORE_IMAGE, grub.EFI_IMAGE])
def test_a_missing_loader_is_named(write, system, make_tree, path):
    tree = make_tree()
    tree.remove(lambda node: node.path == path)
    with pytest.raises(HostError, match=f"/{path} is missing"):
        write(system, tree)
