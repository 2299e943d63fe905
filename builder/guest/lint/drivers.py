"""Rules on drivers: those that must be there before the root filesystem is, and those for the network after it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from builder.guest.lint.rule import Found, Mend, Rule
from builder.guest.lint.subject import Subject, Target

# What the machines of a target have: the disk that the root lies on, and the network card.
_DISK: Mapping[Target, Sequence[str]] = {
    "aws": ("nvme",),
    "eucalyptus-kvm": ("virtio_pci", "virtio_blk"),
    "eucalyptus-xen": ("xen_blkfront",),
    "qemu": ("virtio_pci", "virtio_blk"),
}
_NETWORK: Mapping[Target, Sequence[str]] = {
    "aws": ("ena",),
    "eucalyptus-kvm": ("virtio_net",),
    "eucalyptus-xen": ("xen_netfront",),
    "qemu": ("virtio_net",),
}
_GROUPS = {"virtio_pci": "virtio", "virtio_blk": "virtio", "xen_blkfront": "xen-blkfront"}


def missing_disk_driver(subject: Subject) -> Iterator[Found]:
    """The newest kernel begins without the driver of the target's disk: it never finds its root.

    An initramfs made on other hardware (`MODULES=dep`, dracut's hostonly) holds that hardware's drivers only. Source:
    EC2 User Guide, "Install or upgrade the NVMe driver"; Eucalyptus' tools/libvirt.xsl; initramfs.conf(5).
    """
    found = subject.drivers
    if found is None or (found.trouble and not found.kernel.initramfs) or subject.system.family == "flatcar":
        return  # without kernel or initramfs, other rules speak
    for module in _DISK[subject.target]:
        match found.where(module):
            case "on the disk only" if not found.trouble:
                yield Found(
                    severity="error",
                    what=f"the driver {module} is not in the initramfs of kernel {found.kernel.version}, so that the "
                    f"root is not found on {subject.target}",
                    where=found.kernel.initramfs,
                    mends=(Mend(step="initramfs", options={"drivers": [_GROUPS.get(module, module)]}),),
                )
            case "not in this kernel" if not found.trouble or found.installed:
                yield Found(
                    severity="error",
                    what=f"kernel {found.kernel.version} has no driver {module}, which {subject.target} needs",
                    where=found.kernel.modules,
                    advice="Install another kernel with a `packages` step (on Debian and Ubuntu the generic one).",
                )
            case _:
                continue


def missing_network_driver(subject: Subject) -> Iterator[Found]:
    """The newest kernel has no driver of the target's network card at all.

    Source: EC2 User Guide, "Enable enhanced networking with ENA"; Eucalyptus' tools/libvirt.xsl.
    """
    found = subject.drivers
    if found is None or not (found.installed or found.builtin):
        return
    for module in _NETWORK[subject.target]:
        if found.where(module) == "not in this kernel":
            yield Found(
                severity="error",
                what=f"kernel {found.kernel.version} has no driver {module}: on {subject.target} it has no network",
                where=found.kernel.modules,
                advice="Install a newer kernel, or the driver's package, with a `packages` step.",
            )


def unreadable_initramfs(subject: Subject) -> Iterator[Found]:
    """The newest kernel's initramfs could not be read here: which drivers it has is not known.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
    """
    found = subject.drivers
    if found and found.kernel.initramfs and found.trouble:
        yield Found(severity="note", what=f"its drivers are not known: {found.trouble}", where=found.kernel.initramfs)


def no_xen_kernel(subject: Subject) -> Iterator[Found]:
    """The newest kernel cannot run as a paravirtual guest of Xen.

    Source: CONFIG_XEN (CONFIG_XEN_PV since Linux 4.18) in /boot/config-VERSION; Debian's and Ubuntu's kernels have it,
    EL's have not since 8.
    """
    if subject.target != "eucalyptus-xen" or not subject.kernels:
        return
    version = subject.kernels[-1].version
    path = f"/boot/config-{version}"
    text = subject.facts.text(path)
    if not text:
        yield Found(severity="note", what=f"whether kernel {version} runs on Xen is not known: it has no {path}")
    elif not re.search(r"(?m)^CONFIG_XEN(?:_PV)?=y$", text) or "# CONFIG_XEN_PV is not set" in text:
        yield Found(
            severity="warning",
            what=f"kernel {version} is not built for Xen's paravirtual guests",
            where=path,
            quote=next(iter(re.findall(r"(?m)^.*CONFIG_XEN(?:_PV)?\b.*$", text)), ""),
            advice="Register the image with a kernel (EKI) that is, or install one with a `packages` step.",
        )


RULES = (
    Rule(check=missing_disk_driver, worst="error", mended_by=("initramfs",)),
    Rule(check=missing_network_driver, worst="error"),
    Rule(check=unreadable_initramfs, worst="note"),
    Rule(check=no_xen_kernel, worst="warning"),
)
