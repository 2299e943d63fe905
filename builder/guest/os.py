"""Which system a guest runs, by a few file reads: distribution, family, init, package manager, architecture.

libguestfs' own inspection takes 8.5 s for it. Sources: os-release(5); the release files that older systems have
instead; e_machine in elf(5) and the ELF registry.
"""

from __future__ import annotations

import re
import shlex
import struct
from dataclasses import dataclass
from typing import Literal

from builder.errors import GuestError
from builder.guest.facts import GuestFacts

Family = Literal["debian", "redhat", "suse", "arch", "alpine", "gentoo", "flatcar", "unknown"]
Init = Literal["systemd", "upstart", "sysv", "openrc", "unknown"]
PackageManager = Literal["apt", "dnf", "yum", "zypper", "pacman", "apk", "portage", "none"]

# By ID, then by what ID_LIKE says. `rhel` before `fedora` makes no difference: they are one family.
_FAMILIES: dict[str, Family] = {
    "debian": "debian",
    "ubuntu": "debian",
    "rhel": "redhat",
    "fedora": "redhat",
    "centos": "redhat",
    "amzn": "redhat",
    "ol": "redhat",
    "almalinux": "redhat",
    "rocky": "redhat",
    "suse": "suse",
    "opensuse": "suse",
    "sles": "suse",
    "sled": "suse",
    "arch": "arch",
    "alpine": "alpine",
    "gentoo": "gentoo",
    "flatcar": "flatcar",
    "coreos": "flatcar",
}

# Where there is no os-release: the file, the ID it stands for unless it says so itself, and its name for it.
_RELEASE_FILES = (
    ("/etc/centos-release", "centos"),
    ("/etc/fedora-release", "fedora"),
    ("/etc/oracle-release", "ol"),
    ("/etc/system-release", "amzn"),
    ("/etc/redhat-release", "rhel"),
    ("/etc/SuSE-release", "sles"),
    ("/etc/alpine-release", "alpine"),
    ("/etc/arch-release", "arch"),
    ("/etc/gentoo-release", "gentoo"),
    ("/etc/debian_version", "debian"),
)
_SAID = (("CentOS", "centos"), ("Fedora", "fedora"), ("Red Hat", "rhel"), ("Amazon", "amzn"), ("openSUSE", "opensuse"))

_MANAGERS: tuple[tuple[PackageManager, tuple[str, ...]], ...] = (
    ("apt", ("/usr/bin/apt-get",)),
    ("dnf", ("/usr/bin/dnf", "/usr/bin/dnf-3", "/usr/bin/dnf5")),
    ("yum", ("/usr/bin/yum",)),
    ("zypper", ("/usr/bin/zypper",)),
    ("pacman", ("/usr/bin/pacman",)),
    ("apk", ("/sbin/apk", "/usr/sbin/apk", "/usr/bin/apk")),
    ("portage", ("/usr/bin/emerge",)),
)
_SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
_PROGRAMS = ("/usr/bin/true", "/bin/true", "/bin/sh", "/usr/bin/sh", "/usr/bin/bash", *_SYSTEMD)
_PROGRAM_LIMIT = 16 << 20  # bytes
_LONGEST = 16 << 10  # characters of an assignment: shlex takes quadratic time

# e_machine, by the word `uname -m` has for it.
_MACHINES = {3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64"}
_MACHINES |= {243: "riscv64", 258: "loongarch64"}


@dataclass(frozen=True, kw_only=True)
class System:
    """The system of a guest. What could not be told is empty, or `unknown`; it is not guessed."""

    id: str = ""  # `debian`, `rhel`, `sles`: os-release's ID
    id_like: tuple[str, ...] = ()
    version: str = ""  # `12`, `9.4`: os-release's VERSION_ID; empty on rolling ones
    name: str = ""  # `Debian GNU/Linux 12 (bookworm)`: for people
    family: Family = "unknown"
    init: Init = "unknown"
    package_manager: PackageManager = "none"
    architecture: str = ""  # as `uname -m` says it: `x86_64`, `aarch64`

    @property
    def major(self) -> int | None:
        """The version's first number: 9 of 9.4, 22 of 22.04; None where there is none."""
        found = re.match(r"\d{1,9}", self.version)
        return int(found[0]) if found else None

    def __str__(self) -> str:
        return self.name or self.id or "an unknown system"


def read_system(facts: GuestFacts) -> System:
    """Return what system the guest runs. A guest without any release file has the family `unknown`."""
    said = _os_release(facts) or _old_release(facts)
    like = tuple(said.get("ID_LIKE", "").lower().split())
    name = said.get("PRETTY_NAME") or " ".join(filter(None, (said.get("NAME"), said.get("VERSION_ID"))))
    return System(
        id=said.get("ID", "").lower(),
        id_like=like,
        version=said.get("VERSION_ID", ""),
        name=name,
        family=_family(said.get("ID", "").lower(), like),
        init=_init(facts),
        package_manager=_package_manager(facts),
        architecture=architecture(facts),
    )


def parse_assignments(text: str) -> dict[str, str]:
    """Return the variables of a file in the shell's assignment syntax, such as os-release; what is not one is left out.

    Quotes and backslashes are undone; nothing is expanded. The last assignment of a name holds. One of more than 16 Ki
    characters is passed over.
    """
    found = {}
    for line in text.split("\n"):
        match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", line)
        if match is None or len(line) > _LONGEST:
            continue
        try:
            words = shlex.split(match[2])
        except ValueError:  # an open quote
            continue
        found[match[1]] = words[0] if words and not words[0].startswith("#") else ""
    return found


def architecture(facts: GuestFacts) -> str:
    """Return the guest's architecture as `uname -m` says it, by the ELF header of a program; empty when unknown."""
    for path in _PROGRAMS:
        try:
            found = machine(facts.read(path, limit=_PROGRAM_LIMIT) or b"")
        except GuestError:  # larger than any such program
            continue
        if found:
            return found
    return ""


def machine(elf: bytes) -> str:
    """Return the architecture of an ELF file as `uname -m` says it; empty when it is none, or one not known here."""
    if len(elf) < 20 or elf[:4] != b"\x7fELF" or elf[5] not in (1, 2):
        return ""
    (number,) = struct.unpack_from("<H" if elf[5] == 1 else ">H", elf, 18)
    name = _MACHINES.get(number, "")
    return "ppc64le" if name == "ppc64" and elf[5] == 1 else name


def _os_release(facts: GuestFacts) -> dict[str, str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if said := parse_assignments(facts.text(path)):
            return said
    return {}


def _old_release(facts: GuestFacts) -> dict[str, str]:
    ubuntu = parse_assignments(facts.text("/etc/lsb-release"))
    if ubuntu.get("DISTRIB_ID", "").lower() == "ubuntu":  # before 12.04
        version, name = ubuntu.get("DISTRIB_RELEASE", ""), ubuntu.get("DISTRIB_DESCRIPTION", "")
        return {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_ID": version, "PRETTY_NAME": name}
    for path, plain in _RELEASE_FILES:
        data = facts.read(path)
        if data is None:
            continue
        line = next(iter(data.decode("utf-8", "surrogateescape").splitlines()), "").strip()
        number = re.search(r"\d+(\.\d+)*", line)
        system = next((known for word, known in _SAID if word in line), plain)
        name = f"Debian {line}".strip() if plain == "debian" else line
        return {"ID": system, "VERSION_ID": number[0] if number else "", "PRETTY_NAME": name or plain}
    return {}


def _family(system: str, like: tuple[str, ...]) -> Family:
    for word in (system, *like):
        known = _FAMILIES.get(word) or _FAMILIES.get(word.partition("-")[0])  # opensuse-leap, opensuse-tumbleweed
        if known:
            return known
    return "unknown"


def _init(facts: GuestFacts) -> Init:
    program = next((path for path in ("/sbin/init", "/usr/sbin/init") if facts.exists(path)), "")
    target = facts.link(program) or "" if program else ""
    found: Init = "unknown"
    # A release with upstart has parts of systemd too (Ubuntu 14.04), so that what init is decides.
    if target.endswith("systemd"):
        found = "systemd"
    elif facts.exists("/sbin/openrc") or facts.exists("/usr/sbin/openrc"):
        found = "openrc"
    elif facts.exists("/sbin/initctl") and facts.names("/etc/init/*.conf"):
        found = "upstart"
    elif any(facts.exists(path) for path in _SYSTEMD) and (not program or not facts.exists("/etc/inittab")):
        found = "systemd"  # the link comes with a package of its own (systemd-sysv), or init is a copy
    elif program and facts.exists("/etc/inittab"):
        found = "sysv"
    return found


def _package_manager(facts: GuestFacts) -> PackageManager:
    return next((name for name, paths in _MANAGERS if any(facts.exists(path) for path in paths)), "none")
