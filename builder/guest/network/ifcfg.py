"""ifcfg-* files: Fedora's and EL's in /etc/sysconfig/network-scripts, SUSE's wicked in /etc/sysconfig/network.

Sources: sysconfig.txt of initscripts, nm-settings-ifcfg-rh(5), ifcfg(5) of wicked. They are shell assignments.
"""

from __future__ import annotations

import re

from builder.guest.network.mended import Mended, lines

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
# What ties the file to one machine's card. UUID is NetworkManager's name for the connection, the same in every copy.
_MACS = frozenset({"HWADDR", "MACADDR", "LLADDR", "UUID"})
_ADDRESS = re.compile(r"IPADDR(_?\w+)?|PREFIX(LEN)?(_?\w+)?|NETMASK(_?\w+)?|GATEWAY(_?\w+)?|DNS\d|NETWORK|BROADCAST")
_VIRTUAL = frozenset({"bridge", "bond", "vlan", "team", "ovsbridge", "wireless", "infiniband", "tunnel", "ipsec"})


def mended(text: str, *, replace_static: bool) -> Mended:
    """Return the file without MAC addresses and, where asked, by DHCP in place of fixed addresses."""
    values = _values(text)
    ethernet = _is_ethernet(values)
    static = _static(values)
    replace = replace_static and ethernet and bool(static)
    kept, changes, asked = [], [], False
    for line in lines(text):
        found = _ASSIGNMENT.match(line)
        name = found[1] if found else ""
        if name in _MACS and not (name == "UUID" and not ethernet):
            changes.append(f"{name} removed")
        elif replace and _ADDRESS.fullmatch(name):
            continue
        elif replace and name == "BOOTPROTO":
            kept.append(_dhcp(values))
            asked = True
        else:
            kept.append(line)
    if replace:
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        kept += [] if asked else [_dhcp(values)]
        changes.append(f"{', '.join(static)} replaced by DHCP")
    return Mended(text="".join(kept), changes=changes, static=() if replace else static)


def is_physical(text: str) -> bool:
    """Say whether the file is for a network card, as far as it says."""
    return _is_ethernet(_values(text))


def dhcp(name: str, *, wicked: bool) -> str:
    """Return a file that has the interface ask DHCP at boot."""
    if wicked:
        return "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n"
    return f"DEVICE={name}\nTYPE=Ethernet\nBOOTPROTO=dhcp\nONBOOT=yes\nPERSISTENT_DHCLIENT=yes\n"


def asks_dhcp(text: str) -> bool:
    """Say whether the interface asks DHCP at boot."""
    values = _values(text)
    starts = values.get("ONBOOT", values.get("STARTMODE", "yes")).lower() not in ("no", "off", "manual")
    return values.get("BOOTPROTO", "").lower().startswith(("dhcp", "bootp")) and starts


def _dhcp(values: dict[str, str]) -> str:
    return "BOOTPROTO='dhcp'\n" if "STARTMODE" in values else "BOOTPROTO=dhcp\n"


def _values(text: str) -> dict[str, str]:
    return {
        found[1]: found[2].strip().strip("\"'")
        for line in lines(text)
        if (found := _ASSIGNMENT.match(line.rstrip("\n")))
    }


def _static(values: dict[str, str]) -> tuple[str, ...]:
    if values.get("BOOTPROTO", "").lower() in ("dhcp", "bootp", "dhcp4", "dhcp6"):
        return ()
    return tuple(value for name, value in values.items() if re.fullmatch(r"IPADDR(_?\w+)?", name) and value)


def _is_ethernet(values: dict[str, str]) -> bool:
    device, kind = values.get("DEVICE", values.get("NAME", "")), values.get("TYPE", "Ethernet").lower()
    if device == "lo" or values.get("IPADDR", "").startswith("127."):
        return False
    slave = any(name in values for name in ("MASTER", "BRIDGE", "TEAM_MASTER", "BONDING_MASTER", "ETHERDEVICE"))
    return kind not in _VIRTUAL and not slave and values.get("VLAN", "no").lower() != "yes"
