"""From a snapshot that was started to one that is completed and proven; each step of it may be killed and called again.

Order of writing, and what a kill leaves:
    1. blocks, each entered in the ledger once acknowledged    those in flight are sent again, and overwrite themselves
    2. the ledger's note SEALING, fsynced                      completion is asked for (again)
    3. CompleteSnapshot                                        it is asked for again, or found to be done already
    4. the ledger's note SEALED, fsynced                       nothing is sent any more; waiting goes on
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from builder import durable
from builder.cloud.api import Cloud, SnapshotRecord
from builder.cloud.ebs import CONNECTIONS, Uploaded, hash_image, read_back, tally, upload
from builder.cloud.ledger import Fate, Ledger
from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudError, CloudFailed, CloudTrouble, InputError
from builder.image.stream import ImageReader
from builder.progress import SILENT, Progress

COMPLETED = "completed"
_ALREADY = Patience(deadline=300)  # for a snapshot of which only the acknowledgement of its seal was lost


def is_completed(record: SnapshotRecord) -> bool:
    """Say whether a snapshot is completed. Raises CloudFailed, with the cloud's reason, when it never will be."""
    if record.status == "error":
        raise CloudFailed(f"snapshot {record.snapshot_id} failed: {record.status_message or 'no reason given'}")
    return record.status == COMPLETED


def wait_completed(
    cloud: Cloud, snapshot_id: str, *, patience: Patience | None = None, progress: Progress = SILENT
) -> SnapshotRecord:
    """Return the snapshot once it is completed. Raises CloudFailed when it failed, CloudNotFound when it is gone."""
    return wait_until(
        lambda: cloud.describe_snapshot(snapshot_id),
        is_completed,
        what=f"snapshot {snapshot_id}",
        patience=patience,
        progress=progress,
    )


def complete(
    cloud: Cloud, snapshot_id: str, uploaded: Uploaded, *, ledger: Ledger, progress: Progress = SILENT
) -> None:
    """Seal a snapshot that has all its blocks; re-entrant. Raises what the cloud raises."""
    before = ledger.sealing()
    if before is Fate.SEALED:
        return
    ledger.seal(Fate.SEALING, uploaded.changed, uploaded.checksum)
    try:
        cloud.complete_snapshot(snapshot_id, changed_blocks=uploaded.changed, checksum=uploaded.checksum)
    except CloudTrouble:
        raise
    except CloudError:
        # A run killed between the seal and its note asks for it a second time, and may be refused because it is done.
        if before is not Fate.SEALING:
            raise
        wait_completed(cloud, snapshot_id, patience=_ALREADY, progress=progress)
    ledger.seal(Fate.SEALED, uploaded.changed, uploaded.checksum)


def verify(
    cloud: Cloud,
    snapshot_id: str,
    content: str,
    virtual_size: int,
    *,
    ledger: Ledger,
    connections: int = CONNECTIONS,
    progress: Progress = SILENT,
) -> None:
    """Return if every byte of a completed snapshot is as the `blocks:` digest `content` says. Raises CloudFailed."""
    progress.note(f"reading {snapshot_id} back")
    found = read_back(cloud, snapshot_id, virtual_size, ledger=ledger, connections=connections, progress=progress)
    if found.content != content:
        raise CloudFailed(
            f"snapshot {snapshot_id} does not hold what was sent: {found.content} was read back instead of {content}",
            hint="Do not use it; `emi resume` makes another.",
        )


@dataclass(frozen=True, kw_only=True)
class Publication:
    """How an image is brought into a snapshot that was started."""

    reader: ImageReader
    cloud: Cloud
    snapshot_id: str
    cache: Path  # indexes of published snapshots; may vanish at any time
    expected: str | None = None  # the `blocks:` digest that the image must have
    parent: str | None = None  # the snapshot id that StartSnapshot was given as the parent
    connections: int = CONNECTIONS
    progress: Progress = SILENT

    def publish(self, ledger: Ledger) -> Uploaded:
        """Return what the snapshot holds once it is completed; re-entrant, with the same ledger.

        Raises InputError, with the snapshot left pending, when the image is not the `expected` one.
        """
        record = self.cloud.describe_snapshot(self.snapshot_id)
        if record is not None and is_completed(record):
            done = self._account(ledger)
            self._require_expected(done)
        else:
            done = self._send(ledger)
            self._require_expected(done)
            complete(self.cloud, self.snapshot_id, done, ledger=ledger, progress=self.progress)
            wait_completed(self.cloud, self.snapshot_id, progress=self.progress)
        keep_index(ledger, self.cache, self.snapshot_id)
        return done

    def _send(self, ledger: Ledger) -> Uploaded:
        with ExitStack() as stack:
            parent = stack.enter_context(self._parent_index()) if self.parent else None
            return upload(
                self.reader,
                self.cloud,
                self.snapshot_id,
                ledger=ledger,
                connections=self.connections,
                progress=self.progress,
                parent=parent,
            )

    def _parent_index(self) -> Ledger:
        assert self.parent
        return open_index(
            self.cloud, self.parent, cache=self.cache, connections=self.connections, progress=self.progress
        )

    def _account(self, ledger: Ledger) -> Uploaded:
        """Return what a snapshot holds that is completed already; the ledger may have stayed on another machine."""
        if ledger.sealing():
            return tally(ledger, self.reader.virtual_size)
        self.progress.note(f"{self.snapshot_id} is completed already: hashing the image to know what it holds")
        return hash_image(self.reader, ledger=ledger, progress=self.progress)

    def _require_expected(self, done: Uploaded) -> None:
        if self.expected and done.content != self.expected:
            raise InputError(
                f"the image's bytes are not those it is named by: {done.content} instead of {self.expected}",
                hint="Its file in the store was changed or damaged: remove it, and run the recipe again.",
            )


def open_index(cloud: Cloud, snapshot_id: str, *, cache: Path, connections: int, progress: Progress = SILENT) -> Ledger:
    """Return the blocks of a completed snapshot: as the upload that made it left them in `cache`, or read back now.

    Reading back is re-entrant: a kill leaves `ID.part` in `cache`, where the next call goes on.
    """
    cache.mkdir(parents=True, exist_ok=True)
    whole = cache / snapshot_id
    if not Ledger.belongs(whole, snapshot_id):
        progress.note(f"reading the parent {snapshot_id}: no index of its blocks is kept here")
        part = whole.with_suffix(".part")
        with Ledger(part, snapshot_id) as ledger:
            read_back(cloud, snapshot_id, 0, ledger=ledger, connections=connections, progress=progress)
            keep_index(ledger, cache, snapshot_id)
        part.unlink()
    return Ledger(whole, snapshot_id)


def keep_index(ledger: Ledger, cache: Path, snapshot_id: str) -> None:
    """Keep a finished ledger in `cache`, where `open_index` finds it; without one a parent is read back instead."""
    cache.mkdir(parents=True, exist_ok=True)
    aside = cache / f".{snapshot_id}.new"
    aside.unlink(missing_ok=True)
    try:
        aside.hardlink_to(ledger.path)
    except OSError:  # another filesystem: the index is a convenience
        return
    durable.fsync_file(aside)
    durable.commit(aside, cache / snapshot_id)
