"""Doing an import task: an object's bytes become a snapshot, by the format that the task states and no other.

The work of a task has the directory `imports/TASK/` and, under the id that the snapshot will have, a disk without a
record. Its last step is one transaction that makes the snapshot's record and ends the task: the commit point. What a
crash leaves before it is swept at the next start, which begins the task anew.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from builder import pool
from builder.digest import BLOCK, is_zero
from builder.errors import DiskFull, EmiError, FormatRefused
from builder.image import qemu
from builder.image.convert import checked
from builder.image.identity import Format, Identity
from builder.sandbox.cloud import Cloud, blocks_of, new_id
from builder.sandbox.disks import Disk
from builder.sandbox.jobs import Stopped
from builder.sandbox.objects import Objects, Opened, Stretch
from builder.sandbox.records import GIB, ImportTask, Snapshot
from builder.sandbox.sparse import Report

log = logging.getLogger(__name__)
RAW = "RAW"
# The formats that each word of the API may mean; RAW is what it is, byte for byte.
FORMATS: Mapping[str, tuple[Format, ...]] = {"VHD": ("vpc", "vhdx"), "VHDX": ("vhdx",), "VMDK": ("vmdk",)}
_STEPS = {"convert": (1, 70), "index": (70, 99)}  # percent
_LOOK = 0.2  # seconds between looks at how far qemu-img is
_COMPRESSED = 1 << 16  # VMware "Virtual Disk Format 5.0", flags: compressed grains, as stream-optimized disks have


class Refused(Exception):
    """The task ends as `deleted`; the message is its StatusMessage."""


def resume(cloud: Cloud, objects: Objects) -> None:
    """Sweep what a crash left of imports, and begin all tasks that have no end."""
    shutil.rmtree(_root(cloud), ignore_errors=True)
    for task in list(cloud.state.all(ImportTask).values()):
        begin(cloud, objects, task)


def begin(cloud: Cloud, objects: Objects, task: ImportTask) -> None:
    """Begin the work that a committed task orders, in the background; fine when it is over."""
    if task.end_time is None:
        cloud.jobs.begin(task.import_task_id, lambda report: _perform(cloud, objects, task, report))


def _perform(cloud: Cloud, objects: Objects, task: ImportTask, report: Report) -> None:
    directory = _root(cloud) / task.import_task_id
    directory.mkdir(parents=True, exist_ok=True)
    snapshot_id = new_id("snap")
    try:
        snapshot = _import(cloud, objects, task, directory, snapshot_id, report)
        _end(cloud, task, snapshot=snapshot)
    except Stopped:  # cancelled: the record says so already
        cloud.disks.remove(snapshot_id)
    except (Refused, EmiError, OSError) as error:
        log.info("%s: %s", task.import_task_id, error)
        cloud.disks.remove(snapshot_id)
        _end(cloud, task, failure=_words(error))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _end(cloud: Cloud, task: ImportTask, *, snapshot: Snapshot | None = None, failure: str | None = None) -> None:
    """End the task, unless somebody else did meanwhile: the commit point."""
    with cloud.state.lock:
        current = cloud.state.all(ImportTask).get(task.import_task_id)
        if current is None or current.end_time is not None:
            if snapshot is not None:
                cloud.disks.remove(snapshot.snapshot_id)
            return
        made = snapshot.snapshot_id if snapshot is not None else None
        ended = replace(current, end_time=time.time(), snapshot_id=made, failure=failure)
        cloud.state.put(ended, *([snapshot] if snapshot is not None else []))


def _import(
    cloud: Cloud, objects: Objects, task: ImportTask, directory: Path, snapshot_id: str, report: Report
) -> Snapshot:
    """Make the snapshot's disk and return its record, sealed but not kept. Raises Refused and others."""
    if not objects.role_may_read(task):
        raise Refused(_disk_failure("We do not have access to the given resource. Reason 403 Forbidden"))
    try:
        if task.image_format == RAW:
            with objects.opened(task.bucket, task.object_key) as found:
                _note_size(cloud, task, found.size)
                disk = _from_raw(cloud, found, snapshot_id, report)
        else:
            with objects.as_file(task.bucket, task.object_key) as source:
                _note_size(cloud, task, source.stat().st_size)
                raw = _convert(task, source, directory, _step(report, "convert"))
            disk = _from_converted(cloud, raw, snapshot_id, _step(report, "index"))
    except FileNotFoundError:
        raise Refused(_disk_failure("We do not have access to the given resource. Reason 404 Not Found")) from None
    disk.sync()
    return Snapshot(
        snapshot_id=snapshot_id,
        account=task.account,
        region=task.region,
        volume_size=disk.blocks * BLOCK // GIB,
        start_time=task.start_time,
        sealed_time=time.time(),
        taken=True,
        lineage=snapshot_id,
        description=f"Created by AWS-VMImport service for {task.import_task_id}",
        tags=dict(task.snapshot_tags),
        encrypted=task.encrypted,
        kms_key_id=task.kms_key_id,
    )


def _disk(cloud: Cloud, snapshot_id: str, size: int) -> Disk:
    """Return a fresh disk for an image of `size` bytes, rounded up to GiB."""
    if size == 0:
        raise Refused(_disk_failure("The file is empty"))
    return cloud.disks.create(snapshot_id, blocks_of(-(-size // GIB)), None)


def _from_raw(cloud: Cloud, found: Opened, snapshot_id: str, report: Report) -> Disk:
    """Put the object's bytes as they are, blocks of zeros left out."""
    disk = _disk(cloud, snapshot_id, found.size)
    for index, block in enumerate(_blocks(found.stretches)):
        if not is_zero(block):
            disk.put(index, block, hashlib.sha256(block).digest())
        report(min((index + 1) * BLOCK, found.size), found.size)
    return disk


def _blocks(stretches: Iterable[Stretch]) -> Iterator[memoryview]:
    """Yield the bytes in pieces of 512 KiB, the last one filled up with zeros; all in the same memory."""
    buffer, filled = memoryview(bytearray(BLOCK)), 0
    for stretch in stretches:
        at, end = stretch.offset, stretch.offset + stretch.length
        while at < end:
            room = buffer[filled : filled + min(BLOCK - filled, end - at)]
            count = os.preadv(stretch.descriptor, [room], at)
            if not count:
                raise OSError(errno.EIO, "an object is shorter than its record says")
            at, filled = at + count, filled + count
            if filled == BLOCK:
                yield buffer
                filled = 0
    if filled:
        buffer[filled:] = bytes(BLOCK - filled)
        yield buffer


def _from_converted(cloud: Cloud, raw: Path, snapshot_id: str, report: Report) -> Disk:
    """Make the raw file the data of a disk, by its name alone, and list its blocks."""
    blocks = _disk(cloud, snapshot_id, raw.stat().st_size).blocks
    data = cloud.disks.directory / snapshot_id / "data"
    raw.replace(data)
    os.truncate(data, blocks * BLOCK)
    disk = cloud.disks.open(snapshot_id, blocks)
    disk.index(report)
    return disk


def _note_size(cloud: Cloud, task: ImportTask, size: int) -> None:
    with cloud.state.lock:
        current = cloud.state.all(ImportTask).get(task.import_task_id)
        if current is not None:
            cloud.state.put(replace(current, image_size=size))


def _convert(task: ImportTask, source: Path, directory: Path, report: Report) -> Path:
    """Return the image as a sparse raw file. What it is, is established by its header and held against the format."""
    identity = _established(task, source)
    assert identity.format is not None
    target = directory / "raw"
    work = qemu.Source(path=source, format=identity.format)
    running = pool.Background(lambda: qemu.to_raw(work, target, virtual_size=identity.virtual_size))
    while not running.done():
        time.sleep(_LOOK)
        # When this raises, qemu-img ends by itself, in a directory that is gone: nothing of it is ever looked at.
        report(min(_allocated(target), identity.virtual_size or 1), identity.virtual_size or 1)
    running.result()
    return target


def _established(task: ImportTask, source: Path) -> Identity:
    allowed = FORMATS[task.image_format]
    name = f"s3://{task.bucket}/{task.object_key}"
    found = checked(source, None, name=name)
    if found.format not in allowed:
        raise Refused(_disk_failure(f"Unsupported {task.image_format} file: {name} is {found.noun}"))
    if found.format == "vmdk" and not _stream_optimized(source):
        message = f"Unsupported VMDK File Format: only stream-optimized VMDKs can be imported, {name} is none"
        raise Refused(_disk_failure(message))
    return found


def _stream_optimized(source: Path) -> bool:
    with open(source, "rb") as file:
        return bool(int.from_bytes(file.read(12)[8:12], "little") & _COMPRESSED)


def _allocated(file: Path) -> int:
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _step(report: Report, name: str) -> Report:
    """Return a report of one step's own progress."""
    first, last = _STEPS[name]
    return lambda done, total: report(first + (last - first) * done // (total or 1), 100)


def _words(error: Exception) -> str:
    match error:
        case Refused():
            return str(error)
        case FormatRefused():
            return _disk_failure(error.message)
        case DiskFull():
            return "ServerError: There is no space left for the import."
        case EmiError():
            return _disk_failure("The image cannot be converted: it is damaged")
        case _:
            return f"ServerError: an internal error has occurred during conversion: {error}"


def _disk_failure(reason: str) -> str:
    return f"ClientError: Disk validation failed [{reason}]"


def _root(cloud: Cloud) -> Path:
    return cloud.disks.directory.with_name("imports")
