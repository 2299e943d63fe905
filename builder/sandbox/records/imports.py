"""A task that makes a snapshot of a disk image in S3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class ImportTask(Record):
    """An import task's record: as long as it has no `end_time`, it is the order to do the import.

    It ends in one transaction with the snapshot it made, or with the `failure` that made it `deleted`, which may be
    that somebody cancelled it.
    """

    import_task_id: str
    account: str
    region: str
    start_time: float
    image_format: str  # as the request wrote it: RAW, VMDK, VHD, VHDX
    bucket: str
    object_key: str
    url: str | None = None
    role_name: str = "vmimport"
    description: str = ""
    disk_description: str = ""
    encrypted: bool = False
    kms_key_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    snapshot_tags: Mapping[str, str] = field(default_factory=dict)
    end_time: float | None = None
    snapshot_id: str | None = None
    image_size: int | None = None  # bytes of the object
    failure: str | None = None
    cancelled: bool = False

    @property
    def key(self) -> str:
        """The task's id."""
        return self.import_task_id
