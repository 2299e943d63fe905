"""Waiting for a registered image."""

from __future__ import annotations

from builder.cloud.api import Cloud, ImageRecord
from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudFailed, CloudNotFound
from builder.progress import SILENT, Progress

AVAILABLE = "available"
_FAILED = frozenset({"failed", "error", "invalid"})
_GONE = frozenset({"deregistered"})  # a describe may show it for a while


def is_available(record: ImageRecord) -> bool:
    """Say whether an image is available. Raises CloudFailed, with the cloud's reason, when it never will be."""
    if record.state in _FAILED:
        raise CloudFailed(f"image {record.image_id} is {record.state}: {record.state_reason or 'no reason given'}")
    if record.state in _GONE:
        raise CloudNotFound(f"image {record.image_id} is {record.state}")
    return record.state == AVAILABLE


def wait_available(
    cloud: Cloud, image_id: str, *, patience: Patience | None = None, progress: Progress = SILENT
) -> ImageRecord:
    """Return the image once it is available. Raises CloudFailed when it failed, CloudNotFound when it is gone."""
    return wait_until(
        lambda: cloud.describe_image(image_id),
        is_available,
        what=f"image {image_id}",
        patience=patience,
        progress=progress,
    )
