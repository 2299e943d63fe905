"""RegisterImage of an instance-store image on EC2: what lies at ImageLocation is read, and every field held against it.

Sources: "Error codes for the Amazon EC2 API" (InvalidManifest), the comments of euca2ools' bundle/manifest.py on what
EC2 answers to absent and empty fields, ec2-ami-tools' own checks. The parts are looked at afterwards (bundle_look.py).
"""

from __future__ import annotations

import time

from builder.bundle.limits import LARGEST_IMAGE_EC2
from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import block_devices, bundle_look, images
from builder.sandbox.ec2.action import Values
from builder.sandbox.ec2.manifests import Facts, Place, Unreadable, fetch, place, read
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import Image
from builder.sandbox.wire import Caller, Refusal

_ARCHITECTURES = ("i386", "x86_64")  # ec2-bundle-image's
_PARTITION = "/dev/sda1"


def register(cloud: Cloud, caller: Caller, values: Values) -> Values:
    """Answer RegisterImage with ImageLocation, whose other fields are checked already. Raises Refusal."""
    where = place(values["ImageLocation"])
    if where is None:
        raise _invalid(f"{values['ImageLocation']} is no BUCKET/KEY")
    try:
        facts = read(fetch(cloud, where))
    except Unreadable as error:
        raise _invalid(str(error)) from error
    _check(facts, where, caller)
    devices = tuple(block_devices.device(cloud, caller, entry) for entry in values.get("BlockDeviceMappings", ()))
    block_devices.check_names(devices)
    image = Image(
        image_id=new_id(cloud.personality.image_prefix("machine")),
        account=caller.account,
        region=caller.region,
        name=values["Name"],
        creation_time=time.time(),
        description=values.get("Description", ""),
        architecture=values.get("Architecture") or facts.architecture or "i386",
        virtualization_type=values.get("VirtualizationType", "paravirtual"),  # EC2's default
        root_device_name=values.get("RootDeviceName") or _PARTITION,
        block_devices=devices,
        ena_support=values.get("EnaSupport", False),
        sriov_net_support=values.get("SriovNetSupport"),
        imds_support=values.get("ImdsSupport"),
        kernel_id=values.get("KernelId") or facts.kernel_id,
        ramdisk_id=values.get("RamdiskId") or facts.ramdisk_id,
        tags=specified(values.get("TagSpecifications", ()), "image"),
        image_location=where.location,
        unopened=True,
    )
    keep(cloud, caller, image)
    return {"ImageId": image.image_id}


def keep(cloud: Cloud, caller: Caller, image: Image) -> None:
    """Write the image down, unless its name is taken, and begin to open its bundle. Raises Refusal."""
    with cloud.state.lock:
        images.require_free_name(cloud, caller, image.name)
        cloud.state.put(image)
    bundle_look.begin(cloud, image)


def _check(facts: Facts, where: Place, caller: Caller) -> None:
    if facts.kind(where.name) != "machine":  # "User provided kernels": only Amazon and chosen vendors may
        raise Refusal("AuthFailure", "Not authorized to register kernels and ramdisks", status=403)
    for name in ("user_encrypted_key", "user_encrypted_iv", "encrypted_key", "encrypted_iv", "signature"):
        if getattr(facts, name) is None:
            raise _invalid(f"it has no {name.removeprefix('ec2_')}")
    if facts.signature == "":
        raise Refusal("InternalError", "An internal error has occurred", status=500)
    if facts.user != caller.account:
        raise Refusal("AuthFailure", "Manifest is not accessible", status=403)
    if facts.architecture not in _ARCHITECTURES:
        raise _invalid(f"its architecture is {facts.architecture}")
    if not 0 < facts.size <= LARGEST_IMAGE_EC2:
        raise _invalid(f"its image has {facts.size} bytes, beyond 1 to {LARGEST_IMAGE_EC2}")


def _invalid(why: str) -> Refusal:
    message = f"The manifest cannot be read or used: {why}."
    return Refusal("InvalidManifest", message)
