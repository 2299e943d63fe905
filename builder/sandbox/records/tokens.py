"""What client tokens were used for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class ClientToken(Record):
    """What a client token was used for; it outlives the resource it made."""

    in_memory: ClassVar[bool] = False

    account: str
    region: str
    action: str
    token: str
    request: str  # canonical JSON of the parameters
    answer: str  # JSON of the first answer

    @property
    def key(self) -> str:
        """The token within its account, region and action."""
        return token_key(self.account, self.region, self.action, self.token)


def token_key(account: str, region: str, action: str, token: str) -> str:
    """Return the key under which a client token is remembered."""
    return json.dumps([account, region, action, token])
