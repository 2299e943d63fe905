"""What is given to a guest's own package manager: its repository file, and the script that does the work.

Pure: a job in, text out. Names and URLs were checked by who made the job, and are quoted here all the same. Only apt is
proven on a real guest; for the others this follows apt-get(8)'s counterparts: dnf(8), yum(8), zypper(8), pacman(8) and
apk(8), and their repository files.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from builder.errors import GuestError

PLACE = "/var/tmp/emi-packages"  # noqa: S108 - in the guest, for the length of the job
NAME = "emi-recipe"  # of the repository that the recipe gives
MANAGERS = ("apt", "dnf", "yum", "zypper", "pacman", "apk")

_BRANCH = re.compile(r"(?:https?://|/)\S+?/((?:v[\d.]+|edge|latest-stable)/\S+)")  # of /etc/apk/repositories
_LINE = 1024  # characters of a line there that are looked at
_POLICY = "/usr/sbin/policy-rc.d"  # what Debian's maintainer scripts ask before they start a service: 101 says no
_APT = (
    *("-q", "-y", "-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-confdef"),
    *("-o", "Dpkg::Options::=--force-confold", "-o", "APT::Cmd::Pattern-Only=true"),
    # Its archives, and lists that are read anew, are elsewhere for the job: the guest's own are as they were.
    *("-o", f"Dir::Cache={PLACE}/cache"),
)
_APT_LISTS = ("-o", f"Dir::State::lists={PLACE}/lists")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where packages come from beyond what the guest has set up, if anywhere.

    `mirror` stands for all its repositories, `repository` is one more. `key` is a path in the guest.
    """

    mirror: str = ""
    repository: str = ""
    key: str = ""
    unsigned: bool = False
    keep: bool = False

    @property
    def given(self) -> str:
        """The URL or line, if there is one."""
        return self.mirror or self.repository


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done, by names; `files` are paths in the guest."""

    install: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    upgrade: bool = False
    update: bool = True
    recommends: bool | None = None
    purge: bool = False


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What the manager's files say that its repository file depends on."""

    suite: str = ""  # bookworm
    components: str = "main"
    pacman_conf: str = ""
    apk_repositories: str = ""


def repository_path(manager: str, source: Source) -> str:
    """Return where the repository file goes."""
    match manager:
        case "apt":
            return f"/etc/apt/sources.list.d/{NAME}.list"
        case "zypper":
            return f"/etc/zypp/repos.d/{NAME}.repo"
        case "pacman":
            return "/etc/pacman.conf" if source.keep else f"{PLACE}/pacman.conf"
        case "apk":
            return "/etc/apk/repositories" if source.keep else f"{PLACE}/repositories"
        case _:
            return f"/etc/yum.repos.d/{NAME}.repo"


def repository_text(manager: str, source: Source, guest: Guest) -> str:
    """Return the repository file. Raises GuestError where a mirror does not say enough for this guest."""
    match manager:
        case "apt":
            return _apt_line(source, guest)
        case "pacman":
            return _pacman_conf(source, guest.pacman_conf)
        case "apk":
            return _apk_lines(source, guest.apk_repositories)
        case _:
            return _rpm_repository(manager, source)


def _rpm_repository(manager: str, source: Source) -> str:
    check = 0 if source.unsigned else 1
    lines = [f"[{NAME}]", f"name={NAME}", f"baseurl={source.given}", "enabled=1", f"gpgcheck={check}"]
    if manager == "zypper":
        lines += ["autorefresh=0", "type=rpm-md"]
    return "\n".join([*lines, *([f"gpgkey=file://{source.key}"] if source.key else [])]) + "\n"


def _apt_line(source: Source, guest: Guest) -> str:
    options = [*([f"signed-by={source.key}"] if source.key else []), *(["trusted=yes"] if source.unsigned else [])]
    line = source.repository
    if source.mirror:
        if not guest.suite:
            raise GuestError(
                "the guest does not say which suite it is, so a mirror's line cannot be written",
                hint="Give `repository:` with the whole line: deb URL SUITE COMPONENTS.",
            )
        line = f"deb {source.mirror} {guest.suite} {guest.components}"
    kind, rest = line.split(None, 1)
    if options and rest.startswith("["):
        before, _, rest = rest[1:].partition("]")
        options = [before.strip(), *options]
    return f"{kind} [{' '.join(options)}] {rest.strip()}\n" if options else f"{kind} {rest}\n"


def _pacman_conf(source: Source, conf: str) -> str:
    lines, section = [], ""
    for line in conf.splitlines():
        found = re.match(r"\s*\[(.+)\]", line)
        section = found[1] if found else section
        if source.mirror and section != "options" and re.match(r"\s*(Include|Server)\s*=", line):
            continue
        lines.append(line)
        if source.mirror and found and section != "options":
            lines.append(f"Server = {source.mirror}")
    if source.repository and f"[{NAME}]" not in lines:
        lines += [f"[{NAME}]", f"Server = {source.repository}", *(["SigLevel = Never"] if source.unsigned else [])]
    return "\n".join(lines) + "\n"


def _apk_lines(source: Source, repositories: str) -> str:
    if source.repository in repositories.splitlines():
        return repositories
    if source.repository:
        return f"{repositories.rstrip()}\n{source.repository}\n".lstrip("\n")
    lines = (line.strip()[:_LINE] for line in repositories.splitlines())
    found = [said[1] for line in lines if (said := _BRANCH.fullmatch(line))]
    if not found:
        raise GuestError(
            "the guest's /etc/apk/repositories names no branch that a mirror could stand for",
            hint="Give `repository:` with the whole address: URL/v3.20/main.",
        )
    return "".join(f"{source.mirror.rstrip('/')}/{branch}\n" for branch in found)


def environment() -> tuple[tuple[str, str], ...]:
    """Return the variables that keep maintainer scripts from asking, and from starting services."""
    return (
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("APT_LISTCHANGES_FRONTEND", "none"),
        ("NEEDRESTART_SUSPEND", "1"),
        ("SYSTEMD_OFFLINE", "1"),
        ("ZYPP_LOCK_TIMEOUT", "0"),
    )


def script(manager: str, job: Job, source: Source) -> str:
    """Return the shell script that does the job, and leaves neither caches nor services behind."""
    lines = {"apt": _apt, "zypper": _zypper, "pacman": _pacman, "apk": _apk}.get(manager, _dnf)(manager, job, source)
    return "\n".join(["set -eu", "umask 022", f"mkdir -p {PLACE}", *lines, ""])


def _apt(_: str, job: Job, source: Source) -> list[str]:
    own = ["-o", f"Dir::Etc::sourcelist={repository_path('apt', source)}", "-o", "Dir::Etc::sourceparts=-"]
    weak = {None: [], True: ["--install-recommends"], False: ["--no-install-recommends"]}[job.recommends]
    apt = ["apt-get", *_APT, *(_APT_LISTS if job.update else ()), *(own if source.mirror else [])]
    lines = [
        f"mkdir -p {PLACE}/lists/partial {PLACE}/cache/archives/partial",
        f"finish() {{ rm -f {_POLICY}; [ ! -e {_POLICY}.emi ] || mv {_POLICY}.emi {_POLICY}; }}",
        f"[ ! -e {_POLICY} ] || mv {_POLICY} {_POLICY}.emi",
        "trap finish EXIT",
        f"printf '#!/bin/sh\\nexit 101\\n' >{_POLICY}",
        f"chmod 755 {_POLICY}",
    ]
    if job.remove:
        lines.append(_line(*apt, "purge" if job.purge else "remove", *job.remove))
    if (job.install or job.upgrade) and job.update:
        # Without it a list that cannot be had is a warning.
        lines.append(_line(*apt, "-o", "APT::Update::Error-Mode=any", "update"))
    if job.upgrade:
        lines.append(_line(*apt, *weak, "-o", "APT::Get::Upgrade-Allow-New=true", "upgrade"))
    if job.install or job.files:
        # Without --no-remove an unlucky choice would take away what nobody named.
        lines.append(_line(*apt, *weak, "--no-remove", "install", *job.files, *job.install))
    return lines


_KEYS_BEFORE = "before=$(rpm -q gpg-pubkey || :)"  # first of all: an import comes with a key or an upgrade


def _rpm_frame(job: Job, source: Source, install: str, remove: str) -> list[str]:
    """Ask rpm what is missing, or there; take away the keys that were not there `before`, unless they are to stay."""
    lines = []
    if job.remove:
        lines += [
            "there=",
            f"for name in {_line(*job.remove)}; do",
            '    if rpm -q "$name" >/dev/null 2>&1; then there="$there $name"; else echo "$name is not installed"; fi',
            "done",
            f'[ -z "$there" ] || {remove} $there',
        ]
    if job.install:
        lines += [
            "missing=",
            f"for name in {_line(*job.install)}; do",
            '    rpm -q "$name" 2>/dev/null || rpm -q --whatprovides "$name" 2>/dev/null || missing="$missing $name"',
            "done",
            f'[ -z "$missing" ] || {install} $missing',
            '[ -z "$missing" ] || for name in $missing; do',
            '    rpm -q "$name" 2>/dev/null || rpm -q --whatprovides "$name"',
            "done",
        ]
    if job.files:
        lines.append(f"{install} {_line(*job.files)}")
    if not source.keep:
        lines += [
            "for key in $(rpm -q gpg-pubkey || :); do",
            '    case "$before" in *"$key"*) ;; *) rpm -e --allmatches "$key" || : ;; esac',
            "done",
        ]
    return lines


def _dnf(manager: str, job: Job, source: Source) -> list[str]:
    words = [manager, "-y", *(["--disablerepo=*", f"--enablerepo={NAME}"] if source.mirror else [])]
    if not (job.install or job.upgrade):
        words += ["--disablerepo=*"]  # files and removals need no repository, and there may be no network
    if source.unsigned:
        words += ["--nogpgcheck"]
    if job.recommends is not None and manager == "dnf":
        words += [f"--setopt=install_weak_deps={job.recommends}"]
    lines = [_KEYS_BEFORE, *([_line(*words, "upgrade")] if job.upgrade else [])]
    lines += _rpm_frame(job, source, _line(*words, "install"), _line(*words, "remove"))
    return [*lines, _line(manager, "-y", "clean", "all")]


def _zypper(_: str, job: Job, source: Source) -> list[str]:
    words = ["zypper", "--non-interactive", *(["--no-gpg-checks"] if source.unsigned else [])]
    only = ["--repo", NAME] if source.mirror else []
    agreed = ["--auto-agree-with-licenses", *only]
    weak = {None: [], True: ["--recommends"], False: ["--no-recommends"]}[job.recommends]
    lines = [_KEYS_BEFORE, *([_line("rpm", "--import", source.key)] if source.key else [])]
    if (job.install or job.upgrade) and job.update:
        lines.append(_line(*words, "refresh", *([NAME] if source.mirror else [])))
    if job.upgrade:
        lines.append(_line(*words, "update", *agreed, *weak))
    offline = [] if job.install or job.upgrade else ["--no-refresh"]
    unsigned = ["--allow-unsigned-rpm"] if job.files else []
    install = _line(*words, *offline, "install", *agreed, *weak, *unsigned)
    lines += _rpm_frame(job, source, install, _line(*words, "--no-refresh", "remove"))
    return [*lines, "zypper --non-interactive clean --all"]


def _pacman(_: str, job: Job, source: Source) -> list[str]:
    conf = ["--config", repository_path("pacman", source)] if source.given else []
    words = ["pacman", *conf, "--noconfirm", "--noprogressbar"]
    lines = [_line(*words, "-Rn" if job.purge else "-R", *job.remove)] if job.remove else []
    if job.upgrade:
        lines.append(_line(*words, "-Syu"))
    elif job.install and job.update:
        lines.append(_line(*words, "-Sy"))
    if job.install:
        lines.append(_line(*words, "-S", "--needed", *job.install))
    if job.files:
        lines.append(_line(*words, "-U", "--needed", *job.files))
    return [*lines, "rm -rf /var/cache/pacman/pkg/*"]


def _apk(_: str, job: Job, source: Source) -> list[str]:
    words = ["apk", "--no-progress", "--no-cache"]
    if source.given:
        words += ["--repositories-file", repository_path("apk", source)]
    trust = ["--allow-untrusted"] if source.unsigned else []
    lines = [_line(*words, "del", *job.remove)] if job.remove else []
    if job.upgrade:
        lines.append(_line(*words, *trust, "upgrade"))
    if job.install:
        lines.append(_line(*words, *trust, "add", *job.install))
    if job.files:
        lines.append(_line(*words, "--no-network", "--allow-untrusted", "add", *job.files))
    return lines


def _line(*words: str) -> str:
    return shlex.join(words)


def kernels(names: Sequence[str]) -> tuple[str, ...]:
    """Return those names that are kernels, whose installation makes an initramfs: minutes in the appliance."""
    known = re.compile(r"linux-image(-.+)?|kernel(-(core|default|cloud|uek|lt|ml))?(-\d.*)?|linux(-(lts|virt|zen))?")
    return tuple(name for name in names if known.fullmatch(name.partition("=")[0]))
