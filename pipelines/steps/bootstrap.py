"""The `bootstrap` step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from builder.bootstrap.archive import KEYS, Distribution, Source, sources, state
from builder.bootstrap.build import build
from builder.bootstrap.disk import SMALLEST
from builder.bootstrap.install import Supply, check_host
from builder.bootstrap.system import System, Variant
from builder.digest import file_sha256
from builder.errors import InputError, UsageError
from builder.fetch import Web
from builder.guest.drivers import GROUPS, modules_of
from pipelines.artifact import ImageFile
from pipelines.step import Inputs, LocalStep, Options, Outside, Work
from pipelines.values import Size

_GIB = 1 << 30
_SHARE = {"minbase": 400 << 20, "important": 500 << 20, "standard": 600 << 20}  # measured, Debian 12 with the base list
_EACH = 5 << 20  # bytes a further package brings, its dependencies included: Debian 12's mean

# What apt takes: a name, perhaps `=VERSION`, `/SUITE`, or `-` at the end to leave it out.
Package = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+((=|/)[A-Za-z0-9.+:~-]+)?$")]
# What dpkg's path-exclude takes; it goes through the command line of mmdebstrap, into a file of lines.
PathPattern = Annotated[str, StringConstraints(pattern=r"^!?/[\x21-\x7e]+$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]


class BootstrapOptions(Options):
    """Which system, and the disk to put it on."""

    suite: Word = Field(description="the release's code name: bookworm, noble")
    distribution: Distribution = Field(default="debian", description="debian or ubuntu")
    packages: tuple[Package, ...] = Field(
        default=(),
        description="what to install beside the base: kernel, initramfs, boot loader, systemd with networking by "
        "netplan, cloud-init, growpart, sshd, sudo. As apt takes them: NAME, NAME=VERSION, NAME- to leave it out, "
        "also of the base",
    )
    variant: Variant = Field(
        default="important",
        description="the distribution's own set beneath: minbase, important (what its installer begins with), standard",
    )
    size: Size = Field(default=4 * _GIB, description="of the disk; the root filesystem grows with it at first boot")
    mirror: str | None = Field(
        default=None,
        description="URL of the archive, also file:///…; by default the distribution's own, with updates and security",
    )
    components: tuple[Word, ...] = Field(default=("main",), min_length=1, description="parts of the archive")
    sources: tuple[str, ...] = Field(
        default=(), description="further archives, as apt's `deb URL SUITE COMPONENT` lines; the guest keeps them"
    )
    keyring: str | None = Field(
        default=None,
        description="the archives' public keys, a file in the recipe's folder or an absolute path; "
        "by default what this machine's apt trusts",
    )
    hostname: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = Field(
        default="localhost", description="until cloud-init sets the instance's own"
    )
    label: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,16}$")] = Field(
        default="rootfs", description="of the root filesystem; fstab and boot loader find it by this"
    )
    kernel_arguments: Annotated[str, StringConstraints(pattern=r"^[\x21\x23\x25-\x5b\x5d-\x5f\x61-\x7e ]*$")] = Field(
        default="", description="added to the kernel's command line"
    )
    exclude: tuple[PathPattern, ...] = Field(
        default=(),
        description="paths that packages bring and do not get to install, as patterns with `*` and `?` "
        "(`/usr/share/man/*`); one with `!` before it is installed all the same. The guest's dpkg keeps to it",
    )
    drivers: tuple[str, ...] = Field(
        default=(),
        description="all the drivers that the initramfs has, as in the step `initramfs`: kernel modules, or the group "
        "`virtio`; by default most that there are. Fewer boot faster, on the machines that need no others",
    )


class Bootstrap(LocalStep[BootstrapOptions]):
    """Install a Debian or Ubuntu from its packages onto a disk that boots by BIOS and by UEFI.

    Without root mounts, loop devices or an appliance; as root or, with subordinate ids, as any user, with the same
    bytes. GPT with a BIOS boot partition, an ESP and an ext4 root that comes last and grows; serial console at 115200;
    fstab by label. The same options and the same state of the archive give the same image: no file is younger than
    SOURCE_DATE_EPOCH or, when that is not set, the release's date in the archive's index.
    """

    options = BootstrapOptions
    returns = ImageFile
    continues = True  # what a killed bootstrap leaves may belong to subordinate users: only `build` can clear it

    def check(self, options: BootstrapOptions) -> Sequence[str]:
        """Return what is wrong with the size and the sources."""
        problems = [
            f"{each!r} is no name of a kernel module, nor one of {', '.join(GROUPS)}"
            for each in options.drivers
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", each)
        ]
        if options.size % (1 << 20) or options.size < SMALLEST:
            problems.append("size must be whole MiB, at least 512 MiB")
        if options.mirror and not re.match(r"(https?://[^\s/]|(file|copy):///)\S*$", options.mirror):
            problems.append(f"mirror {options.mirror!r} is no http, https or file URL")
        for line in options.sources:
            try:
                Source.parse(line)
            except UsageError as error:
                problems.append(f"{error.message}. {error.hint}")
        return problems

    def pin(self, options: BootstrapOptions, outside: Outside) -> Mapping[str, Any]:
        """Return the archive's sources and state, the keyring's checksum, and the time that stands for now."""
        check_host()
        found = sources(
            options.distribution,
            options.suite,
            mirror=options.mirror,
            components=options.components,
            further=options.sources,
            cache=outside.cache,
            keys=None if options.keyring else KEYS,
        )
        now = state(found, Web(mirrors=outside.mirrors))
        epoch = now.date if outside.epoch is None else outside.epoch
        pins: dict[str, Any] = {"sources": [str(source) for source in found], "lists": dict(now.lists), "epoch": epoch}
        if options.keyring:
            pins["keyring"] = file_sha256(_keyring(options, outside))
        return pins

    def expect(self, options: BootstrapOptions, pins: Mapping[str, Any]) -> int | None:
        """Return an estimate of the image's data, in bytes."""
        return _SHARE[options.variant] + _EACH * len(options.packages)

    def build(self, options: BootstrapOptions, inputs: Inputs, work: Work) -> ImageFile:
        """Install, write the disk, seal it."""
        system = System(
            distribution=options.distribution,
            suite=options.suite,
            sources=[Source.parse(line) for line in work.pins["sources"]],
            packages=options.packages,
            variant=options.variant,
            hostname=options.hostname,
            label=options.label,
            kernel_arguments=options.kernel_arguments,
            exclude=options.exclude,
            drivers=modules_of(options.drivers),
            size=options.size,
            epoch=work.pins["epoch"],
        )
        supply = Supply(
            cache=work.outside.cache / "packages",
            mirrors=work.outside.mirrors,
            keyring=_keyring(options, work.outside) if options.keyring else None,
        )
        target = work.scratch / "disk.raw"
        _require_pinned(system, work)  # before the work, which would be in vain
        build(system, supply, target, scratch=work.scratch / "bootstrap", progress=work.progress)
        _require_pinned(system, work)  # and after it: what apt read lies between
        return work.store.seal_image(target, format="raw", virtual_size=options.size)


def _require_pinned(system: System, work: Work) -> None:
    """Refuse another state of the archive than the one that the plan, and with it the key, was made for."""
    now = state(system.sources, Web(mirrors=work.outside.mirrors)).lists
    for name, digest in work.pins["lists"].items():
        if now.get(name) != digest:
            raise InputError(
                f"the packages of {name} changed after this run began",
                hint="Run again: it takes the packages as they are now.",
            )


def _keyring(options: BootstrapOptions, outside: Outside) -> Path:
    assert options.keyring is not None
    path = (outside.recipe_directory / options.keyring).resolve()
    if not path.is_file():
        raise UsageError(f"keyring {options.keyring!r}: there is no file {path}")
    return path
