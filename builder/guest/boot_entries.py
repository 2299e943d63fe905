"""What a guest's boot loader will start: each entry's kernel, initramfs and command line, whatever loader it is.

Formats: grub.cfg as grub-mkconfig writes it (`linux`, `linux16`, `linuxefi`; other scripts are not run, so what they
compute is not known); the Boot Loader Specification's entries; GRUB legacy's menu.lst; extlinux.conf and syslinux.cfg.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from builder.guest.entries import parse
from builder.guest.facts import GuestFacts

GRUB_CONFIGS = (
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/efi/EFI/*/grub.cfg",
)
LEGACY_CONFIGS = ("/boot/grub/menu.lst", "/boot/grub/grub.conf")
_SYSLINUX_CONFIGS = (
    "/boot/extlinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/boot/extlinux.conf",
    "/extlinux.conf",
    "/syslinux/syslinux.cfg",
    "/boot/syslinux/extlinux.conf",
)
_BLS_ENTRIES = ("/boot/loader/entries/*.conf", "/boot/efi/loader/entries/*.conf", "/efi/loader/entries/*.conf")
_GRUBENV = ("/boot/grub2/grubenv", "/boot/grub/grubenv")
_LINUX = re.compile(r"\s*(?:linux|linux16|linuxefi)\s+(\S+)\s*(.*)")
_INITRD = re.compile(r"\s*(?:initrd|initrd16|initrdefi)\s+(.*)")
_DEVICE = re.compile(r"^\(.*?\)")  # GRUB's (hd0,1) in front of a path
_RESCUE = re.compile(r"\b(?:single|rescue|recovery|systemd\.unit=rescue\.target|emergency)\b")
_HYPERVISOR = re.compile(r"/xen[^/]*\.gz$")
_OTHERS = re.compile(rf"memtest|ipxe|{_HYPERVISOR.pattern}")


@dataclass(frozen=True, kw_only=True)
class BootEntry:
    """One thing that a boot loader can start; `line` of `config` is where the kernel is named. Paths are the loader's.

    Words that the loader would compute (`$root`) are left as they stand.
    """

    config: str
    line: int
    text: str
    kernel: str
    arguments: tuple[str, ...] = ()
    initrds: tuple[str, ...] = ()

    @property
    def rescue(self) -> bool:
        """Whether it is there to mend the system, and not what boots."""
        return bool(_RESCUE.search(" ".join(self.arguments))) or "rescue" in self.kernel

    def value(self, name: str) -> str | None:
        """Return the value of the last argument NAME=VALUE, quotes removed, or None."""
        return next((value for value in reversed(self.values(name))), None)

    def values(self, name: str) -> tuple[str, ...]:
        """Return the values of all arguments NAME=VALUE, in their order."""
        found = (word.partition("=") for word in self.arguments)
        return tuple(value.strip('"') for key, sign, value in found if sign and key == name)


def boot_entries(facts: GuestFacts) -> tuple[BootEntry, ...]:
    """Return the entries of every boot loader's configuration that the guest has, in their order."""
    found: list[BootEntry] = []
    for path in _present(facts, GRUB_CONFIGS):
        found += grub_entries(path, facts.text(path))
    found += _bls(facts)
    for path in _present(facts, LEGACY_CONFIGS):
        found += _legacy(path, facts.text(path))
    for path in _present(facts, _SYSLINUX_CONFIGS):
        found += _syslinux(path, facts.text(path))
    return tuple(entry for entry in found if not _OTHERS.search(entry.kernel))


def boot_configs(facts: GuestFacts) -> tuple[str, ...]:
    """Return the boot loaders' configuration files that the guest has."""
    return tuple(_present(facts, (*GRUB_CONFIGS, *_BLS_ENTRIES, *LEGACY_CONFIGS, *_SYSLINUX_CONFIGS)))


def _present(facts: GuestFacts, patterns: Sequence[str]) -> Iterator[str]:
    """Yield the files, each once: grub.conf is mostly a link to menu.lst."""
    seen: set[str] = set()
    for pattern in patterns:
        for path in facts.names(pattern) if "*" in pattern else (pattern,):
            target = facts.link(path)
            real = path if target is None else f"{path.rpartition('/')[0]}/{target}".replace("/./", "/")
            if facts.read(path) is not None and not {path, real} & seen:
                seen |= {path, real}
                yield path


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield logical lines with their number: a backslash at the end continues."""
    held, began = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        began = began or number
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        yield began, held + line
        held, began = "", 0
    if held:
        yield began, held


def grub_entries(path: str, text: str) -> list[BootEntry]:
    """Return what a grub.cfg starts; `path` is what the entries say they are of."""
    found: list[BootEntry] = []
    for number, line in _lines(text):
        if match := _LINUX.match(line):
            found.append(_entry(path, number, line, match[1], match[2].split()))
        elif (match := _INITRD.match(line)) and found and not found[-1].initrds:
            found[-1] = replace(found[-1], initrds=tuple(map(_plain, match[1].split())))
    return found


def _bls(facts: GuestFacts) -> list[BootEntry]:
    found = []
    variables = _grubenv(facts)
    for path in _present(facts, _BLS_ENTRIES):
        entry = parse(facts.text(path))
        if entry:
            words = [part for word in entry.options for part in variables.get(word, word).split()]
            made = _entry(path, entry.number, entry.text, entry.linux, words)
            found.append(replace(made, initrds=tuple(map(_plain, entry.initrds))))
    return found


def _grubenv(facts: GuestFacts) -> dict[str, str]:
    """Return GRUB's saved variables as entries name them: $kernelopts."""
    text = "".join(facts.text(path) for path in _GRUBENV)
    return {f"${name}": value for name, value in re.findall(r"(?m)^([a-z_]+)=(.*)$", text)}


def _legacy(path: str, text: str) -> list[BootEntry]:
    found: list[BootEntry] = []
    for number, line in _lines(text):
        words = line.split()
        match words:
            case ["kernel", *rest]:
                kernel = next((word for word in rest if not word.startswith("--")), "")
                if kernel:
                    found.append(_entry(path, number, line, kernel, rest[rest.index(kernel) + 1 :]))
            case ["module", kernel, *rest] if found and _HYPERVISOR.search(found[-1].kernel):
                found[-1] = _entry(path, number, line, kernel, rest)
            case ["initrd" | "module", initrd, *_] if found and not found[-1].initrds:
                found[-1] = replace(found[-1], initrds=(_plain(initrd),))
            case _:
                continue
    return found


def _syslinux(path: str, text: str) -> list[BootEntry]:
    found: list[BootEntry] = []
    for number, line in _lines(text):
        key, _, value = line.strip().partition(" ")
        match key.lower():
            case "kernel" | "linux" if value.strip():
                found.append(_entry(path, number, line, value.strip(), ()))
            case "append" if found:
                words = tuple(word for word in value.split() if not word.startswith("initrd="))
                named = tuple(word.removeprefix("initrd=") for word in value.split() if word.startswith("initrd="))
                listed = tuple(_plain(name) for word in named for name in word.split(","))
                found[-1] = replace(found[-1], arguments=words, initrds=found[-1].initrds or listed, text=line)
            case "initrd" if found:
                found[-1] = replace(found[-1], initrds=tuple(map(_plain, value.strip().split(","))))
            case _:
                continue
    return found


def _entry(path: str, number: int, text: str, kernel: str, arguments: Sequence[str]) -> BootEntry:
    return BootEntry(config=path, line=number, text=text, kernel=_plain(kernel), arguments=tuple(arguments))


def _plain(path: str) -> str:
    """Return a path without the loader's device in front of it and without quotes."""
    return _DEVICE.sub("", path.strip("\"'"))
