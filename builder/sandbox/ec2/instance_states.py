"""Which instances there are, and in which state: computed from their records and the clock."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import Values
from builder.sandbox.records import Instance, Volume
from builder.sandbox.running import NONE
from builder.sandbox.wire import Caller, Refusal

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
_ON_THE_WAY = {"running": "pending", "stopped": "stopping", "terminated": "shutting-down"}
_TOMBSTONE = 3600  # seconds that a terminated instance is still described: "usually within one hour" (EC2's guide)


def state_of(cloud: Cloud, instance: Instance) -> str:
    """Return the instance's state.

    Each transition takes `settle` seconds, a launch until all its volumes are created as well; it ends in `terminated`
    when one of them cannot be. With a machine behind the instance it takes until that has done its part.
    """
    if instance.driver != NONE:
        arrived = instance.arrived is not None and time.time() >= instance.since + cloud.settle
        return instance.goal if arrived else _ON_THE_WAY[instance.goal]
    if instance.goal == "running" and instance.since == instance.creation_time:
        volumes = {state for one in instance.launch_volumes if (state := _volume_state(cloud, one))}
        if "error" in volumes:
            return "terminated"
        if "creating" in volumes:
            return "pending"
    arrived = time.time() >= instance.since + cloud.settle
    return instance.goal if arrived else _ON_THE_WAY[instance.goal]


def _volume_state(cloud: Cloud, volume_id: str) -> str | None:
    volume = cloud.state.all(Volume).get(volume_id)
    return cloud.volume_state(volume) if volume is not None else None


def state_shape(state: str) -> Values:
    """Return a state as EC2 shows it."""
    return {"Code": CODES[state], "Name": state}


def require(cloud: Cloud, caller: Caller, instance_id: str) -> Instance:
    """Return the caller's instance, a terminated one too while it is described. Raises Refusal."""
    if not re.fullmatch(r"i-[0-9a-f]{8,17}", instance_id):
        raise Refusal("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}" (expecting "i-...")')
    found = cloud.state.all(Instance).get(instance_id)
    if found is None or not _visible(caller, found):
        raise Refusal("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
    return found


def of(cloud: Cloud, caller: Caller) -> Iterator[Instance]:
    """Yield the caller's instances in order of creation, terminated ones while they are described."""
    return (one for one in list(cloud.state.all(Instance).values()) if _visible(caller, one))


def _visible(caller: Caller, instance: Instance) -> bool:
    if (instance.account, instance.region) != (caller.account, caller.region):
        return False
    return instance.goal != "terminated" or time.time() < instance.since + _TOMBSTONE
