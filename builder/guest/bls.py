"""Boot entries of the Boot Loader Specification, and what they lean on: grubenv, loader.conf, /etc/kernel/cmdline.

Sources: uapi-group.org/specifications/specs/boot_loader_specification (keys, several `options` lines are one), Fedora's
blscfg.mod (`$kernelopts`, `$tuned_params`), util/grub-editenv.c (the block), loader.conf(5), kernel-install(8).
"""

from __future__ import annotations

import re

from builder.errors import GuestError
from builder.guest.bootloader import FileEdit, Lines, Settings, counted, edit_arguments
from builder.guest.kernel_arguments import words

_KEY = re.compile(r"[ \t]*(?P<key>[a-z-]+)[ \t]+(?P<value>.*)", re.DOTALL)
_KERNELOPTS = frozenset({"$kernelopts", "${kernelopts}"})
_TIMEOUT = re.compile(r"(?P<lead>[ \t]*timeout[ \t]+)(?P<value>[^ \t]+)")
_SIGNATURE = b"# GRUB Environment Block\n"


def edit_entry(data: bytes, settings: Settings, *, kernelopts: bool) -> FileEdit:
    """Return an entry (loader/entries/*.conf) with its kernel's arguments edited.

    `kernelopts` says that what `$kernelopts` stands for is edited elsewhere: then nothing is added here.
    """
    lines = Lines(data)
    keys = {at: found for at in range(len(lines.texts)) if (found := _KEY.fullmatch(lines.body(at)))}
    options = [at for at, found in keys.items() if found["key"] == "options"]
    if not options or not any(found["key"] == "linux" for found in keys.values()):
        return FileEdit(data=data)
    parts = [keys[at]["value"] for at in options]
    elsewhere = kernelopts and any(_KERNELOPTS.intersection(words(part)) for part in parts)
    edited = edit_arguments(
        parts,
        settings.unwished if elsewhere else settings,
        initramfs=any(found["key"] == "initrd" for found in keys.values()),
        end=len(parts) - 1,
    )
    for at, part in zip(options, edited.parts, strict=True):
        body = lines.body(at)
        lines.put(at, body[: keys[at].start("value")] + part)
    lines.changes += edited.changes
    lines.kept += edited.kept
    return lines.done()


def has_kernelopts(grubenv: bytes) -> bool:
    """Say whether a grubenv sets kernelopts."""
    return grubenv.startswith(_SIGNATURE) and b"\nkernelopts=" in grubenv


def edit_grubenv(data: bytes, settings: Settings, *, path: str) -> FileEdit:
    """Return a grubenv with its kernelopts edited, of the same size. Raises GuestError when they have no room there."""
    if not has_kernelopts(data):
        return FileEdit(data=data)
    lines = Lines(data.rstrip(b"#"))
    for at in range(1, len(lines.texts)):
        name, _, value = lines.body(at).partition("=")
        if name == "kernelopts":
            edited = edit_arguments([_unescaped(value)], settings)
            if edited.changes:
                lines.put(at, f"kernelopts={_escaped(edited.parts[0])}", *edited.changes)
            lines.kept += edited.kept
    done = lines.done()
    if len(done.data) > len(data):
        raise GuestError(
            f"{path} has {len(data)} bytes, and the kernel's arguments do not fit into it any more",
            hint="Add fewer arguments, or remove others.",
        )
    return FileEdit(data=done.data.ljust(len(data), b"#"), changes=done.changes, kept=done.kept)


def edit_loader(data: bytes, settings: Settings) -> FileEdit:
    """Return systemd-boot's loader.conf with the timeout that is wanted."""
    lines = Lines(data)
    if settings.timeout is None:
        return FileEdit(data=data)
    told = f"timeout {settings.timeout}"
    there = [(at, found) for at in range(len(lines.texts)) if (found := _TIMEOUT.fullmatch(lines.body(at).rstrip()))]
    for at, found in there:
        if found["value"] != str(settings.timeout):
            lines.put(at, f"{found['lead']}{settings.timeout}", f"timeout {found['value']} -> {settings.timeout}")
    if not there:
        lines.insert(len(lines.texts), told, told)
    return lines.done()


def edit_cmdline(data: bytes, settings: Settings) -> FileEdit:
    """Return /etc/kernel/cmdline, which kernel-install makes entries of, with the arguments edited."""
    lines = Lines(data)
    there = [at for at in range(len(lines.texts)) if (body := lines.body(at).strip()) and not body.startswith("#")]
    if not there:
        return FileEdit(data=data)
    edited = edit_arguments([lines.body(at) for at in there], settings, end=len(there) - 1)
    for at, part in zip(there, edited.parts, strict=True):
        lines.put(at, part)
    return FileEdit(data=lines.done().data, changes=counted(edited.changes), kept=counted(edited.kept))


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")
