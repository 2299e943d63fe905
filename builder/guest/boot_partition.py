"""The boot partition that `assemble` puts before a root: what is booted lies there, and the guest mounts it nowhere."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Its menu's name for people, its files (in capitals: BOOT/VMLINUZ), and what the menu starts."""

    config: str  # as no path of the guest leads there, so none of its steps changes it
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
            config = f"partition {part.number}: /{menu.CONFIG}"
            found = grub_entries(config, text.decode("utf-8", "surrogateescape"))
            return BootPartition(config=config, files=files, entries=tuple(found))
    return None
