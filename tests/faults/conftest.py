"""A recipe with all of the demo's cloud calls over a small real disk, and what the cloud holds afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # noqa: TID251 - tests look at the cloud past emi
import pytest

from builder.sandbox import audit, lifecycle
from builder.sandbox.faults import client

CONNECTIONS = 4
RECIPE = f"""
name: faults
vars:
  n: {{type: int, default: 0}}
  disk: {{type: string}}
steps:
  - download: {{url: "file://{{disk}}"}}
  - snapshot: {{description: "faults {{n}}", connections: {CONNECTIONS}}}
  - register: {{name: "faults-{{n}}"}}
outputs:
  image: register.image_id
  snapshot: snapshot.snapshot_id
"""
# What emi waits for in these tests; the shapes of the waits are the same as with hours.
QUICK = {"EMI_CLOUD_LIMITS": "retry=3,answer=1,settle=3,wait=3"}
PATIENT = {"EMI_CLOUD_LIMITS": "retry=60,answer=30,settle=60,wait=60"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A recipe that can be run under any number, each with an image and a snapshot of its own."""

    emi: Any
    recipe: Path
    words: Callable[[int], tuple[str, ...]]
    image: str = "faults-{}"  # the image's name, with {} for the number
    snapshot: str = "faults {}"  # the snapshot's description, likewise
    connections: int = CONNECTIONS
    quick: Mapping[str, str]
    patient: Mapping[str, str]

    @property
    def endpoint(self) -> lifecycle.Endpoint:
        """The sandbox, started if need be."""
        return lifecycle.start(self.emi.home / "sandbox")

    def run(self, number: int, **environment: str) -> Any:
        """Run the recipe and return how it ended."""
        return self.emi("run", self.recipe, *self.words(number), **environment)

    def resume(self, **environment: str) -> Any:
        """Resume the newest unfinished run."""
        return self.emi("resume", **{**self.patient, **environment})

    def put(self, *faults: Any) -> None:
        """Put these faults into the sandbox."""
        client.put(self.endpoint, faults)

    def clear(self) -> None:
        """Remove all faults."""
        client.clear(self.endpoint)

    def position(self) -> int:
        """Return where the list of calls ends now."""
        return audit.position(self.endpoint.directory)

    def calls(self, position: int) -> list[audit.AuditedCall]:
        """Return the calls since a position."""
        return list(audit.read_calls(self.endpoint.directory, start=position))

    def effects(self, position: int) -> Counter[str]:
        """Count the calls since a position that took effect."""
        return Counter(call.action for call in self.calls(position) if call.status < 300)

    def ec2(self) -> Any:
        """Return a client past emi."""
        end = self.endpoint
        keys = {"aws_access_key_id": end.access_key, "aws_secret_access_key": end.secret_key}
        return boto3.client("ec2", endpoint_url=end.url, region_name=end.region, **keys)

    def images(self, number: int) -> list[dict[str, Any]]:
        """Return our images of that number."""
        named = [{"Name": "name", "Values": [self.image.format(number)]}]
        return list(self.ec2().describe_images(Owners=["self"], Filters=named)["Images"])

    def snapshots(self, number: int) -> list[dict[str, Any]]:
        """Return our snapshots of that number."""
        named = [{"Name": "description", "Values": [self.snapshot.format(number)]}]
        return list(self.ec2().describe_snapshots(OwnerIds=["self"], Filters=named)["Snapshots"])

    def has_one_of_each(self, number: int) -> None:
        """Fail unless there are exactly one available image and the completed snapshot that it is of."""
        images, snapshots = self.images(number), self.snapshots(number)
        assert [image["State"] for image in images] == ["available"]
        assert [snapshot["State"] for snapshot in snapshots] == ["completed"]
        assert images[0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == snapshots[0]["SnapshotId"]


@pytest.fixture(scope="session")
def make_subject() -> Callable[..., Subject]:
    """Make a subject of a recipe and an emi."""
    return lambda **options: Subject(**{"quick": QUICK, "patient": PATIENT, **options})


@pytest.fixture(scope="module")
def module_subject(
    tmp_path_factory: pytest.TempPathFactory, shared_emi: Any, tiny_disk: Path, make_subject: Any
) -> Iterator[Subject]:
    """The recipe over the small disk, in a home of the file's own, run once so that the download is done."""
    place = tmp_path_factory.mktemp("faults")
    recipe = place / "faults.yaml"
    recipe.write_text(RECIPE)

    def words(number: int) -> Sequence[str]:
        return "--var", f"disk={tiny_disk}", "--var", f"n={number}"

    made: Subject = make_subject(emi=type(shared_emi)(place / "home"), recipe=recipe, words=words)
    assert made.run(0).code == 0
    yield made
    lifecycle.stop(place / "home" / "sandbox")


@pytest.fixture
def subject(module_subject: Subject) -> Iterator[Subject]:
    """The recipe over the small disk, in a sandbox without faults; each test has numbers of its own."""
    yield module_subject
    module_subject.clear()
