"""Who may launch an image: its launch permissions, changed by ModifyImageAttribute and ResetImageAttribute."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from builder.sandbox.cloud import EVERYBODY, Cloud
from builder.sandbox.ec2 import images, public_access
from builder.sandbox.ec2.action import Values
from builder.sandbox.records import Image
from builder.sandbox.wire import Refusal

ATTRIBUTE = "launchPermission"
_MOST_PUBLIC = 5  # public images of an account in a region: EC2's default quota


def changed(cloud: Cloud, image: Image, values: Values) -> Image:
    """Return the image with the permissions that the call asks for. Raises Refusal. Call it under the state's lock."""
    added, removed = _changes(values)
    kept = [one for one in image.launch_permissions if one not in removed]
    shared = replace(image, launch_permissions=tuple(dict.fromkeys([*kept, *added])))
    if images.is_public(shared) and not images.is_public(image):
        _check_public(cloud, image)
    return shared


def shape(image: Image) -> list[Values]:
    """Return the permissions as EC2 lists them."""
    return [{"Group": one} if one == EVERYBODY else {"UserId": one} for one in image.launch_permissions]


def _check_public(cloud: Cloud, image: Image) -> None:
    if public_access.settings(cloud, image.account, image.region).block_public_access != "unblocked":
        message = (
            "You can't publicly share this AMI because block public access for AMIs is enabled for this account in "
            "this Region. Call DisableImageBlockPublicAccess first."
        )
        raise Refusal("OperationNotPermitted", message)
    if any(device.encrypted for device in image.block_devices):
        raise Refusal("OperationNotPermitted", "An AMI with encrypted snapshots cannot be made public.")
    there = sum(
        images.is_public(other) and not other.deregistered
        for other in cloud.state.all(Image).values()
        if (other.account, other.region) == (image.account, image.region)
    )
    if there >= _MOST_PUBLIC:
        message = (
            f"You have reached your quota of {_MOST_PUBLIC} for the number of public images allowed in this Region. "
            "Deregister unused public images, or request an increase in your public AMIs quota."
        )
        raise Refusal("ResourceLimitExceeded", message)


def _changes(values: Values) -> tuple[list[str], list[str]]:
    """Return to whom the call gives permission, and from whom it takes it. Raises Refusal."""
    structure = values.get("LaunchPermission", {})
    added, removed = _named(structure.get("Add", ())), _named(structure.get("Remove", ()))
    flat = [*_users(values.get("UserIds", ())), *_groups(values.get("UserGroups", ()))]
    if flat:
        match values.get("OperationType"):
            case "add":
                added += flat
            case "remove":
                removed += flat
            case kind:
                raise Refusal("InvalidParameterValue", f"Value ({kind}) for parameter operationType is invalid.")
    if not added and not removed:
        raise Refusal("MissingParameter", "The request must contain the parameter launchPermission")
    return added, removed


def _named(entries: Iterable[Values]) -> list[str]:
    named = []
    for entry in entries:
        if entry.get("OrganizationArn") or entry.get("OrganizationalUnitArn"):
            raise Refusal("UnsupportedOperation", "The sandbox has no organizations.")
        named += _users([entry["UserId"]]) if entry.get("UserId") else []
        named += _groups([entry["Group"]]) if entry.get("Group") else []
    return named


def _users(names: Iterable[str]) -> list[str]:
    names = list(names)
    for name in names:
        if not re.fullmatch(r"\d{12}", name):
            message = f'Invalid attribute item value "{name}" for userId item type.'
            raise Refusal("InvalidAMIAttributeItemValue", message)
    return names


def _groups(names: Iterable[str]) -> list[str]:
    names = list(names)
    for name in names:
        if name != EVERYBODY:
            message = f'Invalid attribute item value "{name}" for group item type.'
            raise Refusal("InvalidAMIAttributeItemValue", message)
    return names
