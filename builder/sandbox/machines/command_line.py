"""The words that start qemu for one machine, and how a volume is described to it: decided here, done elsewhere.

The machine is the one that clouds with hot-plug give: i440FX, whose one PCI bus has some 27 places for volumes, plugged
and unplugged through ACPI, which Linux of any age knows. Guests reach nothing but what is forwarded: slirp's `restrict`
lets DHCP pass and drops all else, names of hosts included (a guest is told of no name server, so that its resolver
gives up at once instead of waiting). Therefore everything the guest shall see lies in the network it is in,
169.254.0.0/16: with `restrict` DHCP names no router.
"""

from __future__ import annotations

import json
import shlex
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.acceleration import Kind
from builder.sandbox.machines import relay
from builder.sandbox.machines.machine import SSH, Bus, Disk, MachineSpec
from builder.sandbox.machines.metadata import Metadata, mac_of

CODE, VARIABLES = Path("/usr/share/OVMF/OVMF_CODE.fd"), Path("/usr/share/OVMF/OVMF_VARS.fd")  # Debian's ovmf
QEMU = "qemu-system-x86_64"
SERVICE = "169.254.169.254"  # of metadata, in every cloud
SERVICE_SOCKET = "metadata.socket"  # in the machine's directory, which is qemu's working directory
PID = "pid"
_NETWORK = "169.254.0.0/16"
_TRANSLATED = 256  # MiB of translated code that TCG keeps; its own default is up to 1 GiB of the host's memory
_DRIVERS: dict[Bus, str] = {"virtio": "virtio-blk-pci", "nvme": "nvme"}


@dataclass(frozen=True, kw_only=True)
class Plugged:
    """A volume as one device of a machine; `name` is never given twice, also when the volume comes back."""

    disk: Disk
    name: str
    bus: Bus

    def node(self) -> dict[str, Any]:
        """Return the block node. What the guest was told is written is in the file, as this host's readers see it.

        It is on the disk after `Machine.flush` only: the guest's own flushes are not passed on (they would make a guest
        wait for the host's disk, and nothing is lost when qemu is killed).
        """
        file = {"driver": "file", "filename": str(self.disk.path), "discard": "unmap"}
        cache = {"direct": False, "no-flush": True}
        return {"driver": "raw", "node-name": self.name, "discard": "unmap", "file": {**file, "cache": cache}}

    def device(self) -> dict[str, Any]:
        """Return the device. virtio would by default stop the guest when the host's disk is full."""
        reports = {"werror": "report", "rerror": "report"} if self.bus == "virtio" else {}
        return {
            "driver": _DRIVERS[self.bus],
            "id": self.name,
            "drive": self.name,
            "serial": self.disk.serial[:20],
            **reports,
        }


def words(
    spec: MachineSpec, *, address: str, kind: Kind, plugged: Sequence[Plugged], metadata: Metadata
) -> list[str | Path]:
    """Return qemu's command line; its control socket is to be descriptor 0, the serial console comes out of 1."""
    return [
        *("setpriv", "--no-new-privs", "--", QEMU, "-name", spec.instance_id, "-pidfile", spec.directory / PID),
        *("-machine", "pc,graphics=off", "-accel", _acceleration(kind), "-cpu", "host" if kind == "kvm" else "max"),
        *("-m", str(spec.memory), "-smp", str(spec.cpus), "-nodefaults", "-no-user-config", "-display", "none"),
        # Guests are strangers. Processes may be started, each in a session of its own: slirp does so for a connection
        # that it forwards; `elevateprivileges` would keep it from the latter, no_new_privs is as good.
        *("-sandbox", "on,obsolete=deny,resourcecontrol=deny"),
        *("-chardev", "socket,id=control,fd=0", "-mon", "chardev=control,mode=control"),
        *("-chardev", "file,id=console,path=/proc/self/fd/1", "-serial", "chardev:console"),
        *("-device", "virtio-rng-pci", "-device", "pvpanic", "-action", "panic=none"),
        *("-netdev", json.dumps(_network(spec, address, metadata))),
        *("-device", f"virtio-net-pci,netdev=net,mac={mac_of(spec.instance_id)},romfile="),
        *_identity(spec, metadata),
        *_boot(spec, kind),
        *(word for index, one in enumerate(plugged) for word in _disk(one, boots=index == 0 and spec.kernel is None)),
    ]


def _acceleration(kind: Kind) -> str:
    return "kvm" if kind == "kvm" else f"tcg,thread=multi,tb-size={_TRANSLATED}"


def _disk(one: Plugged, *, boots: bool) -> tuple[str, ...]:
    first = {"bootindex": 0} if boots else {}  # which a kernel that qemu loads takes for itself
    return "-blockdev", json.dumps(one.node()), "-device", json.dumps(one.device() | first)


def _network(spec: MachineSpec, address: str, metadata: Metadata) -> dict[str, Any]:
    ways = [(SERVICE, 80, f"unix:{SERVICE_SOCKET}")]
    ways += [(one.address, one.guest_port, f"tcp:{one.to_address}:{one.to_port}") for one in spec.forwards]
    return {
        "type": "user",
        "id": "net",
        "restrict": True,
        "ipv6": False,
        "net": _NETWORK,
        "hostname": metadata.short_hostname,
        "hostfwd": [{"str": f"tcp:{address}:{SSH}-:{SSH}"}],
        "guestfwd": [{"str": f"tcp:{to}:{port}-cmd:{_relay(place)}"} for to, port, place in ways],
    }


def _relay(place: str) -> str:
    """Return the command for one connection; glib takes it apart as a shell would."""
    return shlex.join([sys.executable, "-I", "-S", relay.__file__, place])


def _identity(spec: MachineSpec, metadata: Metadata) -> tuple[str, ...]:
    """Return what the firmware tells of the machine; cloud-init knows AWS by it ("Identify EC2 Linux instances")."""
    if not metadata.tokens:
        return ("-uuid", str(_uuid(spec.instance_id, "")))
    maker, number = "Amazon EC2", _uuid(spec.instance_id, "ec2")
    return (
        *("-uuid", str(number), "-smbios", f"type=0,vendor={maker}"),
        *("-smbios", f"type=1,manufacturer={maker},product={metadata.instance_type},serial={number},uuid={number}"),
        *("-smbios", f"type=2,manufacturer={maker},asset={spec.instance_id}"),
        *("-smbios", f"type=3,manufacturer={maker},asset={maker}"),
    )


def _uuid(instance_id: str, begin: str) -> uuid.UUID:
    digits = uuid.uuid5(uuid.NAMESPACE_OID, instance_id).hex
    return uuid.UUID(f"{begin}{digits[len(begin) :]}")


def _boot(spec: MachineSpec, kind: Kind) -> tuple[str | Path, ...]:
    if spec.kernel is not None:
        ramdisk = ("-initrd", spec.ramdisk) if spec.ramdisk is not None else ()
        # While it boots Linux tests whether timer interrupts come in time. A translated guest on a busy host fails
        # that and panics ("IO-APIC + timer doesn't work"); libguestfs tells its own kernel the same.
        patient = " no_timer_check" if kind == "tcg" else ""
        return ("-kernel", spec.kernel, *ramdisk, "-append", f"{spec.command_line}{patient}")
    if spec.firmware == "bios":
        return ()
    variables = {"driver": "file", "filename": str(spec.directory / VARIABLES.name)}
    code = {"driver": "file", "filename": str(CODE)}
    return (
        *("-blockdev", json.dumps({"driver": "raw", "node-name": "code", "read-only": True, "file": code})),
        *("-blockdev", json.dumps({"driver": "raw", "node-name": "variables", "file": variables})),
        *("-machine", "pflash0=code,pflash1=variables"),
    )
