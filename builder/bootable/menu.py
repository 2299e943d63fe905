"""The boot menu of an assembled disk, and what a kernel and a label must be for it. Plain values; nothing runs.

GRUB's language: its manual, "Shell-like scripting". The kernel's header: Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from builder.errors import InputError

KERNEL, RAMDISK, CONFIG = "boot/vmlinuz", "boot/initrd.img", "boot/grub/grub.cfg"  # on the boot partition
HEADER = 0x210  # bytes of a kernel's beginning that `require_kernel` looks at
# What needs no quotes in GRUB's script, in the kernel's command line and in what an initramfs makes of it.
_PLAIN_LABEL = re.compile(r"[A-Za-z0-9_.:+@=-]+")
_SERIAL = re.compile(r"ttyS(\d)(?:,(\d+).*)?")


@dataclass(frozen=True, kw_only=True)
class Links:
    """Names on the root that always lead to the guest's own newest kernel and to its initramfs."""

    kernel: str
    ramdisk: str


@dataclass(frozen=True, kw_only=True)
class Menu:
    """What is to be booted: `root` and `arguments` are the kernel's, `partition` is the root's as GRUB says it."""

    root: str  # LABEL=… or PARTUUID=…
    arguments: str
    consoles: Sequence[str]  # as the kernel takes them: tty0; ttyS0,115200
    ramdisk: bool
    partition: str  # gpt1
    links: Links | None = None


def config(menu: Menu) -> str:
    """Return grub.cfg. With links the guest's own newest kernel is booted, as long as GRUB finds it there."""
    lines = [
        "# Written as the disk was assembled. The kernel beside this file is the one that the image had then.",
        *_terminal(menu.consoles),
        "set default=0",
        "set timeout=1",
        "menuentry 'Linux' {",
        *(f"    {line}" for line in _entry(menu)),
        "}",
    ]
    return "\n".join([*lines, ""])


def _terminal(consoles: Sequence[str]) -> Iterator[str]:
    for console in consoles:
        if found := _SERIAL.fullmatch(console):
            yield f"serial --unit={found[1]} --speed={found[2] or 9600}"
            yield "terminal_input console serial"
            yield "terminal_output console serial"
            return


def _entry(menu: Menu) -> Iterator[str]:
    words = (f"root={menu.root}", menu.arguments, *(f"console={console}" for console in menu.consoles))
    line = " ".join(filter(None, words))
    if menu.links is None:
        yield from _load(f"/{KERNEL}", f"/{RAMDISK}" if menu.ramdisk else None, line)
        return
    # $root is the partition that this file is on; the root filesystem is on the same disk, whatever its number today.
    yield "regexp --set=1:disk '^([^,]+),' \"$root\""
    own = [f"($disk,{menu.partition}){path}" for path in (menu.links.kernel, menu.links.ramdisk)]
    yield f'if [ -f "{own[0]}" -a -f "{own[1]}" ]; then'
    yield from (f"    {each}" for each in _load(f'"{own[0]}"', f'"{own[1]}"', line))
    yield "else"
    yield from (f"    {each}" for each in _load(f"/{KERNEL}", f"/{RAMDISK}", line))
    yield "fi"


def _load(kernel: str, ramdisk: str | None, line: str) -> Iterator[str]:
    yield f"linux {kernel} {line}"
    if ramdisk:
        yield f"initrd {ramdisk}"


def require_kernel(head: bytes, name: str) -> None:
    """Return if a file that begins so is a kernel that GRUB starts on x86. Raises InputError."""
    if head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS":
        (protocol,) = struct.unpack_from("<H", head, 0x206)
        if protocol >= 0x0200:
            return
    if head[:2] == b"\x1f\x8b" or head[:4] == b"\x7fELF":
        raise InputError(
            f"{name} is no kernel that boots by itself: it is a bare ELF image, as Xen starts in paravirtual guests",
            hint="Take another kernel of the guest (`kernel` with `version:`), or install one in it with `packages`.",
        )
    if head[0x38:0x3C] == b"ARMd":
        raise InputError(f"{name} is a kernel for ARM-64, and disks are assembled for x86-64 only")
    raise InputError(f"{name} is no Linux kernel for x86: it has no boot header")


def label_problem(label: str) -> str | None:
    """Return why the root cannot be found by that label, or None when it can."""
    if not label:
        return "the root filesystem has no label, by which the kernel is to find it on any device"
    if not _PLAIN_LABEL.fullmatch(label):
        return f"the root filesystem's label {label!r} cannot stand on a kernel's command line"
    return None
