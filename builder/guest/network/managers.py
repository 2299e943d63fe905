"""Which program sets up a guest's network at boot, its configuration files, and one that has it ask DHCP."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from builder.errors import GuestError
from builder.guest.facts import GuestFacts
from builder.guest.network import eni, ifcfg, ini, netplan
from builder.guest.network.mended import Mended
from builder.guest.os import System, read_system

Manager = Literal["netplan", "NetworkManager", "systemd-networkd", "wicked", "ifcfg", "ifupdown"]
Interfaces = Literal["all", "first"] | tuple[str, ...]

_SCRIPTS = "/etc/sysconfig/network-scripts"
_WICKED = "/etc/sysconfig/network"
_KEYFILES = "/etc/NetworkManager/system-connections"
_CLIENTS = ("dhclient", "dhcpcd", "udhcpc", "pump", "dhclient3", "dhcp-client")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration file of the guest, and how it is freed of what is one machine's."""

    path: str
    mend: Callable[[str], Mended]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file that has interfaces ask DHCP."""

    path: str
    text: str
    mode: int = 0o644


def manager(facts: GuestFacts, system: System) -> Manager | None:
    """Return what sets up the network, or None when it is nothing known.

    What is configured counts before what is enabled, and that before what is only installed: a Debian image may hold
    netplan and run ifupdown.
    """
    has_netplan = facts.exists("/usr/sbin/netplan")
    ifup = facts.exists("/sbin/ifup") or facts.exists("/usr/sbin/ifup")
    signs: Mapping[Manager, Callable[[], bool]] = {
        "NetworkManager": lambda: _enabled(facts, "NetworkManager.service"),
        "systemd-networkd": lambda: _enabled(facts, "systemd-networkd.service"),
        "wicked": lambda: system.family == "suse" and _is_directory(facts, _WICKED),
        "ifcfg": lambda: _is_directory(facts, _SCRIPTS),
        "ifupdown": lambda: ifup and facts.exists("/etc/network/interfaces"),
        "netplan": lambda: has_netplan,
    }
    if has_netplan and facts.names("/etc/netplan/*.yaml"):
        return "netplan"
    return next((name for name, sign in signs.items() if sign()), None)


def configurations(facts: GuestFacts, system: System, *, replace_static: bool) -> Iterator[Configuration]:
    """Yield every configuration file there is, of whatever program: a file at rest is read when that is switched on."""
    kinds: Mapping[str, Callable[[str], Mended]] = {
        "/etc/netplan/*.yaml": lambda text: Mended(text=text),  # below: it wants its path
        f"{_KEYFILES}/*": partial(ini.keyfile, replace_static=replace_static),
        "/etc/systemd/network/*.network": partial(ini.network, replace_static=replace_static),
        f"{_SCRIPTS}/ifcfg-*": partial(ifcfg.mended, replace_static=replace_static),
        "/etc/network/interfaces": partial(eni.mended, replace_static=replace_static),
        "/etc/network/interfaces.d/*": partial(eni.mended, replace_static=replace_static),
    }
    if system.family == "suse":
        kinds = {**kinds, f"{_WICKED}/ifcfg-*": partial(ifcfg.mended, replace_static=replace_static)}
    for pattern, mend in kinds.items():
        for path in facts.names(pattern):
            found = facts.stat(path)
            if found is None or not found.is_file or path.endswith((".bak", ".orig", ".rpmsave", ".rpmnew", "~")):
                continue
            by_path = partial(netplan.mended, path, replace_static=replace_static)
            yield Configuration(path=path, mend=by_path if path.endswith(".yaml") else mend)


def dhcp(
    kind: Manager, read: Callable[[str], str], facts: GuestFacts, *, interfaces: Interfaces = "all", ipv6: bool = True
) -> Sequence[Wanted]:
    """Return the files that have the interfaces ask DHCP at boot; `read` gives a file's text as it will be by then.

    Raises GuestError: the program cannot be told so.
    """
    names = interfaces if isinstance(interfaces, tuple) else ()
    if interfaces == "first" and kind in ("netplan", "NetworkManager", "systemd-networkd"):
        raise GuestError(
            f"{kind}, which sets up the guest's network, cannot be told to take the first interface only",
            hint="Name it in `interfaces:`, or say `all`.",
        )
    match kind:
        case "netplan":
            return [Wanted(path="/etc/netplan/90-emi.yaml", text=netplan.dhcp(names, ipv6=ipv6), mode=0o600)]
        case "NetworkManager":
            return [_keyfile(name, ipv6=ipv6) for name in names or ("",)]
        case "systemd-networkd":
            match = " ".join(names) or "e*"
            text = f"[Match]\nName={match}\n\n[Network]\nDHCP={'yes' if ipv6 else 'ipv4'}\n"
            return [Wanted(path="/etc/systemd/network/90-emi.network", text=text)]
        case "wicked":
            return _ifcfgs(_WICKED, read, facts, names, wicked=True)
        case "ifcfg":
            return [*_ifcfgs(_SCRIPTS, read, facts, names, wicked=False), *_networking(facts)]
        case "ifupdown":
            return _stanzas(read, facts, interfaces, ipv6=ipv6)


def _is_directory(facts: GuestFacts, path: str) -> bool:
    found = facts.stat(path)
    return found is not None and found.is_directory


def _enabled(facts: GuestFacts, unit: str) -> bool:
    return any(facts.names(f"{place}/systemd/system/*.wants/{unit}") for place in ("/etc", "/usr/lib"))


def _keyfile(name: str, *, ipv6: bool) -> Wanted:
    title = f"emi-{name or 'dhcp'}"
    made = uuid.uuid5(uuid.NAMESPACE_URL, f"emi:network:{name}")
    text = f"[connection]\nid={title}\nuuid={made}\ntype=ethernet\nautoconnect-priority=-100\n"
    text += f"interface-name={name}\n" if name else "multi-connect=3\n"  # 3: on as many cards as there are
    text += f"\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod={'auto' if ipv6 else 'ignore'}\n"
    return Wanted(path=f"{_KEYFILES}/{title}.nmconnection", text=text, mode=0o600)


def _ifcfgs(
    place: str, read: Callable[[str], str], facts: GuestFacts, names: Sequence[str], *, wicked: bool
) -> list[Wanted]:
    """Return a file for each name; without names for eth0, unless some card asks DHCP already."""
    there = [read(path) for path in facts.names(f"{place}/ifcfg-*") if not path.endswith("/ifcfg-lo")]
    if not names and any(ifcfg.is_physical(text) and ifcfg.asks_dhcp(text) for text in there):
        return []
    wanted = [Wanted(path=f"{place}/ifcfg-{name}", text=ifcfg.dhcp(name, wicked=wicked)) for name in names or ("eth0",)]
    # A fixed address that is still there was to stay.
    return [each for each in wanted if not _says_how(read(each.path))]


def _says_how(text: str) -> bool:
    return ifcfg.asks_dhcp(text) or "IPADDR" in text


def _networking(facts: GuestFacts) -> list[Wanted]:
    path = "/etc/sysconfig/network"
    text = facts.text(path)
    if "NETWORKING=yes" in text.replace('"', ""):
        return []
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("NETWORKING="))
    return [Wanted(path=path, text=f"NETWORKING=yes\n{kept}")]


def _stanzas(read: Callable[[str], str], facts: GuestFacts, interfaces: Interfaces, *, ipv6: bool) -> list[Wanted]:
    if not any(facts.exists(f"{place}/{name}") for place in ("/sbin", "/usr/sbin", "/bin") for name in _CLIENTS):
        raise GuestError(
            "the guest has ifupdown but no DHCP client", hint="Put a `packages` step that installs one before this one."
        )
    system = read_system(facts)
    if isinstance(interfaces, tuple):
        chosen = interfaces
    elif (system.major or 0) >= (18 if system.id == "ubuntu" else 9) and system.family == "debian":
        chosen = ("/e*",) if interfaces == "all" else ("/e*/1",)  # patterns came with ifupdown 0.8
    else:
        chosen = ("eth0",)
    main = "/etc/network/interfaces"
    texts = {path: read(path) for path in (main, *facts.names("/etc/network/interfaces.d/*"))}
    path = "/etc/network/interfaces.d/90-emi"
    taken = frozenset[str]().union(*(eni.defined(text) for name, text in texts.items() if name != path))
    chosen = tuple(name for name in chosen if name not in taken)
    text = eni.dhcp(chosen, ipv6=ipv6)
    if not chosen:
        return []
    if "/etc/network/interfaces.d" in texts[main]:
        return [Wanted(path=path, text=text)]
    # Systems that include nothing: Alpine's busybox, Debian before 8.
    said = texts[main]
    return [] if text in said else [Wanted(path=main, text=f"{said.rstrip()}\n\n{text}".lstrip("\n"))]
