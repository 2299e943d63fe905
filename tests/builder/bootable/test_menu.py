"""What the menu says, and what cannot be booted by it."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from builder import proc
from builder.bootable import loader, menu
from builder.bootable.menu import Links, Menu
from builder.errors import InputError

MENU = Menu(
    root="LABEL=rootfs",
    arguments="ro quiet",
    consoles=("tty0", "ttyS1,38400n8"),
    ramdisk=True,
    partition="gpt1",
)
LINE = "root=LABEL=rootfs ro quiet console=tty0 console=ttyS1,38400n8\n"
LINKED = replace(MENU, links=Links(kernel="/vmlinuz", ramdisk="/initrd.img"))


def header(protocol: int) -> bytes:
    return bytes(0x1FE) + b"\x55\xaa\xeb\x66HdrS" + struct.pack("<H", protocol) + bytes(8)


def test_the_kernel_beside_the_menu_is_booted_with_its_initramfs():
    text = menu.config(MENU)
    assert f"linux /boot/vmlinuz {LINE}" in text
    assert "initrd /boot/initrd.img\n" in text
    assert "regexp" not in text


def test_the_menu_is_on_the_first_serial_console_with_its_speed():
    assert "serial --unit=1 --speed=38400\nterminal_input console serial\n" in menu.config(MENU)
    assert "serial" not in menu.config(replace(MENU, consoles=("tty0", "hvc0")))
    assert "serial --unit=0 --speed=9600\n" in menu.config(replace(MENU, consoles=("ttyS0",)))  # the kernel's default


def test_without_an_initramfs_none_is_loaded():
    assert "initrd" not in menu.config(replace(MENU, ramdisk=False))


def test_links_of_the_guest_come_first_and_the_kernel_beside_the_menu_if_they_lead_nowhere():
    text = menu.config(LINKED)
    own, beside = text.split("else\n")
    assert f'linux "($disk,gpt1)/vmlinuz" {LINE}' in own
    assert 'initrd "($disk,gpt1)/initrd.img"\n' in own
    assert f"linux /boot/vmlinuz {LINE}" in beside


@pytest.mark.parametrize("given", [MENU, LINKED, replace(MENU, ramdisk=False, arguments="", consoles=())], ids=str)
def test_grub_can_read_it(given, tmp_path):
    script = tmp_path / "grub.cfg"
    script.write_text(menu.config(given))
    proc.run(["grub-script-check", script])


@pytest.mark.parametrize("platform", ["i386-pc", "x86_64-efi"])
def test_the_loader_has_every_command_of_it(platform):
    lines = Path("/usr/lib/grub", platform, "command.lst").read_text().splitlines()
    modules = {name.lstrip("*"): module for name, module in (line.split(": ") for line in lines)}
    words = set(re.findall(r"^ *(?:if )?([a-z_\[]+)", menu.config(LINKED), re.M)) - {"else", "fi", "set", "menuentry"}
    assert words >= {"[", "initrd", "linux", "regexp", "serial", "terminal_output"}
    assert {modules[word] for word in words} - {*loader._COMMANDS} == set()


@pytest.mark.parametrize("protocol", [0x0200, 0x0206, 0x020F])
def test_kernels_of_any_age_are_taken(protocol):
    menu.require_kernel(header(protocol), "the kernel")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "no boot header"),
        (b"MZ" + bytes(600), "no boot header"),
        (header(0x0105), "no boot header"),
        (b"\x1f\x8b" + bytes(600), "bare ELF image"),
        (b"\x7fELF" + bytes(600), "bare ELF image"),
        (bytes(0x38) + b"ARMd" + bytes(600), "ARM-64"),
    ],
)
def test_what_is_no_kernel_for_this_is_refused(head, message):
    with pytest.raises(InputError, match=message):
        menu.require_kernel(head, "the kernel")


@pytest.mark.parametrize("label", ["rootfs", "cloudimg-rootfs", "ROOT_1.2"])
def test_labels_that_a_command_line_can_hold(label):
    assert menu.label_problem(label) is None


@pytest.mark.parametrize("label", ["", "my root", "a'b", "$x", "a\nb", "größe", "/", "a;b", "a*"])
def test_labels_that_it_cannot(label):
    assert menu.label_problem(label)
