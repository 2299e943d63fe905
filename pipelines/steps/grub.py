"""The step kind `grub`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from builder.errors import GuestError
from builder.guest import kernel_arguments
from builder.guest.boot_files import BootFiles, edit_boot_files
from builder.guest.boot_names import Naming, boot_names
from builder.guest.bootloader import Settings, serial_of
from builder.guest.edits import Edit, Unchanged, WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.kernel_arguments import Wish
from pipelines.step import GuestStep, Options


class GrubOptions(Options):
    """What the boot loader is to do; what is not given stays."""

    add: tuple[str, ...] = Field(
        default=(), description="kernel arguments to add where they are missing: `[net.ifnames=0]`"
    )
    replace: tuple[str, ...] = Field(
        default=(), description="kernel arguments that take the place of all of the same name: `[elevator=noop]`"
    )
    remove: tuple[str, ...] = Field(
        default=(), description="kernel arguments to remove, by name (`quiet`) or whole (`console=tty1`)"
    )
    console: str | None = Field(
        default=None,
        description="serial console, for the kernel and for the boot loader's menu: `ttyS0,115200`; `hvc0` on Xen "
        "is the kernel's alone",
    )
    timeout: int | None = Field(default=None, ge=0, le=3600, description="seconds that the menu waits")
    root: Naming | None = Field(
        default=None,
        description="name the root filesystem on the kernel's command line by `label` or `uuid`; without it a name "
        "is mended only when no filesystem of the disk has it any more",
    )


class Grub(GuestStep[GrubOptions]):
    """Edit the boot loader's menu and the kernel's command line, and mend names of filesystems that no longer hold.

    GRUB 2 (grub.cfg, boot entries of the Boot Loader Specification with grubenv), GRUB legacy and pv-grub (menu.lst),
    extlinux and systemd-boot. Both are edited: what boots, so that nothing has to be generated in the guest, and what
    it is generated from (/etc/default/grub and grub.d, /etc/kernel/cmdline, the comments in Debian's menu.lst), so that
    the guest's next kernel keeps it; for `root=` alone grub-mkconfig takes the UUID of its own accord. Entries of other
    systems, memory tests and every line that is not meant stay as they are, byte for byte. `root=LABEL=…` and `search`
    follow a `label` or `uuid` step before this one.
    """

    options = GrubOptions

    def check(self, options: GrubOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = [wrong for each in (*options.add, *options.replace) if (wrong := kernel_arguments.problem(each))]
        problems += [f"{each!r} is no kernel argument to remove" for each in options.remove if not each.strip()]
        if options.console is not None and (wrong := kernel_arguments.console_problem(options.console)):
            problems.append(wrong)
        if options.root and any(each.startswith("root=") for each in (*options.add, *options.replace)):
            problems.append("`root:` and a root= argument both say where the root filesystem is: give one of them")
        if options.root and "root" in options.remove:
            problems.append("root is to be named and removed")
        both = sorted({*options.add, *options.replace} & {*options.remove})
        problems += [f"{each} is to be added and removed" for each in both]
        return problems

    def edits(self, options: GrubOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Edit every file that boots the guest, and those they are made of."""
        settings = Settings(
            wish=Wish(add=options.add, replace=options.replace, remove=options.remove, console=options.console or ""),
            names=boot_names(facts, options.root),
            timeout=options.timeout,
            menu=serial_of(options.console) if options.console else None,
        )
        found = edit_boot_files(facts, settings)
        if not found.booting and (why := _nothing_boots(found)):
            if options.model_dump(exclude_defaults=True):
                raise GuestError(
                    f"the kernel's command line cannot be set: {why}",
                    hint="A /boot or ESP of its own is looked into when the guest's /etc/fstab names it.",
                )
            return Unchanged(why=why)
        every = {**found.booting, **found.sources}
        edits = [
            WriteFile(path=path, data=edit.data, why=f"{path}: {'; '.join((*edit.changes, *edit.kept))}")
            for path, edit in every.items()
            if edit.changes
        ]
        kept = dict.fromkeys(sentence for edit in every.values() for sentence in edit.kept)
        why = "; ".join((f"{', '.join(every)} {'says' if len(every) == 1 else 'say'} so already", *kept))
        return edits or Unchanged(why=why)


def _nothing_boots(found: BootFiles) -> str:
    if found.unified:
        return f"the guest boots unified kernel images, which hold their command line: {', '.join(found.unified)}"
    if found.sources:
        return ""  # they will count once a boot loader is installed
    return "the guest has no boot loader's configuration: no grub.cfg, boot entries, menu.lst or extlinux.conf"
