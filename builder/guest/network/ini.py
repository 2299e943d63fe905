"""NetworkManager's keyfiles and systemd's .network and .link files: sections and keys.

Sources: nm-settings-keyfile(5), systemd.network(5), systemd.link(5).
"""

from __future__ import annotations

import re

from builder.guest.network.mended import Mended, lines

_SECTION = re.compile(r"\s*\[([^\]]*)\]")
_KEY = re.compile(r"([A-Za-z0-9_-]+)\s*=\s*(.*)", re.DOTALL)
_MACS = frozenset({"mac-address", "macaddress", "permanentmacaddress", "cloned-mac-address"})
_ADDRESS = re.compile(r"address(es)?\d*")
_FIXED = re.compile(r"address(es)?\d*|gateway|dns|dns-search|route\d*(_options)?|routes")


def keyfile(text: str, *, replace_static: bool) -> Mended:
    """Return a connection of NetworkManager without MAC addresses, and by DHCP where asked."""
    entries = _read(text)
    manual = {section for section, key, value, _ in entries if key == "method" and value == "manual"}
    kept, changes = [], []
    for section, key, value, line in entries:
        wired = section in ("ethernet", "802-3-ethernet")
        if wired and key in _MACS and value.lower() not in ("random", "stable", "preserve", "permanent"):
            changes.append(f"{key} removed")
        elif section in manual and replace_static and key == "method":
            kept.append("method=auto\n")
        elif section in manual and replace_static and _FIXED.fullmatch(key):
            continue
        else:
            kept.append(line)
    static = tuple(value for section, key, value, _ in entries if section in manual and _ADDRESS.fullmatch(key))
    if manual and replace_static:
        changes.append(f"{', '.join(static)} replaced by DHCP")
    return Mended(text="".join(kept), changes=changes, static=() if replace_static else static)


def network(text: str, *, replace_static: bool) -> Mended:
    """Return a .network file of systemd without MAC addresses, and by DHCP where asked."""
    entries = _read(text)
    named = any(section == "match" and key and key not in _MACS for section, key, _, _ in entries)
    fixed = [value for section, key, value, _ in entries if section in ("network", "address") and key == "address"]
    replace = bool(fixed) and replace_static
    kept, changes = [], []
    for section, key, _, line in entries:
        if section in ("match", "link") and key in _MACS:
            changes.append("MACAddress removed")
            if section == "match" and not named:  # an empty [Match] would be for every interface, lo included
                kept.append("Type=ether\n")
                named = True
        elif replace and (section in ("address", "route") or (section == "network" and _gone(key))):
            continue
        else:
            kept.append(line)
            if replace and section == "network" and not key and _SECTION.match(line):
                kept.append("DHCP=yes\n")
    if replace:
        changes.append(f"{', '.join(fixed)} replaced by DHCP")
    return Mended(text="".join(kept), changes=changes, static=() if replace else tuple(fixed))


def names_by_mac(text: str) -> bool:
    """Say whether a .link file gives a name to one machine's card."""
    return any(section == "match" and key in _MACS for section, key, _, _ in _read(text))


def _gone(key: str) -> bool:
    return key in ("address", "gateway", "dns", "domains", "dhcp")


def _read(text: str) -> list[tuple[str, str, str, str]]:
    """Return section, key and value in small letters but the value, and the line; empty where it has none."""
    found, section = [], ""
    for line in lines(text):
        if heading := _SECTION.match(line):
            section = heading[1].strip().lower()
            found.append((section, "", "", line))
        elif entry := _KEY.fullmatch(line.strip()):
            found.append((section, entry[1].lower(), entry[2], line))
        else:
            found.append((section, "", "", line))
    return found
