"""netplan's YAML. Source: netplan-yaml(5). A file that must change is written anew, and loses its comments."""

from __future__ import annotations

from typing import Any

import yaml

from builder.guest.network.mended import Mended
from builder.guest.settings import load_yaml

_FIXED = ("addresses", "gateway4", "gateway6", "routes", "nameservers")


def mended(path: str, text: str, *, replace_static: bool) -> Mended:
    """Return the file without MAC addresses, and by DHCP where asked. Raises GuestError when it is no YAML."""
    found = load_yaml(text, path)
    network = found.get("network") if isinstance(found, dict) else None
    ethernets = network.get("ethernets") if isinstance(network, dict) else None
    changes: list[str] = []
    static: list[str] = []
    for name, device in ethernets.items() if isinstance(ethernets, dict) else ():
        if isinstance(device, dict):
            changes += _free(str(name), device)
            listed = device.get("addresses")
            fixed = [str(address) for address in listed] if isinstance(listed, list) else []
            if fixed and replace_static:
                for key in _FIXED:
                    device.pop(key, None)
                device["dhcp4"] = True
                changes.append(f"{', '.join(fixed)} of {name} replaced by DHCP")
            elif fixed:
                static += fixed
    new = yaml.safe_dump(found, sort_keys=False, default_flow_style=False) if changes else text
    return Mended(text=new, changes=changes, static=static)


def _free(name: str, device: dict[str, Any]) -> list[str]:
    """Take the MAC addresses away; the name is then the interface's own."""
    changes = []
    match = device.get("match")
    if isinstance(match, dict) and match.pop("macaddress", None):
        changes.append(f"macaddress of {name} removed")
        if not match:
            del device["match"]
            device.pop("set-name", None)  # netplan takes it only beside a match
    if device.pop("macaddress", None):
        changes.append(f"macaddress of {name} removed")
    return changes


def dhcp(names: tuple[str, ...], *, ipv6: bool) -> str:
    """Return a file that has these interfaces, or none given, all cards, ask DHCP."""
    settings: dict[str, Any] = {"dhcp4": True, "dhcp6": ipv6}
    # The last in the alphabet: networkd takes the first file that matches, and named interfaces come before.
    ethernets = {name: settings.copy() for name in names} or {"zz-emi": {"match": {"name": "e*"}, **settings}}
    return yaml.safe_dump({"network": {"version": 2, "ethernets": ethernets}}, sort_keys=False)
