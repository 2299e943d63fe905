"""The boot partition that `assemble` puts before a root: what is booted lies there, and the guest mounts it nowhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

from builder.bootable import menu
from builder.guest.boot_entries import BootEntry, grub_entries
from builder.image.fat import fat_files, fat_read
from builder.image.firmware import ESP_TYPES
from builder.image.partitions import PartitionTable
from builder.image.raw import window
from builder.image.stream import ImageReader

# Those that `assemble` makes: an ESP, or without UEFI an XBOOTLDR partition (GPT) or FAT32 with LBA (MBR).
_TYPES = (*ESP_TYPES, "bc13c2ff-59e6-4262-a352-b275fd6f7172", "0x0c")


@dataclass(frozen=True, kw_only=True)
class BootPartition:
    """Its number, its files (in capitals: BOOT/VMLINUZ), and what its menu starts."""

    number: int
    files: frozenset[str]
    entries: tuple[BootEntry, ...]

    def has(self, path: str) -> bool:
        """Say whether a file is there, by the path that the menu has for it."""
        return path.lstrip("/").upper() in self.files


def boot_partition(reader: ImageReader, table: PartitionTable | None) -> BootPartition | None:
    """Return the partition that has both a kernel and a menu where `assemble` puts them, or None."""
    for part in table.partitions if table else ():
        if part.type not in _TYPES:
            continue
        inside = window(reader, part.start, part.size)
        files = frozenset(file.path for file in fat_files(inside, below="BOOT", depth=2) if file.size)
        text = fat_read(inside, menu.CONFIG)
        if text is not None and menu.KERNEL.upper() in files:
            found = grub_entries(f"/{menu.CONFIG}", text.decode("utf-8", "surrogateescape"))
            # As no path of the guest leads there, so none of its steps changes it.
            where = f"partition {part.number}: /{menu.CONFIG}"
            entries = tuple(replace(entry, config=where) for entry in found)
            return BootPartition(number=part.number, files=files, entries=entries)
    return None
