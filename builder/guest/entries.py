"""Boot entries (Boot Loader Specification, type 1): which kernel and initramfs a loader/entries/*.conf names.

Source: uapi-group.org/specifications/specs/boot_loader_specification. Paths are those of the filesystem that the entry
is on, which GRUB reads without the guest's mounts: /vmlinuz-6.1 of a separate /boot is /boot/vmlinuz-6.1 in the guest.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from builder.guest.facts import GuestFacts

BOOTS = ("/boot", "/efi", "/boot/efi")  # where an entry's filesystem may be mounted
_PLAIN = re.compile(r"[!-~]+")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The kernel that an entry boots, and its initramfs images; `version` is empty where the entry does not say."""

    linux: str
    initrds: tuple[str, ...] = ()
    version: str = ""


def entries(facts: GuestFacts, boot: str) -> list[Entry]:
    """Return the entries of one of BOOTS, by file name. Looking there has the filesystem mounted."""
    paths = facts.names(f"{boot}/loader/entries/*.conf")
    return [entry for path in paths if (entry := parse(facts.text(path)))]


def parse(text: str) -> Entry | None:
    """Return what an entry's file says, or None when it boots no Linux kernel."""
    said: dict[str, list[str]] = {}
    for line in re.split(r"\r?\n", text):
        key, *words = re.split(r"[ \t]+", line.strip(" \t"))
        said.setdefault(key, []).extend(word for word in words if _PLAIN.fullmatch(word))
    if not said.get("linux"):
        return None
    # Fedora writes `initrd /initramfs-6.5.img $tuned_initrd`; Arch names the microcode in a line of its own.
    initrds = (word for word in said.get("initrd", []) if not word.startswith("$") and "ucode" not in word)
    return Entry(linux=said["linux"][0], initrds=tuple(initrds), version=next(iter(said.get("version", [])), ""))


def places(path: str) -> Sequence[str]:
    """Return where a path of an entry may lie in the guest, the likeliest first."""
    inside = posixpath.normpath(f"/{path.lstrip('/')}")
    return (*(f"{boot}{inside}" for boot in BOOTS), inside)
