"""The step kind `initramfs`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from builder.errors import GuestError
from builder.guest import initramfs_tools
from builder.guest.drivers import GROUPS, Drivers, drivers, kernels, modules_of
from builder.guest.edits import Command, Edit, RequireDrivers, Unchanged
from builder.guest.facts import GuestFacts
from pipelines.step import GuestStep, Options

_DEFAULT = ("virtio", "nvme", "ena", "xen-blkfront", "xen-netfront")
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class InitramfsOptions(Options):
    """Which drivers, in the initramfs of which kernels."""

    drivers: tuple[str, ...] = Field(
        default=_DEFAULT,
        min_length=1,
        description="drivers to be there before the root filesystem is: kernel modules, or the group `virtio` "
        "(virtio_pci, virtio_blk, virtio_scsi, virtio_net)",
    )
    kernels: Literal["all", "newest"] = Field(default="all", description="for every kernel of the guest, or the newest")
    limit: int = Field(default=1800, ge=1, le=86400, description="seconds that making one initramfs may take")


class Initramfs(GuestStep[InitramfsOptions]):
    """Make sure that a guest's initramfs has the drivers with which clouds show it its disk and its network.

    What lies in an initramfs is read here, without running anything. Only where a driver is missing that the kernel has
    as a module, the guest's own program is told so and makes that kernel's initramfs anew, in the appliance: two
    minutes on an idle machine without KVM. Then it is read again, and a driver that is still missing is an error. For
    initramfs-tools, dracut, mkinitcpio, and mkinitrd of SUSE until 11 and EL5. Drivers that are built into the kernel,
    and those that it does not have at all, need nothing.
    """

    options = InitramfsOptions
    may_change_kernel = True

    def check(self, options: InitramfsOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        known = ", ".join(GROUPS)
        return [
            f"{each!r} is no name of a kernel module, nor one of {known}"
            for each in options.drivers
            if not _MODULE.fullmatch(each)
        ]

    def edits(
        self, options: InitramfsOptions, facts: GuestFacts, pins: Mapping[str, Any]
    ) -> Sequence[Edit] | Unchanged:
        """Configure the guest's program and run it for the kernels that lack a driver."""
        chosen = kernels(facts)
        if not chosen:
            return Unchanged(why="the guest has no kernel with modules")
        if options.kernels == "newest":
            chosen = chosen[-1:]
        looked = [drivers(facts, kernel) for kernel in chosen]
        lacking = [(found, modules) for found in looked if (modules := _lacking(found, options.drivers))]
        if not lacking:
            return Unchanged(why="; ".join(_told(found, options.drivers) for found in looked))
        tool = initramfs_tools.find(facts)
        if tool is None:
            found, modules = lacking[0]
            raise GuestError(
                f"{found.kernel.initramfs} lacks {', '.join(modules)}, and the guest has no program to make another: "
                f"none of {', '.join(initramfs_tools.NAMES)}",
                hint="Install one of them first (`packages`).",
            )
        # All that is wanted, since what made the initramfs that is there may have been told otherwise than now.
        wanted = [(found, modules, found.loadable(options.drivers)) for found, modules in lacking]
        every = tuple(dict.fromkeys(module for _, _, modules in wanted for module in modules))
        configured = tool.configure(facts, every)
        edits: list[Edit] = [configured] if configured else []
        for found, missing, modules in wanted:
            edits += _made_anew(tool, found, missing, modules, options.limit)
        return edits


def _lacking(found: Drivers, wanted: Sequence[str]) -> tuple[str, ...]:
    modules = found.lacking(wanted)
    if modules and found.kernel.initramfs and found.trouble:
        raise GuestError(
            f"which drivers are in it cannot be told: {found.trouble}",
            hint="Have the guest make another one with a `run` step, or leave this step out.",
        )
    return modules if found.kernel.initramfs else ()


def _made_anew(
    tool: initramfs_tools.Tool, found: Drivers, missing: Sequence[str], modules: tuple[str, ...], limit: int
) -> tuple[Edit, Edit]:
    command = Command(
        script=tool.script(found.kernel, modules).encode("utf-8", "surrogateescape"),
        why=f"made {found.kernel.initramfs} anew for {', '.join(missing)}, by {tool.name}",
        limit=limit,
    )
    return command, RequireDrivers(version=found.kernel.version, modules=modules)


def _told(found: Drivers, wanted: Sequence[str]) -> str:
    """Say where a kernel has its drivers."""
    if not found.kernel.initramfs and found.lacking(wanted):
        return found.trouble
    places: dict[str, list[str]] = {}
    for module in modules_of(wanted):
        places.setdefault(found.where(module), []).append(module)
    return f"{found.kernel.version}: " + ", ".join(f"{' '.join(each)} {place}" for place, each in places.items())
