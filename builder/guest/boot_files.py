"""The files that decide how a guest boots, found and edited together: those read at boot, and their sources."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field

from builder.guest import bls, extlinux, grub_config, grub_defaults, menu_lst
from builder.guest.bootloader import FileEdit, Settings
from builder.guest.facts import GuestFacts

_CONFIGS = (
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub/custom.cfg",
    "/boot/grub2/custom.cfg",
    "/boot/efi/EFI/*/grub.cfg",
    "/boot/EFI/*/grub.cfg",
    "/efi/EFI/*/grub.cfg",
    "/boot/efi/boot/grub/grub.cfg",
)
_OWN_ENTRIES = ("/etc/grub.d/*_custom",)
_MENUS = ("/boot/grub/menu.lst", "/boot/grub/grub.conf", "/boot/boot/grub/menu.lst", "/boot/efi/EFI/*/grub.conf")
_EXTLINUX = (
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/boot/syslinux/extlinux.conf",
    "/extlinux.conf",
    "/syslinux.cfg",
)
_ENTRIES = ("/boot/loader/entries/*.conf", "/boot/efi/loader/entries/*.conf", "/efi/loader/entries/*.conf")
_LOADERS = ("/boot/loader/loader.conf", "/boot/efi/loader/loader.conf", "/efi/loader/loader.conf")
_GRUBENVS = ("/boot/grub/grubenv", "/boot/grub2/grubenv", "/boot/efi/EFI/*/grubenv")
_UNIFIED = ("/boot/efi/EFI/Linux/*.efi", "/boot/EFI/Linux/*.efi", "/efi/EFI/Linux/*.efi")
_DEFAULTS = ("/etc/default/grub", "/etc/default/grub.d/*.cfg")
_CMDLINE = "/etc/kernel/cmdline"
_LIMIT = 4 << 20  # bytes of any of them
_LINKS = 40  # followed at most, as Linux does


@dataclass(frozen=True, kw_only=True)
class BootFiles:
    """What was found, by path, each as it is to be; `booting` are read at boot, `sources` when others are made anew."""

    booting: dict[str, FileEdit] = field(default_factory=dict)
    sources: dict[str, FileEdit] = field(default_factory=dict)
    unified: tuple[str, ...] = ()  # unified kernel images, which hold their command line


def edit_boot_files(facts: GuestFacts, settings: Settings) -> BootFiles:
    """Return the boot files of a guest, edited. Raises GuestError when one is too large, or has no room."""
    booting: dict[str, FileEdit] = {}
    for path, data in _read(facts, *_CONFIGS):
        booting[path] = grub_config.edit_config(data, settings)
    for path, data in _read(facts, *_MENUS):
        booting[path] = menu_lst.edit_menu(data, settings)
    for path, data in _read(facts, *_EXTLINUX):
        booting[path] = extlinux.edit_menu(data, settings)
    booting |= _edit_entries(facts, settings)
    return BootFiles(
        booting=booting,
        sources=_edit_sources(facts, settings),
        unified=tuple(path for pattern in _UNIFIED for path in facts.names(pattern)),
    )


def _edit_entries(facts: GuestFacts, settings: Settings) -> dict[str, FileEdit]:
    entries, environments = dict(_read(facts, *_ENTRIES)), dict(_read(facts, *_GRUBENVS))
    configs = (data for _, data in _read(facts, *_CONFIGS))
    kernelopts = any(map(bls.has_kernelopts, environments.values())) or any(
        b"set kernelopts=" in data for data in configs
    )
    edits = {path: bls.edit_entry(data, settings, kernelopts=kernelopts) for path, data in entries.items()}
    for path, data in environments.items():
        if bls.has_kernelopts(data):
            edits[path] = bls.edit_grubenv(data, settings, path=path)
    for path, data in _read(facts, *_LOADERS) if entries else ():
        edits[path] = bls.edit_loader(data, settings)
    return edits


def _edit_sources(facts: GuestFacts, settings: Settings) -> dict[str, FileEdit]:
    defaults = dict(_read(facts, *_DEFAULTS))
    edits = {path: FileEdit(data=data) for path, data in defaults.items()}
    if defaults:
        edits |= grub_defaults.edit_defaults(defaults, settings)
    for path, data in _read(facts, *_OWN_ENTRIES):
        edits[path] = grub_config.edit_config(data, settings.lines_only)
    for path, data in _read(facts, _CMDLINE):
        edits[path] = bls.edit_cmdline(data, settings)
    return edits


def _read(facts: GuestFacts, *patterns: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files that match, each once, by the path without links at its end."""
    seen: set[str] = set()
    for pattern in patterns:
        for name in facts.names(pattern) if "*" in pattern else (pattern,):
            path = _real(facts, name)
            if path not in seen and (data := facts.read(path, limit=_LIMIT)) is not None:
                seen.add(path)
                yield path, data


def _real(facts: GuestFacts, path: str) -> str:
    for _ in range(_LINKS):
        target = facts.link(path)
        if target is None:
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return path
