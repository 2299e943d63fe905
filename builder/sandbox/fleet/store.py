"""The disks of instances that are no volumes: unbundled images, and the empty ones that are called ephemeral.

They lie in `instance-store/INSTANCE/` and end with their instance; what a crash leaves is swept by the next start.
"""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.bundle_look import Unfit
from builder.sandbox.ec2.unbundle import unbundle
from builder.sandbox.records import Image, Instance
from builder.sandbox.running import NONE

_GIB = 1 << 30
_EPHEMERAL = 4 * _GIB  # of each ephemeral disk: our choice, sparse (an m1.small of EC2 had 160)
_SECTOR = 512
_FIRST = 2048 * _SECTOR  # where a partition begins, as every partitioner of today has it
_LINUX = 0x83


class InstanceStore:
    """The instance stores of one sandbox directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def sweep(self) -> None:
        """Remove all: what is left was an earlier server's, and its instances have ended with it."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def remove(self, instance_id: str) -> None:
        """Remove what an instance had; fine when it had nothing."""
        shutil.rmtree(self._directory / instance_id, ignore_errors=True)

    def root(self, cloud: Cloud, instance: Instance, image: Image) -> Path:
        """Return the disk that the image becomes, made the first time: seconds to minutes.

        An image of one partition becomes a disk that has it as its first one, as Eucalyptus makes them on KVM. Raises
        Unfit, Unreadable, OSError.
        """
        target = self._place(instance, "root")
        if not target.exists():
            part = target.with_name("image")
            unbundle(cloud, image, part, _unheard)
            if not _has_table(part):
                _as_partition(part)
            part.rename(target)
        return target

    def file(self, cloud: Cloud, instance: Instance, kind: str, image_id: str) -> Path | None:
        """Return the kernel or ramdisk (`kind`) of an instance as a file; None where AWS knows one that we do not.

        Raises Unfit when the cloud has no such image, and as `root`.
        """
        image = cloud.state.all(Image).get(image_id)
        if image is None or image.image_type != kind or image.deregistered:
            if not cloud.personality.is_eucalyptus:  # Amazon's own, which start the kernel that is inside the image
                return None
            raise Unfit(f"there is no {kind} {image_id}")
        target = self._place(instance, kind)
        if not target.exists():
            part = target.with_name(f"{kind}.part")
            unbundle(cloud, image, part, _unheard)
            part.rename(target)
        return target

    def ephemeral(self, instance: Instance, name: str) -> Path:
        """Return an empty disk, such as `ephemeral0`, made the first time."""
        target = self._place(instance, name)
        if not target.exists():
            with open(target, "wb") as file:
                file.truncate(_EPHEMERAL)
        return target

    def _place(self, instance: Instance, name: str) -> Path:
        assert instance.driver != NONE
        directory = self._directory / instance.instance_id
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory / name


def _unheard(_done: int, _total: int) -> None:
    """Take a progress that nobody asks for."""


def _has_table(disk: Path) -> bool:
    """Say whether the image is a whole disk: a boot sector's signature is at its end, MBR and GPT alike."""
    with open(disk, "rb") as file:
        return file.read(_SECTOR)[510:] == b"\x55\xaa"


def _as_partition(image: Path) -> None:
    """Make the image the first partition of a disk, in its own file: a table before it, its bytes moved."""
    size = -(-image.stat().st_size // _SECTOR) * _SECTOR
    disk = image.with_name("disk")
    with open(image, "rb") as source, open(disk, "wb") as target:
        target.truncate(_FIRST + size)
        table = bytearray(_SECTOR)
        # One entry: not bootable (the kernel comes from outside), LBA only.
        table[446:462] = struct.pack(
            "<B3sB3sII", 0, b"\xfe\xff\xff", _LINUX, b"\xfe\xff\xff", _FIRST // _SECTOR, size // _SECTOR
        )
        table[510:] = b"\x55\xaa"
        target.write(table)
        offset = 0
        while (start := _data(source.fileno(), offset)) is not None:
            offset = os.lseek(source.fileno(), start, os.SEEK_HOLE)
            while start < offset:
                moved = os.copy_file_range(
                    source.fileno(), target.fileno(), offset - start, start, _FIRST + start
                )  # fmt: skip
                if not moved:
                    raise OSError("copy_file_range moved nothing")
                start += moved
    disk.replace(image)


def _data(descriptor: int, offset: int) -> int | None:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:  # ENXIO: no data from there on
        return None
