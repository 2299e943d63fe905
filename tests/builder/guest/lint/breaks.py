"""Every rule of lint with guests that break it, as plain values."""

from __future__ import annotations

from dataclasses import replace

from builder.guest.facts import Filesystem
from builder.guest.lint.lint import lint
from builder.guest.lint.rule import Finding
from tests.builder.guest.lint import guests

broken, disk, GIB, MIB = guests.broken, guests.disk, guests.GIB, guests.MIB
VERSION, MODULES, GRUB, ROOT, ESP = guests.VERSION, guests.MODULES, guests.GRUB, guests.ROOT, guests.ESP
BARE = replace(ROOT, device="/dev/sda")
INITRD = f"/boot/initrd.img-{VERSION}"
LINUX = f"linux /boot/vmlinuz-{VERSION} root=LABEL=rootfs ro"
KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n"
NO_CLOUD_NETWORK = {"/etc/cloud/cloud.cfg.d/99-net.cfg": b"network: {config: disabled}\n"}
CONTEXTS = "/etc/selinux/targeted/contexts/files/file_contexts"
RELABEL = "/usr/lib/systemd/system/selinux-autorelabel.service"
POLICY = "/etc/selinux/targeted/policy/policy.33"
LABELS = {(path, "security.selinux"): b"system_u:object_r:etc_t:s0" for path in guests.FILES if "shadow" not in path}
NETPLAN = (
    b"network:\n  ethernets:\n    eth0:\n      match:\n        macaddress: '00:16:3e:01:02:03'\n      dhcp4: true\n"
)
POLICIES = dict.fromkeys((POLICY, CONTEXTS, RELABEL), b"x")
UDEV = "/etc/udev/rules.d/70-persistent-net.rules"
DHCP = NO_CLOUD_NETWORK | {"/etc/network/interfaces": b"auto eth0\niface eth0 inet dhcp\n"}
SSH = {"/etc/cloud/cloud.cfg": b"ssh_pwauth: true\n", "/etc/ssh/sshd_config": b"PermitRootLogin yes\n"}
SERVICE = {"/etc/passwd": b"root:x:0:0::/root:/bin/sh\nci:x:998:998::/var/lib/ci:/usr/sbin/nologin\n"}
SHADOW = "root:$6$saltsalt$hashhashhash:19000:0:99999:7:::\n"


def fstab(*lines: str) -> dict[str, bytes]:
    return {"/etc/fstab": "".join(f"{line}\n" for line in lines).encode()}


def grub(line: str, *more: str) -> dict[str, bytes]:
    return {"/boot/grub/grub.cfg": "\n".join([*more, "menuentry 'x' {", line, f"initrd {INITRD}", "}", ""]).encode()}


# A root without a label whose kernel lies in a /boot of its own: what the steps around a new disk have most to do with.
APART = {
    "filesystems": (replace(ROOT, label=""), ESP, Filesystem(device="/dev/sda2", type="ext4", uuid="2-2")),
    "root": "/dev/sda1",
}
NAMED = fstab(f"UUID={ROOT.uuid} / ext4 defaults 0 1", "UUID=2-2 /boot ext4 defaults 0 2", "LABEL=UEFI /boot/efi vfat")
BARE_DISK = {"disk": b"", "filesystems": (BARE,), "root": "/dev/sda"}
# rule, target, guest, the worst severity and some words of what is found, and where
BREAKS = [
    ("bios-cannot-boot", "aws", broken(disk=disk(core=b"", loaders=())), "error", "holds no boot code", "sector 0"),
    ("bios-cannot-boot", "aws", broken(disk=disk(core=b"")), "note", "UEFI only", "sector 0"),
    ("bios-cannot-boot", "qemu", broken(disk=disk(core=b"")), "warning", "UEFI only", "sector 0"),
    ("bios-cannot-boot", "eucalyptus-kvm", broken(disk=disk(core=bytes(16))), "error", "which is empty", "sector 0"),
    ("bios-cannot-boot", "aws", broken(NAMED, **APART, disk=disk(core=b"", loaders=())), "error", "holds no boot code",
     "sector 0"),
    ("no-esp", "aws", broken(NAMED, **APART, disk=disk(esp=False)), "note", "UEFI only cannot be used", "the part"),
    ("esp-without-loader", "aws", broken(NAMED, **APART, disk=disk(loaders=(), core=b"")), "error", "has no EFI/BOOT",
     "partition 15"),
    ("firmware-mismatch", "aws", broken(NAMED, **APART, disk=disk(bios=False)), "warning", "BIOS boot", "the part"),
    ("no-boot-loader", "aws", broken(NAMED | {"/boot/grub/grub.cfg": None}, **APART, disk=disk(loaders=())), "error",
     "no boot loader", "/boot"),
    ("no-partition-table", "aws", broken(disk=b"", filesystems=(replace(BARE, label=""),), root="/dev/sda"), "error",
     "nothing starts it", "the disk"),
    ("no-esp", "aws", broken(disk=disk(esp=False)), "note", "UEFI only cannot be used", "the partition table"),
    ("no-esp", "qemu", broken({"/usr/bin/true": guests.elf(183)}, disk=disk(esp=False)), "error", "an ARM machine",
     "the partition table"),
    ("esp-without-loader", "aws", broken(disk=disk(loaders=())), "warning", "has no EFI/BOOT", "partition 15"),
    ("esp-without-loader", "aws", broken(disk=disk(loaders=("EFI/DEBIAN/GRUBX64.EFI",), core=b"")), "error",
     "there are EFI/DEBIAN/GRUBX64.EFI", "partition 15"),
    ("firmware-mismatch", "aws", broken(disk=disk(bios=False)), "warning", "without a BIOS boot partition", "the part"),
    ("no-partition-table", "aws", broken(**BARE_DISK), "error", "nothing starts it", "the disk"),
    ("no-partition-table", "qemu", broken(**BARE_DISK), "note", "needs -kernel", "the disk"),
    ("damaged-partition-table", "aws", broken(disk=disk(root_size=GIB)), "error", "not lie on the disk", "the part"),
    ("unclean-filesystem", "aws", broken(filesystems=(replace(ROOT, unclean="it was not unmounted"), ESP)), "warning",
     "on /dev/sda1: it was not unmounted", "/dev/sda1"),
    ("unclean-filesystem", "aws", broken(filesystems=(replace(ROOT, unclean="errors: some"), ESP)), "error",
     "errors: some", "/dev/sda1"),
    ("disk-larger-than-needed", "aws", broken(disk=disk(size=8 * GIB), disk_size=8 * GIB), "warning", "ends at", "the"),
    ("disk-larger-than-volume", "aws", broken(disk=disk(size=8 * GIB), disk_size=8 * GIB), "error",
     "has 8 GiB, its volume is to have 1 GiB", "the disk"),
    ("disk-larger-than-volume", "eucalyptus-kvm", broken(disk=disk(size=8 * GIB, root_size=7 * GIB), disk_size=8 * GIB),
     "error", "its volume is to have 1 GiB", "the disk"),
    ("size-not-whole", "aws", broken(disk=disk(size=GIB + MIB), disk_size=GIB + MIB), "note", "whole number", "the d"),
    ("no-kernel", "aws", broken({f"/boot/vmlinuz-{VERSION}": None}), "error", "there is no kernel", "/boot"),
    ("no-kernel", "aws", broken({f"/boot/vmlinuz-{VERSION}": b""}), "error", "is empty", "/boot"),
    ("no-kernel", "eucalyptus-xen", broken({f"/boot/vmlinuz-{VERSION}": None}), "note", "of the cloud's", "/boot"),
    ("no-initramfs", "aws", broken({INITRD: None}), "error", f"{VERSION}, has no initramfs", MODULES),
    ("no-initramfs", "aws", broken({INITRD: None, "/usr/sbin/mkinitramfs": b"#!/bin/sh\n"}), "error", "no initramfs",
     MODULES),
    ("no-boot-loader", "aws", broken({"/boot/grub/grub.cfg": None}, disk=disk(loaders=())), "error", "no boot loader",
     "/boot"),
    ("boot-entry-broken", "aws", broken(grub("linux /boot/vmlinuz-5.0 root=LABEL=rootfs console=ttyS0")), "error",
     "starts /boot/vmlinuz-5.0", "/boot/grub/grub.cfg:2"),
    ("boot-entry-broken", "aws", broken({INITRD: None}), "error", f"starts {INITRD}", "/boot/grub/grub.cfg:3"),
    ("no-serial-console", "aws", broken(grub(f"{LINUX} console=tty0")), "warning", "no console=ttyS0",
     "/boot/grub/grub.cfg:2"),
    ("no-serial-console", "eucalyptus-xen", broken(grub(f"{LINUX} console=tty0")), "warning", "no console", "/boot"),
    ("long-boot-menu", "aws", broken(grub(f"{LINUX} console=ttyS0", "set timeout=30")), "warning", "waits 30 s",
     "/boot/grub/grub.cfg:1"),
    ("long-boot-menu", "aws", broken(grub(f"{LINUX} console=ttyS0", "set timeout=-1")), "error", "for ever", "/boot"),
    ("quiet-boot", "aws", broken(grub(f"{LINUX} console=ttyS0 quiet splash")), "note", "quiet and splash", "/boot"),
    ("fstab-unstable-device", "aws", broken(fstab("/dev/sda1 / ext4 defaults 0 1")), "error", "by /dev/sda1",
     "/etc/fstab:1"),
    ("fstab-unstable-device", "aws",
     broken(fstab("LABEL=rootfs / ext4", "/dev/disk/by-path/pci-0000:00:04.0 /data xfs nofail")), "warning", "by-path",
     "/etc/fstab:2"),
    ("fstab-root-mismatch", "aws", broken(fstab("UUID=99999999-9999-4999-8999-999999999999 / ext4")), "error",
     "nothing on this disk", "/etc/fstab:1"),
    ("fstab-root-mismatch", "aws", broken(fstab("LABEL=UEFI / ext4")), "error", "which is /dev/sda15", "/etc/fstab:1"),
    ("fstab-absent-device", "aws", broken(fstab("LABEL=rootfs / ext4", "UUID=9 /data xfs defaults")), "error",
     "/data needs UUID=9", "/etc/fstab:2"),
    ("fstab-absent-device", "aws", broken(fstab("LABEL=rootfs / ext4", "/dev/sdb /mnt auto defaults")), "error",
     "/mnt needs /dev/sdb", "/etc/fstab:2"),
    ("fstab-absent-device", "aws", broken(fstab("LABEL=rootfs / ext4", "UUID=9 none swap sw")), "warning", "waits 90 s",
     "/etc/fstab:2"),
    ("fstab-broken-line", "aws", broken(fstab("LABEL=rootfs / ext4", "/dev/sdb /mnt")), "warning", "three fields",
     "/etc/fstab:2"),
    ("fstab-no-root", "aws", broken(fstab("tmpfs /tmp tmpfs")), "warning", "may stay read-only", "/etc/fstab"),
    ("fstab-no-root", "aws", broken(fstab("# none"), filesystems=(replace(ROOT, label=""), ESP)), "warning",
     "may stay read-only", "/etc/fstab"),
    ("fstab-absent-device", "aws", broken(fstab("LABEL=rootfs / ext4", "LABEL=UEFI /efi vfat", "UUID=9 /data xfs")),
     "error", "/data needs UUID=9", "/etc/fstab:3"),
    ("root-unstable-device", "aws", broken(grub(f"linux /boot/vmlinuz-{VERSION} root=/dev/sda1 ro console=ttyS0")),
     "error", "root=/dev/sda1", "/boot/grub/grub.cfg:2"),
    ("root-unstable-device", "aws", broken(grub(f"linux /boot/vmlinuz-{VERSION} root=/dev/vda1 console=ttyS0"),
     filesystems=(replace(ROOT, label=""), ESP)), "error", "root=/dev/vda1", "/boot/grub/grub.cfg:2"),
    ("root-mismatch", "aws", broken(grub(f"linux /boot/vmlinuz-{VERSION} root=LABEL=old console=ttyS0"),
     filesystems=(replace(ROOT, label=""), ESP)), "error", "nothing on this disk", "/boot/grub/grub.cfg:2"),
    ("root-mismatch", "aws", broken(grub(f"linux /boot/vmlinuz-{VERSION} root=UUID=99 ro console=ttyS0")), "error",
     "nothing on this disk is that", "/boot/grub/grub.cfg:2"),
    ("duplicate-name", "aws", broken(filesystems=(ROOT, ESP, replace(ROOT, device="/dev/sda2"))), "error",
     "2 filesystems have the label rootfs: /dev/sda1, /dev/sda2", "/etc/fstab"),
    ("swap-on-root-volume", "aws", broken(fstab("LABEL=rootfs / ext4", "LABEL=swap none swap sw"),
     filesystems=(ROOT, ESP, Filesystem(device="/dev/sda2", type="swap", label="swap"))), "note", "/dev/sda2",
     "/etc/fstab:2"),
    ("missing-disk-driver", "aws", broken({INITRD: guests.initramfs("ena", "virtio_blk")}), "error",
     "the driver nvme is not in the initramfs", INITRD),
    ("missing-disk-driver", "eucalyptus-kvm", broken({INITRD: guests.initramfs("virtio_pci")}), "error", "virtio_blk",
     INITRD),
    ("missing-disk-driver", "eucalyptus-xen", broken({INITRD: guests.initramfs("nvme")}), "error", "xen_blkfront",
     INITRD),
    ("missing-disk-driver", "aws", broken({INITRD: guests.initramfs("x"), f"{MODULES}/modules.dep":
     guests.modules_dep("ena")}), "error", "has no driver nvme", MODULES),
    ("missing-network-driver", "aws", broken({f"{MODULES}/modules.dep": guests.modules_dep("nvme"),
     INITRD: guests.initramfs("nvme")}), "error", "has no driver ena", MODULES),
    ("unreadable-initramfs", "aws", broken({INITRD: b"\x89LZO\0\r\n\x1a\n"}), "note", "lzo", INITRD),
    ("no-xen-kernel", "eucalyptus-xen", broken({f"/boot/config-{VERSION}": b"# CONFIG_XEN is not set\n"}), "warning",
     "not built for Xen", f"/boot/config-{VERSION}"),
    ("no-xen-kernel", "eucalyptus-xen", broken({f"/boot/config-{VERSION}": None}), "note", "not known", ""),
    ("no-dhcp", "aws", broken(NO_CLOUD_NETWORK), "error", "by DHCP", "/etc"),
    ("static-address", "aws", broken({"/etc/network/interfaces": b"iface eth0 inet static\n  address 192.168.7.9\n"}),
     "warning", "fixed address", "/etc/network/interfaces:2"),
    ("static-address", "aws", broken({"/etc/netplan/01.yaml": b"network:\n  ethernets:\n    eth0:\n      addresses:\n"
     b"        - 192.168.7.9/24\n"}), "warning", "fixed address", "/etc/netplan/01.yaml:5"),
    ("static-address", "aws", broken({"/etc/sysconfig/network-scripts/ifcfg-eth0": b'IPADDR="192.168.7.9"\n'}),
     "warning", "fixed address", "/etc/sysconfig/network-scripts/ifcfg-eth0:1"),
    ("fixed-mac", "aws", broken({UDEV: b'# net\nSUBSYSTEM=="net", ATTR{address}=="00:16:3e:01:02:03", NAME="eth0"\n'}),
     "error", "MAC", f"{UDEV}:2"),
    ("fixed-mac", "aws", broken({"/etc/sysconfig/network-scripts/ifcfg-eth0": b"HWADDR=00:16:3E:01:02:03\n"}), "error",
     "MAC", "/etc/sysconfig/network-scripts/ifcfg-eth0:1"),
    ("fixed-mac", "aws", broken({"/etc/netplan/01.yaml": NETPLAN}),
     "error", "MAC", "/etc/netplan/01.yaml:5"),
    ("bus-bound-name", "aws", broken(DHCP | {"/etc/network/interfaces": b"auto ens3\niface ens3 inet dhcp\n"}),
     "warning", "the card ens3", "/etc/network/interfaces:1"),
    ("static-address", "aws", broken({"/etc/network/interfaces": b"iface eth0 inet static\n  address 10.127.0.9\n"}),
     "warning", "fixed address", "/etc/network/interfaces:2"),
    ("bus-bound-name", "aws", broken(NO_CLOUD_NETWORK | {"/etc/systemd/network/x.network": b"[Match]\nName=ens3\n\n"
     b"[Network]\nDHCP=yes\n"}), "warning", "the card ens3", "/etc/systemd/network/x.network:2"),
    ("static-resolver", "aws", broken({"/etc/resolv.conf": b"search lab\nnameserver 192.168.7.1\n"}), "warning",
     "name servers", "/etc/resolv.conf:2"),
    ("fixed-hostname", "aws", broken({"/etc/cloud/cloud.cfg.d/x.cfg": b"preserve_hostname: true\n"}), "note",
     "told to preserve it", "/etc/hostname"),
    ("no-cloud-init", "aws", broken({"/usr/bin/cloud-init": None, "/etc/cloud/cloud.cfg": None}), "warning", "neither",
     "/etc/cloud"),
    ("cloud-init-disabled", "aws", broken({"/etc/cloud/cloud-init.disabled": b""}), "error", "switched off",
     "/etc/cloud/cloud-init.disabled"),
    ("cloud-init-disabled", "aws", broken({"/etc/systemd/system/cloud-init.service": "/dev/null"}), "error",
     "switched off", "/etc/systemd/system/cloud-init.service"),
    ("cloud-init-disabled", "aws", broken(grub(f"{LINUX} console=ttyS0 cloud-init=disabled")), "error", "command line",
     "/etc/default/grub"),
    ("no-ec2-datasource", "aws", broken({"/etc/cloud/cloud.cfg.d/90_dpkg.cfg": b"# x\ndatasource_list: [ NoCloud ]\n"}),
     "error", "for NoCloud, and not for Ec2", "/etc/cloud/cloud.cfg.d/90_dpkg.cfg:2"),
    ("ec2-not-recognised", "eucalyptus-kvm", broken({"/usr/lib/cloud-init/ds-identify": b"#!/bin/sh\n"}), "error",
     "switches cloud-init off", "/etc/cloud/cloud.cfg"),
    ("cloud-init-state", "aws", broken({"/var/lib/cloud/instances/i-1/obj.pkl": b"x"}), "warning", "1 traces",
     "/var/lib/cloud/instances/i-1"),
    ("cloud-seed", "aws", broken({"/var/lib/cloud/seed/nocloud-net/meta-data": b"instance-id: x\n"}), "error",
     "takes the place", "/var/lib/cloud/seed/nocloud-net/meta-data"),
    ("root-does-not-grow", "aws", broken({"/usr/bin/growpart": None}), "note", "growpart", "/usr/bin/growpart"),
    ("root-password", "aws", broken(SSH | {"/etc/shadow": SHADOW.encode()}), "error", "sshd lets it in",
     "/etc/shadow:1"),
    ("root-password", "aws", broken({"/etc/shadow": SHADOW.encode()}), "warning", "console", "/etc/shadow:1"),
    ("empty-password", "aws", broken({"/etc/shadow": b"root::19000::::::\n"}), "error", "without a password",
     "/etc/shadow:1"),
    ("user-password", "aws", broken(SSH | {"/etc/passwd": b"root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh\n",
     "/etc/shadow": SHADOW.replace("root", "me").encode()}), "warning", "me has a password", "/etc/shadow:1"),
    ("second-root", "aws", broken({"/etc/passwd": b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n"}), "error",
     "toor is root", "/etc/passwd:2"),
    ("sudo-without-password", "aws", broken({"/etc/passwd": b"vagrant:x:1000:1000::/home/vagrant:/bin/bash\n",
     "/etc/sudoers.d/vagrant": b"vagrant ALL=(ALL) NOPASSWD: ALL\n"}), "warning", "vagrant becomes root",
     "/etc/sudoers.d/vagrant:1"),
    ("no-sshd", "aws", broken({"/usr/sbin/sshd": None}), "warning", "no sshd", "/usr/sbin/sshd"),
    ("ssh-host-keys", "aws", broken({"/etc/ssh/ssh_host_rsa_key": KEY}), "error", "1 private host keys",
     "/etc/ssh/ssh_host_rsa_key"),
    ("private-keys", "aws", broken({"/home/me/.ssh/id_rsa": KEY}), "error", "a private key", "/home/me/.ssh/id_rsa"),
    ("private-keys", "aws", broken({"/etc/ssl/private/ssl-cert-snakeoil.key": KEY}), "warning", "the same key",
     "/etc/ssl/private/ssl-cert-snakeoil.key"),
    ("private-keys", "aws", broken(SERVICE | {"/var/lib/ci/.ssh/id_rsa": KEY}), "error", "a private key",
     "/var/lib/ci/.ssh/id_rsa"),
    ("ssh-host-keys", "aws", broken({"/etc/dropbear/dropbear_rsa_host_key": b"x"}), "error", "keys of dropbear",
     "/etc/dropbear/dropbear_rsa_host_key"),
    ("cloud-credentials", "aws", broken({"/root/.aws/credentials": b"[default]\naws_secret_access_key = x\n"}), "error",
     "credentials", "/root/.aws/credentials"),
    ("cloud-credentials", "aws", broken({"/home/me/.euca/me.ini": b"[user me]\nsecret-key = x\n"}), "error",
     "credentials", "/home/me/.euca/me.ini"),
    ("repository-credentials", "aws", broken({"/etc/apt/sources.list": b"deb https://me:hunter2@x.example/ x main\n"}),
     "error", "a password", "/etc/apt/sources.list:1"),
    ("repository-credentials", "aws", broken({"/etc/apt/auth.conf": b"machine x.example login me password hunter2\n"}),
     "error", "passwords", "/etc/apt/auth.conf"),
    ("shell-history", "aws", broken({"/root/.bash_history": b"mysql -phunter2\n"}), "error", "typed",
     "/root/.bash_history"),
    ("authorized-keys", "aws", broken({"/home/me/.ssh/authorized_keys": b"# mine\nssh-ed25519 AAAA me@build\n"}),
     "error", "every instance as me", "/home/me/.ssh/authorized_keys:2"),
    ("authorized-keys", "aws", broken({"/etc/ssh/authorized_keys/ann": b"ssh-ed25519 AAAA ann@build\n"}), "error",
     "every instance as ann", "/etc/ssh/authorized_keys/ann:1"),
    ("authorized-keys", "aws", broken(SERVICE | {"/var/lib/ci/.ssh/authorized_keys": b"ssh-ed25519 AAAA me@build\n"}),
     "error", "every instance as ci", "/var/lib/ci/.ssh/authorized_keys:1"),
    ("machine-id", "aws", broken({"/etc/machine-id": b"0123456789abcdef0123456789abcdef\n"}), "warning", "identity",
     "/etc/machine-id"),
    ("random-seed", "aws", broken({"/var/lib/systemd/random-seed": bytes(512)}), "warning", "random",
     "/var/lib/systemd/random-seed"),
    ("dhcp-leases", "aws", broken({"/var/lib/dhcp/dhclient.eth0.leases": b"lease {}\n"}), "warning", "1 files",
     "/var/lib/dhcp/dhclient.eth0.leases"),
    ("logs", "aws", broken({"/var/log/auth.log": b"Accepted publickey\n"}), "warning", "1 files", "/var/log/auth.log"),
    ("logs", "aws", broken({"/var/log/dpkg.log": b"install x\n"}), "note", "1 files", "/var/log/dpkg.log"),
    ("temporary-files", "aws", broken({"/tmp/build.sh": b"x"}), "note", "1 temporary files", "/tmp/build.sh"),
    ("package-cache", "aws", broken({"/var/cache/apt/archives/x_1_amd64.deb": b"x"}), "note", "1 fetched", "/var"),
    ("proxy-left", "aws", broken({"/etc/apt/apt.conf.d/01proxy": b'Acquire::http::Proxy "http://10.0.0.1:3142";\n'}),
     "warning", "a proxy", "/etc/apt/apt.conf.d/01proxy:1"),
    ("private-repository", "aws", broken({"/etc/apt/sources.list": b"deb http://192.168.1.2/debian bookworm main\n"}),
     "warning", "cannot reach", "/etc/apt/sources.list:1"),
    ("private-repository", "aws", broken({"/etc/apt/sources.list.d/lab.list": b"deb http://10.1.2.3/lab x main\n"}),
     "warning", "cannot reach", "/etc/apt/sources.list.d/lab.list:1"),
    ("clock-in-local-time", "aws", broken({"/etc/adjtime": b"0.0 0 0.0\n0\nLOCAL\n"}), "warning", "local time",
     "/etc/adjtime:3"),
    ("no-time-service", "aws", broken({"/usr/sbin/chronyd": None}), "note", "its clock", "/usr/sbin/chronyd"),
    ("selinux-without-policy", "aws", broken({"/etc/selinux/config": b"SELINUX=enforcing\nSELINUXTYPE=targeted\n"}),
     "error", "targeted is not installed", "/etc/selinux/config"),
    ("selinux-unlabelled", "aws", broken({"/etc/selinux/config": b"SELINUX=enforcing\n", **POLICIES},
     attributes=LABELS),
     "error", "/etc/shadow has no label", "/etc/shadow"),
    ("selinux-relabel-pending", "aws", broken({"/etc/selinux/config": b"SELINUX=permissive\n", "/.autorelabel": b""}),
     "note", "relabels", "/.autorelabel"),
]  # fmt: skip


def told(row: tuple) -> tuple[Finding, ...]:
    """Return what lint says of that guest, for its target; for the rule on volumes, with one of 1 GiB."""
    rule, target, facts, *_ = row
    return lint(facts, target, volume_size=GIB if rule == "disk-larger-than-volume" else None)
