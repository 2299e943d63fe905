"""Boot entries (Boot Loader Specification, type 1): what a loader/entries/*.conf boots.

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
    """What an entry boots; `number` and `text` are the line that names the kernel, `version` may be empty.

    `options` are the words of the kernel's command line, variables (`$kernelopts`) among them as they stand.
    """

    linux: str
    number: int
    text: str
    initrds: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    version: str = ""

    @property
    def ramdisks(self) -> tuple[str, ...]:
        """The initramfs images without a processor's microcode, which Arch names in a line of its own."""
        return tuple(path for path in self.initrds if "ucode" not in path)


def entries(facts: GuestFacts, boot: str) -> list[Entry]:
    """Return the entries of one of BOOTS, by file name. Looking there has the filesystem mounted."""
    paths = facts.names(f"{boot}/loader/entries/*.conf")
    return [entry for path in paths if (entry := parse(facts.text(path)))]


def parse(text: str) -> Entry | None:
    """Return what an entry's file says, or None when it boots no Linux kernel."""
    said: dict[str, list[str]] = {}
    kernels: list[tuple[str, int, str]] = []
    for number, line in enumerate(re.split(r"\r?\n", text), 1):
        key, *words = re.split(r"[ \t]+", line.strip(" \t"))
        said.setdefault(key, []).extend(words)
        kernels += [(word, number, line) for word in words if key == "linux" and _PLAIN.fullmatch(word)]
    if not kernels:
        return None
    linux, number, line = kernels[0]
    # Fedora writes `initrd /initramfs-6.5.img $tuned_initrd`.
    initrds = (word for word in said.get("initrd", []) if _PLAIN.fullmatch(word) and not word.startswith("$"))
    return Entry(
        linux=linux,
        number=number,
        text=line,
        initrds=tuple(initrds),
        options=tuple(filter(None, said.get("options", []))),
        version=next(filter(_PLAIN.fullmatch, said.get("version", [])), ""),
    )


def places(path: str) -> Sequence[str]:
    """Return where a path of an entry may lie in the guest, the likeliest first."""
    inside = posixpath.normpath(f"/{path.lstrip('/')}")
    return (*(f"{boot}{inside}" for boot in BOOTS), inside)
