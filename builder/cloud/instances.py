"""Instances: what is asked of a cloud about them, the records that come back, and waiting for their states.

No boto3, no cloud's name; ec2_instances.py makes the calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from builder.cloud.claims import Claim
from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudFailed, CloudNotFound
from builder.progress import SILENT, Progress

MOST_USER_DATA = 16 << 10  # bytes (RunInstances, UserData)
_ENDING = frozenset({"shutting-down", "terminated"})


@dataclass(frozen=True, kw_only=True)
class InstanceSpec:
    """What RunInstances is asked for, in EC2's own words; None leaves it to the cloud.

    `user_data` are the bytes that the instance's metadata service hands out, at most 16 KiB. `tags` go on the instance
    and on the volumes that are made with it.
    """

    image_id: str
    instance_type: str | None = None
    zone: str | None = None
    key_name: str | None = None
    security_group_ids: Sequence[str] = ()
    user_data: bytes = field(default=b"", repr=False)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class InstanceRecord:
    """An instance as the cloud describes it.

    `state` is pending, running, shutting-down, terminated, stopping or stopped. `address` is its public IPv4 address,
    "" where it has none; `devices` are (device name, volume id).
    """

    instance_id: str
    state: str
    state_reason: str = ""
    image_id: str = ""
    instance_type: str = ""
    zone: str = ""
    address: str = ""
    private_address: str = ""
    key_name: str = ""
    root_device_name: str = ""
    devices: Sequence[tuple[str, str]] = ()
    security_group_ids: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def ending(self) -> bool:
        """Whether it is terminated, or on its way there."""
        return self.state in _ENDING


class Instances(Protocol):
    """The calls of EC2 about instances."""

    def find_instances(self, claim: Claim) -> Sequence[InstanceRecord]:
        """Return our instances that carry the claim, whatever their state; terminated ones as long as they are shown.

        Where tags come after RunInstances it is found by its client token as well.
        """

    def run_instance(self, claim: Claim, spec: InstanceSpec) -> str:
        """Launch one instance under the claim's token and return its id at once: the same call twice launches one.

        It is terminated when it shuts itself down, and takes IMDSv2 only where the cloud knows that. The claim's tag
        is on it and on its volumes; where RunInstances takes no tags, by a second call right after.
        Raises CloudNotFound when the claim's instance was terminated: launch under the next generation.
        """

    def tag_instance(self, instance_id: str, claim: Claim, tags: Mapping[str, str]) -> None:
        """Put the tags and the claim's on an instance and its volumes, where a crash came before that."""

    def describe_instance(self, instance_id: str) -> InstanceRecord | None:
        """Return the instance, or None when the cloud says it does not exist."""

    def terminate_instance(self, instance_id: str) -> None:
        """Begin to terminate it; fine when it is gone already."""

    def stop_instance(self, instance_id: str, *, force: bool = False) -> None:
        """Begin to stop it; with `force` its system is not asked."""

    def start_instance(self, instance_id: str) -> None:
        """Begin to start it again, perhaps with another address."""

    def console_output(self, instance_id: str) -> str:
        """Return the last of what it printed on its console, at most 64 KiB; "" where there is nothing yet.

        AWS shows it at once for newer machines, for others some minutes late.
        """


def wait_running(
    cloud: Instances, instance_id: str, *, patience: Patience | None = None, progress: Progress = SILENT
) -> InstanceRecord:
    """Return the instance once it runs, which is before its system answers.

    Raises CloudFailed with the cloud's reason when it ends or stops instead, CloudNotFound, CloudTrouble.
    """
    return wait_until(
        lambda: cloud.describe_instance(instance_id),
        is_running,
        what=f"instance {instance_id}",
        patience=patience,
        progress=progress,
    )


def is_running(record: InstanceRecord) -> bool:
    """Say whether the instance runs. Raises CloudFailed when it has ended, or was stopped."""
    if record.ending or record.state in ("stopping", "stopped"):
        reason = f": {record.state_reason}" if record.state_reason else ""
        raise CloudFailed(f"instance {record.instance_id} is {record.state}{reason}")
    return record.state == "running"


def wait_stopped(
    cloud: Instances, instance_id: str, *, patience: Patience | None = None, progress: Progress = SILENT
) -> InstanceRecord:
    """Return the instance once it is stopped. Raises CloudNotFound when it ends instead, CloudTrouble."""

    def ready(record: InstanceRecord) -> bool:
        if record.ending:
            raise CloudNotFound(f"instance {instance_id} is {record.state}")
        return record.state == "stopped"

    return wait_until(
        lambda: cloud.describe_instance(instance_id),
        ready,
        what=f"the stop of instance {instance_id}",
        patience=patience,
        progress=progress,
    )


def wait_terminated(
    cloud: Instances, instance_id: str, *, patience: Patience | None = None, progress: Progress = SILENT
) -> None:
    """Return once it is terminated: its volumes, its group and its key are free then. Raises CloudTrouble."""
    try:
        wait_until(
            lambda: cloud.describe_instance(instance_id),
            lambda record: record.state == "terminated",
            what=f"the end of instance {instance_id}",
            patience=patience,
            progress=progress,
        )
    except CloudNotFound:
        return
