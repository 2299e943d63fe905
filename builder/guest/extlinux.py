"""extlinux.conf and syslinux.cfg: EXTLINUX, SYSLINUX and U-Boot's distro boot.

Sources: doc/syslinux.txt of Syslinux (keywords in any case; TIMEOUT in tenths of a second; SERIAL first of all),
doc/README.distro of U-Boot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from builder.guest.bootloader import FileEdit, Lines, Settings, is_linux
from builder.guest.kernel_arguments import value

_LINE = re.compile(r"[ \t]*(?P<key>[A-Za-z0-9]+)[ \t]+(?P<value>.*)", re.DOTALL)
_TIMEOUT = re.compile(r"(?P<lead>[ \t]*timeout[ \t]+)(?P<value>\d+)[ \t]*", re.IGNORECASE)
_NO_KERNEL = re.compile(r"(?i).*\.(c32|cbt|0|bin|bs|bss|com|img|efi)")


@dataclass(kw_only=True)
class _Block:
    """What stands from one LABEL to the next; the first block is what stands before any."""

    first: bool = False
    kernel: str = ""
    initrd: bool = False
    appends: list[int] = field(default_factory=list)  # lines


def edit_menu(data: bytes, settings: Settings) -> FileEdit:
    """Return an extlinux.conf that boots as `settings` wants it; what is not meant stays byte for byte."""
    lines = Lines(data)
    blocks = _blocks(lines)
    for block in blocks:
        for at in block.appends:
            found = _LINE.fullmatch(lines.body(at))
            assert found is not None  # it is in a block for that
            arguments = found["value"]
            if block.first and value(arguments, "root") is None:
                continue
            if not block.first and not _starts_linux(block.kernel):
                continue
            initramfs = block.initrd or block.first or value(arguments, "initrd") is not None
            start = found.start("value")
            lines.arguments(at, (start, start + len(arguments.rstrip(" \t"))), settings, initramfs=initramfs)
    if settings.timeout is not None and len(blocks) > 1:
        _set_timeout(lines, settings.timeout)
    if settings.menu is not None and len(blocks) > 1:
        _set_serial(lines, f"SERIAL {settings.menu.unit} {settings.menu.speed}")
    return lines.done()


def _blocks(lines: Lines) -> list[_Block]:
    blocks = [_Block(first=True)]
    for at in range(len(lines.texts)):
        found = _LINE.fullmatch(lines.body(at))
        match found["key"].lower() if found else "":
            case "label":
                blocks.append(_Block())
            case "kernel" | "linux":
                assert found is not None
                blocks[-1].kernel = found["value"].strip()
            case "initrd":
                blocks[-1].initrd = True
            case "append":
                blocks[-1].appends.append(at)
            case _:
                pass
    return blocks


def _starts_linux(kernel: str) -> bool:
    return bool(kernel) and not _NO_KERNEL.fullmatch(kernel) and is_linux(kernel)


def _set_timeout(lines: Lines, seconds: int) -> None:
    tenths = max(1, seconds * 10)  # 0 would be: wait for ever
    there = [(at, found) for at in range(len(lines.texts)) if (found := _TIMEOUT.fullmatch(lines.body(at)))]
    for at, found in there:
        if found["value"] != str(tenths):
            lines.put(at, f"{found['lead']}{tenths}", f"timeout {found['value']} -> {tenths} tenths of a second")
    if not there:
        lines.insert(0, f"TIMEOUT {tenths}", f"timeout {tenths} tenths of a second")


def _set_serial(lines: Lines, command: str) -> None:
    there = [at for at in range(len(lines.texts)) if lines.body(at).upper().split()[:1] == ["SERIAL"]]
    for at in there:
        if lines.body(at).upper().split()[:3] != command.split():
            lines.put(at, command, f"{lines.body(at).strip()} -> {command}")
    if not there:
        lines.insert(0, command, command)
