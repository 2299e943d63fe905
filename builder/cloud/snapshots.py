"""From a snapshot that was started to one that is completed and proven; each step of it may be killed and called again.

Order of writing, and what a kill leaves:
    1. blocks, each entered in the ledger once acknowledged    those in flight are sent again, and overwrite themselves
    2. the ledger's note SEALING, fsynced                      completion is asked for (again)
    3. CompleteSnapshot                                        it is asked for again, or found to be done already
    4. the ledger's note SEALED, fsynced                       nothing is sent any more; waiting goes on
"""

from __future__ import annotations

from builder.cloud.api import Cloud, SnapshotRecord
from builder.cloud.ebs import Uploaded
from builder.cloud.ledger import Fate, Ledger
from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudError, CloudTrouble
from builder.progress import SILENT, Progress

COMPLETED = "completed"
_ALREADY = Patience(deadline=300)  # for a snapshot of which only the acknowledgement of its seal was lost


def is_completed(record: SnapshotRecord) -> bool:
    """Say whether a snapshot is completed. Raises CloudError, with the cloud's reason, when it never will be."""
    if record.status == "error":
        why = record.status_message or "no reason given"
        raise CloudError(
            f"the snapshot {record.snapshot_id} failed: {why}", hint="`emi resume` gives it up and starts another."
        )
    return record.status == COMPLETED


def wait_completed(
    cloud: Cloud, snapshot_id: str, *, patience: Patience | None = None, progress: Progress = SILENT
) -> SnapshotRecord:
    """Return the snapshot once it is completed. Raises CloudError when it failed, CloudNotFound when it is gone."""
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
