"""The first boot menu."""

from __future__ import annotations

import pytest

from builder.bootstrap import grub
from builder.errors import HostError


def test_the_newest_kernel_is_the_one_with_the_highest_number(system, make_tree):
    text = grub.config(system, make_tree())
    assert "linux /boot/vmlinuz-6.1.0-10-cloud-amd64 root=LABEL=rootfs ro console=tty0 console=ttyS0,115200\n" in text
    assert "initrd /boot/initrd.img-6.1.0-10-cloud-amd64\n" in text


def test_a_system_without_a_kernel_is_refused(system, make_tree, entry):
    with pytest.raises(HostError, match="no kernel was installed"):
        grub.config(system, make_tree(entry("./etc/hostname", b"x")))
