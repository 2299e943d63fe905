"""What RunInstances is asked for, checked before anything is made."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from builder.sandbox.ec2.action import Values
from builder.sandbox.ec2.places import require_zone
from builder.sandbox.protocols import query
from builder.sandbox.wire import Caller, Refusal

_MOST_USER_DATA = 16 * 1024  # bytes before base64 (RunInstances, UserData)
_KNOWN = {
    "BlockDeviceMappings", "ClientToken", "DisableApiStop", "DisableApiTermination", "EbsOptimized",
    "IamInstanceProfile", "ImageId", "InstanceInitiatedShutdownBehavior", "InstanceType", "KernelId", "KeyName",
    "MaxCount", "MetadataOptions", "MinCount", "Monitoring", "Placement", "RamdiskId", "SecurityGroupIds",
    "SecurityGroups", "SubnetId", "TagSpecifications", "UserData",
}  # fmt: skip
_TAGGED = ("instance", "volume")
_CHOICES = {
    "HttpTokens": ("optional", "required"),
    "HttpEndpoint": ("enabled", "disabled"),
    "InstanceMetadataTags": ("enabled", "disabled"),
}


def check(caller: Caller, values: Values) -> None:
    """Raise Refusal for what is wrong with the request by itself, or not emulated."""
    for name, value in values.items():
        if name not in _KNOWN and value not in (None, False, [], {}):
            raise Refusal("UnsupportedOperation", f"The sandbox does not support the parameter {name} of RunInstances.")
    least, most = values["MinCount"], values["MaxCount"]
    if not 1 <= least <= most:
        message = f"Invalid value '{least}' for minCount, '{most}' for maxCount: 1 <= minCount <= maxCount"
        raise Refusal("InvalidParameterValue", message)
    if not values.get("ImageId"):
        raise Refusal("MissingParameter", "The request must contain the parameter ImageId")
    _check_words(values)
    check_user_data(values.get("UserData", ""))
    _check_placement(caller, values.get("Placement", {}))
    _check_metadata(values.get("MetadataOptions", {}))


def _check_words(values: Values) -> None:
    instance_type = values.get("InstanceType", "m1.small")
    if instance_type not in query.service("ec2").words("InstanceType"):
        raise Refusal("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
    if (behavior := values.get("InstanceInitiatedShutdownBehavior", "stop")) not in ("stop", "terminate"):
        raise _invalid(behavior, "instanceInitiatedShutdownBehavior")
    for specification in values.get("TagSpecifications", ()):
        if (kind := specification.get("ResourceType")) not in _TAGGED:
            message = f"'{kind}' is not a valid taggable resource type for this operation."
            raise Refusal("InvalidParameterValue", message)


def check_user_data(text: str) -> None:
    """Raise Refusal for user data that is no base64, or too much."""
    try:
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise Refusal("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from None
    if size > _MOST_USER_DATA:
        raise Refusal("InvalidParameterValue", f"User data is limited to {_MOST_USER_DATA} bytes")


def _check_placement(caller: Caller, placement: Values) -> None:
    if zone := placement.get("AvailabilityZone"):
        require_zone(caller.region, zone)
    if (tenancy := placement.get("Tenancy", "default")) not in ("default", "dedicated", "host"):
        raise _invalid(tenancy, "tenancy")
    if tenancy == "host":
        raise Refusal("UnsupportedOperation", "The sandbox has no dedicated hosts.")
    if others := sorted(name for name in placement if name not in ("AvailabilityZone", "Tenancy") and placement[name]):
        raise Refusal("UnsupportedOperation", f"The sandbox does not support Placement.{others[0]}.")


def _check_metadata(options: Values) -> None:
    for name, choices in _CHOICES.items():
        if options.get(name) not in (None, *choices):
            raise _invalid(options[name], name)
    if not 1 <= options.get("HttpPutResponseHopLimit", 1) <= 64:
        raise _invalid(options["HttpPutResponseHopLimit"], "HttpPutResponseHopLimit")
    if options.get("HttpProtocolIpv6") == "enabled":
        raise Refusal("UnsupportedOperation", "The sandbox has no IPv6.")


def _invalid(value: Any, name: str) -> Refusal:
    return Refusal("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")
