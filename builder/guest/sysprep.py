"""What one machine leaves in its image that no other may have: found by name, one operation for each kind.

Compared with virt-sysprep 1.48, whose operations are named here where they are the same: see `Sysprep` in
pipelines/steps/sysprep.py for what differs, and why.
"""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from builder.guest import cloudinit, hostkeys
from builder.guest.accounts import User, read_accounts
from builder.guest.edits import MakeLink, Remove, Truncate, WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.os import read_system

Operation = Literal[
    "accounting", "authorized-keys", "blkid-cache", "cloud-init", "crash-dumps", "cron-spool", "dhcp-leases",
    "enrolments", "history", "hostname", "installer", "logs", "machine-id", "mail-spool", "package-cache",
    "package-lists", "passwd-backups", "random-seed", "rpm-db", "ssh-hostkeys", "ssh-userdir", "subscriptions",
    "tmp-files", "udev-persistent-net",
]  # fmt: skip
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
ONLY_IF_ASKED: frozenset[Operation] = frozenset({"authorized-keys", "cron-spool", "hostname", "ssh-userdir"})
DEFAULT: tuple[Operation, ...] = tuple(name for name in OPERATIONS if name not in ONLY_IF_ASKED)

Removal = Remove | Truncate | MakeLink | WriteFile

_SHOWN = 6  # paths that an edit names to a person
_LOG_DEPTH = 6  # levels below /var/log


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an operation found to do, and what it left alone, with the reason."""

    edits: Sequence[Removal] = ()
    kept: str = ""


# What is simply removed where it is there. A glob matches no leading dot unless it names one.
_REMOVED: Mapping[Operation, tuple[str, ...]] = {
    "accounting": ("/var/account/pacct*", "/var/log/account/pacct*", "/var/run/utmp"),
    "blkid-cache": ("/etc/blkid.tab*", "/etc/blkid/blkid.tab*"),
    "crash-dumps": (
        "/var/crash/*",
        "/var/spool/abrt/*",
        "/var/cache/abrt/*",
        "/var/lib/systemd/coredump/*",
        "/var/lib/systemd/pstore/*",
        "/var/log/dump/*",
    ),
    "dhcp-leases": (
        "/var/lib/dhclient/*",
        "/var/lib/dhcp/*leases*",
        "/var/lib/dhcp3/*leases*",
        "/var/lib/dhcpcd/*.lease*",
        "/var/lib/dhcpd/*leases*",
        "/var/lib/NetworkManager/*.lease",
        "/var/lib/systemd/network/*.lease",
        "/var/lib/wicked/lease-*",
        "/var/lib/wicked/duid.xml",
    ),
    # Identities in a domain or under a configuration server: two machines of one identity lock each other out.
    "enrolments": (
        "/etc/krb5.keytab",
        "/var/lib/sss/db/*",
        "/var/lib/sss/mc/*",
        "/var/lib/samba/private/secrets.tdb",
        "/var/lib/ipa-client/sysrestore/*",
        "/var/lib/puppet/ssl/*",
        "/etc/puppetlabs/puppet/ssl/*",
        "/etc/chef/client.pem",
        "/etc/salt/minion_id",
        "/etc/salt/pki/minion/*",
    ),
    "installer": (
        "/root/anaconda-ks.cfg",
        "/root/anaconda-post.log",
        "/root/initial-setup-ks.cfg",
        "/root/original-ks.cfg",
        "/root/install.log*",
        "/root/autoinst.xml",
        "/root/inst-sys",
        "/var/log/installer",
        "/var/log/anaconda",
    ),
    "mail-spool": ("/var/spool/mail/*", "/var/mail/*"),
    "package-cache": (
        "/var/cache/apt/archives/*.deb",
        "/var/cache/apt/archives/partial/*",
        "/var/cache/apt/*.bin",
        "/var/cache/dnf/*",
        "/var/cache/libdnf5/*",
        "/var/cache/yum/*",
        "/var/cache/PackageKit/*",
        "/var/cache/zypp/*",
        "/var/cache/pacman/pkg/*",
        "/var/cache/apk/*",
        "/var/cache/distfiles/*",
    ),
    "package-lists": ("/var/lib/apt/lists/*_*", "/var/lib/apt/lists/partial/*", "/var/lib/pacman/sync/*"),
    "passwd-backups": tuple(f"/etc/{name}-" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")),
    # And secrets that are made at first use, as https://systemd.io/BUILDING_IMAGES lists them.
    "random-seed": (
        "/var/lib/systemd/random-seed",
        "/var/lib/systemd/credential.secret",
        "/var/lib/random-seed",
        "/var/lib/urandom/random-seed",
        "/var/lib/misc/random-seed",
        "/var/lib/seedrng/seed.*",
        "/var/lib/NetworkManager/secret_key",
        "/boot/efi/loader/random-seed",
        "/efi/loader/random-seed",
        "/boot/loader/random-seed",
    ),
    "rpm-db": ("/var/lib/rpm/__db.*", "/usr/lib/sysimage/rpm/__db.*"),
    "subscriptions": (
        "/etc/pki/consumer/*",
        "/etc/pki/entitlement/*",
        "/etc/sysconfig/rhn/systemid",
        "/etc/zypp/credentials.d/SCCcredentials",
        "/var/lib/rhsm/facts/*",
        "/var/lib/ubuntu-advantage/private/*",
        "/var/lib/yum/uuid",
    ),
    "tmp-files": tuple(f"{place}/{names}" for place in ("/tmp", "/var/tmp") for names in ("*", ".[!.]*", "..?*")),  # noqa: S108 - the guest's
    "udev-persistent-net": ("/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/z25_persistent-net.rules"),
}  # fmt: skip

# In homes: what shells, interpreters, databases and editors keep of what was typed.
TYPED = (
    *(".bash_history", ".zsh_history", ".ash_history", ".sh_history", ".ksh_history", ".history"),
    *(".local/share/fish/fish_history", ".python_history", ".node_repl_history", ".lesshst", ".viminfo"),
    *(".mysql_history", ".psql_history", ".sqlite_history"),
)
_CRON = (
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/var/spool/cron/tabs",
    "/var/spool/cron/atjobs",
    "/var/spool/at",
)
_ROTATED = re.compile(r".*(\.\d+|\.gz|\.xz|\.bz2|\.zst|\.old|-\d{8}(\.\w+)?)")
# Files that their programs take for damaged when they are empty.
_NOT_EMPTY = ("/var/log/journal/*", "/var/log/sa/*", "/var/log/sysstat/*", "/var/log/atop/*", "/var/log/pcp/*/*")


def find(operation: Operation, facts: GuestFacts) -> Found:
    """Return what that operation has to do in the guest."""
    special: Mapping[Operation, Callable[[GuestFacts], Found]] = {
        "authorized-keys": lambda facts: _of_homes(facts, (".ssh/authorized_keys", ".ssh/authorized_keys2")),
        "cron-spool": _cron,
        "cloud-init": lambda facts: _removed(cloudinit.state(facts, keep_seed=True)),
        "history": lambda facts: _of_homes(facts, (*TYPED, ".wget-hsts")),
        "hostname": _hostname,
        "logs": _logs,
        "machine-id": _machine_id,
        "ssh-hostkeys": _host_keys,
        "ssh-userdir": lambda facts: _of_homes(facts, (".ssh",)),
    }
    if operation in special:
        return special[operation](facts)
    return _removed([path for pattern in _REMOVED[operation] for path in facts.names(pattern)])


def homes(facts: GuestFacts, users: Iterable[User] | None = None) -> tuple[str, ...]:
    """Return the home directories that are there: those of passwd (or of `users`), /root, and what lies in /home."""
    users = read_accounts(facts).users if users is None else users
    named = {posixpath.normpath(user.home) for user in users if user.home.startswith("/")}
    named |= {"/root", *facts.names("/home/*")}
    return tuple(sorted(home for home in named if home != "/" and facts.exists(home)))


def _removed(paths: Sequence[str]) -> Found:
    unique = tuple(dict.fromkeys(paths))
    return Found(edits=[Remove(paths=unique, why=f"removed {_listed(unique)}")] if unique else [])


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _of_homes(facts: GuestFacts, names: Sequence[str]) -> Found:
    return _removed([path for home in homes(facts) for name in names if facts.exists(path := f"{home}/{name}")])


def _machine_id(facts: GuestFacts) -> Found:
    """Empty it, never delete: systemd then makes one at boot also where / is read-only; D-Bus' own follows it."""
    edits: list[Removal] = []
    if facts.text("/etc/machine-id").strip() not in ("", "uninitialized"):
        edits.append(Truncate(paths=("/etc/machine-id",), why="emptied /etc/machine-id"))
    bus = "/var/lib/dbus/machine-id"
    found = facts.stat(bus)
    if found and found.is_file:
        if read_system(facts).init == "systemd" and facts.exists("/etc/machine-id"):
            edits.append(MakeLink(path=bus, target="/etc/machine-id"))
        else:
            edits.append(Remove(paths=(bus,)))  # dbus-uuidgen --ensure makes it at boot
    return Found(edits=edits)


def _host_keys(facts: GuestFacts) -> Found:
    keys = hostkeys.keys(facts)
    if not keys:
        return Found()
    maker = hostkeys.maker(facts)
    if maker is None:
        return Found(
            kept=f"the ssh host keys stay: nothing in the guest would make others, and sshd not start; "
            f"they are {_listed(keys)}"
        )
    return Found(edits=[Remove(paths=keys, why=f"removed {_listed(keys)}; {maker} makes others at boot")])


def _cron(facts: GuestFacts) -> Found:
    paths = [path for place in _CRON for path in facts.names(f"{place}/*")]
    return _removed([path for path in paths if (found := facts.stat(path)) and found.is_file])


def _hostname(facts: GuestFacts) -> Found:
    """Leave it to DHCP: systemd takes that name only where none is set."""
    edits: list[Removal] = []
    if facts.text("/etc/hostname").strip() not in ("", "localhost"):
        edits.append(WriteFile(path="/etc/hostname", data=b"localhost\n", why="/etc/hostname says localhost"))
    path = "/etc/sysconfig/network"
    text = facts.text(path)
    new = re.sub(r"^HOSTNAME=(?!localhost).*$", "HOSTNAME=localhost.localdomain", text, flags=re.MULTILINE)
    if new != text:
        edits.append(WriteFile(path=path, data=new.encode("utf-8", "surrogateescape"), why=f"{path} says localhost"))
    return Found(edits=edits)


def _logs(facts: GuestFacts) -> Found:
    """Empty what is a log now, remove what was one; directories and owners stay, daemons do not make them again."""
    removed = [path for pattern in _NOT_EMPTY for path in facts.names(pattern)]
    emptied = []
    for path, size in _files(facts, "/var/log", _LOG_DEPTH):
        if any(path == gone or path.startswith(f"{gone}/") for gone in removed):
            continue
        if _ROTATED.fullmatch(posixpath.basename(path)):
            removed.append(path)
        elif size:
            emptied.append(path)
    edits: list[Removal] = [*_removed(removed).edits]
    if emptied:
        edits.append(Truncate(paths=tuple(emptied), why=f"emptied {_listed(emptied)}"))
    return Found(edits=edits)


def _files(facts: GuestFacts, directory: str, depth: int) -> Iterator[tuple[str, int]]:
    """Yield the regular files below a directory with their sizes; links are not followed."""
    place = glob.escape(directory)
    for path in (*facts.names(f"{place}/*"), *facts.names(f"{place}/.[!.]*")):
        found = facts.stat(path)
        if found and found.is_file:
            yield path, found.size
        elif found and found.is_directory and depth:
            yield from _files(facts, path, depth - 1)
