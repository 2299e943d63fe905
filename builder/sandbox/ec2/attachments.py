"""AttachVolume and DetachVolume: to which instance a volume belongs, written in the volume's own record.

Where a machine runs behind the instance, it is plugged in and unplugged after the call was answered: the attachment is
`attaching` and `detaching` for so long, and `busy` when the guest does not let go.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import instance_states, volumes
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.records import Attachment, Instance, Volume
from builder.sandbox.wire import Caller, Refusal

# "Device names on Linux instances" in EC2's guide; whole disks and partitions, with or without /dev/.
_DEVICE = re.compile(r"(?:/dev/)?(?:sd[a-z](?:[1-9]|1[0-5])?|xvd[a-z]{1,2}(?:[1-9]|1[0-5])?)")

_EUCALYPTUS_DEVICE = re.compile(r"[a-zA-Z0-9/]{3,10}")  # VolumeManager.validateDeviceName


def _attach_volume(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if values.get("EbsCardIndex"):
        raise Refusal("UnsupportedOperation", "The sandbox does not support EbsCardIndex.")
    device = values["Device"]
    with cloud.state.lock:
        volume = volumes.require(cloud, caller, values["VolumeId"])
        instance = instance_states.require(cloud, caller, values["InstanceId"])
        _check(cloud, volume, instance)
        _check_device(cloud, instance, device)
        attachment = Attachment(instance_id=instance.instance_id, device=device, attach_time=time.time())
        cloud.state.put(replace(volume, attachment=attachment))
    cloud.machines.nudge(instance.instance_id)
    return volumes.attachment_in(volume, attachment, "attaching")  # at the moment of the answer, however late it comes


def _check(cloud: Cloud, volume: Volume, instance: Instance) -> None:
    state = cloud.volume_state(volume)
    if state == "in-use":
        raise Refusal("VolumeInUse", f"{volume.volume_id} is already attached to an instance")
    if state != "available":
        raise Refusal("IncorrectState", f"{volume.volume_id} is not 'available'.")
    if instance_states.state_of(cloud, instance) not in ("running", "stopped"):
        raise Refusal("IncorrectState", f"Instance '{instance.instance_id}' is not 'running'.")
    if instance.zone != volume.zone:
        message = (
            f"The volume '{volume.volume_id}' is not in the same availability zone as instance '{instance.instance_id}'"
        )
        raise Refusal("InvalidVolume.ZoneMismatch", message)


def _check_device(cloud: Cloud, instance: Instance, device: str) -> None:
    eucalyptus = cloud.personality.is_eucalyptus
    if not (_EUCALYPTUS_DEVICE if eucalyptus else _DEVICE).fullmatch(device):
        more = "" if eucalyptus else f" {device} is not a valid EBS device name."
        raise Refusal("InvalidParameterValue", f"Value ({device}) for parameter device is invalid.{more}")
    for other in cloud.state.all(Volume).values():
        found = cloud.attachment(other)
        if found is not None and (found[0].instance_id, found[0].device) == (instance.instance_id, device):
            message = f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use"
            if eucalyptus:
                message = f"Already have a device attached to: {device}"
            raise Refusal("InvalidParameterValue", message)


def _detach_volume(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        volume = volumes.require(cloud, caller, values["VolumeId"])
        found = cloud.attachment(volume)
        if found is None:
            state = cloud.volume_state(volume)
            raise Refusal("IncorrectState", f"Volume '{volume.volume_id}' is in the '{state}' state.")
        attachment, state = found
        _check_named(values, volume, attachment)
        forced = bool(values.get("Force"))
        if state in ("detaching", "busy") and not forced:
            raise Refusal("IncorrectState", f"Volume '{volume.volume_id}' is in the '{state}' state.")
        _check_root(cloud, attachment)
        gone = replace(attachment, detach_time=attachment.detach_time or time.time(), forced=forced)
        cloud.state.put(replace(volume, attachment=gone))
    cloud.machines.nudge(attachment.instance_id)
    return volumes.attachment_in(volume, gone, "detaching")


def _check_named(values: Values, volume: Volume, attachment: Attachment) -> None:
    """Raise Refusal when the call names another instance or device than the volume is attached to."""
    instance_id, device = values.get("InstanceId"), values.get("Device")
    if instance_id not in (None, "", attachment.instance_id):
        message = f"The volume '{volume.volume_id}' is not attached to instance '{instance_id}'."
        raise Refusal("InvalidAttachment.NotFound", message)
    if device not in (None, "", attachment.device):
        message = f"The volume '{volume.volume_id}' is not attached to instance as device '{device}'."
        raise Refusal("InvalidAttachment.NotFound", message)


def _check_root(cloud: Cloud, attachment: Attachment) -> None:
    instance = cloud.state.all(Instance).get(attachment.instance_id)
    if instance is None or attachment.device != instance.root_device_name:
        return
    if instance_states.state_of(cloud, instance) != "stopped":
        if cloud.personality.is_eucalyptus:
            message = f"Cannot detach root volume from EBS backed instance {instance.instance_id}: it is not stopped"
            raise Refusal("IncorrectState", message)
        message = f"Unable to detach root volume '{attachment.device}' from instance '{instance.instance_id}'"
        raise Refusal("OperationNotPermitted", message)


ACTIONS: dict[str, Handler] = {"AttachVolume": _attach_volume, "DetachVolume": _detach_volume}
