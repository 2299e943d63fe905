"""Which kernel a guest has: its names as the distributions write them, read from plain facts."""

import pytest

from builder.guest.facts import KnownFacts
from builder.guest.kernels import choose, find

K = b"kernel"
R = b"initramfs"
MACHINE = "0123456789abcdef0123456789abcdef"
EL8 = "4.18.0-553.16.1.el8_10.x86_64"

# Name: files of the guest (text: a link's target), what is wanted, kernel, ramdisk.
GUESTS = {
    "debian": (
        {
            "/boot/vmlinuz-6.1.0-9-amd64": K,
            "/boot/initrd.img-6.1.0-9-amd64": R,
            "/boot/vmlinuz-6.1.0-10-amd64": K,
            "/boot/initrd.img-6.1.0-10-amd64": R,
            "/boot/System.map-6.1.0-10-amd64": b"ffffffff81000000 T _text",
            "/boot/config-6.1.0-10-amd64": b"CONFIG_X86_64=y",
            "/vmlinuz": "boot/vmlinuz-6.1.0-10-amd64",
            "/initrd.img": "boot/initrd.img-6.1.0-10-amd64",
        },
        None,
        "/boot/vmlinuz-6.1.0-10-amd64",
        "/boot/initrd.img-6.1.0-10-amd64",
    ),
    "debian, the older one": (
        {
            "/boot/vmlinuz-6.1.0-9-amd64": K,
            "/boot/initrd.img-6.1.0-9-amd64": R,
            "/boot/vmlinuz-6.1.0-10-amd64": K,
            "/boot/initrd.img-6.1.0-10-amd64": R,
        },
        "6.1.0-9-amd64",
        "/boot/vmlinuz-6.1.0-9-amd64",
        "/boot/initrd.img-6.1.0-9-amd64",
    ),
    "debian, two flavours, the link tells": (
        {
            "/boot/vmlinuz-6.1.0-18-amd64": K,
            "/boot/initrd.img-6.1.0-18-amd64": R,
            "/boot/vmlinuz-6.1.0-18-cloud-amd64": K,
            "/boot/initrd.img-6.1.0-18-cloud-amd64": R,
            "/vmlinuz": "boot/vmlinuz-6.1.0-18-cloud-amd64",
        },
        None,
        "/boot/vmlinuz-6.1.0-18-cloud-amd64",
        "/boot/initrd.img-6.1.0-18-cloud-amd64",
    ),
    "debian on ppc64": (
        {"/boot/vmlinux-6.1.0-10-powerpc64le": K, "/boot/initrd.img-6.1.0-10-powerpc64le": R},
        None,
        "/boot/vmlinux-6.1.0-10-powerpc64le",
        "/boot/initrd.img-6.1.0-10-powerpc64le",
    ),
    "debian, a half-removed kernel left an empty name": (
        {
            "/boot/vmlinuz-6.1.0-11-amd64": b"",
            "/boot/initrd.img-6.1.0-11-amd64": R,
            "/boot/vmlinuz-6.1.0-10-amd64": K,
            "/boot/initrd.img-6.1.0-10-amd64": R,
        },
        None,
        "/boot/vmlinuz-6.1.0-10-amd64",
        "/boot/initrd.img-6.1.0-10-amd64",
    ),
    "ubuntu": (
        {
            "/boot/vmlinuz-6.8.0-31-generic": K,
            "/boot/initrd.img-6.8.0-31-generic": R,
            "/boot/vmlinuz-6.8.0-106-generic": K,
            "/boot/initrd.img-6.8.0-106-generic": R,
            "/boot/vmlinuz": "vmlinuz-6.8.0-106-generic",
            "/boot/vmlinuz.old": "vmlinuz-6.8.0-31-generic",
            "/boot/initrd.img": "initrd.img-6.8.0-106-generic",
        },
        None,
        "/boot/vmlinuz-6.8.0-106-generic",
        "/boot/initrd.img-6.8.0-106-generic",
    ),
    "el8 with BLS, rescue and kdump": (
        {
            f"/boot/vmlinuz-{EL8}": K,
            f"/boot/.vmlinuz-{EL8}.hmac": b"0123",
            f"/boot/initramfs-{EL8}.img": R,
            f"/boot/initramfs-{EL8}kdump.img": R,
            f"/boot/vmlinuz-0-rescue-{MACHINE}": K,
            f"/boot/initramfs-0-rescue-{MACHINE}.img": R,
            f"/boot/loader/entries/{MACHINE}-{EL8}.conf": f"""\
title AlmaLinux ({EL8}) 8.10 (Cerulean Leopard)
version {EL8}
linux /boot/vmlinuz-{EL8}
initrd /boot/initramfs-{EL8}.img $tuned_initrd
options $kernelopts $tuned_params
""".encode(),
            f"/boot/loader/entries/{MACHINE}-0-rescue.conf": f"""\
version 0-rescue-{MACHINE}
linux /boot/vmlinuz-0-rescue-{MACHINE}
initrd /boot/initramfs-0-rescue-{MACHINE}.img
""".encode(),
            f"/lib/modules/{EL8}/vmlinuz": K,
        },
        None,
        f"/boot/vmlinuz-{EL8}",
        f"/boot/initramfs-{EL8}.img",
    ),
    "fedora with a /boot of its own: the entries' paths begin there": (
        {
            "/boot/vmlinuz-6.5.6-300.fc39.x86_64": K,
            "/boot/initramfs-6.5.6-300.fc39.x86_64.img": R,
            "/boot/loader/entries/a.conf": b"linux /vmlinuz-6.5.6-300.fc39.x86_64\n"
            b"initrd /initramfs-6.5.6-300.fc39.x86_64.img\n",
        },
        None,
        "/boot/vmlinuz-6.5.6-300.fc39.x86_64",
        "/boot/initramfs-6.5.6-300.fc39.x86_64.img",
    ),
    "fedora, kernel-install's own layout": (
        {
            f"/efi/{MACHINE}/6.7.0-68.fc40.x86_64/linux": K,
            f"/efi/{MACHINE}/6.7.0-68.fc40.x86_64/initrd": R,
            f"/efi/loader/entries/{MACHINE}-6.7.0-68.fc40.x86_64.conf": f"""\
# Boot Loader Specification type#1 entry
title      Fedora Linux 40
version    6.7.0-68.fc40.x86_64
linux      /{MACHINE}/6.7.0-68.fc40.x86_64/linux
initrd     /{MACHINE}/6.7.0-68.fc40.x86_64/initrd
""".encode(),
        },
        None,
        f"/efi/{MACHINE}/6.7.0-68.fc40.x86_64/linux",
        f"/efi/{MACHINE}/6.7.0-68.fc40.x86_64/initrd",
    ),
    "fedora coreos": (
        {
            "/boot/ostree/fedora-coreos-0a1b/vmlinuz-6.6.7-200.fc39.x86_64": K,
            "/boot/ostree/fedora-coreos-0a1b/initramfs-6.6.7-200.fc39.x86_64.img": R,
            "/boot/loader/entries/ostree-1-fedora-coreos.conf": b"title Fedora CoreOS (ostree:0)\nversion 1\n"
            b"linux /ostree/fedora-coreos-0a1b/vmlinuz-6.6.7-200.fc39.x86_64\n"
            b"initrd /ostree/fedora-coreos-0a1b/initramfs-6.6.7-200.fc39.x86_64.img\n",
        },
        "6.6.7*",
        "/boot/ostree/fedora-coreos-0a1b/vmlinuz-6.6.7-200.fc39.x86_64",
        "/boot/ostree/fedora-coreos-0a1b/initramfs-6.6.7-200.fc39.x86_64.img",
    ),
    "el9, the kernel only beside its modules": (
        {
            "/lib/modules/5.14.0-427.el9.x86_64/vmlinuz": K,
            "/lib/modules/5.14.0-427.el9.x86_64/modules.dep": b"",
            "/boot/initramfs-5.14.0-427.el9.x86_64.img": R,
        },
        None,
        "/lib/modules/5.14.0-427.el9.x86_64/vmlinuz",
        "/boot/initramfs-5.14.0-427.el9.x86_64.img",
    ),
    "bootc, kernel and initramfs beside the modules": (
        {
            "/lib/modules/5.14.0-427.el9.x86_64/vmlinuz": K,
            "/lib/modules/5.14.0-427.el9.x86_64/initramfs.img": R,
        },
        None,
        "/lib/modules/5.14.0-427.el9.x86_64/vmlinuz",
        "/lib/modules/5.14.0-427.el9.x86_64/initramfs.img",
    ),
    "fedora, the debug kernel is not meant": (
        {
            "/boot/vmlinuz-6.5.6-300.fc39.x86_64": K,
            "/boot/initramfs-6.5.6-300.fc39.x86_64.img": R,
            "/boot/vmlinuz-6.5.6-300.fc39.x86_64+debug": K,
            "/boot/initramfs-6.5.6-300.fc39.x86_64+debug.img": R,
        },
        None,
        "/boot/vmlinuz-6.5.6-300.fc39.x86_64",
        "/boot/initramfs-6.5.6-300.fc39.x86_64.img",
    ),
    "el5": (
        {
            "/boot/vmlinuz-2.6.18-398.el5": K,
            "/boot/initrd-2.6.18-398.el5.img": R,
            "/boot/vmlinuz-2.6.18-398.el5xen": K,
            "/boot/initrd-2.6.18-398.el5xen.img": R,
            "/boot/xen.gz-2.6.18-398.el5": b"hypervisor",
            "/boot/initrd-2.6.18-398.el5kdump.img": R,
            "/boot/symvers-2.6.18-398.el5.gz": b"x",
        },
        None,
        "/boot/vmlinuz-2.6.18-398.el5",
        "/boot/initrd-2.6.18-398.el5.img",
    ),
    "el5, the newest for xen": (
        {
            "/boot/vmlinuz-2.6.18-398.el5xen": K,
            "/boot/initrd-2.6.18-398.el5xen.img": R,
            "/boot/vmlinuz-2.6.18-419.el5xen": K,
            "/boot/initrd-2.6.18-419.el5xen.img": R,
            "/boot/vmlinuz-2.6.18-420.el5": K,
            "/boot/initrd-2.6.18-420.el5.img": R,
        },
        "2.6.18-*xen",
        "/boot/vmlinuz-2.6.18-419.el5xen",
        "/boot/initrd-2.6.18-419.el5xen.img",
    ),
    "sles": (
        {
            "/boot/vmlinuz-5.14.21-150500.55.62-default": K,
            "/boot/.vmlinuz-5.14.21-150500.55.62-default.hmac": b"0",
            "/boot/initrd-5.14.21-150500.55.62-default": R,
            "/boot/initrd-5.14.21-150500.55.62-default-kdump": R,
            "/boot/vmlinux-5.14.21-150500.55.62-default.gz": b"symbols",
            "/boot/vmlinuz": "vmlinuz-5.14.21-150500.55.62-default",
            "/boot/initrd": "initrd-5.14.21-150500.55.62-default",
        },
        None,
        "/boot/vmlinuz-5.14.21-150500.55.62-default",
        "/boot/initrd-5.14.21-150500.55.62-default",
    ),
    "sles on arm": (
        {"/boot/Image-6.4.0-150600.21-default": K, "/boot/initrd-6.4.0-150600.21-default": R},
        None,
        "/boot/Image-6.4.0-150600.21-default",
        "/boot/initrd-6.4.0-150600.21-default",
    ),
    "sles on s390x": (
        {"/boot/image-6.4.0-150600.21-default": K, "/boot/initrd-6.4.0-150600.21-default": R},
        None,
        "/boot/image-6.4.0-150600.21-default",
        "/boot/initrd-6.4.0-150600.21-default",
    ),
    "tumbleweed, links into /usr": (
        {
            "/boot/vmlinuz-6.8.1-1-default": "../usr/lib/modules/6.8.1-1-default/vmlinuz",
            "/usr/lib/modules/6.8.1-1-default/vmlinuz": K,
            "/boot/initrd-6.8.1-1-default": R,
            "/boot/vmlinuz-6.7.9-1-default": "../usr/lib/modules/6.7.9-1-default/vmlinuz",
            "/usr/lib/modules/6.7.9-1-default/vmlinuz": K,
            "/boot/initrd-6.7.9-1-default": R,
            "/boot/vmlinuz": "vmlinuz-6.8.1-1-default",
        },
        None,
        "/usr/lib/modules/6.8.1-1-default/vmlinuz",
        "/boot/initrd-6.8.1-1-default",
    ),
    "arch": (
        {
            "/boot/vmlinuz-linux": K,
            "/boot/initramfs-linux.img": R,
            "/boot/initramfs-linux-fallback.img": R,
            "/boot/intel-ucode.img": b"microcode",
            "/lib/modules/6.6.10-arch1-1/pkgbase": b"linux\n",
        },
        None,
        "/boot/vmlinuz-linux",
        "/boot/initramfs-linux.img",
    ),
    "arch, two kernels, the modules tell which is newer": (
        {
            "/boot/vmlinuz-linux": K,
            "/boot/initramfs-linux.img": R,
            "/boot/vmlinuz-linux-lts": K,
            "/boot/initramfs-linux-lts.img": R,
            "/lib/modules/6.6.10-1-lts/pkgbase": b"linux-lts\n",
            "/lib/modules/6.7.0-arch3-1/pkgbase": b"linux\n",
        },
        None,
        "/boot/vmlinuz-linux",
        "/boot/initramfs-linux.img",
    ),
    "arch, by its name": (
        {
            "/boot/vmlinuz-linux": K,
            "/boot/initramfs-linux.img": R,
            "/boot/vmlinuz-linux-lts": K,
            "/boot/initramfs-linux-lts.img": R,
        },
        "linux-lts",
        "/boot/vmlinuz-linux-lts",
        "/boot/initramfs-linux-lts.img",
    ),
    "arch with systemd-boot and microcode": (
        {
            "/boot/vmlinuz-linux": K,
            "/boot/initramfs-linux.img": R,
            "/boot/intel-ucode.img": b"microcode",
            "/boot/loader/entries/arch.conf": b"title Arch Linux\nlinux /vmlinuz-linux\ninitrd /intel-ucode.img\n"
            b"initrd /initramfs-linux.img\noptions root=LABEL=arch rw\n",
        },
        None,
        "/boot/vmlinuz-linux",
        "/boot/initramfs-linux.img",
    ),
    "alpine": (
        {"/boot/vmlinuz-virt": K, "/boot/initramfs-virt": R, "/lib/modules/6.6.14-0-virt/modules.dep": b""},
        "6.6.*",
        "/boot/vmlinuz-virt",
        "/boot/initramfs-virt",
    ),
    "amazon linux": (
        {
            "/boot/vmlinuz-6.1.79-99.164.amzn2023.x86_64": K,
            "/boot/initramfs-6.1.79-99.164.amzn2023.x86_64.img": R,
        },
        None,
        "/boot/vmlinuz-6.1.79-99.164.amzn2023.x86_64",
        "/boot/initramfs-6.1.79-99.164.amzn2023.x86_64.img",
    ),
    "flatcar": ({"/boot/flatcar/vmlinuz-a": K, "/boot/flatcar/grub/x": b""}, None, "/boot/flatcar/vmlinuz-a", None),
    "flatcar after an update": (
        {"/boot/flatcar/vmlinuz-a": K, "/boot/flatcar/vmlinuz-b": K},
        "b",
        "/boot/flatcar/vmlinuz-b",
        None,
    ),
    "coreos of old": ({"/boot/coreos/vmlinuz-a": K}, None, "/boot/coreos/vmlinuz-a", None),
    "a kernel of one's own": ({"/boot/vmlinuz": K, "/boot/initrd.img": R}, None, "/boot/vmlinuz", "/boot/initrd.img"),
    "the running kernel was built by hand, its old self beside it": (
        {
            "/boot/vmlinuz-6.7.0": K,
            "/boot/vmlinuz-6.7.0.old": K,
            "/boot/initrd.img-6.7.0": R,
            "/boot/vmlinuz-6.7.0-rc8": K,
            "/boot/initrd.img-6.7.0-rc8": R,
        },
        None,
        "/boot/vmlinuz-6.7.0",
        "/boot/initrd.img-6.7.0",
    ),
    "an initramfs that dangles is not taken, the next name is": (
        {
            "/boot/vmlinuz-6.1.0-10-amd64": K,
            "/boot/initrd.img-6.1.0-10-amd64": "nowhere",
            "/boot/initramfs-6.1.0-10-amd64.img": R,
        },
        None,
        "/boot/vmlinuz-6.1.0-10-amd64",
        "/boot/initramfs-6.1.0-10-amd64.img",
    ),
}


@pytest.mark.parametrize("name", GUESTS)
def test_kernel_and_initramfs(name):
    files, wanted, kernel, ramdisk = GUESTS[name]
    chosen = choose(find(KnownFacts(files=files)), wanted)
    assert (chosen.path, chosen.ramdisk) == (kernel, ramdisk)
