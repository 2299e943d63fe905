"""What the sandbox remembers: one frozen dataclass for each kind of resource, one file for each area.

A new kind is a dataclass that inherits from Record, and its import below: without it a state file that holds one
cannot be read.
"""

from __future__ import annotations

from builder.sandbox.records.base import Record, from_json, to_json
from builder.sandbox.records.images import BlockDevice, Image
from builder.sandbox.records.imports import ImportTask
from builder.sandbox.records.instances import Instance, MetadataOptions
from builder.sandbox.records.snapshots import GIB, Snapshot
from builder.sandbox.records.tokens import ClientToken, token_key
from builder.sandbox.records.volumes import Attachment, EbsSettings, Volume, ebs_settings_key

__all__ = [
    "GIB",
    "Attachment",
    "BlockDevice",
    "ClientToken",
    "EbsSettings",
    "Image",
    "ImportTask",
    "Instance",
    "MetadataOptions",
    "Record",
    "Snapshot",
    "Volume",
    "ebs_settings_key",
    "from_json",
    "to_json",
    "token_key",
]
