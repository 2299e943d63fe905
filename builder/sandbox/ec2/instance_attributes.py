"""DescribeInstanceAttribute and ModifyInstanceAttribute."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import instance_states, instances, run_checks, security_groups
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.protocols import query
from builder.sandbox.records import Instance, Volume
from builder.sandbox.wire import Caller, Refusal

_SHAPES: Mapping[str, Callable[[Instance], Values]] = {
    "disableApiStop": lambda one: {"DisableApiStop": {"Value": one.disable_api_stop}},
    "disableApiTermination": lambda one: {"DisableApiTermination": {"Value": one.disable_api_termination}},
    "ebsOptimized": lambda one: {"EbsOptimized": {"Value": one.ebs_optimized}},
    "enaSupport": lambda one: {"EnaSupport": {"Value": one.ena_support}},
    "enclaveOptions": lambda _: {"EnclaveOptions": {"Enabled": False}},
    "groupSet": lambda one: {"Groups": [{"GroupId": group_id} for group_id in one.security_groups]},
    "instanceInitiatedShutdownBehavior": lambda one: {
        "InstanceInitiatedShutdownBehavior": {"Value": one.shutdown_behavior}
    },
    "instanceType": lambda one: {"InstanceType": {"Value": one.instance_type}},
    "kernel": lambda one: {"KernelId": {"Value": one.kernel_id}},
    "productCodes": lambda _: {"ProductCodes": []},
    "ramdisk": lambda one: {"RamdiskId": {"Value": one.ramdisk_id}},
    "rootDeviceName": lambda one: {"RootDeviceName": {"Value": one.root_device_name}},
    "sriovNetSupport": lambda one: {"SriovNetSupport": {"Value": one.sriov_net_support}},
    "userData": lambda one: {"UserData": {"Value": one.user_data}},
}
# What may be changed: the call's parameter and its older name of the same.
_CHANGEABLE = {
    "DisableApiStop": "disableApiStop", "DisableApiTermination": "disableApiTermination",
    "EbsOptimized": "ebsOptimized", "InstanceInitiatedShutdownBehavior": "instanceInitiatedShutdownBehavior",
    "InstanceType": "instanceType", "UserData": "userData", "BlockDeviceMappings": "blockDeviceMapping",
    "Groups": "groupSet",
}  # fmt: skip
_LISTS = ("BlockDeviceMappings", "Groups")  # what is no single value
_WHEN_STOPPED = ("EbsOptimized", "InstanceType", "UserData")
_CALL = {"InstanceId", "Attribute", "Value", "DryRun"}


def _describe(cloud: Cloud, caller: Caller, values: Values) -> Values:
    instance = instance_states.require(cloud, caller, values["InstanceId"])
    shown: Values
    match values["Attribute"]:
        case "blockDeviceMapping":
            shown = {"BlockDeviceMappings": instances.attached(cloud).get(instance.instance_id, [])}
        case name if name in _SHAPES:
            shown = _SHAPES[name](instance)
        case name:
            raise _invalid(name, "attribute")
    return {"InstanceId": instance.instance_id, **shown}


def _modify(cloud: Cloud, caller: Caller, values: Values) -> Values:
    name, value = _wish(values)
    with cloud.state.lock:
        instance = instance_states.require(cloud, caller, values["InstanceId"])
        state = instance_states.state_of(cloud, instance)
        if state == "terminated" or (name in _WHEN_STOPPED and state != "stopped"):
            message = f"The instance '{instance.instance_id}' is not in the 'stopped' state."
            raise Refusal("IncorrectInstanceState", message)
        if name == "BlockDeviceMappings":
            cloud.state.put(*_volumes(cloud, instance, value))
        elif name == "Groups":
            groups = security_groups.of_launch(cloud, caller, {"SecurityGroupIds": value})
            cloud.state.put(replace(instance, security_groups=groups))
        else:
            cloud.state.put(_changed(instance, name, value))
    return {}


def _wish(values: Values) -> tuple[str, Any]:
    """Return the one parameter that is to be changed, and its value. Raises Refusal."""
    given = {name: value for name, value in values.items() if name not in _CALL and value not in (None, [])}
    if (attribute := values.get("Attribute")) is not None:
        name = next((name for name, old in _CHANGEABLE.items() if old == attribute), None)
        if name is None:
            raise _invalid(attribute, "attribute")
        if name not in _LISTS:
            given[name] = {"Value": values.get("Value")}
    if not given:
        raise Refusal("MissingParameter", "The request must contain the parameter attribute")
    if len(given) > 1:
        message = "Fields for multiple attribute types specified: " + ", ".join(sorted(given))
        raise Refusal("InvalidParameterCombination", message)
    ((name, value),) = given.items()
    if name not in _CHANGEABLE:
        raise Refusal("UnsupportedOperation", f"The sandbox does not change {name} of an instance.")
    return name, value if name in _LISTS else value.get("Value")


def _changed(instance: Instance, name: str, value: Any) -> Instance:
    match name:
        case "DisableApiStop":
            return replace(instance, disable_api_stop=_truth(value))
        case "DisableApiTermination":
            return replace(instance, disable_api_termination=_truth(value))
        case "EbsOptimized":
            return replace(instance, ebs_optimized=_truth(value))
        case "InstanceInitiatedShutdownBehavior":
            if value not in ("stop", "terminate"):
                raise _invalid(value, "instanceInitiatedShutdownBehavior")
            return replace(instance, shutdown_behavior=value)
        case "InstanceType":
            if value not in query.service("ec2").words("InstanceType"):
                raise Refusal("InvalidParameterValue", f"Invalid value '{value}' for InstanceType.")
            return replace(instance, instance_type=value)
        case _:
            text = base64.b64encode(value).decode() if isinstance(value, bytes) else value or ""
            run_checks.check_user_data(text)
            return replace(instance, user_data=text or None)


def _truth(value: Any) -> bool:
    if value not in (True, False, "true", "false"):
        raise _invalid(value, "value")
    return value in (True, "true")


def _volumes(cloud: Cloud, instance: Instance, entries: Iterable[Values]) -> list[Volume]:
    """Return the volumes with the DeleteOnTermination that the entries ask for. Raises Refusal."""
    held = [(volume, cloud.attachment(volume)) for volume in cloud.state.all(Volume).values()]
    there = {
        attached[0].device: (volume, attached[0])
        for volume, attached in held
        if attached is not None and attached[0].instance_id == instance.instance_id
    }
    changed = []
    for entry in entries:
        name, ebs = entry.get("DeviceName", ""), entry.get("Ebs", {})
        if name not in there:
            message = f"No device is currently mapped at {name}"
            raise Refusal("InvalidInstanceAttributeValue", message)
        if set(ebs) - {"DeleteOnTermination", "VolumeId"}:
            raise Refusal("UnsupportedOperation", "The sandbox changes DeleteOnTermination of a device only.")
        volume, attachment = there[name]
        keep = ebs.get("DeleteOnTermination", attachment.delete_on_termination)
        changed.append(replace(volume, attachment=replace(attachment, delete_on_termination=keep)))
    return changed


def _invalid(value: Any, name: str) -> Refusal:
    return Refusal("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")


ACTIONS: dict[str, Handler] = {"DescribeInstanceAttribute": _describe, "ModifyInstanceAttribute": _modify}
