"""/etc/network/interfaces, of Debian's ifupdown and Alpine's. Source: interfaces(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from builder.guest.network.mended import Mended, lines

_STANZA = re.compile(r"\s*(iface|auto|allow-\S+|mapping|source(-directory)?|rename|no-auto-down|no-scripts|template)\b")
_IFACE = re.compile(r"(\s*iface\s+)(\S+)(\s+)(inet6?)(\s+)(\S+)(.*)", re.DOTALL)
_FIXED = frozenset(
    {"address", "netmask", "gateway", "broadcast", "network", "pointopoint", "dns-nameservers", "dns-search"}
)
LOGICAL = "emi-dhcp"


def mended(text: str, *, replace_static: bool) -> Mended:
    """Return the file without hardware addresses and, where asked, by DHCP in place of fixed addresses."""
    kept, changes, static = [], [], []
    interface, method = "", ""
    for line in lines(text):
        word, _, value = line.strip().partition(" ")
        if found := _IFACE.match(line):
            interface, method = found[2], found[6]
            if method == "static" and replace_static:
                by = "dhcp" if found[4] == "inet" else "auto"
                kept.append("".join((*found.groups()[:5], by, "\n")))
                changes.append(f"{interface} by {by}")
                continue
        elif _STANZA.match(line):
            interface, method = "", ""
        elif interface and word == "hwaddress":
            changes.append(f"hwaddress of {interface} removed")
            continue
        elif method == "static" and word in _FIXED:
            static += [value.strip()] if word == "address" else []
            if replace_static:
                continue
        kept.append(line)
    return Mended(text="".join(kept), changes=changes, static=() if replace_static else static)


def dhcp(interfaces: Sequence[str], *, ipv6: bool) -> str:
    """Return a file that has these interfaces (names, or patterns of ifupdown 0.8) ask DHCP at boot."""
    text = ""
    for name in interfaces:
        logical = LOGICAL if name.startswith("/") else name
        text += f"auto {name}={logical}\n" if name.startswith("/") else f"auto {name}\n"
        text += f"iface {logical} inet dhcp\n"
        text += f"iface {logical} inet6 auto\n" if ipv6 else ""
    return text


def defined(text: str) -> frozenset[str]:
    """Return the interfaces that a file has stanzas for."""
    return frozenset(found[2] for line in lines(text) if (found := _IFACE.match(line)))
