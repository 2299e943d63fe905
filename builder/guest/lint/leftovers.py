"""Rules on what a machine keeps of its life, and an image should not have of the build's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from builder.guest.lint.rule import Found, Mend, Rule, delete
from builder.guest.lint.subject import Subject

_TELLING = (  # who logged in from where, and what was done
    "/var/log/auth.log*", "/var/log/secure*", "/var/log/wtmp*", "/var/log/btmp*", "/var/log/lastlog",
    "/var/log/audit/*", "/var/log/journal/*/*", "/var/log/cloud-init*", "/var/log/anaconda/*", "/var/log/installer/*",
)  # fmt: skip
_LOGS = (
    "/var/log/*.log",
    "/var/log/*.log.*",
    "/var/log/messages*",
    "/var/log/syslog*",
    "/var/log/dmesg*",
    "/var/log/apt/*",
)
_SEEDS = (
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/random-seed",
    "/var/lib/misc/random-seed",
)
_LEASES = (
    "/var/lib/dhcp/*.leases", "/var/lib/dhclient/*.lease*", "/var/lib/dhcp3/*.leases", "/var/lib/dhcpcd/*.lease",
    "/var/lib/NetworkManager/*.lease", "/var/lib/wicked/lease-*", "/var/lib/systemd/network/*.lease",
)  # fmt: skip
_CACHES = ("/var/cache/apt/archives/*.deb", "/var/cache/yum/*/*/*/packages/*.rpm", "/var/cache/dnf/*/packages/*.rpm",
           "/var/cache/pacman/pkg/*.pkg.tar.*", "/var/cache/zypp/packages/*/*/*.rpm")  # fmt: skip
_PROXY_FILES = (
    "/etc/apt/apt.conf", "/etc/apt/apt.conf.d/*", "/etc/yum.conf", "/etc/dnf/dnf.conf", "/etc/environment",
    "/etc/profile.d/*.sh", "/etc/sysconfig/proxy", "/etc/pip.conf",
)  # fmt: skip
_PROXY = re.compile(
    r"\s*(?:Acquire::(?:http|https|ftp)::Proxy\s+\"\w|proxy\s*=\s*\w|(?:export\s+)?(?:https?|ftp|all)_proxy\s*=\s*[\"']?\w)",
    re.IGNORECASE,
)
_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*", "/etc/yum.repos.d/*.repo", "/etc/zypp/repos.d/*.repo")
_PRIVATE_URL = re.compile(
    r"(?:https?|ftp)://(?:[^/\s@]+@)?(?:localhost|127\.|10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.)|\bfile:/|\bcdrom:"
)


def machine_id(subject: Subject) -> Iterator[Found]:
    """The machine has its identity already: every instance has the same.

    systemd-networkd derives its DHCP identity from it, so that instances get each other's address; journals mix.
    Source: machine-id(5), "First Boot Semantics": an empty file, or `uninitialized`.
    """
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        stat = subject.facts.stat(path)
        text = subject.facts.text(path).strip() if stat and stat.is_file else ""
        if re.fullmatch(r"[0-9a-f]{32}", text):
            yield Found(
                severity="warning",
                what="every instance will have this identity",
                where=path,
                quote=text,
                mends=(Mend(step="sysprep", options={"only": ["machine-id"]}),),
            )


def random_seed(subject: Subject) -> Iterator[Found]:
    """The random numbers that the machine of the build saved are in the image: instances begin with the same.

    Source: systemd-random-seed.service(8); sysprep of virt-sysprep(1), "random-seed".
    """
    for path in subject.filled(*_SEEDS):
        yield Found(
            severity="warning",
            what="every instance begins with these saved random numbers",
            where=path,
            mends=(Mend(step="sysprep", options={"only": ["random-seed"]}),),
        )


def dhcp_leases(subject: Subject) -> Iterator[Found]:
    """Leases of the network where the image was made are left; a client asks for the old address first.

    Source: dhclient(8), dhclient.leases(5).
    """
    found = list(subject.filled(*_LEASES))
    if found:
        yield Found(
            severity="warning",
            what=f"DHCP leases of another network are left ({len(found)} files)",
            where=found[0],
            mends=(Mend(step="sysprep", options={"only": ["dhcp-leases"]}),),
        )


def logs(subject: Subject) -> Iterator[Found]:
    """Logs of the build are in the image, and tell who logged in from where.

    Source: EC2 User Guide, "Recommendations for creating shared Linux AMIs"; virt-sysprep(1), "logfiles".
    """
    telling, others = list(subject.filled(*_TELLING)), list(subject.filled(*_LOGS))
    found = telling or others
    if found:
        yield Found(
            severity="warning" if telling else "note",
            what=f"logs of the build are in the image ({len({*telling, *others})} files)",
            where=found[0],
            mends=(Mend(step="sysprep", options={"only": ["logs"]}),),
        )


def temporary_files(subject: Subject) -> Iterator[Found]:
    """Temporary files of the build are in the image.

    Source: virt-sysprep(1), "tmp-files".
    """
    places = ("/tmp/*", "/tmp/.[!.]*", "/var/tmp/*")  # noqa: S108 - the guest's
    found = [path for pattern in places for path in subject.facts.names(pattern) if not _socket_place(path)]
    if found:
        yield Found(
            severity="note",
            what=f"{len(found)} temporary files are in the image",
            where=found[0],
            mends=(Mend(step="sysprep", options={"only": ["tmp-files"]}),),
        )


def package_cache(subject: Subject) -> Iterator[Found]:
    """Packages that were fetched for the build are in the image and take room.

    Source: apt-get(8), clean; virt-sysprep(1), "package-manager-cache".
    """
    found = list(subject.filled(*_CACHES))
    if found:
        yield Found(
            severity="note",
            what=f"{len(found)} fetched packages are in the image",
            where=found[0],
            mends=(Mend(step="sysprep", options={"only": ["package-cache"]}),),
        )


def proxy_left(subject: Subject) -> Iterator[Found]:
    """A proxy of the network where the image was made is set: nothing can be fetched elsewhere.

    Source: apt.conf(5) Acquire::http::Proxy, yum.conf(5) `proxy`; common after builds behind one.
    """
    for path, number, line in subject.lines(*_PROXY_FILES):
        if _PROXY.match(line):
            yield Found(
                severity="warning",
                what="a proxy of the network where the image was made is set",
                where=f"{path}:{number}",
                quote=line,
                mends=_deleted(subject, path, _PROXY.match),
                advice="Remove the line with a `run` step, or the file with a `files` step.",
            )


def private_repository(subject: Subject) -> Iterator[Found]:
    """Packages come from where only the machine of the build could reach: a private address, a file, a CD.

    Every later installation fails there. Source: sources.list(5); installers leave their CD in it.
    """
    for path, number, line in subject.lines(*_SOURCES):
        if _PRIVATE_URL.search(line) and not line.lstrip().startswith(("gpgkey", "Signed-By")):
            yield Found(
                severity="warning",
                what="packages are to come from where instances cannot reach",
                where=f"{path}:{number}",
                quote=line,
                mends=_deleted(subject, path, _PRIVATE_URL.search),
                advice="Name the distribution's own archive there with a `files` step.",
            )


def _deleted(subject: Subject, path: str, faulty: Callable[[str], object]) -> tuple[Mend, ...]:
    """Return the step that deletes a file of a directory of such, if every line in it is faulty."""
    only = ".d/" in path and all(faulty(line) for _, _, line in subject.lines(path))
    return (delete(path),) if only else ()


def _socket_place(path: str) -> bool:
    return path.rpartition("/")[2] in (".X11-unix", ".ICE-unix", ".Test-unix", ".font-unix", ".XIM-unix")


RULES = (
    Rule(check=machine_id, worst="warning", mended_by=("sysprep",)),
    Rule(check=random_seed, worst="warning", mended_by=("sysprep",)),
    Rule(check=dhcp_leases, worst="warning", mended_by=("sysprep",)),
    Rule(check=logs, worst="warning", mended_by=("sysprep",)),
    Rule(check=temporary_files, worst="note", mended_by=("sysprep",)),
    Rule(check=package_cache, worst="note", mended_by=("sysprep",)),
    Rule(check=proxy_left, worst="warning", mended_by=("files",)),
    Rule(check=private_repository, worst="warning", mended_by=("files",)),
)
