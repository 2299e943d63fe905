"""Find the device of a volume on another machine, surely or not at all: nobody's disk is wiped by a guess.

A volume is known by its id in the device's serial: `vol0123…` (AWS, NVMe), `vol-0123…` or `euca-vol-0123…-dev-vdc`
(Eucalyptus; virtio keeps 20 bytes of it, 11 digits of an id that has 17). Where no serial tells, it is the one device
that has appeared since a listing made before, in the same boot, and then its size must be the volume's and it must be
empty. The letter that was asked of the cloud is never looked at, and size alone never decides.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Collection
from dataclasses import dataclass

from builder.errors import DeviceAbsent, DeviceDoubtful, RemoteError
from builder.remote.abilities import Abilities
from builder.remote.command import Shell
from builder.remote.listing import Device, Listing, read
from builder.units import format_size

EDGE = 1 << 20  # bytes at either end that must be empty: every signature but that of a second btrfs copy lies there
_VIRTIO = 20  # bytes of a serial that virtio-blk keeps: VIRTIO_BLK_ID_BYTES
_DIGITS = 8  # of an id that a cut serial must show at least: all that Eucalyptus' short ids have
_EMPTY = hashlib.sha256(bytes(EDGE)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The volume that was attached: its id in the cloud's words (`vol-…`) and its size in bytes."""

    volume_id: str
    size: int


def find(
    shell: Shell,
    abilities: Abilities,
    wanted: Wanted,
    *,
    before: Listing | None = None,
    ours: Collection[str] = (),
    patience: float = 60,
    prefix: str = "",
) -> Device:
    """Return the volume's device, waiting up to `patience` seconds for it to appear.

    `before` is a listing made before the volume was attached, for devices that have no serial; such a device is taken
    only when its first and last MiB are zeros, or have one of the SHA-256 (hex) in `ours`: what we ourselves write.
    Raises DeviceDoubtful (DeviceAbsent) with the list of what was seen, and what running a command does.
    """
    until = time.monotonic() + patience
    while True:
        listing = read(shell, prefix)
        try:
            device, sure = choose(listing, wanted, before)
        except DeviceAbsent as error:
            if time.monotonic() < until:
                time.sleep(0.5)
                continue
            raise DeviceAbsent(f"{shell.name}: {error.message}\n{listing}") from error
        except DeviceDoubtful as error:
            raise DeviceDoubtful(f"{shell.name}: {error.message}\n{listing}") from error
        if not sure:
            _require_empty(shell, abilities, device, ours, listing)
        return device


def choose(listing: Listing, wanted: Wanted, before: Listing | None) -> tuple[Device, bool]:
    """Return the device, and whether its serial says so (else it is only the one that appeared). Decides, does nothing.

    Raises DeviceAbsent and DeviceDoubtful, without the list.
    """
    named = [device for device in listing.devices if _names(device, wanted.volume_id)]
    if len(named) > 1:
        raise DeviceDoubtful(f"{' and '.join(device.name for device in named)} could each be {wanted.volume_id}")
    if named:
        return _fit(named[0], wanted), True
    if before is None:
        raise DeviceAbsent(f"no device has the serial of {wanted.volume_id}")
    if not before.boot_id or before.boot_id != listing.boot_id:
        raise DeviceDoubtful(
            f"no device has the serial of {wanted.volume_id}, and after a new start of the machine names tell nothing"
        )
    old = {(device.name, device.serial, device.size, device.sequence) for device in before.devices}
    new = [d for d in listing.devices if (d.name, d.serial, d.size, d.sequence) not in old]
    if not new:
        raise DeviceAbsent(f"no device has the serial of {wanted.volume_id}, and none has appeared")
    if len(new) > 1:
        raise DeviceDoubtful(f"{', '.join(d.name for d in new)} have appeared, each could be {wanted.volume_id}")
    if new[0].serial and _another_volume(new[0].serial):
        raise DeviceDoubtful(f"{new[0].name} has appeared, but its serial names another volume than {wanted.volume_id}")
    return _fit(new[0], wanted), False


def _fit(device: Device, wanted: Wanted) -> Device:
    if device.size != wanted.size:
        raise DeviceDoubtful(
            f"{device.name} should be {wanted.volume_id}, but has {format_size(device.size)} instead of"
            f" {format_size(wanted.size)}"
        )
    if device.uses:
        raise DeviceDoubtful(f"{device.name} is {wanted.volume_id}, but is in use: {', '.join(device.uses)}")
    return device


def _names(device: Device, volume_id: str) -> bool:
    """Say whether the device's serial, or a name made of it in /dev/disk/by-id, is that of the volume."""
    serials = {device.serial, *(link.rsplit("_", 1)[-1] for link in device.links), *map(_virtio_link, device.links)}
    return any(_matches(serial, volume_id) for serial in serials if serial)


def _virtio_link(link: str) -> str:
    return link.removeprefix("virtio-") if link.startswith("virtio-") else ""


def _matches(serial: str, volume_id: str) -> bool:
    plain = volume_id.replace("-", "")
    if serial in (volume_id, plain):
        return True
    for form in (f"euca-{volume_id}", volume_id, f"euca-{plain}", plain):
        if serial.startswith(f"{form}-"):  # followed by the device's name: -dev-vdc
            return True
        digits = len(form) - len(plain) + 3  # where the id's digits begin
        if len(serial) == _VIRTIO and len(serial) - digits >= _DIGITS and form.startswith(serial):
            return True
    return False


def _another_volume(serial: str) -> bool:
    return serial.startswith(("vol", "euca-vol"))


def _require_empty(shell: Shell, abilities: Abilities, device: Device, ours: Collection[str], listing: Listing) -> None:
    """Return if nothing is on the device, or only what we began to write. Raises DeviceDoubtful."""
    if device.partitions:
        raise DeviceDoubtful(f"{shell.name}: {device.name} appeared, but has partitions\n{listing}")
    abilities.require(shell, "dd", "sha256sum")
    if not abilities.root:
        raise RemoteError(f"{shell.name}: only root can look at {device.path}; sudo says: {abilities.sudo_said}")
    skip = (device.size - EDGE) // 512
    text = f"dd if={shlex.quote(device.path)} bs=512 {{}} count={EDGE // 512} 2>/dev/null | sha256sum"
    edges = f"{text.format('skip=0')}; {text.format(f'skip={skip}')}"
    said = shell.script(edges, root=True, timeout=120, shown=f"a look at both ends of {device.path}").stdout.split()
    if len(said) != 4 or any(digest.decode() not in {_EMPTY, *ours} for digest in (said[0], said[2])):
        raise DeviceDoubtful(f"{shell.name}: {device.name} appeared, but it is not empty\n{listing}")
