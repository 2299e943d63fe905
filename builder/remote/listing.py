"""The block devices of another machine as values, read from its /sys in one command; lsblk is not needed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from builder.remote.command import Shell
from builder.units import format_size

# `$1` is put before /sys, /proc and /dev, so that a tree kept elsewhere can be read too.
_LIST = """\
r=$1
say() { [ ! -r "$2" ] || printf '%s %s\\n' "$1" "$(head -c 200 "$2" 2>/dev/null | tr -d '\\000' | tr '\\n' ' ')"; }
say boot "$r/proc/sys/kernel/random/boot_id"
for block in "$r"/sys/block/*; do
    [ -d "$block" ] || continue
    echo "block ${block##*/}"
    say size "$block/size"
    say ro "$block/ro"
    say number "$block/dev"
    say sequence "$block/diskseq"
    say serial "$block/serial"
    say serial "$block/device/serial"
    say page80 "$block/device/vpd_pg80"
    say backing "$block/loop/backing_file"
    for holder in "$block"/holders/* "$block"/*/holders/*; do
        [ ! -e "$holder" ] || echo "holder ${holder##*/}"
    done
    for part in "$block"/*/partition; do
        [ -e "$part" ] || continue
        part=${part%/partition}
        echo "partition ${part##*/}"
        say number "$part/dev"
    done
done
for link in "$r"/dev/disk/by-id/*; do
    [ ! -L "$link" ] || printf 'link %s %s\\n' "${link##*/}" "$(readlink "$link")"
done
for member in "$r"/sys/fs/btrfs/*/devices/*; do say member "$member/dev"; done
while read -r _ _ number _ where _; do echo "mount $number $where"; done <"$r/proc/self/mountinfo"
while read -r file _; do echo "swap $file"; done <"$r/proc/swaps"
echo end
"""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A whole disk there. `uses` says why it must not be written to, in words; none for one that is idle."""

    name: str  # in /sys/block: nvme1n1
    size: int  # bytes
    serial: str  # as the device tells it; virtio cuts it to 20 bytes
    links: tuple[str, ...] = ()  # names in /dev/disk/by-id
    sequence: str = ""  # the kernel's count of disks, so that a name that was given anew is seen (Linux 5.15)
    partitions: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Its device file."""
        return f"/dev/{self.name}"

    def __str__(self) -> str:
        told = [f"serial {self.serial}"] if self.serial else ["no serial"]
        told += [f"{len(self.partitions)} partitions"] if self.partitions else []
        return f"{self.name}, {format_size(self.size)}, {', '.join([*told, *self.uses])}"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All block devices of a machine at one moment. Names mean the same in two listings of one boot only."""

    boot_id: str
    devices: tuple[Device, ...]

    def __str__(self) -> str:
        return "\n".join(f"  {device}" for device in self.devices) or "  no block device at all"


def read(shell: Shell, prefix: str = "") -> Listing:
    """Read the devices of the machine of `shell`; of a tree under `prefix` there, when one is given."""
    said = shell.script(
        shlex.join(["sh", "-c", _LIST, "sh", prefix]), timeout=60, shown="the list of block devices"
    ).stdout
    return parse(said.decode(errors="replace"))


def parse(text: str) -> Listing:
    """Return what the listing command printed as values."""
    boot, found, mounts, swaps = "", [], [], []
    members: list[str] = []
    links: list[tuple[str, str]] = []
    for line in text.split("\n"):  # splitlines would cut at a form feed, which a SCSI page may hold
        word, _, rest = line.partition(" ")
        if word == "block":
            found.append(_Raw(rest))
        elif word == "boot":
            boot = rest.strip()
        elif word == "link":
            name, _, target = rest.partition(" ")
            links.append((name, target.rsplit("/", 1)[-1]))
        elif word == "mount":
            mounts.append(rest.split(" ", 1))
        elif word == "swap":
            swaps.append(rest.rsplit("/", 1)[-1])
        elif word == "member":  # a mounted btrfs has a number of its own in mountinfo, and is no holder
            members.append(rest.strip())
        elif found and word != "end":
            found[-1].told(word, rest.strip())
    return Listing(boot_id=boot, devices=tuple(raw.device(links, mounts, swaps, members) for raw in found if raw.size))


class _Raw:
    """The lines of one device."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size = 0
        self.words: dict[str, str] = {}
        self.numbers: list[str] = []
        self.partitions: list[str] = []
        self.holders: list[str] = []

    def told(self, word: str, value: str) -> None:
        if word == "size":
            self.size = int(value) * 512  # /sys counts in 512 bytes, whatever the sector
        elif word == "number":
            self.numbers.append(value)
        elif word == "partition":
            self.partitions.append(value)
        elif word == "holder":
            self.holders.append(value)
        elif value:
            self.words.setdefault(word, value)

    def device(
        self, links: list[tuple[str, str]], mounts: list[list[str]], swaps: list[str], members: list[str]
    ) -> Device:
        names = {self.name, *self.partitions}
        uses = [f"mounted at {where}" for number, where in mounts if number in self.numbers]
        uses += ["part of a btrfs that is mounted"] if not set(members).isdisjoint(self.numbers) else []
        uses += [f"swap on {swap}" for swap in swaps if swap in names]
        uses += [f"held by {holder}" for holder in self.holders]
        uses += ["read-only"] if self.words.get("ro") == "1" else []
        # A SCSI disk's page 0x80 has 4 bytes before the serial, of which NULs are dropped: 0x80 and the length remain.
        scsi = "".join(char for char in self.words.get("page80", "") if char.isascii() and char.isprintable()).strip()
        return Device(
            name=self.name,
            size=self.size,
            serial=self.words.get("serial", "") or scsi,
            links=tuple(name for name, target in links if target == self.name),
            sequence=self.words.get("sequence", ""),
            partitions=tuple(self.partitions),
            uses=tuple(dict.fromkeys(uses)),
        )
