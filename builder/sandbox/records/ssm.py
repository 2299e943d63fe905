"""Parameters of SSM's Parameter Store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class ParameterVersion:
    """One version; it counts from `ready` on (an image id is looked at first), in seconds since the epoch."""

    number: int
    value: str
    type: str
    data_type: str = "text"
    description: str = ""
    allowed_pattern: str = ""
    tier: str = "Standard"
    key_id: str = ""
    labels: tuple[str, ...] = ()
    user: str
    time: float
    ready: float


@dataclass(frozen=True, kw_only=True)
class Parameter(Record):
    """A parameter with the versions that are kept, the oldest first."""

    account: str
    region: str
    name: str
    versions: tuple[ParameterVersion, ...]
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name within its account and region."""
        return parameter_key(self.account, self.region, self.name)

    @property
    def arn(self) -> str:
        """The parameter's ARN."""
        return parameter_arn(self.account, self.region, self.name)


def parameter_key(account: str, region: str, name: str) -> str:
    """Return the key of a parameter."""
    return json.dumps([account, region, name])


def parameter_arn(account: str, region: str, name: str) -> str:
    """Return the ARN of a parameter; a name in a hierarchy brings its own slash."""
    return f"arn:aws:ssm:{region}:{account}:parameter/{name.removeprefix('/')}"
