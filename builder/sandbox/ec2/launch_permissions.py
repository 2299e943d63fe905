"""Who may launch an image: its launch permissions, changed by ModifyImageAttribute and ResetImageAttribute."""

from __future__ import annotations

from dataclasses import replace

from builder.sandbox.cloud import EVERYBODY, Cloud
from builder.sandbox.ec2 import images, permission_changes, public_access
from builder.sandbox.ec2.action import Values
from builder.sandbox.records import Image
from builder.sandbox.wire import Refusal

ATTRIBUTE = "launchPermission"
_MOST_PUBLIC = 5  # public images of an account in a region: EC2's default quota


def _wrong(name: str, item: str) -> Refusal:
    return Refusal("InvalidAMIAttributeItemValue", f'Invalid attribute item value "{name}" for {item} item type.')


_FORM = permission_changes.Form(
    structure="LaunchPermission",
    groups="UserGroups",
    wrong_user=lambda name: _wrong(name, "userId"),
    wrong_group=lambda name: _wrong(name, "group"),
)


def changed(cloud: Cloud, image: Image, values: Values) -> Image:
    """Return the image with the permissions that the call asks for. Raises Refusal. Call it under the state's lock."""
    added, removed = permission_changes.read(values, _FORM)
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
