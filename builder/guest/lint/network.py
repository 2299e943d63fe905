"""Rules on the network: addresses by DHCP, no names or cards of the machine where the image was made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from builder.guest import cloudinit
from builder.guest.lint.rule import Found, Mend, Rule
from builder.guest.lint.subject import Subject

_IFCFG = ("/etc/sysconfig/network-scripts/ifcfg-*", "/etc/sysconfig/network/ifcfg-*")
_INTERFACES = ("/etc/network/interfaces", "/etc/network/interfaces.d/*")
_NETPLAN = ("/etc/netplan/*.yaml", "/run/netplan/*.yaml")
_NETWORKD = ("/etc/systemd/network/*.network", "/usr/lib/systemd/network/*.network")
_CONNECTIONS = ("/etc/NetworkManager/system-connections/*",)
_CONFIGS = (*_NETPLAN, *_INTERFACES, *_IFCFG, *_NETWORKD, *_CONNECTIONS)
_DHCP = re.compile(
    r"\s*(?:(?:.*[{,]\s*)?dhcp[46]?\s*:\s*(?:true|yes|on)|iface\s+\S+\s+inet6?\s+(?:dhcp|auto)"
    r"|BOOTPROTO\s*=\s*[\"']?dhcp|DHCP\s*=\s*(?:yes|true|on|1|ipv4|both|v4)|method\s*=\s*auto)",
    re.IGNORECASE,
)
_STATIC = re.compile(
    r"\s*(?:IPADDR\d*\s*=\s*[\"']?\d|address\d*\s*[= ]\s*\d+\.|Address\s*=\s*\d+\.|-\s*[\"']?\d+\.\d+\.\d+\.\d+/\d+"
    r"|addresses\s*:\s*\[\s*[\"']?\d+\.[\d.]+/)",
    re.IGNORECASE,
)
_MAC = r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"
_MAC_RULE = re.compile(rf"(?:ATTRS?\{{address\}}|ATTR\{{perm_address\}})\s*==\s*\"(?:{_MAC})", re.IGNORECASE)
_MAC_SETTING = re.compile(
    rf"\s*(?:HWADDR|MACADDR|macaddress|hwaddress(?:\s+ether)?|mac-address|MACAddress|PermanentMACAddress)"
    rf"\s*[=: ]\s*[\"']?{_MAC}",
    re.IGNORECASE,
)
_LINKS = ("/etc/systemd/network/*.link",)
_RULES = ("/etc/udev/rules.d/*.rules",)
_BUS_NAME = re.compile(r"\b(en(?:o\d+|s\d+(?:f\d+)?(?:np\d+)?|p\d+s\d+(?:f\d+)?\w*|x[0-9a-f]{12})|eth[1-9])\b")
_ANY_CARD = re.compile(  # by pattern or kind: netplan, ifupdown, networkd, NetworkManager
    r"\s*(?:name\s*:\s*[\"']?\w*\*|(?:auto|allow-\w+|iface)\s+/|Name\s*=.*\*|Type\s*=\s*ether|multi-connect\s*=\s*[23])"
)
_NO_CARD = re.compile(r"\s*(?:source|auto\s+lo\s*$|iface\s+lo\s)")  # all there is in Debian's file to begin with
_NAMED = re.compile(r"\s*(?:(?:auto|allow-hotplug|iface)\s|DEVICE\s*=|Name\s*=|interface-name\s*=|en\w+\s*:\s*$)")


def no_dhcp(subject: Subject) -> Iterator[Found]:
    """Nothing in the guest asks for an address by DHCP: it has no network in a cloud.

    cloud-init does by itself, unless it was told to leave the network alone, and so does NetworkManager. Source:
    Eucalyptus' tools/libvirt.xsl; EC2 User Guide, "Shared AMIs"; networkd, interfaces(5), netplan(5).
    """
    if cloudinit.writes_network(subject.facts):
        return
    if any(_DHCP.match(line) for path, _, line in _of_cards(subject) if not _loopback(path, line)):
        return
    if subject.program("NetworkManager") and not _static(subject):
        return
    if subject.program("dhcpcd") and all(_NO_CARD.match(line) for _, _, line in _of_cards(subject)):
        return  # alone it asks on every card
    yield Found(
        severity="error",
        what="nothing in the guest asks for an address by DHCP",
        where="/etc",
        mends=(Mend(step="network"),),
    )


def static_address(subject: Subject) -> Iterator[Found]:
    """A network card is given a fixed address, which is of the network where the image was made.

    Source: EC2 User Guide, "Multiple network interfaces": addresses are assigned by DHCP.
    """
    for path, number, line in _static(subject):
        yield Found(
            severity="warning",
            what="a network card has a fixed address",
            where=f"{path}:{number}",
            quote=line,
            mends=(Mend(step="network", options={"static": "replace"}),),
        )


def fixed_mac(subject: Subject) -> Iterator[Found]:
    """A rule or a setting ties a network card's name or configuration to one MAC address.

    Every instance has another one: the card becomes eth1, or is not configured. Source: 70-persistent-net.rules of udev
    before systemd 197; Eucalyptus' tools/libvirt.xsl.
    """
    rules = ((path, number, line) for path, number, line in subject.lines(*_RULES) if _MAC_RULE.search(line))
    settings = (
        (path, number, line) for path, number, line in subject.lines(*_CONFIGS, *_LINKS) if _MAC_SETTING.match(line)
    )
    for path, number, line in (*rules, *settings):
        yield Found(
            severity="error",
            what="a network card is known by its MAC address, and every instance has another",
            where=f"{path}:{number}",
            quote=line,
            mends=(Mend(step="network"),),
        )


def bus_bound_name(subject: Subject) -> Iterator[Found]:
    """The network is configured for a card by a name that tells where it sat in the machine of the build.

    ens3 there is ens5 on EC2 and eth0 elsewhere. It does no harm beside a configuration for any card. Source:
    systemd.net-naming-scheme(7).
    """
    if cloudinit.writes_network(subject.facts):
        return
    if any(_ANY_CARD.match(line) for _, _, line in _of_cards(subject)):
        return
    for path, number, line in subject.lines(*_CONFIGS):
        name = _BUS_NAME.search(line)
        if name and _NAMED.match(line):
            yield Found(
                severity="warning",
                what=f"the network is configured for the card {name[1]}, a name that other machines do not have",
                where=f"{path}:{number}",
                quote=line,
                mends=(Mend(step="network"),),
            )


def static_resolver(subject: Subject) -> Iterator[Found]:
    """/etc/resolv.conf is a file with the name servers of the network where the image was made.

    Where DHCP does not write it anew, no name is found. Source: resolv.conf(5), resolvconf(8), systemd-resolved(8).
    """
    for path, number, line in subject.lines("/etc/resolv.conf"):
        stat = subject.facts.stat(path)
        if line.strip().startswith("nameserver") and stat and stat.is_file:
            yield Found(
                severity="warning",
                what="name servers of the network where the image was made are left",
                where=f"{path}:{number}",
                quote=line,
                mends=(Mend(step="files", options={"entries": [{"path": path, "content": ""}]}),),
            )
            return


def fixed_hostname(subject: Subject) -> Iterator[Found]:
    """The host's name is fixed: every instance has the same.

    Source: cloud-init's `preserve_hostname`; hostnamed's order: /etc/hostname before what DHCP says.
    """
    name = subject.facts.text("/etc/hostname").strip()
    if not name or name.partition(".")[0] in ("localhost", "localhost-localdomain"):
        return
    preserved = subject.cloud.get("preserve_hostname") is True
    if cloudinit.installed(subject.facts) and not preserved:
        return
    yield Found(
        severity="note",
        what="every instance will have the same name" + (", as cloud-init is told to preserve it" if preserved else ""),
        where="/etc/hostname",
        quote=name,
        mends=(Mend(step="sysprep", options={"only": ["hostname"]}),),
    )


def _static(subject: Subject) -> list[tuple[str, int, str]]:
    return [
        (path, number, line)
        for path, number, line in subject.lines(*_CONFIGS)
        if _STATIC.match(line) and not _loopback(path, line) and not path.startswith("/usr/")
    ]


def _of_cards(subject: Subject) -> Iterator[tuple[str, int, str]]:
    """Yield the lines of network configurations but for networkd's that no card of a machine matches.

    systemd brings such: for containers (one asks DHCP), tunnels, bridges and wireless cards.
    """
    for path, lines in groupby(subject.lines(*_CONFIGS), key=lambda found: found[0]):
        found = list(lines)
        if not path.endswith(".network") or _matches_cards(line for _, _, line in found):
            yield from found


def _matches_cards(lines: Iterable[str]) -> bool:
    """Say whether a .network file can be for a card: one called eth0, ens5 or enp0s3. Source: systemd.network(5)."""
    section = ""
    for line in lines:
        key, _, value = (part.strip() for part in line.partition("="))
        section = key.lower() if key.startswith("[") else section
        if section != "[match]":
            continue
        words = value.split()
        match key.lower():
            case "name" if not any(word[0] in "e*?[!" for word in words):
                return False
            case "type" if not {"ether", "!loopback"} & set(words):
                return False
            case "kind" | "wlaninterfacetype" | "ssid" if not value.startswith("!"):
                return False
            case "virtualization" if value == "container":
                return False
            case "driver" if {"veth", "bridge", "tun"} & set(words):
                return False
    return True


def _loopback(path: str, line: str) -> bool:
    return path.endswith("ifcfg-lo") or bool(re.match(r"\s*iface\s+lo\s|.*(?<![\d.])127\.", line))


RULES = (
    Rule(check=no_dhcp, worst="error", mended_by=("network",)),
    Rule(check=static_address, worst="warning", mended_by=("network",)),
    Rule(check=fixed_mac, worst="error", mended_by=("network",)),
    Rule(check=bus_bound_name, worst="warning", mended_by=("network",)),
    Rule(check=static_resolver, worst="warning", mended_by=("files",)),
    Rule(check=fixed_hostname, worst="note", mended_by=("sysprep",)),
)
