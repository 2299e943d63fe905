"""What an account has set for its images in a region."""

from __future__ import annotations

import json
from dataclasses import dataclass

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class ImageSettings(Record):
    """What an account has set for its images in one region; as EC2 sets it for an account that is new."""

    account: str
    region: str
    block_public_access: str = "block-new-sharing"

    @property
    def key(self) -> str:
        """The account and the region."""
        return image_settings_key(self.account, self.region)


def image_settings_key(account: str, region: str) -> str:
    """Return the key under which the settings of an account in a region are kept."""
    return json.dumps([account, region])
