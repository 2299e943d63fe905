"""What becomes of an instance that a machine runs behind, written into the records; and what a restart makes of one.

Each is one transaction. Nothing here touches a machine: whoever calls has ended it before its instance is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import instance_changes
from builder.sandbox.records import Image, Instance, Volume
from builder.sandbox.running import NONE

# Codes and words of StateReason in EC2's model.
SHUT_DOWN = "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
VOLUME_FAILED = "Client.InternalError: Client error on launch"
_HOST_STOPPED = "Server.ScheduledStop: The instance was stopped, as the sandbox that it ran in had ended"
_HOST_TERMINATED = "Server.InternalError: The instance was terminated, as the sandbox that it ran in had ended"
LOST = "Server.InternalError: The machine of the instance was lost"


def reached(cloud: Cloud, seen: Instance, *, address: str | None = None) -> bool:
    """Write that the instance is where it was to go when it was `seen`; False when it is to go elsewhere by now."""
    with cloud.state.lock:
        current = _same(cloud, seen)
        if current is None:
            return False
        arrived = current.arrived or time.time()
        cloud.state.put(replace(current, arrived=arrived, address=address or current.address))
    return True


def ended(cloud: Cloud, seen: Instance, goal: Literal["stopped", "terminated"], why: str) -> bool:
    """Write that the instance has ended: stopped, or terminated with the volumes that go with it.

    `why` is its StateReason, kept as it was when empty. False when it is to go elsewhere since it was `seen`: then
    nothing is written.
    """
    with cloud.state.lock:
        current = _same(cloud, seen)
        if current is None:
            return False
        over, left = _over(cloud, current, goal, why)
        cloud.state.put(over, *left)
    _remove(cloud, left)
    return True


def of_failure(cloud: Cloud, instance: Instance) -> Literal["stopped", "terminated"]:
    """Return where an instance ends that could not be started: a new one, and one without a root volume, is gone."""
    new = instance.since == instance.creation_time
    return "terminated" if new or not has_root_volume(cloud, instance) else "stopped"


def has_root_volume(cloud: Cloud, instance: Instance) -> bool:
    """Say whether the instance is of an image in EBS, and can be stopped."""
    return cloud.state.all(Image)[instance.image_id].root_device_type == "ebs"  # a tombstone at least


def recover(cloud: Cloud) -> None:
    """Write what the end of an earlier server has made of the instances that had machines: they ended with it.

    Those with a root volume are stopped, the others terminated, in one transaction.
    """
    changed: list[Instance | Volume] = []
    left: list[Volume] = []
    with cloud.state.lock:
        for instance in list(cloud.state.all(Instance).values()):
            if instance.driver == NONE or (instance.arrived is not None and instance.goal != "running"):
                continue
            over, gone = _over(cloud, instance, *_after_restart(cloud, instance))
            changed += [over, *gone]
            left += gone
        cloud.state.put(*changed)
    _remove(cloud, left)


def _after_restart(cloud: Cloud, instance: Instance) -> tuple[Literal["stopped", "terminated"], str]:
    if instance.goal != "running":  # on its way when the server ended
        return instance.goal, ""
    return ("stopped", _HOST_STOPPED) if has_root_volume(cloud, instance) else ("terminated", _HOST_TERMINATED)


def _same(cloud: Cloud, seen: Instance) -> Instance | None:
    current = cloud.state.all(Instance).get(seen.instance_id)
    same = current is not None and (current.goal, current.since) == (seen.goal, seen.since)
    return current if same else None


def _over(
    cloud: Cloud, current: Instance, goal: Literal["stopped", "terminated"], why: str
) -> tuple[Instance, list[Volume]]:
    now = time.time()
    since = current.since if current.goal == goal else now
    over = replace(current, goal=goal, since=since, arrived=now, why=why or current.why, forced=False)
    return over, instance_changes.left(cloud, [over]) if goal == "terminated" else []


def _remove(cloud: Cloud, left: Iterable[Volume]) -> None:
    instance_changes.remove_deleted(cloud, left)
