"""DescribeImages, and which images a caller finds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence

from builder.sandbox.cloud import EVERYBODY, Cloud
from builder.sandbox.ec2.action import (
    Handler,
    Traits,
    Values,
    boolean,
    check_filters,
    matches,
    maybe,
    moment,
    paged,
    tag_list,
)
from builder.sandbox.records import BlockDevice, Image
from builder.sandbox.wire import Caller, Refusal

# Filters in the model's documentation of DescribeImages that no image of the sandbox has a value for.
_EMPTY_FILTERS = (
    "image-watermark.source-image-creation-time", "image-watermark.source-image-id",
    "image-watermark.source-image-region", "image-watermark.watermark-creation-time", "image-watermark.watermark-key",
    "instance-type-specification.supported-instance-type", "instance-type-specification.unsupported-instance-type",
    "owner-alias", "product-code", "product-code.type", "public-ssm-parameter-name",
    "scan-result.critical-fix-available-since", "scan-result.finding-scan-date",
    "scan-result.high-fix-available-since", "scan-result.highest-finding-severity-label",
    "scan-result.informational-fix-available-since", "scan-result.low-fix-available-since",
    "scan-result.medium-fix-available-since",
)  # fmt: skip
_OWNER_ALIASES = ("amazon", "aws-backup-vault", "aws-marketplace")  # none of them has images here
_PUBLIC_LIFE = 2 * 365 * 86400  # seconds: a public image is deprecated two years after its creation at the latest


def require(cloud: Cloud, caller: Caller, image_id: str) -> Image:
    """Return the caller's own image. Raises Refusal, in other words for one deregistered or of another account."""
    image = _known(cloud, caller, image_id)
    if image.account != caller.account:
        raise Refusal("AuthFailure", f"Not authorized for image:{image_id}", status=403)
    if image.deregistered:
        raise Refusal("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is no longer available")
    return image


def require_visible(cloud: Cloud, caller: Caller, image_id: str) -> Image:
    """Return an image that the caller may describe, launch and copy. Raises Refusal."""
    image = _known(cloud, caller, image_id)
    if not visible(caller, image):
        raise _not_found(image_id)
    return image


def _known(cloud: Cloud, caller: Caller, image_id: str) -> Image:
    prefixes = cloud.personality.image_prefixes
    if not re.fullmatch(rf"(?:{'|'.join(prefixes)})-[0-9a-f]{{8,17}}", image_id):
        raise Refusal("InvalidAMIID.Malformed", f'Invalid id: "{image_id}" (expecting "{prefixes[0]}-...")')
    image = cloud.state.all(Image).get(image_id)
    if image is None or image.region != caller.region:
        raise _not_found(image_id)
    return image


def _not_found(image_id: str) -> Refusal:
    return Refusal("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")


def visible(caller: Caller, image: Image) -> bool:
    """Say whether the image is there in the caller's region, and theirs, shared with them or public."""
    if image.region != caller.region or image.deregistered:
        return False
    return image.account == caller.account or bool({caller.account, EVERYBODY} & set(image.launch_permissions))


def require_free_name(cloud: Cloud, caller: Caller, name: str) -> None:
    """Raise Refusal when the caller has an image of that name. Call it under the state's lock."""
    for other in cloud.state.all(Image).values():
        same = (other.account, other.region, other.name) == (caller.account, caller.region, name)
        if not same or other.deregistered:
            continue
        kind = "EMI" if cloud.personality.is_eucalyptus else "AMI"
        if kind == "EMI" and cloud.image_state(other) not in ("pending", "available"):
            continue
        raise Refusal("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by {kind} {other.image_id}")


def is_public(image: Image) -> bool:
    """Say whether everybody may launch the image."""
    return EVERYBODY in image.launch_permissions


def latest_deprecation(image: Image) -> float | None:
    """Return the time at which the image must be deprecated, None for one that is not public."""
    return image.creation_time + _PUBLIC_LIFE if is_public(image) else None


def deprecation_time(image: Image) -> float | None:
    """Return when the image is deprecated, if ever: as its owner set it, and a public one two years old."""
    times = [at for at in (image.deprecation_time, latest_deprecation(image)) if at is not None]
    return min(times, default=None)


def protection(image: Image) -> str:
    """Return the image's deregistration protection in EC2's words."""
    if image.protected:
        return "enabled-with-cooldown" if image.cooldown else "enabled-without-cooldown"
    if image.protected_until is not None and time.time() < image.protected_until:
        return f"disabled after {moment(image.protected_until)}"
    return "disabled"


def _describe_images(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, KNOWN)
    owners, users = _owners(caller, values), values.get("ExecutableUsers", ())
    shapes = []
    for one in _asked_for(cloud, caller, values):
        if (owners and one.account not in owners) or not _shown(cloud, one, values):
            continue
        if users and not any(_permitted(caller, one, user) for user in users):
            continue
        shape = _shape(cloud, caller, one)
        if matches(_traits(one, shape), _tags(caller, one), filters):
            shapes.append((one, shape))
    page, token = paged(shapes, lambda each: f"{each[0].creation_time:020.6f}{each[0].image_id}", values)
    return {"Images": [shape for _, shape in page], "NextToken": token}


def _asked_for(cloud: Cloud, caller: Caller, values: Values) -> list[Image]:
    """Return the images that ImageIds names, or all that the caller sees. Raises Refusal."""
    ids = values.get("ImageIds")
    if not ids:
        found = [one for one in list(cloud.state.all(Image).values()) if visible(caller, one)]
        return found if values.get("IncludeDeprecated") else [one for one in found if not _passed_over(caller, one)]
    if values.get("MaxResults") is not None:
        raise Refusal("InvalidParameterCombination", "The parameter ImageIds cannot be used with MaxResults")
    return [require_visible(cloud, caller, image_id) for image_id in dict.fromkeys(ids)]


def _passed_over(caller: Caller, image: Image) -> bool:
    """Say whether the image is deprecated and another account's: it is listed only when asked for."""
    at = deprecation_time(image)
    return image.account != caller.account and at is not None and time.time() >= at


def _shown(cloud: Cloud, image: Image, values: Values) -> bool:
    return bool(values.get("IncludeDisabled")) or cloud.image_state(image) != "disabled"


def _owners(caller: Caller, values: Values) -> set[str]:
    owners = set()
    for owner in values.get("Owners", ()):
        if owner != "self" and owner not in _OWNER_ALIASES and not re.fullmatch(r"\d{12}", owner):
            raise Refusal("InvalidUserID.Malformed", f'Invalid user id: "{owner}"')
        owners.add(caller.account if owner == "self" else owner)
    return owners


def _permitted(caller: Caller, image: Image, user: str) -> bool:
    """Say whether `user`, a word of ExecutableUsers, has permission by name, as far as the caller may know."""
    if user == EVERYBODY:
        return is_public(image)
    named = caller.account if user == "self" else user
    return named in image.launch_permissions and caller.account in (named, image.account)


def _tags(caller: Caller, image: Image) -> Mapping[str, str]:
    """Return the tags that the caller sees: those of another account's image are that account's own."""
    return image.tags if image.account == caller.account else {}


def _shape(cloud: Cloud, caller: Caller, image: Image) -> Values:
    reason = cloud.image_failure(image)
    deprecated = deprecation_time(image)
    launched = image.last_launched_time if image.account == caller.account else None
    return {
        "Architecture": image.architecture,
        "BlockDeviceMappings": [device_shape(device) for device in image.block_devices],
        "BootMode": image.boot_mode,
        "CreationDate": moment(image.creation_time),
        "DeprecationTime": None if deprecated is None else moment(deprecated),
        "DeregistrationProtection": protection(image),
        "Description": image.description or None,
        "EnaSupport": image.ena_support,
        "Hypervisor": "xen",
        "ImageId": image.image_id,
        "ImageLocation": image.image_location or f"{image.account}/{image.name}",
        "ImageType": image.image_type,
        "ImdsSupport": image.imds_support,
        "KernelId": image.kernel_id,
        "LastLaunchedTime": None if launched is None else moment(launched),
        "Name": image.name,
        "OwnerId": image.account,
        "Platform": image.platform,
        "PlatformDetails": "Windows" if image.platform == "windows" else "Linux/UNIX",
        "Public": is_public(image),
        "RamdiskId": image.ramdisk_id,
        "RootDeviceName": image.root_device_name or None,
        "RootDeviceType": image.root_device_type,
        "SourceImageId": image.source_image_id,
        "SourceImageRegion": image.source_image_region,
        "SourceInstanceId": image.source_instance_id,
        "SriovNetSupport": image.sriov_net_support,
        "State": cloud.image_state(image),
        "StateReason": {"Code": _reason_code(image), "Message": reason} if reason else None,
        "Tags": tag_list(_tags(caller, image)) or None,  # EC2 leaves it out
        "TpmSupport": image.tpm_support,
        "UsageOperation": "RunInstances",
        "VirtualizationType": image.virtualization_type or None,
    }


def _reason_code(image: Image) -> str:
    """Return the code of a failed image's StateReason: our own where no cloud has one."""
    return "Client.InternalError" if image.image_location is None else "Sandbox.BundleUnfit"


def device_shape(device: BlockDevice) -> Values:
    """Return one entry of a block device mapping as EC2 describes it."""
    if device.no_device:
        return {"DeviceName": device.device_name, "NoDevice": ""}
    if device.virtual_name is not None:
        return {"DeviceName": device.device_name, "VirtualName": device.virtual_name}
    ebs = {
        "DeleteOnTermination": device.delete_on_termination,
        "Encrypted": device.encrypted,
        "Iops": device.iops,
        "SnapshotId": device.snapshot_id,
        "Throughput": device.throughput,
        "VolumeSize": device.volume_size,
        "VolumeType": device.volume_type,
    }
    return {"DeviceName": device.device_name, "Ebs": ebs}


def _volumes(image: Image) -> list[BlockDevice]:
    return [device for device in image.block_devices if device.is_ebs]


_VALUES: Mapping[str, Callable[[Image, Values], Sequence[str]]] = {
    "architecture": lambda one, _: [one.architecture],
    "block-device-mapping.delete-on-termination": lambda one, _: [
        boolean(value=each.delete_on_termination) for each in _volumes(one)
    ],
    "block-device-mapping.device-name": lambda one, _: [each.device_name for each in one.block_devices],
    "block-device-mapping.encrypted": lambda one, _: [boolean(value=each.encrypted) for each in _volumes(one)],
    "block-device-mapping.snapshot-id": lambda one, _: [each.snapshot_id for each in _volumes(one) if each.snapshot_id],
    "block-device-mapping.volume-size": lambda one, _: [str(each.volume_size) for each in _volumes(one)],
    "block-device-mapping.volume-type": lambda one, _: [each.volume_type for each in _volumes(one) if each.volume_type],
    "boot-mode": lambda one, _: maybe(one.boot_mode),
    "creation-date": lambda _, shape: [shape["CreationDate"]],
    "description": lambda one, _: maybe(one.description),
    "ena-support": lambda one, _: [boolean(value=one.ena_support)],
    "free-tier-eligible": lambda _, __: ["false"],
    "hypervisor": lambda _, __: ["xen"],
    "image-allowed": lambda _, __: ["true"],
    "image-id": lambda one, _: [one.image_id],
    "image-type": lambda one, _: [one.image_type],
    "is-public": lambda one, _: [boolean(value=is_public(one))],
    "kernel-id": lambda one, _: maybe(one.kernel_id),
    "manifest-location": lambda _, shape: [shape["ImageLocation"]],
    "name": lambda one, _: [one.name],
    "owner-id": lambda one, _: [one.account],
    "platform": lambda one, _: maybe(one.platform),
    "ramdisk-id": lambda one, _: maybe(one.ramdisk_id),
    "root-device-name": lambda one, _: [one.root_device_name],
    "root-device-type": lambda one, _: [one.root_device_type],
    "source-image-id": lambda one, _: maybe(one.source_image_id),
    "source-image-region": lambda one, _: maybe(one.source_image_region),
    "source-instance-id": lambda one, _: maybe(one.source_instance_id),
    "sriov-net-support": lambda one, _: maybe(one.sriov_net_support),
    "state": lambda _, shape: [shape["State"]],
    "state-reason-code": lambda _, shape: [shape["StateReason"]["Code"]] if shape["StateReason"] else [],
    "state-reason-message": lambda _, shape: [shape["StateReason"]["Message"]] if shape["StateReason"] else [],
    "virtualization-type": lambda one, _: maybe(one.virtualization_type),
}
# Every filter of DescribeImages in the model's documentation, and boot-mode, which the command line's guide has.
KNOWN = (*_EMPTY_FILTERS, *_VALUES)


def _traits(image: Image, shape: Values) -> Traits:
    return {**dict.fromkeys(_EMPTY_FILTERS, ()), **{name: values(image, shape) for name, values in _VALUES.items()}}


ACTIONS: dict[str, Handler] = {"DescribeImages": _describe_images}
