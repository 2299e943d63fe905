"""cloud-init in a guest: where its settings are, which of them holds, and what it remembers of an instance.

Settings are YAML: /etc/cloud/cloud.cfg, then /etc/cloud/cloud.cfg.d/*.cfg in the order of their names, a later one over
an earlier one, mappings key by key and lists as a whole (cloudinit/util.py, read_conf_with_confd and mergemanydict).
Only one file is ever written here, OURS. Its name holds `ec2` because ds-identify reads `strict_id` from no other, and
lists stand on one line because ds-identify, a shell script, reads no others (tools/ds-identify, check_config).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

from builder.errors import GuestError
from builder.guest.facts import GuestFacts
from builder.guest.settings import LIMIT, load_yaml

# cloudinit/sources/DataSource*.py, all versions; spelt as `datasource_list` must spell them.
Datasource = Literal[
    "AliYun", "AltCloud", "Akamai", "Azure", "Bigstep", "CloudCIX", "CloudSigma", "CloudStack", "ConfigDrive",
    "DigitalOcean", "Ec2", "Exoscale", "GCE", "Hetzner", "IBMCloud", "LXD", "MAAS", "NWCS", "NoCloud", "None", "OVF",
    "OpenNebula", "OpenStack", "Oracle", "RbxCloud", "Scaleway", "SmartOS", "UpCloud", "VMware", "Vultr", "WSL",
]  # fmt: skip

BASE = "/etc/cloud/cloud.cfg"
DIRECTORY = "/etc/cloud/cloud.cfg.d"
OURS = f"{DIRECTORY}/99-emi-ec2.cfg"
DS_IDENTIFY = "/etc/cloud/ds-identify.cfg"
DISABLED = "/etc/cloud/cloud-init.disabled"

_STATE = "/var/lib/cloud"
_SEED = f"{_STATE}/seed"
_LOGS = "/var/log/cloud-init*"
# What cloud-init wrote of one instance's network, as `cloud-init clean --configs network` lists it. MAC addresses are
# in there; on the next instance it writes them anew.
_RENDERED = (
    "/etc/netplan/50-cloud-init.yaml",
    "/etc/network/interfaces.d/50-cloud-init",
    "/etc/network/interfaces.d/50-cloud-init.cfg",
    "/etc/NetworkManager/system-connections/cloud-init-*.nmconnection",
    "/etc/NetworkManager/conf.d/30-cloud-init-ip6-addr-gen-mode.conf",
    "/etc/systemd/network/10-cloud-init-*.network",
    "/etc/udev/rules.d/85-persistent-net-cloud-init.rules",
)
_MODULES = tuple(
    f"{directory}/cloudinit/sources/DataSource*.py"
    for directory in (
        "/usr/lib/python3/dist-packages",
        "/usr/lib/python3.*/site-packages",
        "/usr/lib/python2.*/site-packages",
        "/usr/lib/python2.*/dist-packages",
    )
)
_COMMAND_LINES = ("/etc/default/grub", "/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/grub/menu.lst")
_CHOOSES = re.compile(r"(?<![\w.-])(?:ci\.(?:ds|datasource|di\.policy)|ds|cloud-init)=[^\s\"']+")
_HEADER = "# Written by emi. Files later in the alphabet win over this one.\n"


class _Dumper(yaml.SafeDumper):
    """YAML with a line for every key, and lists on one line."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def installed(facts: GuestFacts) -> bool:
    """Say whether the guest has cloud-init."""
    return facts.exists(BASE) or any(map(facts.exists, ("/usr/bin/cloud-init", "/usr/local/bin/cloud-init")))


def datasources(facts: GuestFacts) -> tuple[str, ...]:
    """Return the datasources that the guest's cloud-init has; none when it is installed in an unknown place."""
    paths = [path for pattern in _MODULES for path in facts.names(pattern)]
    return tuple(sorted({path.rpartition("/DataSource")[2].removesuffix(".py") for path in paths}))


def settings(facts: GuestFacts) -> dict[str, Any]:
    """Return the settings that hold, merged as cloud-init merges them. Raises GuestError: a file is no YAML."""
    merged: dict[str, Any] = {}
    size = 0
    for path in (BASE, *_drop_ins(facts)):
        found = facts.stat(path)
        size += found.size if found else 0
        if size > LIMIT:  # a hostile image has as many files as it likes
            raise GuestError(f"the guest's cloud-init has more than {LIMIT >> 10} KiB of settings up to {path}")
        merged = merge(merged, _load(facts, path))
    return merged


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid upon it: mappings key by key, anything else as a whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def ours(facts: GuestFacts) -> dict[str, Any]:
    """Return what an earlier step wrote."""
    return _load(facts, OURS)


def render(wanted: Mapping[str, Any]) -> bytes:
    """Return the file that sets this."""
    text = yaml.dump(
        dict(wanted), Dumper=_Dumper, default_flow_style=False, width=1 << 30, sort_keys=False, allow_unicode=True
    )
    return (_HEADER + text).encode()


def overruling(facts: GuestFacts, wanted: Mapping[str, Any]) -> str | None:
    """Return a file that sets one of these otherwise and is read after ours, or None."""
    for path in _drop_ins(facts):
        if path > OURS:
            said = _load(facts, path)
            if merge(wanted, said) != merge(said, wanted):
                return path
    return None


def state(facts: GuestFacts, *, keep_seed: bool = False) -> tuple[str, ...]:
    """Return what `cloud-init clean --logs --seed --configs network` would remove and is there.

    The rendered network configuration stays where cloud-init was told to leave the network alone: nobody would write
    it again. clean.d, which runs programs of the guest, is not run.
    """
    found = [path for path in facts.names(f"{_STATE}/*") if not (keep_seed and path == _SEED)]
    found += facts.names(_LOGS)
    rendered = [path for pattern in _RENDERED for path in facts.names(pattern)]
    return (*found, *(() if rendered and not writes_network(facts) else rendered))


def writes_network(facts: GuestFacts) -> bool:
    """Say whether the guest's cloud-init is there, not disabled, and not told to leave the network alone."""
    if not installed(facts) or facts.exists(DISABLED):
        return False
    network = settings(facts).get("network")
    return not (isinstance(network, dict) and network.get("config") == "disabled")


def has_ds_identify(facts: GuestFacts) -> bool:
    """Say whether something decides by the firmware, before cloud-init runs, whether it runs."""
    return any(facts.exists(f"{directory}/cloud-init/ds-identify") for directory in ("/usr/lib", "/usr/libexec"))


def identified(text: str, policy: str | None) -> str:
    """Return ds-identify's configuration without a datasource fixed there, and with that policy where one is given."""
    lines = [line for line in re.findall(r"[^\n]*\n|[^\n]+", text) if not re.match(r"\s*datasource\s*:", line)]
    if policy is None or f"policy: {policy}\n" in lines:
        return "".join(lines)
    lines = [line for line in lines if not re.match(r"\s*policy\s*:", line)]
    if lines and not lines[-1].endswith("\n"):
        lines.append("\n")
    return "".join([*lines, f"policy: {policy}\n"])


def fixed_datasource(text: str) -> str | None:
    """Return the datasource that ds-identify's configuration fixes whatever the list says, or None."""
    found = re.findall(r"^[ \t]*datasource[ \t]*:[ \t]*[\"']?([^\s\"'#]+)", text, re.MULTILINE)
    return found[-1] if found else None


def chosen_by_kernel(facts: GuestFacts) -> tuple[str, ...]:
    """Return the words of kernel command lines that choose a datasource, or switch cloud-init off, over any file."""
    paths = (*_COMMAND_LINES, *facts.names("/boot/loader/entries/*.conf"))
    return tuple(sorted({word for path in paths for word in _CHOOSES.findall(facts.text(path))}))


def _drop_ins(facts: GuestFacts) -> Sequence[str]:
    return sorted(facts.names(f"{DIRECTORY}/*.cfg"))


def _load(facts: GuestFacts, path: str) -> dict[str, Any]:
    data = facts.read(path, limit=LIMIT)
    found = None if data is None else load_yaml(data, path)
    return found if isinstance(found, dict) else {}
