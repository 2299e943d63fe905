import struct

import pytest

from builder.guest.facts import KnownFacts
from builder.guest.os import System, machine, parse_assignments, read_system


def elf(number: int, *, order: str = "<", size: int = 2) -> bytes:
    return b"\x7fELF" + bytes([size, 1 if order == "<" else 2, 1]) + bytes(9) + struct.pack(order + "HH", 3, number)


X86 = elf(62)
SYSTEMD = {"/sbin/init": "/lib/systemd/systemd", "/usr/lib/systemd/systemd": X86, "/usr/bin/true": X86}

# Each system as it was seen in its own image: the files that matter, and what is to be read out of them.
SYSTEMS = {
    "debian 12": (
        {
            "/etc/os-release": "../usr/lib/os-release",
            "/usr/lib/os-release": b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n',
            "/usr/bin/apt-get": X86,
            **SYSTEMD,
        },
        ("debian", "12", "debian", "systemd", "apt", "x86_64"),
    ),
    "ubuntu 24.04": (
        {
            "/usr/lib/os-release": b'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n',
            "/usr/bin/apt-get": X86,
            **SYSTEMD,
        },
        ("ubuntu", "24.04", "debian", "systemd", "apt", "x86_64"),
    ),
    "ubuntu 14.04, with parts of systemd beside upstart": (
        {
            "/etc/os-release": b'NAME="Ubuntu"\nVERSION_ID="14.04"\nID=ubuntu\nID_LIKE=debian\n',
            "/usr/bin/apt-get": X86,
            "/sbin/init": X86,
            "/sbin/initctl": X86,
            "/lib/systemd/systemd-udevd": X86,
            "/etc/init/rc.conf": b"",
        },
        ("ubuntu", "14.04", "debian", "upstart", "apt", ""),
    ),
    "ubuntu 10.04": (
        {"/etc/lsb-release": b'DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.04\nDISTRIB_DESCRIPTION="Ubuntu 10.04"\n'},
        ("ubuntu", "10.04", "debian", "unknown", "none", ""),
    ),
    "debian 6": (
        {"/etc/debian_version": b"6.0.10\n", "/sbin/init": X86, "/etc/inittab": b"", "/usr/bin/apt-get": X86},
        ("debian", "6.0.10", "debian", "sysv", "apt", ""),
    ),
    "alma 9": (
        {
            "/etc/os-release": b'NAME="AlmaLinux"\nID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n',
            "/usr/sbin/init": "../lib/systemd/systemd",
            "/usr/bin/true": X86,
            "/usr/bin/dnf": "dnf-3",
            "/usr/bin/yum": "dnf-3",
        },
        ("almalinux", "9.4", "redhat", "systemd", "dnf", "x86_64"),
    ),
    "centos 7": (
        {
            "/etc/os-release": b'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\n',
            "/etc/inittab": b"# inittab is no longer used\n",
            "/usr/bin/yum": b"#!/usr/bin/python\n",
            **SYSTEMD,
        },
        ("centos", "7", "redhat", "systemd", "yum", "x86_64"),
    ),
    "centos 6": (
        {
            "/etc/centos-release": b"CentOS release 6.10 (Final)\n",
            "/sbin/init": X86,
            "/sbin/initctl": X86,
            "/etc/init/rc.conf": b"",
            "/etc/inittab": b"id:3:initdefault:\n",
            "/usr/bin/yum": b"#!/usr/bin/python\n",
            "/bin/true": elf(3, size=1),
        },
        ("centos", "6.10", "redhat", "upstart", "yum", "i386"),
    ),
    "rhel 5": (
        {
            "/etc/redhat-release": b"Red Hat Enterprise Linux Server release 5.11 (Tikanga)\n",
            "/sbin/init": X86,
            "/etc/inittab": b"id:3:initdefault:\n",
            "/usr/bin/yum": b"",
            "/bin/true": X86,
        },
        ("rhel", "5.11", "redhat", "sysv", "yum", "x86_64"),
    ),
    "centos 5, which has no file of its own name": (
        {"/etc/redhat-release": b"CentOS release 5.11 (Final)\n"},
        ("centos", "5.11", "redhat", "unknown", "none", ""),
    ),
    "amazon linux 1": (
        {"/etc/system-release": b"Amazon Linux AMI release 2018.03\n"},
        ("amzn", "2018.03", "redhat", "unknown", "none", ""),
    ),
    "opensuse leap": (
        {
            "/usr/lib/os-release": b'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n',
            "/usr/bin/zypper": X86,
            **SYSTEMD,
        },
        ("opensuse-leap", "15.6", "suse", "systemd", "zypper", "x86_64"),
    ),
    "tumbleweed without ID_LIKE": (
        {"/etc/os-release": b'ID="opensuse-tumbleweed"\n'},
        ("opensuse-tumbleweed", "", "suse", "unknown", "none", ""),
    ),
    "arch on arm": (
        {"/etc/os-release": b"ID=arch\n", "/usr/bin/pacman": X86, "/usr/bin/true": elf(183)},
        ("arch", "", "arch", "unknown", "pacman", "aarch64"),
    ),
    "alpine": (
        {
            "/etc/os-release": b"ID=alpine\nVERSION_ID=3.20.3\n",
            "/sbin/init": "/bin/busybox",
            "/bin/true": "/bin/busybox",
            "/bin/busybox": X86,
            "/sbin/openrc": X86,
            "/sbin/apk": X86,
        },
        ("alpine", "3.20.3", "alpine", "openrc", "apk", "x86_64"),
    ),
    "flatcar": (
        {"/etc/os-release": b"ID=flatcar\nID_LIKE=coreos\nVERSION_ID=4081.2.0\n", **SYSTEMD},
        ("flatcar", "4081.2.0", "flatcar", "systemd", "none", "x86_64"),
    ),
    "nothing at all": ({}, ("", "", "unknown", "unknown", "none", "")),
    "a release file that is no text": (
        {"/etc/os-release": b"\xff\xfe\x00ID=\nID='open\n", "/etc/redhat-release": b""},
        ("rhel", "", "redhat", "unknown", "none", ""),
    ),
}


@pytest.mark.parametrize("case", SYSTEMS)
def test_the_system_is_read(case):
    files, expected = SYSTEMS[case]
    found = read_system(KnownFacts(files=files))
    assert (found.id, found.version, found.family, found.init, found.package_manager, found.architecture) == expected


@pytest.mark.parametrize(
    ("elf", "expected"),
    [
        (elf(21, order=">"), "ppc64"),
        (elf(21), "ppc64le"),
        (elf(22, order=">"), "s390x"),
        (elf(243), "riscv64"),
        (elf(9999), ""),
        (b"\x7fELF", ""),
        (b"#!/bin/sh\n" + bytes(20), ""),
        (b"", ""),
    ],
)
def test_an_elf_header_says_the_architecture(elf, expected):
    assert machine(elf) == expected


def test_assignments_are_the_shell_s():
    text = "A=1\n B='x y'\nexport C=\"q\\\"z\" # why\nD=\nE= # none\n#F=1\nG='open\nA=2\nh i=3\nI=a#b\n"
    assert parse_assignments(text) == {"A": "2", "B": "x y", "C": 'q"z', "D": "", "E": "", "I": "a#b"}


def test_it_names_itself_to_people():
    assert [str(System()), str(System(id="x")), str(System(id="x", name="X 1"))] == ["an unknown system", "x", "X 1"]
    assert [System(version=text).major for text in ("9.4", "22.04", "", "rolling")] == [9, 22, None, None]
