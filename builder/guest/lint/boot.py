"""Rules on what is started: kernel, initramfs, boot loader, consoles, firmware."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from builder.guest import initramfs_tools
from builder.guest.boot_entries import BootEntry, boot_configs
from builder.guest.lint.remaking import ASSEMBLED, REMAKING, by_grub, remade
from builder.guest.lint.rule import Found, Mend, Rule, install
from builder.guest.lint.subject import Subject

_NEEDS_INITRAMFS = ("debian", "redhat", "suse", "arch")
_CONSOLES = {"x86_64": "ttyS0", "i386": "ttyS0", "aarch64": "ttyAMA0", "arm": "ttyAMA0", "ppc64le": "hvc0"}
_SPEEDS = {"ttyS0": "ttyS0,115200", "ttyAMA0": "ttyAMA0,115200"}
_PACKAGES = {"debian": "linux-image-amd64", "ubuntu": "linux-virtual", "redhat": "kernel", "suse": "kernel-default"}
_OUTSIDE = ("register it with a kernel and a ramdisk of the cloud's", "it needs -kernel and -initrd")
_LONG = 10  # seconds of a menu that nobody sees
_TIMEOUT = re.compile(r"""(?:set\s+timeout=|GRUB_TIMEOUT=|timeout[= ])["']?(-?\d+)["']?\s*(?:#.*)?""")
_QUIET = ("quiet", "rhgb", "splash", "splash=silent")


def no_kernel(subject: Subject) -> Iterator[Found]:
    """There is no kernel in the image.

    A filesystem image for Eucalyptus may do without: it is started with a kernel image (EKI) of the cloud. Source:
    Eucalyptus' register with --kernel; EC2's HVM instances start what is on the disk.
    """
    if subject.boot_partition or subject.kernel_files.kernels or _unified(subject):
        return
    outside = (subject.bare and subject.target != "aws") or subject.target == "eucalyptus-xen"
    empty = "".join(f"; {path} is empty, or a link to nothing" for path in subject.kernel_files.empty[:1])
    yield Found(
        severity="note" if outside else "error",
        what="there is no kernel in the image"
        + (f": {_OUTSIDE[subject.target == 'qemu']}" if outside else ", so that nothing can start")
        + empty,
        where="/boot",
        mends=() if outside else _kernel_package(subject),
    )


def no_initramfs(subject: Subject) -> Iterator[Found]:
    """The newest kernel has no initramfs, which distributions' kernels need: their drivers are modules.

    It happens when a disk was full, or an upgrade cut, while the initramfs was written. Source: initramfs-tools(7),
    dracut(8); cloud images of Flatcar have it inside of the kernel.
    """
    if not subject.kernels or subject.system.family == "flatcar" or _unified(subject):
        return
    newest = subject.kernels[-1]
    file = next((found for found in subject.kernel_files.kernels if found.version == newest.version), None)
    if newest.initramfs or subject.bare or file is None or file.ramdisk or file.built_in:
        return
    certain = subject.system.family in _NEEDS_INITRAMFS
    yield Found(
        severity="error" if certain else "warning",
        what=f"the newest kernel, {newest.version}, has no initramfs",
        where=newest.modules,
        mends=_made(subject, newest.version) if certain else (),
        advice="Make one with a `run` step that calls the guest's own program."
        if certain
        else "Make one, unless this kernel has its drivers built in.",
    )


def no_boot_loader(subject: Subject) -> Iterator[Found]:
    """No boot loader is configured: neither GRUB's files nor loader entries, extlinux or a unified kernel are there.

    A bare filesystem for a paravirtual cloud needs none. Source: EC2's HVM instances and Eucalyptus' boot the disk.
    """
    if subject.bare or subject.boot_partition or boot_configs(subject.facts) or _unified(subject):
        return
    xen = subject.target == "eucalyptus-xen"
    yield Found(
        severity="warning" if xen or subject.firmware.uefi else "error",
        what="no boot loader is configured in the image",
        where="/boot",
        mends=() if xen else remade(subject),
        advice="Install one, or take the root out with `extract` and make a bootable disk of it with `assemble`.",
    )


def boot_entry_broken(subject: Subject) -> Iterator[Found]:
    """A boot entry names a kernel or initramfs that is not there.

    It happens when kernels are removed without a new grub.cfg. The first entry is what boots by default: there it is an
    error. Source: GRUB's "error: file ... not found. you need to load the kernel first".
    """
    for number, entry in enumerate(subject.boot_entries):
        missing = [path for path in (entry.kernel, *entry.initrds) if not _there(subject, entry, path)]
        if missing:
            yield Found(
                severity="error" if number == 0 else "warning",
                what=f"the boot entry starts {' and '.join(missing)}, which is not there",
                where=f"{entry.config}:{entry.line}",
                quote=entry.text,
                advice="Have the guest write its boot configuration anew: a `run` step with update-grub or "
                "grub2-mkconfig.",
            )


def no_serial_console(subject: Subject) -> Iterator[Found]:
    """The kernel has no console on the serial port, which is the only screen that a cloud has.

    Without it a boot that fails shows nothing. Source: EC2 User Guide, "Instance console output"; Eucalyptus' images
    need console=ttyS0 (Eucalyptus' tools/libvirt.xsl); Xen's paravirtual guests have hvc0.
    """
    wanted = _CONSOLES.get(subject.system.architecture, "ttyS0")
    allowed = (wanted, "ttyS0", "hvc0", "xvc0") if subject.target == "eucalyptus-xen" else (wanted, "ttyS0", "ttyS1")
    for entry in subject.boot_entries[:1]:
        consoles = [value.partition(",")[0] for value in entry.values("console")]
        if not any(console in allowed for console in consoles):
            yield Found(
                severity="note" if subject.bare else "warning",
                what=f"the kernel has no console={wanted}: what it says cannot be read from outside",
                where=f"{entry.config}:{entry.line}",
                quote=entry.text,
                mends=by_grub(subject, console=_SPEEDS.get(wanted, wanted)),
                advice=ASSEMBLED,
            )


def long_boot_menu(subject: Subject) -> Iterator[Found]:
    """The boot menu waits long, or for ever, for a key that nobody presses.

    Source: GRUB manual, "timeout"; -1 waits for ever; syslinux counts tenths of seconds, which this does not read.
    """
    for path in () if subject.boot_partition else boot_configs(subject.facts):
        if "/grub" not in path:
            continue
        found = [
            (int(m[1]), number, line) for number, line in _menu(subject, path) if (m := _TIMEOUT.match(line.strip()))
        ]
        if not found:
            continue
        seconds, number, line = min(found)  # longer ones are of branches: after a failed boot, or shown once
        if seconds < 0 or seconds > _LONG:
            yield Found(
                severity="error" if seconds < 0 else "warning",
                what="the boot menu waits for ever" if seconds < 0 else f"the boot menu waits {seconds} s",
                where=f"{path}:{number}",
                quote=line,
                mends=by_grub(subject, timeout=1),
            )


def _menu(subject: Subject, path: str) -> Sequence[tuple[int, str]]:
    """Return the numbered lines that set a boot menu up: in a grub.cfg those of 00_header, where it is marked."""
    lines = [(number, line) for number, line in enumerate(subject.facts.text(path).splitlines(), 1)]
    marks = [number for number, line in lines if re.match(r"### (?:BEGIN|END) /etc/grub.d/00_header", line)]
    return lines[marks[0] : marks[1]] if len(marks) == 2 else lines


def quiet_boot(subject: Subject) -> Iterator[Found]:
    """The kernel is told to be quiet or to show a picture, so that the console log lacks what one looks for.

    Source: kernel-parameters, `quiet`; plymouth(8) keeps services' messages from the serial console.
    """
    for entry in subject.boot_entries[:1]:
        words = [word for word in entry.arguments if word in _QUIET]
        if words:
            yield Found(
                severity="note",
                what=f"the kernel is told {' and '.join(words)}: the console log will be short",
                where=f"{entry.config}:{entry.line}",
                quote=entry.text,
                mends=by_grub(subject, remove=words),
                advice=ASSEMBLED,
            )


def _there(subject: Subject, entry: BootEntry, path: str) -> bool:
    """Say whether the file is there; the loader's path begins at its filesystem's or subvolume's top, or at /boot."""
    if subject.boot_partition and subject.boot_partition.has(path):
        return True
    if not path or "$" in path or path.startswith(("http", "tftp", "/@")):
        return True  # computed, from elsewhere, or on a subvolume that is not mounted here
    beside = f"{entry.config.rpartition('/')[0]}/{path}"
    inner = path[path.index("/", 1) :] if path.count("/") > 1 else path
    places = (path, f"/boot{path}", f"/boot/efi{path}", f"/efi{path}", beside, inner)
    return any(place.startswith("/") and subject.facts.exists(place) for place in places)


def _unified(subject: Subject) -> bool:
    unmounted = any(path.startswith("EFI/LINUX/") for path in subject.firmware.loaders)
    return unmounted or any(subject.facts.names(f"{esp}/EFI/Linux/*.efi") for esp in ("/boot", "/boot/efi", "/efi"))


def _made(subject: Subject, version: str) -> tuple[Mend, ...]:
    """Return the step that makes an initramfs where there is none, which the step `initramfs` leaves so."""
    tool = initramfs_tools.find(subject.facts)
    found = (
        tool.first(version) if tool and subject.system.family != "suse" else None
    )  # SUSE's are called initrd-VERSION
    return (Mend(step="run", options={"command": list(found[0]), "creates": found[1], "limit": 1800}),) if found else ()


def _kernel_package(subject: Subject) -> tuple[Mend, ...]:
    """Return the step that installs the distribution's kernel, where its name is known."""
    name = _PACKAGES.get(subject.system.id) or _PACKAGES.get(subject.system.family)
    return (install(name),) if name and subject.system.architecture == "x86_64" else ()


RULES = (
    Rule(check=no_kernel, worst="error", mended_by=("packages",)),
    Rule(check=no_initramfs, worst="error", mended_by=("run",)),
    Rule(check=no_boot_loader, worst="error", mended_by=REMAKING),
    Rule(check=boot_entry_broken, worst="error"),
    Rule(check=no_serial_console, worst="warning", mended_by=("grub",)),
    Rule(check=long_boot_menu, worst="error", mended_by=("grub",)),
    Rule(check=quiet_boot, worst="note", mended_by=("grub",)),
)
