"""A recipe to be killed in: a small real disk, a snapshot of it, an image; and what the cloud holds afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # noqa: TID251 - tests look at the cloud past emi
import pytest

from builder.sandbox import audit, lifecycle

CONNECTIONS = 4

RECIPE = f"""
name: sweep
vars:
  n: {{type: int, default: 0}}
  disk: {{type: string}}
steps:
  - download: {{url: "file://{{disk}}"}}
  - snapshot: {{description: "sweep {{n}}", connections: {CONNECTIONS}}}
  - register: {{name: "sweep-{{n}}"}}
outputs:
  image: register.image_id
  snapshot: snapshot.snapshot_id
  blocks: snapshot.blocks
"""


@dataclass(frozen=True)
class Sight:
    """What a cloud holds, seen with boto3 and the list of calls made."""

    endpoint: lifecycle.Endpoint

    def _client(self):
        return boto3.client(
            "ec2",
            endpoint_url=self.endpoint.url,
            region_name=self.endpoint.region,
            aws_access_key_id=self.endpoint.access_key,
            aws_secret_access_key=self.endpoint.secret_key,
        )

    def images(self, name: str) -> list[dict]:
        """Return our images of that name."""
        found = self._client().describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])
        return list(found["Images"])

    def snapshots(self, description: str) -> list[dict]:
        """Return our snapshots of that description."""
        filters = [{"Name": "description", "Values": [description]}]
        return list(self._client().describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"])

    def calls_since(self, position: int) -> Counter[str]:
        """Count the calls that succeeded since a position of the list."""
        made = audit.read_calls(self.endpoint.directory, start=position)
        return Counter(f"{call.service}:{call.action}" for call in made if call.status < 300)

    def position(self) -> int:
        """Return where the list of calls ends now."""
        return audit.position(self.endpoint.directory)


@pytest.fixture
def eyes() -> Callable[[Any], Sight]:
    """How to look at the sandbox of an emi's home."""
    return lambda emi: Sight(lifecycle.start(emi.home / "sandbox"))


@pytest.fixture
def sight(emi, eyes) -> Sight:
    """The eyes on the cloud of `emi`'s home."""
    return eyes(emi)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The recipe's file."""
    path = tmp_path / "sweep.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def connections() -> int:
    """How many blocks the recipe sends at the same time."""
    return CONNECTIONS
