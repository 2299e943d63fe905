"""What `emi inspect` shows of a guest, on plain values."""

from __future__ import annotations

import json
from dataclasses import asdict

from builder.guest.inspect import describe, inspect
from tests.builder.guest.lint import guests

HEALTHY = """\
guest on /dev/sda1: Debian GNU/Linux 12 (bookworm); x86_64, apt packages, systemd init
  filesystem /dev/sda1: ext4, label 'rootfs', UUID 11111111-1111-4111-8111-111111111111
  filesystem /dev/sda15: vfat, label 'UEFI', UUID AE3F-7229
  kernel 6.1.0-13-amd64: /boot/vmlinuz-6.1.0-13-amd64, initramfs /boot/initrd.img-6.1.0-13-amd64
    in the initramfs: virtio_pci, virtio_blk, virtio_net, nvme, ena, xen_blkfront, xen_netfront
    not in this kernel: virtio_scsi, ixgbevf
  boot loader: /boot/grub/grub.cfg, 1 entry
    starts /boot/vmlinuz-6.1.0-13-amd64 root=LABEL=rootfs ro console=tty0 console=ttyS0,115200
  fstab: LABEL=rootfs / ext4 defaults 0 1
  fstab: LABEL=UEFI /boot/efi vfat umask=0077,nofail 0 1
  cloud-init: datasources all of its 0; default user debian
  user root (0): /root, /bin/bash, no password, no keys"""


def test_a_healthy_guest():
    report = inspect(guests.HEALTHY)
    assert describe(report) == HEALTHY
    json.dumps(asdict(report))


def test_what_is_not_there_is_said():
    files = {
        path: None for path in guests.FILES if path.startswith(("/boot/", "/etc/cloud", "/lib/modules", "/etc/fstab"))
    }
    text = describe(inspect(guests.broken(files | {"/usr/bin/cloud-init": None})))
    for line in ("  no kernel", "  no boot loader's configuration", "  fstab: no entries", "  no cloud-init"):
        assert line in text.splitlines()


def test_datasources_users_and_keys():
    text = describe(
        inspect(
            guests.broken(
                {
                    "/etc/cloud/cloud.cfg.d/90_dpkg.cfg": b"datasource_list: [ Ec2, None ]\n",
                    "/usr/lib/cloud-init/ds-identify": b"#!/bin/sh\n",
                    "/etc/cloud/cloud-init.disabled": b"",
                    "/etc/passwd": b"root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n"
                    b"www:x:33:33::/:/bin/sh\n",
                    "/etc/shadow": b"root:$6$x$y:::::::\nme:!:::::::\n",
                    "/root/.ssh/authorized_keys": b"# two\nssh-rsa A\n\nssh-rsa B\n",
                }
            )
        )
    ).splitlines()
    assert (
        "  cloud-init: datasources Ec2, None; switched off; ds-identify decides by the firmware; default user debian"
        in text
    )
    assert "  user root (0): /root, /bin/sh, a password, 2 keys" in text
    assert "  user me (1000): /home/me, /bin/sh, no password, no keys" in text
    assert not any("www" in line for line in text)


def test_one_part_that_cannot_be_told_hides_no_other():
    report = inspect(
        guests.broken({"/etc/cloud/cloud.cfg": b"a: [\n", f"/boot/initrd.img-{guests.VERSION}": b"\x89LZO"})
    )
    text = describe(report).splitlines()
    assert report.cloud is None
    assert any(line.startswith("  not known: /etc/cloud/cloud.cfg in the guest is not YAML") for line in text)
    assert any(line.startswith("    not known: ") and "lzo" in line for line in text)
    assert "  user root (0): /root, /bin/bash, no password, no keys" in text


def test_nothing_that_a_terminal_would_obey_is_shown():
    evil = b"\x1b]0;owned\x07"
    files = {
        "/etc/os-release": b'ID=x\nPRETTY_NAME="' + evil + b'"\n',
        "/etc/fstab": b"LABEL=" + evil + b" / ext4\n",
        "/etc/passwd": b"me:x:1000:1000::/home/" + evil + b":/bin/sh\n",
        "/boot/grub/grub.cfg": b"linux /vmlinuz root=" + evil + b"\n",
    }
    text = describe(inspect(guests.broken(files)))
    assert "owned" in text
    assert all(line.isprintable() for line in text.split("\n"))
