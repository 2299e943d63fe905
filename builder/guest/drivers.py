"""Which drivers a guest's kernels can begin with: built in, in the initramfs, or only on the disk they are to reach.

Sources: modules.dep(5), modules.builtin in Documentation/kbuild/kbuild.rst of Linux; the names of initramfs files are
those of update-initramfs(8), dracut(8) and the old mkinitrd(8), others are found as `kernel` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from builder.errors import FormatRefused, GuestError
from builder.guest import initramfs, releases
from builder.guest import kernels as boot_kernels
from builder.guest.facts import GuestFacts
from builder.guest.initramfs import module_name

Where = Literal["built in", "in the initramfs", "on the disk only", "not in this kernel"]

# What a recipe calls a group of drivers, and the modules in it. A name that is no group is a module.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "virtio": ("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net"),
    "nvme": ("nvme",),
    "ena": ("ena",),
    "xen-blkfront": ("xen_blkfront",),
    "xen-netfront": ("xen_netfront",),
    "ixgbevf": ("ixgbevf",),
}
# What the same driver is called in the kernels of EL5 (kmod-xenpv and the xen kernel), and of SUSE 10 and 11.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "xen_blkfront": ("xenblk", "xen_vbd", "xenvbd"),
    "xen_netfront": ("xennet", "xen_vnif"),
}
# For kernels before 2.6.33, which have no modules.builtin; also in /boot/config-VERSION of later ones.
_CONFIG: Mapping[str, tuple[str, ...]] = {
    "virtio_pci": ("VIRTIO_PCI",),
    "virtio_blk": ("VIRTIO_BLK",),
    "virtio_scsi": ("SCSI_VIRTIO",),
    "virtio_net": ("VIRTIO_NET",),
    "nvme": ("BLK_DEV_NVME",),
    "ena": ("ENA_ETHERNET",),
    "xen_blkfront": ("XEN_BLKDEV_FRONTEND", "XEN_BLKDEV_FRONT"),
    "xen_netfront": ("XEN_NETDEV_FRONTEND", "XEN_NETDEV_FRONT"),
    "ixgbevf": ("IXGBEVF",),
}
_TREES = ("/lib/modules", "/usr/lib/modules")
_NAMED_FOR = (  # where an initramfs lies that is named for its kernel's version; the first that is there counts
    *(f"/boot/{name}" for name in boot_kernels.RAMDISKS),
    "/lib/modules/{}/initramfs.img",
    "/usr/lib/modules/{}/initramfs.img",
    "/lib/modules/{}/initrd",
    "/usr/lib/modules/{}/initrd",
)
_INITRAMFS_LIMIT = 512 << 20  # bytes, compressed


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel whose modules are installed: `version` as `uname -r` says it, `initramfs` empty when there is none."""

    version: str
    modules: str  # its directory, /lib/modules/VERSION
    initramfs: str = ""


@dataclass(frozen=True, kw_only=True)
class Drivers:
    """The modules that a kernel has, by where they are; `trouble` says why its initramfs could not be read."""

    kernel: Kernel
    builtin: frozenset[str] = frozenset()
    packed: frozenset[str] = frozenset()  # in the initramfs
    installed: frozenset[str] = frozenset()  # below /lib/modules
    trouble: str = ""
    contents: initramfs.Contents | None = field(default=None, repr=False)

    def where(self, module: str) -> Where:
        """Say where the driver is that Linux calls `module` today (`-` or `_`)."""
        name = module.replace("-", "_")
        names = {name, *_ALIASES.get(name, ())}
        if names & self.builtin:
            return "built in"
        if names & self.packed:
            return "in the initramfs"
        return "on the disk only" if names & self.installed else "not in this kernel"

    def early(self, module: str) -> bool:
        """Say whether the driver is there before the root filesystem is."""
        return self.where(module) in ("built in", "in the initramfs")

    def lacking(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Return the modules of those groups (or modules) that the initramfs could have and has not, by their names."""
        modules = (module for module in modules_of(wanted) if self.where(module) == "on the disk only")
        return tuple(name for module in modules for name in self._own(module, self.installed))

    def loadable(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Return the modules of those groups (or modules) that this kernel has, by its own names for them."""
        places = {"on the disk only": self.installed, "in the initramfs": self.packed}
        modules = ((module, places.get(self.where(module), frozenset())) for module in modules_of(wanted))
        return tuple(name for module, there in modules for name in self._own(module, there))

    @staticmethod
    def _own(module: str, there: frozenset[str]) -> list[str]:
        return sorted({module, *_ALIASES.get(module, ())} & there)


def modules_of(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the modules that groups stand for, and other names as modules, each once, as `lsmod` calls them."""
    names = (module.replace("-", "_") for group in wanted for module in GROUPS.get(group, (group,)))
    return tuple(dict.fromkeys(names))


def kernels(facts: GuestFacts) -> tuple[Kernel, ...]:
    """Return the guest's kernels that have modules, oldest version first, each with its initramfs."""
    found: dict[str, Kernel] = {}
    others: dict[str, str | None] | None = None  # asked for when no name tells
    for tree in _TREES:
        for path in facts.names(f"{tree}/*/modules.dep"):
            directory = path.rpartition("/")[0]
            version = directory.rpartition("/")[2]
            if version in found:
                continue
            image = next((each for name in _NAMED_FOR if facts.exists(each := name.format(version))), "")
            if not image:
                others = others or {each.version: each.ramdisk for each in boot_kernels.find(facts).kernels}
                image = others.get(version) or ""
            found[version] = Kernel(version=version, modules=directory, initramfs=image)
    return tuple(sorted(found.values(), key=lambda kernel: releases.key(kernel.version)))


def drivers(facts: GuestFacts, kernel: Kernel) -> Drivers:
    """Return which drivers that kernel has, and where. Reads its whole initramfs, if it has one.

    An initramfs that cannot be read is no error here: `trouble` says why.
    """
    contents, trouble = None, ""
    if not kernel.initramfs:
        trouble = f"kernel {kernel.version} has no initramfs"
    else:
        try:
            pieces = facts.stream(kernel.initramfs, limit=_INITRAMFS_LIMIT)
            contents = initramfs.read(pieces or (), path=kernel.initramfs)
        except FormatRefused as error:
            trouble = error.message
        if contents and contents.hides:
            trouble = f"{kernel.initramfs} keeps its files in {contents.hides}, which is not read here"
    return Drivers(
        kernel=kernel,
        builtin=_builtin(facts, kernel),
        packed=contents.modules if contents else frozenset(),
        installed=_modules(facts.text(f"{kernel.modules}/modules.dep"), end=":"),
        trouble=trouble,
        contents=contents,
    )


def require(facts: GuestFacts, version: str, modules: Sequence[str]) -> None:
    """Raise GuestError unless that kernel can begin with those modules."""
    kernel = next((each for each in kernels(facts) if each.version == version), None)
    if kernel is None:
        raise GuestError(f"the guest has no kernel {version} any more")
    found = drivers(facts, kernel)
    missing = found.lacking(modules)
    if missing or found.trouble:
        raise GuestError(
            found.trouble or f"{kernel.initramfs} was made anew, and still lacks {', '.join(missing)}",
            hint="What the guest's own program said can be seen with a `run` step that calls it.",
        )


def _builtin(facts: GuestFacts, kernel: Kernel) -> frozenset[str]:
    listed = _modules(facts.text(f"{kernel.modules}/modules.builtin"))
    configured = set(re.findall(r"(?m)^CONFIG_(\w+)=y$", facts.text(f"/boot/config-{kernel.version}"), re.ASCII))
    return listed | {module for module, names in _CONFIG.items() if configured.intersection(names)}


def _modules(text: str, *, end: str = "") -> frozenset[str]:
    paths = (line.partition(end)[0] if end else line for line in text.splitlines())
    return frozenset(name for path in paths if (name := module_name(path.strip())))
