"""What every service of the sandbox works on: the records, the disks and the clock."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from builder import pool
from builder.digest import BLOCK
from builder.sandbox.disks import Disk, Disks
from builder.sandbox.records import GIB, Image, Snapshot, Stuck
from builder.sandbox.state import State
from builder.sandbox.wire import Caller, Refusal

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

    `settle` is how many seconds a sealed snapshot and a registered image stay pending; `address` is HOST:PORT of our
    own port, the only address that answers may name.
    """

    def __init__(self, state: State, disks: Disks, *, settle: float, address: str) -> None:
        self.state = state
        self.disks = disks
        self.settle = settle
        self.address = address
        self._open: dict[str, Disk] = {}
        self._writers: dict[str, Writers] = {}
        self._progress: dict[str, int] = {}
        self._lock = pool.Lock()
        disks.sweep(set(state.all(Snapshot)))
        for snapshot in state.all(Snapshot).values():
            if snapshot.sealed_time is None:
                self.disk(snapshot).recover()

    def snapshot(self, caller: Caller, snapshot_id: str) -> Snapshot | None:
        """Return the caller's snapshot of that id, or None."""
        found = self.state.all(Snapshot).get(snapshot_id)
        return found if found and (found.account, found.region) == (caller.account, caller.region) else None

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
        done = 100 if self.status(snapshot) == "completed" else min(self._progress.get(snapshot.snapshot_id, 0), 99)
        return f"{done}%"

    def status(self, snapshot: Snapshot) -> str:
        """Return pending, completed, or error (nothing was put or completed within its timeout)."""
        now = time.time()
        if snapshot.failure is not None:
            return "error"
        if snapshot.snapshot_id in self.state.all(Stuck):
            return "pending"
        if snapshot.sealed_time is not None:
            return "completed" if now >= snapshot.sealed_time + self.settle else "pending"
        touched = max(snapshot.start_time, self.disks.touched(snapshot.snapshot_id))
        return "error" if now > touched + 60 * snapshot.timeout else "pending"

    def image_state(self, image: Image) -> str:
        """Return pending, available, failed or deregistered."""
        if image.deregistered:
            return "deregistered"
        if image.failure is not None:
            return "failed"
        if image.image_id in self.state.all(Stuck):
            return "pending"
        return "available" if time.time() >= image.creation_time + self.settle else "pending"

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
        return {
            "images": sum(not image.deregistered for image in list(self.state.all(Image).values())),
            "snapshots": len(snapshots),
            "pending_snapshots": sum(self.status(one) == "pending" for one in snapshots),
            "volume_bytes": sum(one.volume_size * GIB for one in snapshots),
            "allocated_bytes": sum(self.disks.allocated(one.snapshot_id) for one in snapshots),
        }


def new_id(prefix: str) -> str:
    """Return a fresh id such as snap-0123456789abcdef0: EC2's long form, 17 hex digits."""
    return f"{prefix}-0{secrets.token_hex(8)}"


def blocks_of(volume_size: int) -> int:
    """Return the number of 512 KiB blocks in a volume of `volume_size` GiB."""
    return volume_size * GIB // BLOCK
