"""What `emi inspect` shows of a guest: system, kernels and their drivers, boot loader, fstab, cloud-init, users.

Some hundred small reads, where libguestfs' inspect_os takes 8.5 s. What one part cannot tell does not hide the others:
it stands in `troubles`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from builder.errors import EmiError
from builder.guest import cloudinit, fstab
from builder.guest.accounts import User, read_accounts
from builder.guest.boot_entries import BootEntry, boot_configs, boot_entries
from builder.guest.boot_partition import boot_partition
from builder.guest.drivers import GROUPS, drivers, kernels
from builder.guest.facts import Filesystem, GuestFacts
from builder.guest.kernels import find
from builder.guest.layout import DiskReader
from builder.guest.os import System, read_system
from builder.guest.passwords import lets_in, passwords
from builder.image.identity import printable
from builder.image.inspect import look_inside

_SYSTEM_USERS = 1000  # people's accounts have this number and more (500 on EL5 and EL6), but for root
_KEYS = (".ssh/authorized_keys", ".ssh/authorized_keys2")
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class KernelFacts:
    """A kernel: its file, the initramfs beside it, and where each driver of interest is (`in the initramfs`)."""

    version: str
    path: str
    initramfs: str = ""
    drivers: tuple[tuple[str, str], ...] = ()
    trouble: str = ""  # why the initramfs' drivers are not known


@dataclass(frozen=True, kw_only=True)
class UserFacts:
    """An account that may log in: `password` is whether some password lets it in, `keys` how many keys do."""

    name: str
    uid: int
    home: str
    shell: str
    password: bool
    keys: int


@dataclass(frozen=True, kw_only=True)
class CloudFacts:
    """cloud-init: the datasources that it is told to look for; `available` are those that it has."""

    installed: bool
    disabled: bool = False
    datasources: tuple[str, ...] = ()
    available: int = 0
    ds_identify: bool = False
    default_user: str = ""


@dataclass(frozen=True, kw_only=True)
class BootFacts:
    """The boot loader's files, and what it starts first."""

    configs: tuple[str, ...] = ()
    kernel: str = ""
    arguments: str = ""
    entries: int = 0


@dataclass(frozen=True, kw_only=True)
class GuestReport:
    """A guest, as far as it could be told; `troubles` are sentences on the rest. All of it is a guest's own words."""

    root: str
    system: System
    filesystems: tuple[Filesystem, ...]
    kernels: tuple[KernelFacts, ...] = ()
    boot: BootFacts | None = None
    fstab: tuple[str, ...] = ()
    cloud: CloudFacts | None = None
    users: tuple[UserFacts, ...] = ()
    troubles: tuple[str, ...] = ()


def inspect(facts: GuestFacts) -> GuestReport:
    """Return what the guest is. Raises GuestError only where the root cannot be read at all."""
    troubles: list[str] = []

    def told(ask: Callable[[GuestFacts], Answer], otherwise: Answer) -> Answer:
        try:
            return ask(facts)
        except EmiError as error:
            troubles.append(error.message)
            return otherwise

    return GuestReport(
        root=facts.root,
        system=read_system(facts),
        filesystems=tuple(facts.filesystems),
        kernels=told(_kernels, ()),
        boot=told(_boot, None),
        fstab=told(_fstab, ()),
        cloud=told(_cloud, None),
        users=told(_users, ()),
        troubles=tuple(troubles),
    )


def _kernels(facts: GuestFacts) -> tuple[KernelFacts, ...]:
    installed = {kernel.version: kernel for kernel in kernels(facts)}
    listed = [module for group in GROUPS.values() for module in group]
    found = []
    for kernel in find(facts).kernels:
        modules = installed.get(kernel.version)
        has = drivers(facts, modules) if modules else None
        found.append(
            KernelFacts(
                version=kernel.version,
                path=kernel.path,
                initramfs=kernel.ramdisk or "",
                drivers=tuple((module, has.where(module)) for module in listed) if has else (),
                trouble=has.trouble if has else "its modules are not in the guest",
            )
        )
    return tuple(found)


def _boot(facts: GuestFacts) -> BootFacts:
    reader = DiskReader(facts.sectors, facts.disk_size)
    apart = boot_partition(reader, look_inside(reader)[0])
    entries: Sequence[BootEntry] = apart.entries if apart else boot_entries(facts)
    first = next((entry for entry in entries if not entry.rescue), None)
    return BootFacts(
        configs=(apart.config,) if apart else boot_configs(facts),
        kernel=first.kernel if first else "",
        arguments=" ".join(first.arguments) if first else "",
        entries=len(entries),
    )


def _fstab(facts: GuestFacts) -> tuple[str, ...]:
    lines = fstab.parse(facts.read("/etc/fstab") or b"")
    return tuple(" ".join(line.text.split()) for line in lines if line.entry)


def _cloud(facts: GuestFacts) -> CloudFacts:
    if not cloudinit.installed(facts):
        return CloudFacts(installed=False)
    settings = cloudinit.settings(facts)
    listed = settings.get("datasource_list")
    info = settings.get("system_info")
    user = info.get("default_user") if isinstance(info, dict) else None
    return CloudFacts(
        installed=True,
        disabled=facts.exists(cloudinit.DISABLED),
        datasources=tuple(map(str, listed)) if isinstance(listed, list) else (),
        available=len(cloudinit.datasources(facts)),
        ds_identify=cloudinit.has_ds_identify(facts),
        default_user=str(user.get("name", "")) if isinstance(user, dict) else "",
    )


def _users(facts: GuestFacts) -> tuple[UserFacts, ...]:
    accounts = read_accounts(facts)
    fields = passwords(accounts)
    people = (user for user in accounts.users if user.uid == 0 or user.uid >= _SYSTEM_USERS // 2)
    return tuple(
        UserFacts(
            name=user.name,
            uid=user.uid,
            home=user.home,
            shell=user.shell,
            password=lets_in(fields.get(user.name, "*")),
            keys=_keys(facts, user),
        )
        for user in people
        if user.may_log_in
    )


def _keys(facts: GuestFacts, user: User) -> int:
    paths = (f"{user.home}/{name}" for name in _KEYS) if user.home.startswith("/") else ()
    lines = (line.strip() for path in paths for line in facts.text(path).splitlines())
    return sum(1 for line in lines if line and not line.startswith("#"))


def describe(report: GuestReport) -> str:
    """Return the report as lines for a person, nothing in them that a terminal would obey."""
    system = report.system
    about = [system.architecture or "unknown architecture", f"{system.package_manager} packages", f"{system.init} init"]
    lines = [f"guest on {report.root}: {system}; {', '.join(about)}"]
    lines += [f"  filesystem {_filesystem(found)}" for found in report.filesystems]
    outside = report.boot is not None and bool(report.boot.kernel)
    lines += [line for kernel in report.kernels for line in _kernel(kernel)] or [
        f"  no kernel{' of its own' if outside else ''}"
    ]
    lines += _loader(report.boot)
    lines += [f"  fstab: {line}" for line in report.fstab] or ["  fstab: no entries"]
    lines += _cloud_init(report.cloud)
    lines += [f"  user {_user(user)}" for user in report.users]
    lines += [f"  not known: {trouble}" for trouble in report.troubles]
    return "\n".join(map(printable, lines))


def _filesystem(found: Filesystem) -> str:
    words = [f"{found.device}: {found.type}"]
    words += [f"label {found.label!r}"] if found.label else []
    words += [f"UUID {found.uuid}"] if found.uuid else []
    words += [found.unclean] if found.unclean else []
    return ", ".join(words)


def _kernel(kernel: KernelFacts) -> list[str]:
    beside = f"initramfs {kernel.initramfs}" if kernel.initramfs else "no initramfs"
    lines = [f"  kernel {kernel.version}: {kernel.path}, {beside}"]
    places = dict.fromkeys(place for _, place in kernel.drivers)
    lines += [f"    {where}: {', '.join(name for name, place in kernel.drivers if place == where)}" for where in places]
    return [*lines, *([f"    not known: {kernel.trouble}"] if kernel.trouble else [])]


def _loader(boot: BootFacts | None) -> list[str]:
    if boot is None:
        return []
    if not boot.configs:
        return ["  no boot loader's configuration"]
    entries = f"{boot.entries} entr{'y' if boot.entries == 1 else 'ies'}"
    said = f"  boot loader: {', '.join(boot.configs)}, {entries}"
    return [said, *([f"    starts {boot.kernel} {boot.arguments}"] if boot.kernel else [])]


def _cloud_init(cloud: CloudFacts | None) -> list[str]:
    if cloud is None:
        return []
    if not cloud.installed:
        return ["  no cloud-init"]
    said = ", ".join(cloud.datasources) or f"all of its {cloud.available}"
    extra = ["switched off"] if cloud.disabled else []
    extra += ["ds-identify decides by the firmware"] if cloud.ds_identify else []
    extra += [f"default user {cloud.default_user}"] if cloud.default_user else []
    return [f"  cloud-init: datasources {'; '.join([said, *extra])}"]


def _user(user: UserFacts) -> str:
    password = "a password" if user.password else "no password"
    keys = f"{user.keys} key{'' if user.keys == 1 else 's'}" if user.keys else "no keys"
    return f"{user.name} ({user.uid}): {user.home}, {user.shell}, {password}, {keys}"
