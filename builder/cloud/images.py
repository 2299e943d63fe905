"""Registered images: what they were made of, and waiting for them."""

from __future__ import annotations

from builder.cloud.api import Cloud, ImageRecord, ImageSpec
from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudFailed, CloudNotFound
from builder.progress import SILENT, Progress

AVAILABLE = "available"
_FAILED = frozenset({"failed", "error", "invalid"})
_GONE = frozenset({"deregistered"})  # a describe may show it for a while


def made_of(image: ImageRecord, spec: ImageSpec) -> bool:
    """Say whether the image is of exactly the bundle, or the snapshots, that the spec names."""
    if spec.image_location is not None:
        return image.image_location.lstrip("/") == spec.image_location.lstrip("/")
    wanted = [device.snapshot_id for device in spec.block_devices if device.snapshot_id]
    return bool(wanted) and list(image.snapshot_ids) == wanted


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
