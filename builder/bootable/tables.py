"""Partition tables of new disks: every number, place and identifier is given, so that the same disk comes of it again.

Sources: sgdisk(8); sfdisk(8), "Script-header lines" and "Named-fields format".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import proc
from builder.bootable.bootcode import SECTOR


@dataclass(frozen=True, kw_only=True)
class Part:
    """One partition: its bytes, and its type as sgdisk's code (`ef00`) or an MBR's byte (`ef`)."""

    number: int
    place: range
    type: str
    name: str = ""  # GPT only, as is the UUID
    uuid: str = ""
    bootable: bool = False  # MBR only

    @property
    def first(self) -> int:
        """Its first sector."""
        return self.place.start // SECTOR

    @property
    def sectors(self) -> int:
        """How many sectors it has."""
        return len(self.place) // SECTOR


def write_gpt(disk: Path, parts: Sequence[Part], *, guid: str) -> None:
    """Write a GPT into the file, whose size is the disk's. Raises ToolMissing, ToolFailed."""
    arguments: list[str] = []
    for part in parts:
        number = part.number
        arguments += [f"--new={number}:{part.first}:{part.first + part.sectors - 1}"]
        arguments += [f"--typecode={number}:{part.type}", f"--partition-guid={number}:{part.uuid}"]
        arguments += [f"--change-name={number}:{part.name}"]
    proc.run(["sgdisk", "--clear", f"--disk-guid={guid}", *arguments, disk])


def write_mbr(disk: Path, parts: Sequence[Part], *, disk_id: str) -> None:
    """Write an MBR with that identifier (8 hexadecimal digits) into the file. Raises ToolMissing, ToolFailed."""
    lines = ["label: dos", f"label-id: 0x{disk_id}", "unit: sectors"]
    for part in parts:
        fields = f"start={part.first}, size={part.sectors}, type={part.type}"
        lines.append(f"{part.number} : {fields}{', bootable' if part.bootable else ''}")
    words = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never", "--wipe-partitions=never"]
    proc.run([*words, disk], stdin="\n".join([*lines, ""]).encode())
