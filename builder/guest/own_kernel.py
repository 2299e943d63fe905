"""The kernel that a root image has inside, and its initramfs, copied out of it for a boot loader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builder.errors import GuestError
from builder.guest import kernels
from builder.guest.disk import Root
from builder.guest.edits import CopyOut
from builder.guest.facts import GuestFacts
from builder.guest.guest import Exchange
from builder.guest.kernels import Kernel
from builder.guest.look import look
from builder.guest.overlay import Layer
from builder.progress import SILENT, Progress

# Links that packages keep on their newest kernel and its initramfs: Debian's, Ubuntu's, SUSE's.
_LINKS = (("/vmlinuz", "/initrd.img"), ("/boot/vmlinuz", "/boot/initrd.img"), ("/boot/vmlinuz", "/boot/initrd"))


@dataclass(frozen=True, kw_only=True)
class OwnKernel:
    """Copies of the guest's newest kernel and of its initramfs; `links` are names in the guest that lead to both."""

    kernel: Path
    ramdisk: Path | None
    version: str
    links: tuple[str, str] | None = None


def take(base: Layer, directory: Path, *, cache: Path | None = None, progress: Progress = SILENT) -> OwnKernel:
    """Copy the newest kernel of the image's guest, with its initramfs, into `directory`; one launch of the appliance.

    Raises GuestError: no kernel, one without its initramfs, several of which none is the newest, or a root in a
    subvolume; and as `look`.
    """
    with look(base, cache=cache, scratch=directory, exchange=Exchange(exports=directory), progress=progress) as guest:
        require_whole(guest.disk.root)
        chosen = kernels.choose(kernels.find(guest), None)
        guest.apply(CopyOut(path=chosen.path, name="kernel"))
        if chosen.ramdisk:
            guest.apply(CopyOut(path=chosen.ramdisk, name="ramdisk"))
        progress.note(f"the guest's own kernel {chosen.version}, from {chosen.path}")
        return OwnKernel(
            kernel=directory / "kernel",
            ramdisk=directory / "ramdisk" if chosen.ramdisk else None,
            version=chosen.version,
            links=links_to(chosen, guest),
        )


def require_whole(root: Root) -> None:
    """Return if the root is what one mounts of its filesystem when nothing else is said. Raises GuestError."""
    if root.options:
        raise GuestError(
            f"the root is a part of its filesystem ({', '.join(root.options)}), which the kernel would not look for",
            hint="Put `extract: {root: true}` before this step: it makes that part the one that is mounted.",
        )


def links_to(chosen: Kernel, facts: GuestFacts) -> tuple[str, str] | None:
    """Return the pair of links that lead to the kernel and to its initramfs, if the guest has one.

    Only where GRUB can follow them: on an ext filesystem, whose root is the guest's.
    """
    root = facts.filesystem(facts.root)
    if root is None or not root.type.startswith("ext"):
        return None
    for kernel, ramdisk in _LINKS:
        if facts.link(kernel) is not None and facts.link(ramdisk) is not None:
            leads = (kernels.real_file(facts, kernel), kernels.real_file(facts, ramdisk))
            if leads == (chosen.path, chosen.ramdisk):
                return kernel, ramdisk
    return None
