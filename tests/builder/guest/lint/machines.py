"""Machines as images are taken of them, each with many faults at once: files, and which rule speaks of what.

The tests make real disks of them. Their files are the healthy guest's with some changed (None: gone).
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.builder.guest.lint import guests

VERSION, MODULES = guests.VERSION, guests.MODULES
INITRD, CONFIG = f"/boot/initrd.img-{VERSION}", f"/boot/config-{VERSION}"
KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n"
HASH = "$6$saltsalt$hashhashhash"
OTHER = "99999999-9999-4999-8999-999999999999"

Files = Mapping[str, bytes | str | None]
# For each target: the rules that speak, with their severity and where; no other does.
Expected = Mapping[str, Mapping[str, tuple[str, str]]]


def files(changed: Files) -> dict[str, bytes | str]:
    """Return the healthy guest's files with these changed, by their names below the root."""
    merged = {**guests.FILES, **changed}
    return {path.lstrip("/"): data for path, data in merged.items() if data is not None}


# A machine that somebody worked on for a while, and that an image was then taken of.
LIVED_IN: Files = {
    "/etc/passwd": b"root:x:0:0::/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\n"
    b"vagrant:x:1001:1001::/home/vagrant:/bin/bash\n",
    "/etc/shadow": f"root:{HASH}:1::::::\ntoor:*:1::::::\nguest::1::::::\nvagrant:{HASH}:1::::::\n".encode(),
    "/etc/ssh/sshd_config": b"PermitRootLogin yes\nPasswordAuthentication yes\n",
    "/etc/cloud/cloud.cfg": b"ssh_pwauth: true\n",
    "/etc/sudoers.d/vagrant": b"vagrant ALL=(ALL) NOPASSWD: ALL\n",
    "/etc/ssh/ssh_host_ed25519_key": KEY,
    "/home/vagrant/.ssh/id_ed25519": KEY,
    "/home/vagrant/.ssh/authorized_keys": b"ssh-ed25519 AAAA vagrant@build\n",
    "/root/.aws/credentials": b"[default]\naws_secret_access_key = hunter2\n",
    "/etc/apt/auth.conf": b"machine x.example login me password hunter2\n",
    "/root/.bash_history": b"mysql -phunter2\n",
    "/etc/machine-id": b"0123456789abcdef0123456789abcdef\n",
    "/var/lib/systemd/random-seed": bytes(512),
    "/var/lib/dhcp/dhclient.eth0.leases": b"lease {}\n",
    "/var/log/auth.log": b"Accepted publickey\n",
    "/tmp/build.sh": b"make\n",
    "/var/cache/apt/archives/x_1_amd64.deb": b"x",
    "/var/lib/cloud/instances/i-1/obj.pkl": b"x",
    "/var/lib/cloud/seed/nocloud/meta-data": b"instance-id: x\n",
    INITRD: b"\x89LZO\0\r\n\x1a\n",
}
LIVED_IN_BREAKS: Expected = {
    "aws": {
        "root-password": ("error", "/etc/shadow:1"),
        "second-root": ("error", "/etc/passwd:2"),
        "empty-password": ("error", "/etc/shadow:3"),
        "user-password": ("warning", "/etc/shadow:4"),
        "sudo-without-password": ("warning", "/etc/sudoers.d/vagrant:1"),
        "ssh-host-keys": ("error", "/etc/ssh/ssh_host_ed25519_key"),
        "private-keys": ("error", "/home/vagrant/.ssh/id_ed25519"),
        "authorized-keys": ("error", "/home/vagrant/.ssh/authorized_keys:1"),
        "cloud-credentials": ("error", "/root/.aws/credentials"),
        "repository-credentials": ("error", "/etc/apt/auth.conf"),
        "shell-history": ("error", "/root/.bash_history"),
        "machine-id": ("warning", "/etc/machine-id"),
        "random-seed": ("warning", "/var/lib/systemd/random-seed"),
        "dhcp-leases": ("warning", "/var/lib/dhcp/dhclient.eth0.leases"),
        "logs": ("warning", "/var/log/auth.log"),
        "temporary-files": ("note", "/tmp/build.sh"),
        "package-cache": ("note", "/var/cache/apt/archives/x_1_amd64.deb"),
        "cloud-init-state": ("warning", "/var/lib/cloud/instances/i-1"),
        "cloud-seed": ("error", "/var/lib/cloud/seed/nocloud/meta-data"),
        "unreadable-initramfs": ("note", INITRD),
    }
}

# A machine of a laboratory: set up for its network, its menu, its clock, and a filesystem that was since made anew.
ELSEWHERE: Files = {
    "/boot/grub/grub.cfg": f"set timeout=-1\nmenuentry 'Debian' {{\nlinux /boot/vmlinuz-{VERSION} root=UUID={OTHER} ro "
    "quiet splash\n}\nmenuentry 'old' {\nlinux /boot/vmlinuz-5.0 root=LABEL=rootfs ro\n}\n".encode(),
    INITRD: None,
    "/etc/fstab": f"UUID={OTHER} / ext4 defaults 0 1\nLABEL=swap none swap sw 0 0\n/dev/sdb /mnt\n".encode(),
    "/etc/network/interfaces": b"auto ens3\niface ens3 inet static\n  address 192.168.7.9\n"
    b"  hwaddress ether 00:16:3e:01:02:03\n",
    "/etc/resolv.conf": b"search lab\nnameserver 192.168.7.1\n",
    "/etc/cloud/cloud.cfg.d/99-lab.cfg": b"network: {config: disabled}\npreserve_hostname: true\n"
    b"datasource_list: [ NoCloud ]\n",
    "/etc/cloud/cloud-init.disabled": b"\n",
    "/etc/apt/apt.conf.d/01proxy": b'Acquire::http::Proxy "http://192.168.7.2:3142";\n',
    "/etc/apt/sources.list": b"deb http://192.168.7.2/debian bookworm main\n",
    "/etc/adjtime": b"0.0 0 0.0\n0\nLOCAL\n",
    "/etc/selinux/config": b"SELINUX=enforcing\nSELINUXTYPE=targeted\n",
}
ELSEWHERE_BREAKS: Expected = {
    "aws": {
        "no-initramfs": ("error", MODULES),
        "boot-entry-broken": ("warning", "/boot/grub/grub.cfg:6"),
        "no-serial-console": ("warning", "/boot/grub/grub.cfg:3"),
        "long-boot-menu": ("error", "/boot/grub/grub.cfg:1"),
        "quiet-boot": ("note", "/boot/grub/grub.cfg:3"),
        "root-mismatch": ("error", "/boot/grub/grub.cfg:3"),
        "fstab-root-mismatch": ("error", "/etc/fstab:1"),
        "swap-on-root-volume": ("note", "/etc/fstab:2"),
        "fstab-broken-line": ("warning", "/etc/fstab:3"),
        "no-dhcp": ("error", "/etc"),
        "static-address": ("warning", "/etc/network/interfaces:3"),
        "fixed-mac": ("error", "/etc/network/interfaces:4"),
        "bus-bound-name": ("warning", "/etc/network/interfaces:1"),
        "static-resolver": ("warning", "/etc/resolv.conf:2"),
        "fixed-hostname": ("note", "/etc/hostname"),
        "cloud-init-disabled": ("error", "/etc/cloud/cloud-init.disabled"),
        "no-ec2-datasource": ("error", "/etc/cloud/cloud.cfg.d/99-lab.cfg:3"),
        "proxy-left": ("warning", "/etc/apt/apt.conf.d/01proxy:1"),
        "private-repository": ("warning", "/etc/apt/sources.list:1"),
        "clock-in-local-time": ("warning", "/etc/adjtime:3"),
        "selinux-without-policy": ("error", "/etc/selinux/config"),
        "selinux-unlabelled": ("error", "/etc/passwd"),
    }
}

# A root that was unpacked onto a disk and never made to boot.
HOLLOW: Files = {
    f"/boot/vmlinuz-{VERSION}": None,
    INITRD: None,
    CONFIG: None,
    f"{MODULES}/modules.dep": None,
    f"{MODULES}/modules.builtin": None,
    "/boot/grub/grub.cfg": None,
    "/usr/bin/cloud-init": None,
    "/etc/cloud/cloud.cfg": None,
    "/usr/bin/growpart": None,
    "/usr/sbin/sshd": None,
    "/usr/sbin/chronyd": None,
    "/etc/hostname": b"localhost\n",
    "/etc/fstab": b"LABEL=rootfs / ext4 defaults 0 1\n",
}
HOLLOW_BREAKS: Expected = {
    "aws": {
        "bios-cannot-boot": ("error", "sector 0"),
        "no-esp": ("note", "the partition table"),
        "damaged-partition-table": ("error", "the partition table"),
        "no-kernel": ("error", "/boot"),
        "no-boot-loader": ("error", "/boot"),
        "no-dhcp": ("error", "/etc"),
        "no-cloud-init": ("warning", "/etc/cloud"),
        "no-sshd": ("warning", "/usr/sbin/sshd"),
        "no-time-service": ("note", "/usr/sbin/chronyd"),
        "root-does-not-grow": ("note", "/usr/bin/growpart"),
        "size-not-whole": ("note", "the disk"),
    }
}

# A system of one cloud on its way to another: a kernel for its old machines, no entry for /, labels not yet made.
MOVED: Files = {
    INITRD: guests.initramfs("x"),
    f"{MODULES}/modules.dep": guests.modules_dep("virtio_blk"),
    CONFIG: b"# CONFIG_XEN is not set\n",
    "/etc/fstab": b"LABEL=UEFI /boot/efi vfat umask=0077,nofail 0 1\n",
    "/etc/selinux/config": b"SELINUX=permissive\n",
    "/.autorelabel": b"",
    "/usr/lib/cloud-init/ds-identify": b"#!/bin/sh\n",
}
_MOVED_ANYWHERE = {
    "firmware-mismatch": ("warning", "the partition table"),
    "fstab-no-root": ("warning", "/etc/fstab"),
    "missing-disk-driver": ("error", MODULES),
    "missing-network-driver": ("error", MODULES),
    "selinux-relabel-pending": ("note", "/.autorelabel"),
}
MOVED_BREAKS: Expected = {
    "aws": _MOVED_ANYWHERE,
    "eucalyptus-xen": _MOVED_ANYWHERE
    | {"ec2-not-recognised": ("error", "/etc/cloud/cloud.cfg"), "no-xen-kernel": ("warning", CONFIG)},
}

# A root that `assemble` has put a disk around: kernel and menu lie on a partition that it mounts nowhere.
ASSEMBLED: Files = {
    f"/boot/vmlinuz-{VERSION}": None,
    INITRD: None,
    "/boot/grub/grub.cfg": None,
    "/etc/fstab": b"LABEL=rootfs / ext4 defaults 0 1\n",
}
