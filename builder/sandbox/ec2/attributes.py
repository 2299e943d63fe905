"""DescribeImageAttribute, ModifyImageAttribute and ResetImageAttribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import images, launch_permissions
from builder.sandbox.ec2.action import Handler, Values, moment
from builder.sandbox.records import Image
from builder.sandbox.wire import Caller, Refusal

_MOST_DESCRIPTION = 255  # characters
_SHAPES: Mapping[str, Callable[[Image], Values]] = {
    "blockDeviceMapping": lambda one: {
        "BlockDeviceMappings": [images.device_shape(each) for each in one.block_devices]
    },
    "bootMode": lambda one: {"BootMode": {"Value": one.boot_mode}},
    "deregistrationProtection": lambda one: {"DeregistrationProtection": {"Value": images.protection(one)}},
    "description": lambda one: {"Description": {"Value": one.description}},
    "imdsSupport": lambda one: {"ImdsSupport": {"Value": one.imds_support}},
    "kernel": lambda one: {"KernelId": {"Value": one.kernel_id}},
    "lastLaunchedTime": lambda one: {
        "LastLaunchedTime": {"Value": moment(one.last_launched_time) if one.last_launched_time else None}
    },
    "launchPermission": lambda one: {"LaunchPermissions": launch_permissions.shape(one)},
    "productCodes": lambda _: {"ProductCodes": []},
    "ramdisk": lambda one: {"RamdiskId": {"Value": one.ramdisk_id}},
    "sriovNetSupport": lambda one: {"SriovNetSupport": {"Value": one.sriov_net_support}},
    "tpmSupport": lambda one: {"TpmSupport": {"Value": one.tpm_support}},
    "uefiData": lambda one: {"UefiData": {"Value": one.uefi_data}},
}
# What may be changed, and which parameters say so beside Attribute.
_CHANGEABLE = {
    "description": ("Description",),
    "imdsSupport": ("ImdsSupport",),
    "launchPermission": ("LaunchPermission", "UserIds", "UserGroups", "OrganizationArns", "OrganizationalUnitArns"),
    "productCodes": ("ProductCodes",),
}


def _describe_image_attribute(cloud: Cloud, caller: Caller, values: Values) -> Values:
    image = images.require(cloud, caller, values["ImageId"])
    attribute = values["Attribute"]
    if attribute not in _SHAPES:
        raise _invalid(attribute, "attribute")
    return {"ImageId": image.image_id, **_SHAPES[attribute](image)}


def _modify_image_attribute(cloud: Cloud, caller: Caller, values: Values) -> Values:
    attribute = _named(values)
    with cloud.state.lock:
        image = images.require(cloud, caller, values["ImageId"])
        if (state := cloud.image_state(image)) != "available":
            message = f"The image ID '{image.image_id}' is not available: it is {state}"
            raise Refusal("InvalidAMIID.Unavailable", message)
        cloud.state.put(_changed(cloud, image, attribute, values))
    return {}


def _named(values: Values) -> str:
    """Return the one attribute that the call is about. Raises Refusal."""
    named = {name for name, parameters in _CHANGEABLE.items() if any(values.get(one) for one in parameters)}
    if (attribute := values.get("Attribute")) is not None:
        if attribute not in _CHANGEABLE:
            raise _invalid(attribute, "attribute")
        named.add(attribute)
    if not named:
        raise Refusal("MissingParameter", "The request must contain the parameter attribute")
    if len(named) > 1:
        message = "Fields for multiple attribute types specified: " + ", ".join(sorted(named))
        raise Refusal("InvalidParameterCombination", message)
    return named.pop()


def _changed(cloud: Cloud, image: Image, attribute: str, values: Values) -> Image:
    match attribute:
        case "description":
            text = _value(values, "Description") or ""
            if len(text) > _MOST_DESCRIPTION:
                message = f"Description is longer than {_MOST_DESCRIPTION} characters"
                raise Refusal("InvalidParameterValue", message)
            return replace(image, description=text)
        case "imdsSupport":
            if (version := _value(values, "ImdsSupport")) != "v2.0":
                raise _invalid(version, "imdsSupport")
            return replace(image, imds_support=version)
        case "launchPermission":
            if values.get("OrganizationArns") or values.get("OrganizationalUnitArns"):
                raise Refusal("UnsupportedOperation", "The sandbox has no organizations.")
            return launch_permissions.changed(cloud, image, values)
        case _:
            raise Refusal("UnsupportedOperation", f"The sandbox does not change {attribute}.")


def _value(values: Values, name: str) -> str | None:
    """Return the new value, from the structure or, in the older form of the call, from Value."""
    structure = values.get(name)
    given: str | None = structure.get("Value") if structure is not None else values.get("Value")
    return given


def _reset_image_attribute(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if (attribute := values["Attribute"]) != launch_permissions.ATTRIBUTE:
        raise _invalid(attribute, "attribute")
    with cloud.state.lock:
        image = images.require(cloud, caller, values["ImageId"])
        cloud.state.put(replace(image, launch_permissions=()))
    return {}


def _invalid(value: Any, name: str) -> Refusal:
    return Refusal("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")


ACTIONS: dict[str, Handler] = {
    "DescribeImageAttribute": _describe_image_attribute,
    "ModifyImageAttribute": _modify_image_attribute,
    "ResetImageAttribute": _reset_image_attribute,
}
