"""The step kind `network`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from builder.errors import GuestError
from builder.guest import cloudinit
from builder.guest.edits import Edit, MakeLink, Remove, Unchanged, WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.network import ini, managers
from builder.guest.os import System, read_system
from pipelines.step import GuestStep, Options

Interface = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,14}$")]

_CLOUD_INIT_OFF = f"{cloudinit.DIRECTORY}/99-emi-network.cfg"
_RULES = (
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/etc/udev/rules.d/z25_persistent-net.rules",
    "/etc/udev/rules.d/85-persistent-net-cloud-init.rules",
)
_GENERATORS = tuple(f"{place}/udev/rules.d/75-persistent-net-generator.rules" for place in ("/lib", "/usr/lib"))
_GENERATOR_OFF = "/etc/udev/rules.d/75-persistent-net-generator.rules"


class NetworkOptions(Options):
    """Which interfaces ask DHCP, and what becomes of fixed addresses."""

    interfaces: Literal["all", "first"] | tuple[Interface, ...] = Field(
        default="all", description="which ask DHCP: `all` cards, the `first`, or a list of names"
    )
    static: Literal["keep", "replace"] = Field(
        default="keep", description="what becomes of interfaces with fixed addresses; kept ones are told"
    )
    ipv6: bool = Field(default=True, description="ask for IPv6 addresses too")
    cloud_init: Literal["leave", "disable"] = Field(
        default="leave",
        description="where cloud-init writes the network at boot: `leave` that to it, or `disable` it and write here",
    )


class Network(GuestStep[NetworkOptions]):
    """Have the guest ask DHCP, and forget the MAC addresses and names of the cards of the machine it comes from.

    Written is one file of our own, for what the guest sets up its network with: netplan, NetworkManager,
    systemd-networkd, ifupdown, wicked (SUSE) or the ifcfg files of Fedora and EL, from EL 5 on. Where cloud-init writes
    the network at boot, that is left to it. ifcfg and wicked know no patterns: there `all` and `first` mean eth0,
    unless a card asks DHCP already.

    MAC addresses leave every configuration file, of whatever program: HWADDR and UUID in ifcfg, mac-address in
    keyfiles, macaddress in netplan's matches (its file loses its comments then), hwaddress, MACAddress. systemd's .link
    files that match by them are removed, and so are udev's persistent rules; the rule that would make those again is
    masked. Names like eth0 come from the kernel's command line (`net.ifnames=0`), which is the `grub` step's.
    """

    options = NetworkOptions

    def check(self, options: NetworkOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        return ("`interfaces` is an empty list",) if options.interfaces == () else ()

    def edits(self, options: NetworkOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Mend the files there are, then add the one that asks DHCP."""
        system = read_system(facts)
        files, static = _mended(options, facts, system)
        told = []
        if cloudinit.writes_network(facts) and options.cloud_init == "leave":
            told.append("cloud-init sets up DHCP at boot")
        else:
            files |= _dhcp(options, facts, system, files)
        edits: list[Remove | MakeLink | WriteFile] = [*_names(facts), *files.values()]
        told += [f"fixed addresses stay: {', '.join(static)}"] if static else []
        if not edits:
            return Unchanged(why="; ".join(["no MAC addresses, and DHCP is asked already", *told]))
        edits[-1] = replace(edits[-1], why="; ".join([str(edits[-1]), *told]))
        return edits


def _names(facts: GuestFacts) -> list[Remove | MakeLink]:
    """Return the edits that make the names of cards depend on no MAC address."""
    found = [path for path in _RULES if facts.read(path)]
    found += [path for path in facts.names("/etc/systemd/network/*.link") if ini.names_by_mac(facts.text(path))]
    edits: list[Remove | MakeLink] = [Remove(paths=tuple(found))] if found else []
    if any(map(facts.exists, _GENERATORS)) and facts.link(_GENERATOR_OFF) != "/dev/null":
        edits.append(
            MakeLink(path=_GENERATOR_OFF, target="/dev/null", why=f"masked {_GENERATOR_OFF.rpartition('/')[2]}")
        )
    return edits


def _mended(options: NetworkOptions, facts: GuestFacts, system: System) -> tuple[dict[str, WriteFile], list[str]]:
    """Return the edits of files by path, and the fixed addresses that stay."""
    edits, static = {}, []
    for each in managers.configurations(facts, system, replace_static=options.static == "replace"):
        text = facts.text(each.path)
        mended = each.mend(text)
        if mended.text != text:
            data = mended.text.encode("utf-8", "surrogateescape")
            why = f"{each.path}: {', '.join(mended.changes)}"
            edits[each.path] = WriteFile(path=each.path, data=data, why=why)
        static += [f"{address} in {each.path}" for address in mended.static]
    return edits, static


def _dhcp(
    options: NetworkOptions, facts: GuestFacts, system: System, mended: Mapping[str, WriteFile]
) -> dict[str, WriteFile]:
    """Return the edits that have the guest ask DHCP, by path; a file that was mended before is written once."""
    kind = managers.manager(facts, system)
    if kind is None:
        raise GuestError(
            f"nothing that sets up a network was found in the guest ({system}): no netplan, NetworkManager, "
            "systemd-networkd, ifupdown, wicked or network-scripts",
            hint="Install or enable one with a `packages` or `run` step before this one.",
        )

    def read(path: str) -> str:
        return mended[path].data.decode("utf-8", "surrogateescape") if path in mended else facts.text(path)

    edits = {}
    if cloudinit.writes_network(facts):
        data = b"# Written by emi.\nnetwork: {config: disabled}\n"
        edits[_CLOUD_INIT_OFF] = WriteFile(path=_CLOUD_INIT_OFF, data=data, why="cloud-init leaves the network alone")
    for wanted in managers.dhcp(kind, read, facts, interfaces=options.interfaces, ipv6=options.ipv6):
        if read(wanted.path) != wanted.text:
            data = wanted.text.encode("utf-8", "surrogateescape")
            why = f"{wanted.path} asks DHCP ({kind})"
            edits[wanted.path] = WriteFile(path=wanted.path, data=data, mode=wanted.mode, why=why)
    return edits
