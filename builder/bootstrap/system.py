"""What is to be installed, and what turns an installation into a machine image. Plain values; no process runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from builder.bootable.identity import Identity
from builder.bootstrap.archive import Distribution, Source
from builder.bootstrap.tree import Node, Tree

Variant = Literal["minbase", "important", "standard"]

# What an image needs to boot, to grow and to be reached, by distribution.
BASE: Mapping[Distribution, Sequence[str]] = {
    "debian": (
        *("linux-image-cloud-amd64", "initramfs-tools", "grub-cloud-amd64"),
        *("systemd-sysv", "systemd-resolved", "dbus", "udev", "netplan.io", "iproute2", "isc-dhcp-client"),
        *("cloud-init", "cloud-guest-utils", "fdisk", "openssh-server", "sudo", "ca-certificates"),
    ),
    "ubuntu": (
        *("linux-virtual", "initramfs-tools", "grub-pc", "grub-efi-amd64-bin"),
        *("systemd-sysv", "systemd-resolved", "dbus", "udev", "netplan.io", "iproute2", "dhcpcd-base"),
        *("cloud-init", "cloud-guest-utils", "fdisk", "openssh-server", "sudo", "ca-certificates"),
    ),
}
ESP_LABEL = "UEFI"
_FILESYSTEM = "ext4"  # of the root
_CONSOLES = "console=tty0 console=ttyS0,115200"


@dataclass(frozen=True, kw_only=True)
class System:
    """The system to make. `epoch` (seconds) is the youngest any file may be; `size` is the disk's, in bytes."""

    distribution: Distribution
    suite: str
    sources: Sequence[Source]  # where its packages come from, now and in the guest
    packages: Sequence[str] = ()
    variant: Variant = "important"
    hostname: str = "localhost"
    label: str = "rootfs"
    kernel_arguments: str = ""
    exclude: Sequence[str] = ()  # paths for dpkg to leave out; with `!` before them, to install all the same
    drivers: Sequence[str] = ()  # kernel modules, all that the initramfs has; none given: as initramfs-tools chooses
    size: int
    epoch: int

    @property
    def wanted(self) -> Sequence[str]:
        """What apt is told to install: the base and `packages`.

        A base package that is to be left out (`netplan.io-`) is not named at all, for apt refuses both in one command;
        the word stays, so that no other package brings it.
        """
        unwanted = {package.removesuffix("-") for package in self.packages if package.endswith("-")}
        return [*(package for package in BASE[self.distribution] if package not in unwanted), *self.packages]

    def identity(self, tree: Tree) -> Identity:
        """Return the identifiers of a disk of this system with those files: other inputs, other identifiers."""
        installed = (tree.read("var/lib/dpkg/status") or b"").decode(errors="surrogateescape")
        return Identity(seed=json.dumps([asdict(self), installed], sort_keys=True))


def early_files(system: System) -> Mapping[str, str]:
    """Return the files that must lie there before kernel and boot loader are installed, by path.

    They are there to be seen by maintainer scripts.
    """
    return {
        "etc/fstab": (
            f"LABEL={system.label} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n"
            f"LABEL={ESP_LABEL} /boot/efi vfat umask=0077,nofail 0 1\n"
        ),
        # The initramfs takes along the fsck of this filesystem; from fstab it cannot know, there being no device yet.
        "etc/initramfs-tools/conf.d/root": f"FSTYPE={_FILESYSTEM}\n",
        **dict(_initramfs_files(system)),
        "etc/hostname": f"{system.hostname}\n",
        "etc/hosts": (
            f"127.0.0.1 localhost\n127.0.1.1 {system.hostname}\n"
            "::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
        ),
        "etc/default/locale": "LANG=C.UTF-8\n",
        # update-grub in the guest, after a kernel upgrade, keeps the consoles that the first grub.cfg has.
        "etc/default/grub.d/50-console.cfg": (
            f'GRUB_CMDLINE_LINUX="{_arguments(system)}"\nGRUB_CMDLINE_LINUX_DEFAULT=""\nGRUB_TIMEOUT=1\n'
            'GRUB_TERMINAL="console serial"\nGRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n'
        ),
        # Without a cloud's metadata cloud-init stays off and nobody makes host keys: sshd then makes its own.
        "etc/systemd/system/ssh.service.d/host-keys.conf": (
            "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n"
        ),
    }


def _initramfs_files(system: System) -> Iterator[tuple[str, str]]:
    # Not /etc/initramfs-tools/modules: that is a file of the package's, which dpkg would ask about.
    if system.drivers:
        modules = (_FILESYSTEM, *system.drivers)
        yield "etc/initramfs-tools/conf.d/modules", "MODULES=list\n"
        yield "usr/share/initramfs-tools/modules.d/image", "".join(f"{module}\n" for module in modules)


def finish(system: System, tree: Tree) -> None:
    """Turn the installed tree into an image's: no secrets, no traces of the build, no byte that depends on its time."""
    tree.remove(_is_trace)
    for path in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        # apt gave them to its sandbox user, or did not: that depends on where this host keeps the scratch.
        if node := tree.get(path):
            tree.add(replace(node, uid=0, gid=0))
    epoch = system.epoch
    sources = "".join(f"{source}\n" for source in system.sources)
    tree.write("etc/apt/sources.list", sources.encode(), mtime=epoch)
    tree.write("etc/machine-id", b"", mtime=epoch)  # systemd makes one at first boot
    if tree.get("usr/lib/systemd/systemd-resolved"):
        tree.symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf", mtime=epoch)
    else:
        tree.write("etc/resolv.conf", b"", mtime=epoch)
    if system.distribution == "debian":
        # grub-cloud-amd64 reinstalls the loader on upgrades only where this file exists; while installing it cannot.
        tree.write("etc/grub.d/enable_cloud", b"", mtime=epoch)
    tree.clamp(epoch)


def kernel_arguments(system: System) -> str:
    """Return the kernel's command line after root=."""
    return f"ro {_arguments(system)}"


def _arguments(system: System) -> str:
    return f"{system.kernel_arguments} {_CONSOLES}".strip()


def _is_trace(node: Node) -> bool:
    path = node.path
    if path.startswith("etc/ssh/ssh_host_"):
        return True  # host keys: each machine makes its own
    if node.kind == "file" and path.startswith("var/log/"):
        return node.size > 0
    if node.kind == "file" and path.startswith(("var/cache/man/", "var/cache/apt/", "var/lib/apt/lists/")):
        return True  # caches that hold times; made again on demand
    return path in (
        "var/cache/ldconfig/aux-cache",
        "var/lib/dbus/machine-id",
        "var/lib/systemd/random-seed",
    )
