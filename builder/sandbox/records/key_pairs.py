"""A key pair: its public half, which is all that EC2 keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class KeyPair(Record):
    """A key pair's record; `public_key` is in OpenSSH's form, `fingerprint` as EC2 computes it."""

    key_pair_id: str
    account: str
    region: str
    name: str
    key_type: str
    public_key: str
    fingerprint: str
    creation_time: float
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key pair's id."""
        return self.key_pair_id
