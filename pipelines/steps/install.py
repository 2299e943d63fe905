"""The step kind `install`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from pipelines.artifact import File, ImageFile, MachineImage
from pipelines.step import Meant, Options, Reference, Shorthand, its

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")  # in a part's name: what no reader of a manifest would have to escape


class InstallOptions(Options):
    """What is made of the image, and where it lies."""

    name: str = Field(
        description="the image's name; its kernel's and ramdisk's have `-kernel` and `-ramdisk` behind it"
    )
    bucket: str = Field(description="the bucket that the bundles go to; it is made when it is not there")
    prefix: str = Field(default="", description="what stands before the objects' names in the bucket, as `images/2026`")
    description: str = Field(default="", max_length=255, description="the image's description")
    architecture: Literal["x86_64", "i386", "arm64"] = Field(default="x86_64", description="of the image")
    virtualization: Literal["hvm", "paravirtual"] = Field(
        default="hvm",
        description="`hvm` for a disk that boots by itself, `paravirtual` for a root with its kernel beside",
    )
    kernel: Annotated[str | None, Reference(File)] = Field(
        default=None, description="the kernel to register (EKI), paravirtual only; by default that beside the image"
    )
    ramdisk: Annotated[str | None, Reference(File)] = Field(
        default=None, description="the ramdisk to register (ERI), paravirtual only; by default that beside the image"
    )
    kernel_id: str | None = Field(default=None, description="a kernel that is registered already: `eki-…` or `aki-…`")
    ramdisk_id: str | None = Field(default=None, description="a ramdisk that is registered already: `eri-…` or `ari-…`")
    platform: Literal["windows"] | None = Field(default=None, description="`windows`, for clouds that ask for it")
    block_device_mappings: dict[str, str] = Field(
        default_factory=dict, description="`ami`, `root`, `swap` or `ephemeralN`: the device's name; `ephemeral0: sdb`"
    )
    compression: Literal["fast", "small"] = Field(
        default="fast", description="`fast` for near clouds, `small` where the line to the cloud is slow"
    )
    reproducible: bool = Field(
        default=False, description="the same image and certificates give the same parts, to the byte"
    )
    tags: dict[str, str] = Field(default_factory=dict, description="tags of what is registered")


class Install(Shorthand[InstallOptions]):
    """Bundle an image, upload it and register it, as `euca-install-image` does; with its kernel and ramdisk before it.

    It stands for `bundle`, `upload` and `register`, three times over for a root with kernel and ramdisk: each of these
    is a step of its own in `emi plan` and after a crash. Their ids are `ID-bundle`, `ID-upload` and `ID`; before them
    `ID-kernel-bundle`, `ID-kernel-upload`, `ID-kernel` and the same with `ramdisk`. Outputs and later steps can use
    them: `ID-kernel.image_id`.

    A `paravirtual` image needs a kernel: one that `kernel` names, one with a `kernel_id`, or else the one that a
    `kernel` step put beside the image. A ramdisk is taken along where it is named, or together with that kernel. Only
    administrators of a Eucalyptus cloud may register kernels and ramdisks.
    """

    options = InstallOptions
    accepts = (ImageFile, File)
    returns = MachineImage

    def check(self, options: InstallOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        beside = ("kernel", "ramdisk", "kernel_id", "ramdisk_id")
        given = [name for name in beside if getattr(options, name) is not None]
        if options.virtualization == "hvm":
            return [f"`{name}` is for paravirtual images; an hvm image boots by itself" for name in given]
        wrong = [
            f"`{name}` and `{name}_id` each say which {name}; give one of them"
            for name in ("kernel", "ramdisk")
            if {name, f"{name}_id"} <= set(given)
        ]
        if options.ramdisk and not (options.kernel or options.kernel_id):
            wrong.append("`ramdisk` needs the `kernel` or `kernel_id` that it belongs to")
        return wrong

    def stands_for(self, options: InstallOptions, source: str) -> Sequence[Meant]:
        """Return the three steps for the image, after those for each file that is registered beside it."""
        files = _beside(options, source)
        means = [meant for role, file in files.items() for meant in _registered(options, role, file)]
        ids = {"kernel_id": options.kernel_id, "ramdisk_id": options.ramdisk_id}
        more = {role: its(role) for role in files} | {name: id_ for name, id_ in ids.items() if id_}
        if options.platform:
            more["platform"] = options.platform
        return (*means, *_registered(options, "", source, **more))


def _beside(options: InstallOptions, source: str) -> dict[str, str]:
    """Return the files to register before the image, kernel first: `kernel` or `ramdisk` -> the step that gives it."""
    if options.virtualization == "hvm":
        return {}
    named = {"kernel": options.kernel, "ramdisk": options.ramdisk}
    if not (options.kernel or options.kernel_id):
        ramdisk = {} if options.ramdisk_id else {"ramdisk": f"{source}.ramdisk"}
        return {"kernel": f"{source}.kernel", **ramdisk}
    return {role: file for role, file in named.items() if file}


def _registered(options: InstallOptions, role: str, source: str, **more: Any) -> Sequence[Meant]:
    """Return bundle, upload and register of one file; `role` is "" for the image itself, `more` are for `register`."""
    name = "-".join(filter(None, (options.name, role)))
    names = {part: "-".join(filter(None, (role, part))) for part in ("bundle", "upload")}
    bundle: dict[str, Any] = {
        "name": _UNFIT.sub("-", name).strip("-."),
        "type": role or "machine",
        "architecture": options.architecture,
        "compression": options.compression,
        "reproducible": options.reproducible,
        "block_device_mappings": {} if role else options.block_device_mappings,
    }
    upload = {"bucket": options.bucket, "prefix": options.prefix}
    register: dict[str, Any] = {
        "name": name,
        "description": options.description,
        "architecture": options.architecture,
        "tags": options.tags,
        **_virtualization(options, role),
        **more,
    }
    return (
        Meant(name=names["bundle"], kind="bundle", options=bundle, source=source),
        Meant(name=names["upload"], kind="upload", options=upload, source=its(names["bundle"])),
        Meant(name=role, kind="register", options=register, source=its(names["upload"])),
    )


def _virtualization(options: InstallOptions, role: str) -> Mapping[str, str]:
    return {} if role else {"virtualization": options.virtualization}
