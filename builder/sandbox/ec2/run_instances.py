"""RunInstances: the record of an instance and its volumes. No machine runs behind it yet."""

from __future__ import annotations

import re
import time

from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import idempotency, images, instance_states, instances, run_checks
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import Image, Instance, MetadataOptions
from builder.sandbox.wire import Caller, Refusal

_ACTION = "RunInstances"
_MOST = 100  # instances of an account in a region that are not terminated: its quota
_ARM = re.compile(r"a1|[a-z-]+\d+g[a-z0-9-]*")  # families with Graviton processors: c7gn, im4gn, t4g, …


def _run_instances(cloud: Cloud, caller: Caller, values: Values) -> Values:
    run_checks.check(caller, values)
    with cloud.state.lock:
        known = idempotency.before(cloud, caller, _ACTION, values)
        if known is not None:
            return _again(cloud, caller, known)
        image = _launchable(cloud, caller, values)
        made = _instances(cloud, caller, values, image)
        token = idempotency.used(caller, _ACTION, values, [one.instance_id for one in made])
        cloud.state.put(*made, *token)
    return _reservation(cloud, made)


def _again(cloud: Cloud, caller: Caller, ids: list[str]) -> Values:
    """Answer a repeated request with what its instances are now. Raises Refusal once one is terminated."""
    found = {one.instance_id: one for one in instance_states.of(cloud, caller)}
    if any(instance_id not in found or found[instance_id].goal == "terminated" for instance_id in ids):
        message = "The client token belongs to an instance that is terminated. Use another client token."
        raise Refusal("IdempotentInstanceTerminated", message)
    return _reservation(cloud, [found[instance_id] for instance_id in ids])


def _reservation(cloud: Cloud, made: list[Instance]) -> Values:
    volumes = instances.attached(cloud)
    shapes = [(one, instances.shape(cloud, one, volumes.get(one.instance_id, ()))) for one in made]
    return instances.reservations(shapes)[0]


def _launchable(cloud: Cloud, caller: Caller, values: Values) -> Image:
    """Return the image to launch. Raises Refusal when it is not available or made for other machines."""
    image = images.require(cloud, caller, values["ImageId"])
    if (state := cloud.image_state(image)) != "available":
        message = f"The image ID '{image.image_id}' is not available: it is {state}"
        raise Refusal("InvalidAMIID.Unavailable", message)
    family = values.get("InstanceType", "m1.small").partition(".")[0]
    wanted = "arm64" if _ARM.fullmatch(family) else "x86_64"
    if wanted != image.architecture.removesuffix("_mac") and (wanted, image.architecture) != ("x86_64", "i386"):
        message = (
            f"The architecture '{wanted}' of the specified instance type does not match the architecture "
            f"'{image.architecture}' of the specified AMI. Specify an instance type and an AMI that have matching "
            "architectures, and try again."
        )
        raise Refusal("InvalidParameterValue", message)
    return image


def _instances(cloud: Cloud, caller: Caller, values: Values, image: Image) -> list[Instance]:
    there = sum(one.goal != "terminated" for one in instance_states.of(cloud, caller))
    count = min(values["MaxCount"], _MOST - there)
    if count < values["MinCount"]:
        message = (
            f"You have requested more instances ({there + values['MinCount']}) than your current instance limit of "
            f"{_MOST} allows for the specified instance type."
        )
        raise Refusal("InstanceLimitExceeded", message)
    now, reservation_id = time.time(), new_id("r")
    return [_instance(caller, values, image, (reservation_id, index), now) for index in range(count)]


def _instance(caller: Caller, values: Values, image: Image, place: tuple[str, int], now: float) -> Instance:
    reservation_id, index = place
    placement = values.get("Placement", {})
    tagged = [one for one in values.get("TagSpecifications", ()) if one["ResourceType"] == "instance"]
    return Instance(
        instance_id=new_id("i"),
        account=caller.account,
        region=caller.region,
        zone=placement.get("AvailabilityZone") or f"{caller.region}a",
        reservation_id=reservation_id,
        launch_index=index,
        creation_time=now,
        launch_time=now,
        image_id=image.image_id,
        instance_type=values.get("InstanceType", "m1.small"),
        architecture=image.architecture,
        virtualization_type=image.virtualization_type,
        root_device_name=image.root_device_name,
        since=now,
        boot_mode=image.boot_mode,
        ena_support=image.ena_support,
        sriov_net_support=image.sriov_net_support,
        tpm_support=image.tpm_support,
        kernel_id=values.get("KernelId") or image.kernel_id,
        ramdisk_id=values.get("RamdiskId") or image.ramdisk_id,
        client_token=values.get("ClientToken"),
        user_data=values.get("UserData"),
        instance_profile_arn=_profile(caller, values.get("IamInstanceProfile", {})),
        tenancy=placement.get("Tenancy", "default"),
        monitored=values.get("Monitoring", {}).get("Enabled", False),
        ebs_optimized=values.get("EbsOptimized", False),
        disable_api_termination=values.get("DisableApiTermination", False),
        disable_api_stop=values.get("DisableApiStop", False),
        shutdown_behavior=values.get("InstanceInitiatedShutdownBehavior", "stop"),
        metadata_options=_metadata_options(image, values.get("MetadataOptions", {})),
        tags=specified(tagged, "instance"),
    )


def _profile(caller: Caller, profile: Values) -> str | None:
    if name := profile.get("Name"):
        return f"arn:aws:iam::{caller.account}:instance-profile/{name}"
    return profile.get("Arn")


def _metadata_options(image: Image, options: Values) -> MetadataOptions:
    """Return the options, with the defaults of an image that is made for IMDSv2 where nothing is said."""
    v2 = image.imds_support == "v2.0"
    return MetadataOptions(
        http_tokens=options.get("HttpTokens") or ("required" if v2 else "optional"),
        http_put_response_hop_limit=options.get("HttpPutResponseHopLimit") or (2 if v2 else 1),
        http_endpoint=options.get("HttpEndpoint", "enabled"),
        instance_metadata_tags=options.get("InstanceMetadataTags", "disabled"),
    )


ACTIONS: dict[str, Handler] = {_ACTION: _run_instances}
