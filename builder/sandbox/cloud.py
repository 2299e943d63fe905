"""What every service of the sandbox works on: the records, the disks and the clock."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from builder import pool
from builder.digest import BLOCK
from builder.sandbox.bundling import Bundling
from builder.sandbox.disks import Disk, Disks
from builder.sandbox.jobs import Jobs
from builder.sandbox.objects import Objects
from builder.sandbox.personality import AWS, Personality
from builder.sandbox.records import (
    GIB,
    Attachment,
    EbsSettings,
    Image,
    ImportTask,
    Snapshot,
    Stuck,
    Volume,
    ebs_settings_key,
)
from builder.sandbox.running import Machines, NoMachines
from builder.sandbox.sparse import Report
from builder.sandbox.state import State
from builder.sandbox.volumes import VolumeFiles
from builder.sandbox.wire import Caller, Refusal

log = logging.getLogger(__name__)
EVERYBODY = "all"  # the group in a snapshot's permissions
_BUSY = 10  # seconds after which EC2 says so of a volume that a guest does not let go (our choice)
_OPEN_DISKS = 64  # kept open between requests; each is three descriptors


class Writers:
    """Who is putting blocks onto one pending snapshot: one put per block at a time, none while it is being sealed."""

    def __init__(self) -> None:
        self._changed = pool.Condition()
        self._busy: set[int] = set()
        self._sealing = False

    @contextmanager
    def writing(self, index: int) -> Iterator[None]:
        """Hold block `index`; waits for another put of the same block, and while the snapshot is being sealed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._sealing and index not in self._busy)
            self._busy.add(index)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(index)
                self._changed.notify_all()

    @contextmanager
    def sealing(self) -> Iterator[None]:
        """Hold new puts back and wait for those in flight."""
        with self._changed:
            self._changed.wait_for(lambda: not self._sealing)
            self._sealing = True
            self._changed.wait_for(lambda: not self._busy)
        try:
            yield
        finally:
            with self._changed:
                self._sealing = False
                self._changed.notify_all()


class Cloud:
    """One sandbox directory at work.

    `settle` is how many seconds every transition takes at least (a sealed snapshot and a registered image are pending
    for so long); `address` is HOST:PORT of our own port, the only address that answers may name. Making one begins
    anew all work that the records order.
    """

    def __init__(
        self,
        state: State,
        disks: Disks,
        *,
        settle: float,
        address: str,
        personality: Personality = AWS,
        bundling: Bundling | None = None,
    ) -> None:
        self.state = state
        self.bundling = bundling or Bundling(disks.directory.parent)
        self.personality = personality
        self.disks = disks
        self.volumes = VolumeFiles(disks.directory.with_name("volumes"))
        self.jobs = Jobs()
        self.objects: Objects | None = None  # set once S3 is there
        self.machines: Machines = NoMachines()  # another is set where instances are more than records
        self.settle = settle
        self.address = address
        self._open: dict[str, Disk] = {}
        self._writers: dict[str, Writers] = {}
        self._progress: dict[str, int] = {}
        self._lock = pool.Lock()
        disks.sweep(set(state.all(Snapshot)))
        with state.lock:
            state.remove(*(one for one in list(state.all(Volume).values()) if one.delete_time is not None))
        self.volumes.sweep(set(state.all(Volume)))
        for snapshot in list(state.all(Snapshot).values()):
            if snapshot.sealed_time is None and not snapshot.taken:
                self.disk(snapshot).recover()
            self.begin(snapshot)
        for volume in list(state.all(Volume).values()):
            self.begin(volume)

    @property
    def default_volume_type(self) -> str:
        """The type of volumes that nobody chose one for."""
        return "standard" if self.personality.is_eucalyptus else "gp2"

    def snapshot(self, caller: Caller, snapshot_id: str) -> Snapshot | None:
        """Return the caller's snapshot of that id, or None."""
        found = self.state.all(Snapshot).get(snapshot_id)
        return found if found and (found.account, found.region) == (caller.account, caller.region) else None

    def readable_snapshot(self, caller: Caller, snapshot_id: str) -> Snapshot | None:
        """Return the snapshot of that id if the caller may make volumes of it: their own, or shared with them."""
        found = self.state.all(Snapshot).get(snapshot_id)
        return found if found and self.may_read(caller, found) else None

    def may_read(self, caller: Caller, snapshot: Snapshot) -> bool:
        """Say whether the snapshot is in the caller's region and theirs, or shared with them or with everybody."""
        if snapshot.region != caller.region:
            return False
        return (
            snapshot.account == caller.account
            or caller.account in snapshot.create_volume_permissions
            or self.is_public(snapshot)
        )

    def is_public(self, snapshot: Snapshot) -> bool:
        """Say whether everybody may read the snapshot: shared so, and not held back by its owner's settings."""
        held_back = self.ebs_settings(snapshot.account, snapshot.region).snapshot_block_public_access
        return EVERYBODY in snapshot.create_volume_permissions and held_back != "block-all-sharing"

    def ebs_settings(self, account: str, region: str) -> EbsSettings:
        """Return what the account has set for EBS in the region."""
        found = self.state.all(EbsSettings).get(ebs_settings_key(account, region))
        return found or EbsSettings(account=account, region=region)

    def volume(self, caller: Caller, volume_id: str) -> Volume | None:
        """Return the caller's volume of that id, or None; one being deleted is there until its state says `deleted`."""
        found = self.state.all(Volume).get(volume_id)
        if found is None or (found.account, found.region) != (caller.account, caller.region):
            return None
        return None if self.volume_state(found) == "deleted" else found

    def image(self, caller: Caller, image_id: str) -> Image | None:
        """Return the caller's image of that id, deregistered ones included, or None."""
        found = self.state.all(Image).get(image_id)
        return found if found and (found.account, found.region) == (caller.account, caller.region) else None

    def disk(self, snapshot: Snapshot) -> Disk:
        """Return the snapshot's disk, opened if need be."""
        with self._lock:
            disk = self._open.pop(snapshot.snapshot_id, None)
            if disk is None:
                disk = self._reopen(snapshot)
            self._open[snapshot.snapshot_id] = disk  # the last one is the most recently used
            if len(self._open) > _OPEN_DISKS:
                del self._open[next(iter(self._open))]
            return disk

    def _reopen(self, snapshot: Snapshot) -> Disk:
        try:
            return self.disks.open(snapshot.snapshot_id, blocks_of(snapshot.volume_size))
        except FileNotFoundError:  # deleted since the caller looked
            message = f"The snapshot '{snapshot.snapshot_id}' does not exist."
            raise Refusal("ResourceNotFoundException", message, status=404, reason="SNAPSHOT_NOT_FOUND") from None

    def writers(self, snapshot: Snapshot) -> Writers:
        """Return the pending snapshot's gate; one and the same for all its puts."""
        with self._lock:
            return self._writers.setdefault(snapshot.snapshot_id, Writers())

    def report_progress(self, snapshot: Snapshot, percent: int) -> None:
        """Note what a put said about how far its upload is; describe calls show it, a restart forgets it."""
        self._progress[snapshot.snapshot_id] = max(percent, self._progress.get(snapshot.snapshot_id, 0))

    def progress(self, snapshot: Snapshot) -> str:
        """Return the snapshot's progress in EC2's words, such as `40%`."""
        if self.status(snapshot) == "completed":
            return "100%"
        if snapshot.sealed_time is None:
            done = (
                self.jobs.percent(snapshot.snapshot_id) if snapshot.taken else self._progress.get(snapshot.snapshot_id)
            )
        elif snapshot.sealed_time == snapshot.start_time:  # a copy, whole from the start: only time passes
            done = int(100 * (time.time() - snapshot.sealed_time) / self.settle)
        else:
            done = 99
        return f"{max(0, min(done or 0, 99))}%"

    def status(self, snapshot: Snapshot) -> str:
        """Return pending, completed, or error (its work failed, or nothing was put or completed within its timeout)."""
        now = time.time()
        if snapshot.failure is not None:
            return "error"
        if snapshot.snapshot_id in self.state.all(Stuck):
            return "pending"
        if snapshot.sealed_time is not None:
            return "completed" if now >= snapshot.sealed_time + self.settle else "pending"
        if snapshot.taken:
            return "pending"
        touched = max(snapshot.start_time, self.disks.touched(snapshot.snapshot_id))
        return "error" if now > touched + 60 * snapshot.timeout else "pending"

    def image_state(self, image: Image) -> str:
        """Return pending, available, failed, disabled or deregistered; pending or failed with one of its snapshots."""
        if image.deregistered:
            return "deregistered"
        if self.image_failure(image) is not None:
            return "failed"
        behind = {self.status(snapshot) for snapshot in self._behind(image)}
        young = time.time() < image.creation_time + self.settle
        if young or image.unopened or "pending" in behind or image.image_id in self.state.all(Stuck):
            return "pending"
        return "disabled" if image.disabled else "available"

    def image_failure(self, image: Image) -> str | None:
        """Return why the image will never be available, or None."""
        if image.failure is not None:
            return image.failure
        for snapshot in self._behind(image):
            if self.status(snapshot) == "error":
                return f"Snapshot {snapshot.snapshot_id} is in error: {snapshot.failure or 'it was not completed'}"
        return None

    def _behind(self, image: Image) -> list[Snapshot]:
        found = (self.state.all(Snapshot).get(one.snapshot_id) for one in image.block_devices if one.snapshot_id)
        return [snapshot for snapshot in found if snapshot is not None]

    def volume_state(self, volume: Volume) -> str:
        """Return creating, available, in-use, deleting, deleted or error."""
        now = time.time()
        if volume.delete_time is not None:
            return "deleting" if now < volume.delete_time + self.settle else "deleted"
        if volume.failure is not None:
            return "error"
        stuck = volume.volume_id in self.state.all(Stuck)
        if stuck or volume.ready_time is None or now < volume.ready_time + self.settle:
            return "creating"
        return "in-use" if self.attachment(volume) else "available"

    def attachment(self, volume: Volume) -> tuple[Attachment, str] | None:
        """Return what the volume is attached to and the attachment's state: attaching, attached, detaching or busy.

        One is `busy` when the guest has been asked to let go of the volume for some time, and has not.
        """
        found, now = volume.attachment, time.time()
        if found is None or volume.delete_time is not None:
            return None
        held = self.machines.holds(found.instance_id, volume.volume_id)
        if found.detach_time is not None:
            if held and now >= found.detach_time + _BUSY:
                return found, "busy"
            return (found, "detaching") if held or now < found.detach_time + self.settle else None
        late = not held and self.machines.awaits(found.instance_id)
        return found, "attaching" if late or now < found.attach_time + self.settle else "attached"

    def begin(self, order: Snapshot | Volume) -> None:
        """Begin the work that a committed record orders, in the background; fine when it orders none.

        `Snapshot`: list the blocks of one that was taken. `Volume`: bring its snapshot's bytes in.
        """
        if order.failure is not None:
            return
        if isinstance(order, Snapshot):
            if order.taken and order.sealed_time is None:
                self.jobs.begin(order.snapshot_id, lambda report: self._index(order, report))
        elif order.ready_time is None and order.delete_time is None:
            self.jobs.begin(order.volume_id, lambda report: self._fill(order, report))

    def _index(self, snapshot: Snapshot, report: Report) -> None:
        try:
            self.disk(snapshot).index(report)
            self.seal(snapshot)
        except OSError as error:
            log.exception("%s", snapshot.snapshot_id)
            with self.state.lock:
                if (current := self.state.all(Snapshot).get(snapshot.snapshot_id)) is not None:
                    self.state.put(replace(current, failure=str(error)))

    def _fill(self, volume: Volume, report: Report) -> None:
        failure = None
        try:
            self.volumes.fill(volume.volume_id, report)
        except OSError as error:
            log.exception("%s", volume.volume_id)
            failure = str(error)
        with self.state.lock:
            current = self.state.all(Volume).get(volume.volume_id)  # its tags may have changed meanwhile
            if current is None or current.delete_time is not None:
                return
            ready = None if failure else time.time()
            self.state.put(replace(current, ready_time=ready, failure=failure or current.failure))
        self.volumes.filled(volume.volume_id)

    def import_status(self, task: ImportTask) -> str:
        """Return active, completed, deleting or deleted."""
        over = task.end_time is not None and time.time() >= task.end_time + self.settle
        if task.failure is not None:
            return "deleted" if over else "deleting"
        return "completed" if over and task.import_task_id not in self.state.all(Stuck) else "active"

    def seal(self, snapshot: Snapshot) -> None:
        """Make the snapshot's blocks durable and then its record sealed. The caller holds its writers off."""
        self.disk(snapshot).sync()
        with self.state.lock:
            current = self.state.all(Snapshot).get(snapshot.snapshot_id)  # its tags may have changed meanwhile
            if current is not None:
                self.state.put(replace(current, sealed_time=time.time()))
        self._progress.pop(snapshot.snapshot_id, None)

    def forget(self, snapshot: Snapshot) -> None:
        """Remove the snapshot's record. Call it under the state's lock, and `free` after it."""
        self.state.remove(snapshot)
        self.jobs.stop(snapshot.snapshot_id)
        with self._lock:
            self._open.pop(snapshot.snapshot_id, None)
            self._writers.pop(snapshot.snapshot_id, None)
        self._progress.pop(snapshot.snapshot_id, None)

    def free(self, snapshot: Snapshot) -> None:
        """Remove the bytes of a snapshot whose record is gone; a crash before leaves them for the next start."""
        self.disks.remove(snapshot.snapshot_id)

    def summary(self) -> dict[str, int]:
        """Return how much there is: what `emi sandbox status` shows."""
        snapshots = list(self.state.all(Snapshot).values())
        volumes = [one for one in list(self.state.all(Volume).values()) if one.delete_time is None]
        return {
            "images": sum(not image.deregistered for image in list(self.state.all(Image).values())),
            "snapshots": len(snapshots),
            "pending_snapshots": sum(self.status(one) == "pending" for one in snapshots),
            "volume_bytes": sum(one.volume_size * GIB for one in snapshots),
            "allocated_bytes": self.disks.allocated_together(one.snapshot_id for one in snapshots)
            + sum(self.volumes.allocated(one.volume_id) for one in volumes),
        }


def new_id(prefix: str) -> str:
    """Return a fresh id such as snap-0123456789abcdef0: EC2's long form, 17 hex digits."""
    return f"{prefix}-0{secrets.token_hex(8)}"


def blocks_of(volume_size: int) -> int:
    """Return the number of 512 KiB blocks in a volume of `volume_size` GiB."""
    return volume_size * GIB // BLOCK
