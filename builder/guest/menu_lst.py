"""menu.lst (grub.conf) of GRUB legacy, which pv-grub reads too; Debian's settings in its comments included.

Sources: the GRUB legacy manual (commands, `terminal` with a timeout); Debian's update-grub of grub-legacy, which makes
entries of the comments `# kopt=` (all kernels) and `# defoptions=` (but those for recovery).
"""

from __future__ import annotations

import re

from builder.guest.bootloader import FileEdit, Lines, Settings, edit_arguments, is_linux, same_serial

_KERNEL = re.compile(r"[ \t]*(?P<command>kernel|module)[ \t=]+(?:--[^ \t]+[ \t]+)*(?P<kernel>[^ \t]+)(?P<arguments>.*)")
_TITLE = re.compile(r"[ \t]*title\b")
_INITRD = re.compile(r"[ \t]*(?:initrd|module)[ \t=]")
_KOPT = re.compile(r"# (?P<name>kopt(?:_[^= \t]+)?|defoptions)=(?P<arguments>.*)")
_TIMEOUT = re.compile(r"(?P<lead>[ \t]*timeout[ \t=]+)(?P<value>[^ \t]+)[ \t]*")
_SERIAL = re.compile(r"[ \t]*serial\b.*")
_TERMINAL = re.compile(r"[ \t]*terminal\b.*")
_WAIT = 2  # seconds for a key on either side; without a limit GRUB legacy waits for ever


def edit_menu(data: bytes, settings: Settings) -> FileEdit:
    """Return a menu.lst that boots as `settings` wants it; what is not meant stays byte for byte."""
    lines = Lines(data)
    for at in range(len(lines.texts)):
        found = _KERNEL.fullmatch(lines.body(at))
        if found and is_linux(found["kernel"], module=found["command"] == "module"):
            _edit_kernel(lines, at, found, settings)
    _edit_comments(lines, settings)
    if any(_TITLE.match(lines.body(at)) for at in range(len(lines.texts))):
        if settings.timeout is not None:
            _set_timeout(lines, settings.timeout)
        if settings.menu is not None:
            _set_serial(lines, settings.menu.command)
    return lines.done()


def _edit_kernel(lines: Lines, at: int, found: re.Match[str], settings: Settings) -> None:
    start, end = found.span("arguments")
    after = (lines.body(at) for at in range(at + 1, len(lines.texts)))
    initramfs = next((bool(_INITRD.match(body)) for body in after if _INITRD.match(body) or _TITLE.match(body)), False)
    lines.arguments(at, (start, start + len(found["arguments"].rstrip(" \t"))), settings, initramfs=initramfs)
    assert end >= start


def _edit_comments(lines: Lines, settings: Settings) -> None:
    """Edit what update-grub makes the next entries of: kopt and defoptions are one command line."""
    found = {at: match for at in range(len(lines.texts)) if (match := _KOPT.fullmatch(lines.body(at)))}
    common = [at for at, match in found.items() if match["name"] in ("kopt", "defoptions")]
    common.sort(key=lambda at: found[at]["name"] != "kopt")
    groups = [common, *([at] for at in found if at not in common)]
    for group in groups:
        if not group:
            continue
        only_defaults = found[group[0]]["name"] == "defoptions"
        parts = [found[at]["arguments"] for at in group]
        edited = edit_arguments(parts, settings.unwished if only_defaults else settings)
        for number, at in enumerate(group):
            told = (f"{found[at]['name']}: {change}" for part, change in edited.by_part if part == number)
            lines.put(at, lines.body(at)[: found[at].start("arguments")] + edited.parts[number], *told)


def _set_timeout(lines: Lines, timeout: int) -> None:
    there = [(at, found) for at in range(len(lines.texts)) if (found := _TIMEOUT.fullmatch(lines.body(at)))]
    for at, found in there:
        if found["value"] != str(timeout):
            lines.put(at, f"{found['lead']}{timeout}", f"timeout {found['value']} -> {timeout}")
    if not there:
        lines.insert(_first_command(lines), f"timeout {timeout}", f"timeout {timeout}")


def _set_serial(lines: Lines, command: str) -> None:
    serials = [at for at in range(len(lines.texts)) if _SERIAL.fullmatch(lines.body(at))]
    terminals = [at for at in range(len(lines.texts)) if _TERMINAL.fullmatch(lines.body(at))]
    for at in serials:
        if not same_serial(lines.body(at), command):
            lines.put(at, command, f"{lines.body(at).strip()} -> {command}")
    for at in terminals:
        start = lines.body(at).rstrip(" \t")
        if "serial" not in start.split():
            wait = "" if "--timeout" in start else f" --timeout={_WAIT}"
            words = start.split(maxsplit=1)
            now = " ".join((f"{words[0]}{wait}", *words[1:], "serial"))
            lines.put(at, now, now)
    place = min(terminals, default=_first_command(lines))
    if not terminals:
        both = f"terminal --timeout={_WAIT} serial console"
        lines.insert(max(serials[0] + 1, place) if serials else place, both, both)
    if not serials:
        lines.insert(place, command, command)


def _first_command(lines: Lines) -> int:
    for at in range(len(lines.texts)):
        body = lines.body(at).strip()
        if body and not body.startswith("#"):
            return at
    return len(lines.texts)
