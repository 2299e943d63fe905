"""The step kind `kernel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from builder.guest import kernels
from builder.guest.edits import CopyOut, Edit
from builder.guest.facts import GuestFacts
from pipelines.step import GuestStep, Options


class KernelOptions(Options):
    """Which kernel."""

    version: str | None = Field(
        default=None,
        min_length=1,
        description="the kernel's version as `uname -r` says it (`6.1.0-18-amd64`), or a pattern with `*` of which the "
        "newest is taken (`2.6.18-*xen`); without it the newest of all",
    )


class Kernel(GuestStep[KernelOptions]):
    """Copy the kernel and the initramfs that belongs to it out of a guest.

    The image goes on as it was, with the two files beside it. Another step, or an output, takes them as `ID.kernel` and
    `ID.ramdisk`, where ID is this step's or that of a guest step after it; they stay what they were when this step ran,
    so it belongs behind steps that change the kernel (`packages`, `initramfs`).

    Found are kernels in /boot, also one of its own, by the names that Debian, Ubuntu, Fedora, EL, SUSE, Arch, Alpine,
    Amazon Linux and Flatcar use, by the boot loader's entries, and beside the modules. Rescue kernels do not count, nor
    do names that are empty or lead nowhere. A kernel without its initramfs is an error, but for Flatcar's: it has one
    built in, and there is no `ID.ramdisk` then.
    """

    options = KernelOptions
    copies_out = ("kernel", "ramdisk")

    def edits(self, options: KernelOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit]:
        """Copy out the kernel, and its initramfs unless that is built in."""
        found = kernels.find(facts)
        chosen = kernels.choose(found, options.version)
        why = f"copied {chosen.path} out as kernel ({_told(chosen, found, options.version)})"
        edits = [CopyOut(path=chosen.path, name="kernel", why=why)]
        if chosen.ramdisk:
            edits.append(CopyOut(path=chosen.ramdisk, name="ramdisk"))
        return edits


def _told(chosen: kernels.Kernel, found: kernels.Found, wanted: str | None) -> str:
    said = [chosen.version if wanted else f"{chosen.version}, the newest of {len(found.kernels)}"]
    said += ["its initramfs is built in: there is no ramdisk"] if chosen.ramdisk is None else []
    said += [f"{path} is empty or leads nowhere" for path in found.empty]
    return "; ".join(said)
