"""The kernels of a guest: which there are, which initramfs belongs to each, and which is the newest.

Sources: the names that Debian's linux-image and initramfs-tools, Fedora's kernel-install and dracut, SUSE's
kernel-default, Arch's mkinitcpio, Alpine's mkinitfs and Flatcar's boot partition use; the Boot Loader Specification
(uapi-group.org) for entries in loader/entries/*.conf.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from builder.errors import GuestError
from builder.guest.entries import BOOTS, entries, places
from builder.guest.facts import GuestFacts
from builder.guest.releases import in_order, newest

# In the order in which they are preferred: SUSE on ARM and s390x has Image and image; ppc64 has vmlinux.
_PREFIXES = ("vmlinuz", "vmlinux", "Image", "image", "bzImage", "kernel")
_VERSION = re.compile(r"[\w.+~:-]+", re.ASCII)  # a guest may have any names; no other ones are shown or taken
_VERSIONED = re.compile(rf"(?P<prefix>{'|'.join(_PREFIXES)})-(?P<version>{_VERSION.pattern})", re.ASCII)
# What stands beside kernels and is none to boot by default: rescue kernels, copies, checksums, symbols.
_NONE = re.compile(
    r"(^|.*-)rescue(-.*|$)|.*\.(old|bak|orig|hmac|sig|gz|xz|zst|map|rpm\w+|dpkg-\w+|img|efi)|.*~|.*-fallback", re.ASCII
)
# {} is what follows the kernel's prefix. Debian; Fedora, EL6 and Arch; SUSE; EL5; Alpine and others.
RAMDISKS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initrd-{}.img", "initramfs-{}")
_PLAIN_RAMDISKS = ("initrd.img", "initramfs.img", "initrd", "initramfs")
_DEFAULTS = ("/vmlinuz", "/boot/vmlinuz", "/boot/Image", "/boot/image")  # links to what the guest boots
_BUILT_IN = re.compile(r"/boot/(flatcar|coreos)/vmlinuz-[ab]")
_LINKS = 40  # followed at most, as Linux does
_SHOWN = 8  # names in a message
_SHORT = 256  # bytes of a file that holds a package's name


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel of a guest, and the initramfs that belongs to it; paths have no link at their end."""

    path: str
    name: str  # what follows `vmlinuz-`: a version, or Arch's `linux-lts`
    version: str  # as `uname -r` says it; the name where that is not known
    ramdisk: str | None = None
    built_in: bool = False  # the initramfs is within the kernel
    sought: tuple[str, ...] = ()  # where an initramfs was looked for


@dataclass(frozen=True, kw_only=True)
class Found:
    """The kernels of a guest, names that lead to none, and what the guest boots by its own links."""

    kernels: Sequence[Kernel]
    empty: Sequence[str] = ()  # named like kernels, but empty or dangling
    default: str | None = None  # a kernel's path


def find(facts: GuestFacts) -> Found:
    """Return every kernel of the guest: in /boot, named by boot entries, or in /lib/modules when those have none."""
    search = _Search(facts)
    boot = facts.names("/boot/*")
    search.add_named(boot)
    if "/boot/flatcar" in boot or "/boot/coreos" in boot:
        search.add_named((*facts.names("/boot/flatcar/*"), *facts.names("/boot/coreos/*")))
    for place in BOOTS:
        # An EFI system partition is mounted for nothing else: that costs a second.
        if place == "/boot" or not search.kernels:
            search.add_entries(place)
    if not search.kernels:
        search.add_modules()
    if not search.kernels:
        search.add_plain()
    default = next((path for name in _DEFAULTS if (path := real_file(facts, name))), None)
    return Found(kernels=tuple(search.kernels.values()), empty=tuple(search.empty), default=default)


def choose(found: Found, wanted: str | None) -> Kernel:
    """Return the newest kernel, or the newest of those whose version matches the glob `wanted`.

    Raises GuestError: none matches, several have the same version and nothing says which is meant, or its initramfs is
    not there.
    """
    matching = [kernel for kernel in found.kernels if wanted is None or _matches(kernel, wanted)]
    if not matching:
        raise _none(found, wanted)
    kernel = _newest(matching, found.default)
    if kernel.ramdisk is None and not kernel.built_in:
        whole = [each.version for each in found.kernels if each.ramdisk or each.built_in]
        others = f", or take another kernel with `version:` ({_some(whole)})" if whole else ""
        raise GuestError(
            f"{kernel.path} has no initramfs beside it: there is none of {', '.join(kernel.sought)}",
            hint=f"Have the guest make one (`initramfs`) before this step{others}.",
        )
    return kernel


def real_file(facts: GuestFacts, path: str) -> str | None:
    """Return where a name leads, links followed within the guest; None unless to a regular file with bytes in it."""
    for _ in range(_LINKS):
        found = facts.stat(path)
        if found is None or not found.is_link:
            return path if found and found.is_file and found.size else None
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), facts.link(path) or ""))
    return None


@dataclass(kw_only=True)
class _Pool:
    kernels: dict[str, Kernel] = field(default_factory=dict)  # by path
    empty: list[str] = field(default_factory=list)


class _Search(_Pool):
    """Collects kernels, each once however many names it has."""

    def __init__(self, facts: GuestFacts) -> None:
        super().__init__()
        self._facts = facts

    def add_named(self, paths: Sequence[str]) -> None:
        """Take the names of a directory such as /boot."""
        versions: set[tuple[str, str]] = set()
        for directory, prefix, version in sorted(_named(paths), key=lambda each: _PREFIXES.index(each[1])):
            if (directory, version) in versions:
                continue  # vmlinux beside vmlinuz
            ramdisks = [f"{directory}/{name.format(version)}" for name in RAMDISKS]
            if self._add(f"{directory}/{prefix}-{version}", version, ramdisks):
                versions.add((directory, version))

    def add_entries(self, boot: str) -> None:
        """Take what the boot loader's entries name, where that lies in places of its own."""
        for entry in entries(self._facts, boot):
            kernel = _first(self._facts, places(entry.linux))
            if kernel is None:
                continue
            ramdisks = [place for initrd in entry.ramdisks for place in places(initrd)]
            named = _VERSIONED.fullmatch(posixpath.basename(kernel))
            # Some number their entries (`version 1`), so the kernel's own name comes first.
            version = named["version"] if named else entry.version or posixpath.basename(posixpath.dirname(kernel))
            if not _NONE.fullmatch(version):
                self._add(kernel, version, ramdisks)

    def add_modules(self) -> None:
        """Take the copies that Fedora and EL keep beside the modules."""
        for path in self._facts.names("/lib/modules/*/vmlinuz"):
            directory = posixpath.dirname(path)
            version = posixpath.basename(directory)
            ramdisks = [f"/boot/{name.format(version)}" for name in RAMDISKS]
            if _VERSION.fullmatch(version):
                self._add(path, version, [*ramdisks, f"{directory}/initramfs.img", f"{directory}/initrd"])

    def add_plain(self) -> None:
        """Take a kernel whose name has no version."""
        for prefix in _PREFIXES:
            self._add(f"/boot/{prefix}", prefix, [f"/boot/{name}" for name in _PLAIN_RAMDISKS])

    def _add(self, name: str, version: str, ramdisks: Sequence[str]) -> bool:
        path = real_file(self._facts, name)
        if path is None:
            if self._facts.exists(name):
                self.empty.append(name)
            return False
        if path not in self.kernels:
            self.kernels[path] = Kernel(
                path=path,
                name=version,
                version=self._uname(version),
                ramdisk=_first(self._facts, ramdisks),
                built_in=bool(_BUILT_IN.fullmatch(name)),
                sought=tuple(dict.fromkeys(ramdisks)),
            )
        return True

    def _uname(self, name: str) -> str:
        """Return the version behind a name such as Arch's `linux-lts` or Alpine's `virt`, if its modules tell."""
        if name[:1].isdigit():
            return name
        packaged = [path for path in self._facts.names("/lib/modules/*/pkgbase") if self._says(path, name)]
        suffixed = [path for path in self._facts.names("/lib/modules/*") if path.endswith(f"-{name}")]
        versions = [path.split("/")[3] for path in packaged or suffixed]
        return versions[0] if len(versions) == 1 and _VERSION.fullmatch(versions[0]) else name

    def _says(self, path: str, name: str) -> bool:
        found = self._facts.stat(path)
        return found is not None and found.size < _SHORT and self._facts.text(path).strip() == name


def _named(paths: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield directory, prefix and version of every name that is a kernel's."""
    for path in paths:
        directory, _, name = path.rpartition("/")
        found = _VERSIONED.fullmatch(name)
        if found and not _NONE.fullmatch(found["version"]):
            yield directory, found["prefix"], found["version"]


def _first(facts: GuestFacts, names: Sequence[str]) -> str | None:
    return next((path for name in names if (path := real_file(facts, name))), None)


def _matches(kernel: Kernel, wanted: str) -> bool:
    return fnmatchcase(kernel.version, wanted) or fnmatchcase(kernel.name, wanted)


def _newest(kernels: Sequence[Kernel], default: str | None) -> Kernel:
    if len(kernels) == 1:
        return kernels[0]
    unnumbered = [kernel.version for kernel in kernels if not kernel.version[:1].isdigit()]
    if unnumbered:
        raise GuestError(
            f"which of the guest's kernels is the newest cannot be told: {_some([each.path for each in kernels])}",
            hint="Say which with `version:`.",
        )
    same = newest(each.version for each in kernels)
    tied = [kernel for kernel in kernels if kernel.version in same]
    preferred = [kernel for kernel in tied if kernel.path == default] or [
        # The distribution's kernel as such, before its variants: el5 before el5xen, fc39.x86_64 before +debug.
        kernel
        for kernel in tied
        if all(other.version.startswith(kernel.version) for other in tied)
    ]
    if len(tied) > 1 and len(preferred) != 1:
        raise GuestError(
            f"the guest's newest kernel is there in several flavours: {_some([each.version for each in tied])}",
            hint="Say which with `version:`, which may have `*`.",
        )
    return (preferred or tied)[0]


def _none(found: Found, wanted: str | None) -> GuestError:
    empty = f"; {_some(found.empty)}: empty, or a link that leads nowhere" if found.empty else ""
    if found.kernels:
        there = _some(in_order(kernel.version for kernel in found.kernels))
        return GuestError(f"the guest has no kernel of version {wanted}; it has {there}{empty}")
    return GuestError(
        f"the guest has no kernel in /boot or /lib/modules{empty}",
        hint="A /boot of its own must be on the same disk and in the guest's /etc/fstab; a container's tree has none.",
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
