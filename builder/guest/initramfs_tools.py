"""The programs that make a guest's initramfs: how each is told which drivers belong in it, and how it is run.

Sources: initramfs-tools(7) and update-initramfs(8), dracut.conf(5) and dracut(8), mkinitcpio(8), mkinitrd(8) of SUSE
until 11 (INITRD_MODULES in /etc/sysconfig/kernel) and of EL5.

They run in the appliance, whose hardware is not that of the cloud: where a program would pack only what this machine
needs (dracut's hostonly, mkinitcpio's autodetect), it is told to pack for any.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from builder.guest.drivers import Kernel
from builder.guest.edits import WriteFile
from builder.guest.facts import GuestFacts

_TOOLS = (  # a program, and which kind it means; the first that is there counts
    ("/usr/sbin/mkinitramfs", "initramfs-tools"),
    ("/usr/bin/dracut", "dracut"),
    ("/usr/sbin/dracut", "dracut"),
    ("/sbin/dracut", "dracut"),
    ("/usr/bin/mkinitcpio", "mkinitcpio"),
    ("/sbin/mkinitcpio", "mkinitcpio"),
    ("/lib/mkinitrd/scripts", "SUSE's mkinitrd"),
    ("/sbin/mkinitrd", "mkinitrd"),
)
NAMES = tuple(dict.fromkeys(name for _, name in _TOOLS))
_DRACUT = "/etc/dracut.conf.d/90-emi.conf"
_MODULES = re.compile(r"(?m)^(?P<head>MODULES=)(?:\((?P<list>[^()]*)\)|\"(?P<quoted>[^\"]*)\")")
_INITRD_MODULES = re.compile(r"(?m)^(?P<head>INITRD_MODULES=\")(?P<list>[^\"\n]*)\"")


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One such program: its name, and where it lies in the guest."""

    name: str
    path: str

    def configure(self, facts: GuestFacts, modules: Sequence[str]) -> WriteFile | None:
        """Return how it is told to take these modules into every initramfs from now on; None when it is told already.

        Also None for EL5's mkinitrd, whose command line is the only place that is the same in all its versions.
        """
        match self.name:
            case "initramfs-tools":
                return _one_a_line(facts, "/etc/initramfs-tools/modules", modules)
            case "dracut":
                return _dracut(facts, modules)
            case "mkinitcpio":
                return _in_list(facts, "/etc/mkinitcpio.conf", _MODULES, modules)
            case "SUSE's mkinitrd":
                return _in_list(facts, "/etc/sysconfig/kernel", _INITRD_MODULES, modules)
            case _:
                return None

    def script(self, kernel: Kernel, modules: Sequence[str]) -> str:
        """Return the shell script that makes the kernel's initramfs anew, with these modules."""
        version, image, program = map(shlex.quote, (kernel.version, kernel.initramfs, self.path))
        match self.name:
            case "initramfs-tools":
                return f"exec update-initramfs -u -k {version}\n"
            case "dracut":  # EL6's knows no --no-hostonly, and packs for any machine anyhow
                return (
                    f"any=$({program} --help 2>&1 | grep -q -e --no-hostonly && echo --no-hostonly)\n"
                    f"exec {program} --force $any {image} {version}\n"
                )
            case "mkinitcpio":
                return f"exec {program} -k {version} -g {image} -S autodetect\n"
            case "SUSE's mkinitrd":
                return f"exec mkinitrd -k vmlinuz-{version} -i {shlex.quote(kernel.initramfs.rpartition('/')[2])}\n"
            case _:
                wanted = " ".join(shlex.quote(f"--with={module}") for module in modules)
                return f"exec {program} -f {wanted} {image} {version}\n"

    def first(self, version: str) -> tuple[tuple[str, ...], str] | None:
        """Return the command that makes one for a kernel that has none, and the file that it makes.

        None for a program whose file another one names.
        """
        match self.name:
            case "initramfs-tools":
                image = f"/boot/initrd.img-{version}"  # update-initramfs -c refused, long, what it had made before
                return (self.path, "-o", image, version), image
            case "dracut":
                image = f"/boot/initramfs-{version}.img"
                return (self.path, "--force", "--no-hostonly", image, version), image
            case _:
                return None


def find(facts: GuestFacts) -> Tool | None:
    """Return the program that makes this guest's initramfs, or None when it has none that is known here."""
    return next((Tool(name=name, path=path) for path, name in _TOOLS if facts.exists(path)), None)


def _one_a_line(facts: GuestFacts, path: str, modules: Sequence[str]) -> WriteFile | None:
    text = facts.text(path)
    there = {line.split()[0].replace("-", "_") for line in text.splitlines() if line.strip() and line.strip()[0] != "#"}
    missing = [module for module in modules if module not in there]
    if not missing:
        return None
    apart = "" if text.endswith("\n") or not text else "\n"
    return _written(path, text + apart + "".join(f"{module}\n" for module in missing), missing)


def _dracut(facts: GuestFacts, modules: Sequence[str]) -> WriteFile | None:
    text = facts.text(_DRACUT)
    there = {
        word.replace("-", "_") for line in re.findall(r'(?m)^add_drivers\+="([^"\n]*)"', text) for word in line.split()
    }
    missing = [module for module in modules if module not in there]
    if not missing:
        return None
    apart = "" if text.endswith("\n") or not text else "\n"
    return _written(_DRACUT, f'{text}{apart}add_drivers+=" {" ".join(missing)} "\n', missing)


def _in_list(facts: GuestFacts, path: str, pattern: re.Pattern[str], modules: Sequence[str]) -> WriteFile | None:
    """Add to the last assignment of a variable that holds a list of words, or append one."""
    text = facts.text(path)
    found = list(pattern.finditer(text))
    if not found:
        name = "MODULES=({})" if pattern is _MODULES else 'INITRD_MODULES="{}"'
        apart = "" if text.endswith("\n") or not text else "\n"
        return _written(path, f"{text}{apart}{name.format(' '.join(modules))}\n", modules)
    kind = next(name for name, value in found[-1].groupdict().items() if name != "head" and value is not None)
    start, end = found[-1].span(kind)
    words = re.sub(r"#.*", "", text[start:end]).split()
    missing = [module for module in modules if module not in {word.replace("-", "_") for word in words}]
    if not missing:
        return None
    body = text[start:end].rstrip()
    apart = "\n" if "#" in body.rpartition("\n")[2] else " " if body else ""
    return _written(path, text[:start] + body + apart + " ".join(missing) + text[end:], missing)


def _written(path: str, text: str, modules: Sequence[str]) -> WriteFile:
    data = text.encode("utf-8", "surrogateescape")
    return WriteFile(path=path, data=data, why=f"{path}: added {', '.join(modules)}")
