"""What the sandbox remembers: one frozen dataclass for each kind of resource, one file for each area.

A new kind is a dataclass that inherits from Record, and its import below: without it a state file that holds one
cannot be read.
"""

from __future__ import annotations

from builder.sandbox.records.access import (
    AccessKey,
    Account,
    Group,
    InstanceProfile,
    Policy,
    PolicyVersion,
    Role,
    Session,
    SigningCertificate,
    User,
    iam_key,
)
from builder.sandbox.records.account_settings import ImageSettings, image_settings_key
from builder.sandbox.records.base import Record, from_json, to_json
from builder.sandbox.records.faults import FaultTable, Stuck
from builder.sandbox.records.images import BlockDevice, Image
from builder.sandbox.records.imports import ImportTask
from builder.sandbox.records.instances import Instance, MetadataOptions
from builder.sandbox.records.key_pairs import KeyPair
from builder.sandbox.records.s3 import Acl, Bucket, Grant, Layout, Part, Piece, S3Object, Stored, Traits, Upload
from builder.sandbox.records.security_groups import Rule, SecurityGroup
from builder.sandbox.records.snapshots import GIB, Snapshot
from builder.sandbox.records.ssm import Parameter
from builder.sandbox.records.tokens import ClientToken, token_key
from builder.sandbox.records.volumes import Attachment, EbsSettings, Volume, ebs_settings_key

__all__ = [
    "GIB",
    "AccessKey",
    "Account",
    "Acl",
    "Attachment",
    "BlockDevice",
    "Bucket",
    "ClientToken",
    "EbsSettings",
    "FaultTable",
    "Grant",
    "Group",
    "Image",
    "ImageSettings",
    "ImportTask",
    "Instance",
    "InstanceProfile",
    "KeyPair",
    "Layout",
    "MetadataOptions",
    "Parameter",
    "Part",
    "Piece",
    "Policy",
    "PolicyVersion",
    "Record",
    "Role",
    "Rule",
    "S3Object",
    "SecurityGroup",
    "Session",
    "SigningCertificate",
    "Snapshot",
    "Stored",
    "Stuck",
    "Traits",
    "Upload",
    "User",
    "Volume",
    "ebs_settings_key",
    "from_json",
    "iam_key",
    "image_settings_key",
    "to_json",
    "token_key",
]
