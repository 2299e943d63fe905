"""Texts of a hostile guest that would take quadratic time: every reader of them is done in seconds."""

from __future__ import annotations

import pytest

from builder.guest import cloudinit, menu_lst
from builder.guest.boot_names import BootNames
from builder.guest.bootloader import Settings, serial_of
from builder.guest.facts import Filesystem
from builder.guest.kernel_arguments import Wish
from builder.guest.network import ini
from builder.guest.os import parse_assignments

MANY = 500_000
BLANKS = " " * MANY
ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs")
SETTINGS = Settings(
    wish=Wish(console="ttyS0"),
    names=BootNames(filesystems=(ROOT,), root=ROOT, boot=ROOT, by="label"),
    timeout=1,
    menu=serial_of("ttyS0"),
)
READERS = {
    "ds-identify.cfg": lambda: cloudinit.fixed_datasource("\n" * MANY + "datasource: x"),
    "a keyfile": lambda: ini.keyfile(f"[ethernet]\nmac-address=a{BLANKS}b\n", replace_static=True).changes,
    "a .network file": lambda: ini.network(f"[Match]\nMACAddress=a{BLANKS}b\n", replace_static=True).changes,
    "menu.lst": lambda: menu_lst.edit_menu(f"terminal{BLANKS}console{BLANKS}x\ntitle x\n".encode(), SETTINGS).changes,
    "assignments": lambda: parse_assignments(f"A='{BLANKS}{BLANKS}'\nB=1\n"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", READERS)
def test_a_long_text_is_read_at_once(name):
    assert READERS[name]()
