"""The step kind `packages`."""

from __future__ import annotations

import hashlib
import platform
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from builder.errors import GuestError, UsageError
from builder.guest import managers, sources
from builder.guest.edits import Command, CopyIn, Edit, MakeDirectory, Remove, Unchanged, WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.installed import installed, is_satisfied
from builder.guest.managers import PLACE, Job, Source
from builder.guest.os import System, parse_assignments, read_system
from pipelines.step import GuestStep, Options, Outside

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+._~:^=/-]*", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~%-]*", re.ASCII)
_URL = re.compile(r"(https?|ftp|file)://[!-~]+", re.ASCII)
_LINE = re.compile(r"deb\s[ -~]+", re.ASCII)
_RUNS = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64",)}  # what commands of a guest may be made for, by host


class PackagesOptions(Options):
    """What is to be there and what not, and where it comes from."""

    install: tuple[str, ...] = Field(
        default=(),
        description="packages to have, by name; `name=version` where the package manager knows that",
    )
    remove: tuple[str, ...] = Field(default=(), description="packages not to have, by name; done before the rest")
    files: tuple[str, ...] = Field(
        default=(),
        description="package files (.deb, .rpm, …) in the recipe's directory to install; need no network",
    )
    upgrade: bool = Field(default=False, description="bring all installed packages up to date, none is removed for it")
    mirror: str | None = Field(
        default=None,
        description="URL of an archive to use for this step instead of all the guest's own: for apt the archive's root "
        "(suite and `main` are the guest's), for dnf, yum and zypper one repository, for pacman a Server line, for apk "
        "the root of all branches",
    )
    repository: str | None = Field(
        default=None,
        description="one more repository for this step: for apt the whole line (`deb URL SUITE COMPONENTS`), "
        "for others its URL",
    )
    key: str | None = Field(
        default=None, description="file in the recipe's directory with the key that signs the mirror or the repository"
    )
    unsigned: bool = Field(
        default=False, description="take the mirror's or the repository's packages without signature"
    )
    keep: bool = Field(
        default=False, description="leave the mirror or the repository, and its key, set up in the guest"
    )
    network: bool = Field(
        default=False, description="let the step reach the guest's own repositories; a mirror or repository implies it"
    )
    update: bool = Field(default=True, description="read the lists of packages anew first")
    recommends: bool | None = Field(
        default=None, description="whether merely recommended packages come too; by default what the guest is set to"
    )
    purge: bool = Field(default=False, description="remove configuration files with the packages, where that differs")
    limit: int = Field(default=1800, ge=1, le=86400, description="seconds after which the work is given up")


class Packages(GuestStep[PackagesOptions]):
    """Install and remove packages with the guest's own package manager, inside the appliance.

    apt, dnf, yum, zypper, pacman and apk. What is installed already, or not there to be removed, is no work. Services
    do not start, questions are not asked, configuration files that were changed stay. The network is there only for a
    mirror, a repository or `network: true`. A given repository is set up for the step and taken away again. Lists and
    downloads are not left behind. A package that makes an initramfs (a kernel) takes minutes where KVM is not usable.
    """

    options = PackagesOptions
    may_change_kernel = True

    def check(self, options: PackagesOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        wrong = [_wrong_name(name) for name in (*options.install, *options.remove)]
        both = set(options.install) & set(options.remove)
        if not (options.install or options.remove or options.files or options.upgrade):
            wrong.append("nothing to do: give `install`, `remove`, `files` or `upgrade`")
        wrong += [f"{name} is to be installed and removed" for name in sorted(both)]
        if options.mirror and options.repository:
            wrong.append("`mirror` stands for all repositories: give `repository` or `mirror`")
        given = bool(options.mirror or options.repository)
        if (options.install or options.upgrade) and not (given or options.network):
            wrong.append("packages come from somewhere: give `mirror`, `repository` or `network: true`")
        if not given and (options.key or options.unsigned or options.keep):
            wrong.append("`key`, `unsigned` and `keep` are for a `mirror` or a `repository`")
        if options.key and options.unsigned:
            wrong.append("`key` and `unsigned` exclude each other")
        if options.mirror and not _URL.fullmatch(options.mirror):
            wrong.append(f"`mirror` must be a URL, not {options.mirror!r}")
        if options.repository and not (_URL.fullmatch(options.repository) or _LINE.fullmatch(options.repository)):
            wrong.append(f"`repository` must be a URL or a line of apt's (deb URL …), not {options.repository!r}")
        if len({posixpath.basename(name) for name in options.files}) < len(options.files):
            wrong.append("two of `files` have the same name")
        wrong += [_wrong_file(name) for name in (*options.files, *([options.key] if options.key else []))]
        return list(filter(None, wrong))

    def pin(self, options: PackagesOptions, outside: Outside) -> Mapping[str, Any]:
        """Return the digests of the files that the recipe's directory gives."""
        names = (*options.files, *([options.key] if options.key else []))
        return {"files": {name: _digest(outside, name) for name in names}} if names else {}

    def network(self, options: PackagesOptions) -> bool:
        """Say whether it reaches for packages."""
        return bool(options.network or options.mirror or options.repository)

    def edits(self, options: PackagesOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Hand the job to the guest's package manager, unless its own files say that it is done."""
        system = read_system(facts)
        _require_runnable(system)
        manager = str(system.package_manager)
        packages = installed(facts, manager)
        install, remove = options.install, options.remove
        if packages is not None:
            install = tuple(name for name in install if not is_satisfied(packages, name))
            remove = tuple(name for name in remove if packages.get(name))
        key = _key_path(options.key, manager) if options.key else ""
        source = Source(mirror=options.mirror or "", repository=options.repository or "", key=key,
                        unsigned=options.unsigned, keep=options.keep)  # fmt: skip
        _require_known(source, manager, packages or {})
        digests = pins.get("files") or {}
        given = _given(source, manager, options, facts, digests)
        if not (install or remove or options.files or options.upgrade):
            return (given if options.keep else []) or Unchanged(why=_already(options, packages or {}))
        files = tuple(f"{PLACE}/{posixpath.basename(name)}" for name in options.files)
        job = Job(install=install, remove=remove, files=files, upgrade=options.upgrade, update=options.update,
                  recommends=options.recommends, purge=options.purge)  # fmt: skip
        before: list[Edit] = [Remove(paths=(PLACE,)), MakeDirectory(path=PLACE, mode=0o755)]
        before += [CopyIn(path=path, source=name, sha256=digests[name])
                   for path, name in zip(files, options.files, strict=True)]  # fmt: skip
        command = Command(
            script=managers.script(manager, job, source).encode(),
            why=_told(manager, job, options),
            environment=managers.environment(),
            limit=options.limit,
            network=self.network(options),
            shown=True,
            secret=_secrets(source.given),
        )
        leave = [] if options.keep else [edit.path for edit in given]  # what was there before stays
        after = Remove(paths=(PLACE, *leave))
        return (*before, *given, command, after)


def _given(
    source: Source, manager: str, options: PackagesOptions, facts: GuestFacts, digests: Mapping[str, str]
) -> list[CopyIn | WriteFile]:
    """Return what sets up the mirror or repository, and its key, where the guest has not the same there already.

    Raises GuestError where another one is in its place, which would be gone afterwards.
    """
    if not source.given:
        return []
    edits: list[CopyIn | WriteFile] = []
    if options.key:
        digest = digests[options.key]
        if hashlib.sha256(facts.read(source.key) or b"").hexdigest() != digest:
            edits.append(CopyIn(path=source.key, source=options.key, sha256=digest, mode=0o644))
    path = managers.repository_path(manager, source)
    data = managers.repository_text(manager, source, _guest_of(facts)).encode("utf-8", "surrogateescape")
    if facts.read(path) != data:
        edits.append(WriteFile(path=path, data=data, mode=0o644))
    taken = [] if options.keep else [edit.path for edit in edits if facts.exists(edit.path)]
    if taken:
        raise GuestError(
            f"{' and '.join(taken)} in the guest is another one, and stays",
            hint="Give this step's repository `keep: true`, which replaces it, or its key file another name.",
        )
    return edits


def _wrong_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name.endswith("-"):  # apt takes `name-` for a removal
        return f"{name!r} is no name of a package"
    return ""


def _wrong_file(name: str) -> str:
    if not _FILE.fullmatch(name.rpartition("/")[2]):
        return f"{name!r} is no name of a package or key file"
    return sources.problem(name) or ""


def _digest(outside: Outside, name: str) -> str:
    found = sources.pinned(outside.recipe_directory, name)
    if "sha256" not in found:
        raise UsageError(f"{outside.recipe_directory / name} is a directory; name the files that are to be installed")
    return str(found["sha256"])


def _require_runnable(system: System) -> None:
    if system.package_manager not in managers.MANAGERS:
        raise GuestError(
            f"{system} has no package manager that is known here: {', '.join(managers.MANAGERS)}",
            hint="A `run` step can do what its own tools can.",
        )
    host = platform.machine()
    if system.architecture and system.architecture not in _RUNS.get(host, (host,)):
        raise GuestError(
            f"the guest is for {system.architecture} and this host is {host}: its package manager cannot run here",
            hint=f"Run the recipe on a {system.architecture} host.",
        )


def _require_known(source: Source, manager: str, packages: Mapping[str, str]) -> None:
    if manager == "apt" and source.repository and not _LINE.fullmatch(source.repository):
        raise GuestError(
            "apt's repositories are lines: deb URL SUITE COMPONENTS", hint="Write `repository:` like that."
        )
    if manager != "apt" and source.repository.startswith("deb "):
        raise GuestError(f"the guest has {manager}, whose repositories are URLs", hint="Give `repository:` as a URL.")
    version = re.match(r"(\d{1,9})\.(\d{1,9})", packages.get("apt", ""))
    if manager == "apt" and source.key and version and (int(version[1]), int(version[2])) < (1, 4):
        raise GuestError(
            f"the guest's apt {packages['apt']} cannot be given a key for one repository; 1.4 can",
            hint="`unsigned: true` does without, where the way to the archive is trusted.",
        )
    if manager == "pacman" and source.key:
        raise GuestError(
            "pacman's keyring is not changed for one step", hint="Use the guest's own keys, or `unsigned`."
        )


def _key_path(name: str, manager: str) -> str:
    base = posixpath.basename(name)
    if manager == "apt":  # which tells armoured keys from others by the name's end
        return f"/usr/share/keyrings/{managers.NAME}.{'asc' if base.endswith('.asc') else 'gpg'}"
    if manager == "apk":  # signatures name their key's file
        return f"/etc/apk/keys/{base}"
    return f"/etc/pki/rpm-gpg/{managers.NAME}"


def _guest_of(facts: GuestFacts) -> managers.Guest:
    said = parse_assignments(facts.text("/etc/os-release")) or parse_assignments(facts.text("/usr/lib/os-release"))
    spoken = re.search(r"\(([a-z]+)\)", said.get("VERSION", ""))
    return managers.Guest(
        suite=said.get("VERSION_CODENAME") or said.get("UBUNTU_CODENAME") or (spoken[1] if spoken else ""),
        components="main universe" if said.get("ID") == "ubuntu" else "main",
        pacman_conf=facts.text("/etc/pacman.conf"),
        apk_repositories=facts.text("/etc/apk/repositories"),
    )


def _already(options: PackagesOptions, packages: Mapping[str, str]) -> str:
    names = [re.split("[=/]", name)[0] for name in options.install]
    there = [f"{name} {packages.get(name, '')}".strip() for name in names]
    said = [f"installed already: {', '.join(there)}"] if there else []
    return "; ".join([*said, *([f"not installed: {', '.join(options.remove)}"] if options.remove else [])])


def _told(manager: str, job: Job, options: PackagesOptions) -> str:
    said = [f"removed {', '.join(job.remove)}"] if job.remove else []
    said += ["upgraded what is installed"] if job.upgrade else []
    names = [*job.install, *(posixpath.basename(name) for name in job.files)]
    said += [f"installed {', '.join(names)}"] if names else []
    kernels = managers.kernels(job.install)
    warned = f"; {', '.join(kernels)} is a kernel, whose initramfs takes minutes to make" if kernels else ""
    source = options.mirror or options.repository or ""
    for secret in _secrets(source):
        source = source.replace(secret, "***")
    return f"{manager}: {'; '.join(said)}" + (f" from {source}" if source else "") + warned


def _secrets(source: str) -> tuple[str, ...]:
    """Return the credentials in a URL."""
    return tuple(re.findall(r"://([^/@\s]+)@", source))
