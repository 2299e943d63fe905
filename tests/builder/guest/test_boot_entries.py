"""Boot loaders' configurations of many kinds, and what they start."""

from __future__ import annotations

import pytest

from builder.guest.boot_entries import boot_configs, boot_entries
from builder.guest.facts import KnownFacts

GRUB2 = b"""### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian' --class debian {
\tinsmod ext2
\tlinux\t/boot/vmlinuz-6.1 root=UUID=1 ro  console=ttyS0
\tinitrd\t/boot/initrd.img-6.1
}
menuentry 'Debian (recovery mode)' {
\tlinux\t/boot/vmlinuz-6.1 root=UUID=1 ro single
\tinitrd\t/boot/initrd.img-6.1
}
menuentry 'Memory test' { linux16 /boot/memtest86+.bin
}
"""
CASES = {
    "grub2": (
        {"/boot/grub/grub.cfg": GRUB2},
        [("/boot/grub/grub.cfg", 4, "/boot/vmlinuz-6.1", "root=UUID=1 ro console=ttyS0", ("/boot/initrd.img-6.1",))],
    ),
    "grub2 of EL7, by EFI": (
        {
            "/boot/grub2/grub.cfg": b"\tlinuxefi /vmlinuz-3.10 root=/dev/sda2 \\\n  quiet\n"
            b"\tinitrdefi /initramfs-3.10.img\n"
        },
        [("/boot/grub2/grub.cfg", 1, "/vmlinuz-3.10", "root=/dev/sda2 quiet", ("/initramfs-3.10.img",))],
    ),
    "boot entries with variables": (
        {
            "/boot/loader/entries/a-6.5.conf": b"title Fedora\nlinux /vmlinuz-6.5\n"
            b"initrd /initramfs-6.5.img $tuned_initrd\noptions $kernelopts $tuned_params\n",
            "/boot/grub2/grubenv": b"# GRUB Environment Block\nkernelopts=root=LABEL=fedora ro console=ttyS0\n####",
        },
        [
            (
                "/boot/loader/entries/a-6.5.conf",
                2,
                "/vmlinuz-6.5",
                "root=LABEL=fedora ro console=ttyS0 $tuned_params",
                ("/initramfs-6.5.img",),
            )
        ],
    ),
    "GRUB legacy": (
        {
            "/boot/grub/menu.lst": b"# kernel /commented\ndefault 0\ntimeout=0\ntitle x\n root (hd0,0)\n"
            b" kernel (hd0,0)/boot/vmlinuz-2.6 root=LABEL=/ ro console=hvc0\n initrd /boot/initrd-2.6.img\n",
            "/boot/grub/grub.conf": "menu.lst",
        },
        [("/boot/grub/menu.lst", 6, "/boot/vmlinuz-2.6", "root=LABEL=/ ro console=hvc0", ("/boot/initrd-2.6.img",))],
    ),
    "Xen under GRUB legacy": (
        {
            "/boot/grub/menu.lst": b"title xen\n kernel /xen-4.1.gz dom0_mem=1G\n"
            b" module /vmlinuz-2.6-xen ro root=/dev/sda1\n module /initrd-2.6-xen.img\n"
        },
        [("/boot/grub/menu.lst", 3, "/vmlinuz-2.6-xen", "ro root=/dev/sda1", ("/initrd-2.6-xen.img",))],
    ),
    "extlinux": (
        {
            "/boot/extlinux/extlinux.conf": b"LABEL l\n  KERNEL /boot/vmlinuz\n"
            b"  APPEND initrd=/boot/initrd.img root=LABEL=r ro\n"
        },
        [("/boot/extlinux/extlinux.conf", 2, "/boot/vmlinuz", "root=LABEL=r ro", ("/boot/initrd.img",))],
    ),
    "syslinux with an initrd of its own": (
        {"/boot/syslinux/syslinux.cfg": b"linux ../vmlinuz-linux\nappend root=LABEL=r rw\ninitrd ../a.img,../b.img\n"},
        [("/boot/syslinux/syslinux.cfg", 1, "../vmlinuz-linux", "root=LABEL=r rw", ("../a.img", "../b.img"))],
    ),
    "nothing": ({"/etc/fstab": b""}, []),
    "any bytes": (
        {"/boot/grub/grub.cfg": bytes(range(256)) * 4, "/boot/loader/entries/x.conf": b"linux\ninitrd\n\xff"},
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_started(case):
    files, expected = CASES[case]
    found = [entry for entry in boot_entries(KnownFacts(files=files)) if not entry.rescue]
    assert [(one.config, one.line, one.kernel, " ".join(one.arguments), one.initrds) for one in found] == expected


def test_rescue_entries_are_known():
    entries = boot_entries(KnownFacts(files={"/boot/grub/grub.cfg": GRUB2}))
    assert [entry.rescue for entry in entries] == [False, True]


def test_values_of_arguments():
    files = {"/boot/grub/grub.cfg": b'linux /vmlinuz root="LABEL=a b" console=tty0 console=ttyS0,115200 ro\n'}
    (entry,) = boot_entries(KnownFacts(files=files))
    assert (entry.values("console"), entry.value("console")) == (("tty0", "ttyS0,115200"), "ttyS0,115200")
    assert (entry.value("ro"), entry.value("rootflags")) == (None, None)


def test_a_file_with_two_names_is_one():
    files = {"/boot/grub/menu.lst": b"kernel /vmlinuz ro\n", "/boot/grub/grub.conf": "./menu.lst"}
    assert boot_configs(KnownFacts(files=files)) == ("/boot/grub/menu.lst",)
