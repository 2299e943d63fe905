"""What rules ask: a guest's facts, the machine it is meant for, and what several rules read, read once."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from builder.guest import cloudinit, fstab
from builder.guest.accounts import Accounts, User, read_accounts
from builder.guest.boot_entries import BootEntry, boot_entries
from builder.guest.boot_partition import BootPartition, boot_partition
from builder.guest.drivers import Drivers, Kernel, drivers, kernels
from builder.guest.facts import Filesystem, GuestFacts
from builder.guest.kernels import Found as KernelFiles
from builder.guest.kernels import find
from builder.guest.layout import DiskReader
from builder.guest.os import System, read_system
from builder.guest.passwords import passwords
from builder.guest.sysprep import homes
from builder.image.firmware import Firmware, read_firmware
from builder.image.inspect import look_inside
from builder.image.partitions import PartitionTable
from builder.image.stream import ImageReader

Target = Literal["aws", "eucalyptus-kvm", "eucalyptus-xen", "qemu"]
_TEXT = 1 << 20  # characters of a configuration file that are looked at,
_LINE = 1024  # and of a line of it
_NO_HOMES = ("/bin/", "/dev/", "/etc/", "/proc/", "/run/", "/sbin/", "/sys/", "/usr/", "/var/run/")  # of services
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True, kw_only=True)
class FstabLine:
    """An entry of the guest's fstab and where it stands; `entry` is None for a line that is none and no comment."""

    number: int
    text: str
    entry: fstab.Entry | None

    @property
    def where(self) -> str:
        """FILE:LINE."""
        return f"/etc/fstab:{self.number}"


class Subject:
    """A guest under judgement. Everything is asked of the facts when the first rule wants it, and kept."""

    def __init__(
        self,
        facts: GuestFacts,
        target: Target,
        reader: ImageReader | None = None,
        *,
        volume_size: int | None = None,
    ) -> None:
        """Judge `facts` for `target`; the disk itself is read through them, or through `reader` where there is one.

        `volume_size` is that of the volumes it is meant for, in bytes; None where that is not known.
        """
        self.facts = facts
        self.target = target
        self.volume_size = volume_size
        self._reader = reader

    @cached_property
    def system(self) -> System:
        """Which system it is."""
        return read_system(self.facts)

    @cached_property
    def reader(self) -> ImageReader:
        """The disk's own bytes."""
        return self._reader or DiskReader(self.facts.sectors, self.facts.disk_size)

    @cached_property
    def table(self) -> PartitionTable | None:
        """Its partition table; None for a bare filesystem, which is a partition image."""
        return look_inside(self.reader)[0]

    @cached_property
    def firmware(self) -> Firmware:
        """How the disk can boot."""
        return read_firmware(self.reader, self.table)

    @property
    def bare(self) -> bool:
        """Whether the image is a filesystem without a disk around it, booted by a kernel from outside."""
        return self.table is None

    @cached_property
    def root(self) -> Filesystem:
        """The root filesystem."""
        return self.facts.filesystem(self.facts.root) or Filesystem(device=self.facts.root, type="")

    @cached_property
    def fstab(self) -> Sequence[FstabLine]:
        """The entries of its fstab, and the lines that are meant to be entries."""
        parsed = fstab.parse((self.facts.read("/etc/fstab") or b"")[:_TEXT])
        lines = (FstabLine(number=number, text=line.text, entry=line.entry) for number, line in enumerate(parsed, 1))
        return tuple(
            line for line in lines if line.entry or (line.text.strip() and not line.text.lstrip().startswith("#"))
        )

    @cached_property
    def boot_partition(self) -> BootPartition | None:
        """The partition from which an assembled disk boots; what the guest has in /boot is not used then."""
        return boot_partition(self.reader, self.table)

    @cached_property
    def boot_entries(self) -> Sequence[BootEntry]:
        """What its boot loader starts, rescue entries left out."""
        found = self.boot_partition.entries if self.boot_partition else boot_entries(self.facts)
        return tuple(entry for entry in found if not entry.rescue)

    @cached_property
    def kernel_files(self) -> KernelFiles:
        """The kernels that the image can start."""
        return find(self.facts)

    @cached_property
    def kernels(self) -> Sequence[Kernel]:
        """The kernels whose modules are installed, oldest first; those without a kernel file are left-overs."""
        versions = {found.version for found in self.kernel_files.kernels}
        installed = kernels(self.facts)
        return [kernel for kernel in installed if kernel.version in versions] or installed

    @cached_property
    def drivers(self) -> Drivers | None:
        """The drivers of the newest kernel; reading them takes its whole initramfs."""
        return drivers(self.facts, self.kernels[-1]) if self.kernels else None

    @cached_property
    def cloud(self) -> dict[str, Any]:
        """cloud-init's settings. Raises GuestError when they are no YAML."""
        return cloudinit.settings(self.facts)

    @cached_property
    def accounts(self) -> Accounts:
        """Its accounts. Raises GuestError when their files are absurdly large."""
        return read_accounts(self.facts)

    @cached_property
    def users(self) -> Sequence[User]:
        """Every user of those."""
        return self.accounts.users

    @cached_property
    def passwords(self) -> Mapping[str, str]:
        """Their password fields, by name."""
        return passwords(self.accounts)

    @cached_property
    def homes(self) -> Sequence[str]:
        """The homes that are there: of root, of people, and of services, but for places of the system's own."""
        return tuple(home for home in homes(self.facts, self.users) if not f"{home}/".startswith(_NO_HOMES))

    @cached_property
    def owners(self) -> Mapping[str, str]:
        """The first account of each home."""
        return {posixpath.normpath(user.home): user.name for user in reversed(self.users)}

    def first(self, *paths: str) -> str | None:
        """Return the first of these that is there."""
        return next((path for path in paths if self.facts.exists(path)), None)

    def lines(self, *patterns: str) -> Iterator[tuple[str, int, str]]:
        """Yield path, number and text of every line of these files that is no comment; a pattern may have `*`."""
        for pattern in patterns:
            for path in self.facts.names(pattern) if "*" in pattern else (pattern,):
                # What a hostile image could make of rules' patterns is quadratic in a line's length.
                for number, line in enumerate(self.facts.text(path)[:_TEXT].splitlines(), 1):
                    if line.strip() and not line.lstrip().startswith(("#", ";")):
                        yield path, number, line[:_LINE]

    def filled(self, *patterns: str) -> Iterator[str]:
        """Yield the regular files with something in them that match."""
        for pattern in patterns:
            for path in self.facts.names(pattern) if "*" in pattern else (pattern,):
                found = self.facts.stat(path)
                if found and found.is_file and found.size:
                    yield path

    def program(self, name: str) -> str | None:
        """Return where a program of that name is."""
        return self.first(*(posixpath.join(place, name) for place in ("/usr/sbin", "/usr/bin", "/sbin", "/bin")))
