"""TerminateInstances, StopInstances, StartInstances, RebootInstances."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import instance_states
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.records import Attachment, Image, Instance, Volume
from builder.sandbox.running import NONE
from builder.sandbox.wire import Caller, Refusal

_Goal = Literal["running", "stopped", "terminated"]


def _terminate_instances(cloud: Cloud, caller: Caller, values: Values) -> Values:
    def allowed(instance: Instance, _: str) -> bool:
        if instance.goal == "terminated":
            return False
        if instance.disable_api_termination:
            message = (
                f"The instance '{instance.instance_id}' may not be terminated. Modify its 'disableApiTermination' "
                "instance attribute and try again."
            )
            raise Refusal("OperationNotPermitted", message)
        return True

    changes = _change(cloud, caller, values["InstanceIds"], "terminated", allowed)
    return {"TerminatingInstances": changes}


def _stop_instances(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if values.get("Hibernate"):
        raise Refusal("UnsupportedHibernationConfiguration", "No instance of the sandbox can hibernate.")

    def allowed(instance: Instance, state: str) -> bool:
        if state == "stopping" and values.get("Force") and instance.driver != NONE:
            return True
        if state in ("stopping", "stopped"):
            return False
        if state != "running":
            raise _wrong_state(instance, "stopped")
        if cloud.state.all(Image)[instance.image_id].root_device_type != "ebs":
            message = (
                f"The instance '{instance.instance_id}' does not have an 'ebs' root device type and cannot be stopped."
            )
            raise Refusal("UnsupportedOperation", message)
        if instance.disable_api_stop:
            message = (
                f"The instance '{instance.instance_id}' may not be stopped. Modify its 'disableApiStop' "
                "instance attribute and try again."
            )
            raise Refusal("OperationNotPermitted", message)
        return True

    forced = bool(values.get("Force") or values.get("SkipOsShutdown"))
    changes = _change(cloud, caller, values["InstanceIds"], "stopped", allowed, forced=forced)
    return {"StoppingInstances": changes}


def _start_instances(cloud: Cloud, caller: Caller, values: Values) -> Values:
    def allowed(instance: Instance, state: str) -> bool:
        if state in ("pending", "running"):
            return False
        if state != "stopped":
            raise _wrong_state(instance, "started")
        if not any(to.device == instance.root_device_name for _, to in _volumes(cloud, {instance.instance_id})):
            message = (
                f"Invalid value '{instance.instance_id}' for instanceId. Instance does not have a volume attached at "
                f"root ({instance.root_device_name})"
            )
            raise Refusal("InvalidParameterValue", message)
        return True

    return {"StartingInstances": _change(cloud, caller, values["InstanceIds"], "running", allowed)}


def _wrong_state(instance: Instance, verb: str) -> Refusal:
    message = f"The instance '{instance.instance_id}' is not in a state from which it can be {verb}."
    return Refusal("IncorrectInstanceState", message)


def _reboot_instances(cloud: Cloud, caller: Caller, values: Values) -> Values:
    found = [
        instance_states.require(cloud, caller, instance_id) for instance_id in dict.fromkeys(values["InstanceIds"])
    ]
    for instance in found:
        if instance_states.state_of(cloud, instance) != "running":
            message = f"The instance '{instance.instance_id}' is not in the 'running' state."
            raise Refusal("IncorrectInstanceState", message)
    for instance in found:
        cloud.machines.reset(instance.instance_id)
    return {}


def _change(
    cloud: Cloud,
    caller: Caller,
    ids: Iterable[str],
    goal: _Goal,
    allowed: Callable[[Instance, str], bool],
    *,
    forced: bool = False,
) -> list[Values]:
    """Send instances on their way to `goal`, all or none; those that `allowed` passes over stay as they are."""
    with cloud.state.lock:
        found = [instance_states.require(cloud, caller, instance_id) for instance_id in dict.fromkeys(ids)]
        before = {one.instance_id: instance_states.state_of(cloud, one) for one in found}
        moving = [_sent(cloud, one, goal, forced=forced) for one in found if allowed(one, before[one.instance_id])]
        # A machine has its volumes until it has ended: then they are let go of.
        over = [one for one in moving if one.driver == NONE]
        gone = left(cloud, over) if goal == "terminated" else []
        # One transaction: a crash never leaves the volumes of an instance that is gone.
        cloud.state.put(*moving, *gone)
    remove_deleted(cloud, gone)
    for one in moving:
        cloud.machines.nudge(one.instance_id)
    after = before | {one.instance_id: instance_states.state_of(cloud, one) for one in moving}
    return [
        {
            "InstanceId": instance_id,
            "CurrentState": instance_states.state_shape(after[instance_id]),
            "PreviousState": instance_states.state_shape(state),
        }
        for instance_id, state in before.items()
    ]


def _volumes(cloud: Cloud, instance_ids: set[str]) -> list[tuple[Volume, Attachment]]:
    held = [(volume, cloud.attachment(volume)) for volume in cloud.state.all(Volume).values()]
    return [(volume, each[0]) for volume, each in held if each is not None and each[0].instance_id in instance_ids]


def left(cloud: Cloud, ended: Iterable[Instance]) -> list[Volume]:
    """Return the volumes of ended instances as they are then: deleted with them, or left to themselves.

    Put them under the state's lock, together with the instances, and call `remove_deleted` after it.
    """
    now = time.time()
    return [
        replace(volume, delete_time=now, attachment=None)
        if attachment.delete_on_termination
        else replace(volume, attachment=replace(attachment, detach_time=attachment.detach_time or now))
        for volume, attachment in _volumes(cloud, {one.instance_id for one in ended})
    ]


def remove_deleted(cloud: Cloud, volumes: Iterable[Volume]) -> None:
    """Remove the bytes of those that have gone with their instance; a crash before leaves them to the next start."""
    for volume in volumes:
        if volume.delete_time is not None:
            cloud.jobs.stop(volume.volume_id)
            cloud.volumes.remove(volume.volume_id)


def _sent(cloud: Cloud, instance: Instance, goal: _Goal, *, forced: bool) -> Instance:
    now = time.time()
    # What runs machines now brings it there: the driver that it was stopped with may be another one's, or none.
    driver = cloud.machines.driver
    sent = replace(instance, goal=goal, since=now, arrived=None, why="", forced=forced, driver=driver)
    if goal == "running":
        return replace(sent, reason="", launch_time=now)
    moment = time.strftime("%Y-%m-%d %H:%M:%S GMT", time.gmtime(now))
    return replace(sent, reason=f"User initiated ({moment})")


ACTIONS: dict[str, Handler] = {
    "RebootInstances": _reboot_instances,
    "StartInstances": _start_instances,
    "StopInstances": _stop_instances,
    "TerminateInstances": _terminate_instances,
}
