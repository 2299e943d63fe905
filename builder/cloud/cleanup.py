"""Taking a registered image away again, with the snapshots behind it."""

from __future__ import annotations

import contextlib

from builder.cloud.api import Cloud
from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudConflict, CloudNotFound
from builder.progress import SILENT, Progress

_GONE_SOON = Patience(deadline=120, settle=0)


def deregister(cloud: Cloud, image_id: str, *, snapshots: bool = True, progress: Progress = SILENT) -> tuple[str, ...]:
    """Deregister an image, delete its snapshots, and return the ids of those; fine when it is gone already.

    A crash between the two leaves snapshots, tagged with their claims. A snapshot that another image uses is kept.
    """
    image = cloud.describe_image(image_id)
    if image is None:
        return ()
    cloud.deregister_image(image_id)
    with contextlib.suppress(CloudNotFound):
        wait_until(
            lambda: cloud.describe_image(image_id),
            lambda seen: seen.state == "deregistered",
            what=f"the end of image {image_id}",
            patience=_GONE_SOON,
            progress=progress,
        )
    return tuple(one for one in image.snapshot_ids if _delete(cloud, one, progress)) if snapshots else ()


def _delete(cloud: Cloud, snapshot_id: str, progress: Progress) -> bool:
    try:
        cloud.delete_snapshot(snapshot_id)
    except CloudConflict as error:
        progress.note(f"kept {snapshot_id}: {error.message}")
        return False
    return True
