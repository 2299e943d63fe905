"""RunInstances: the record of an instance and its volumes, which order its machine where there are machines."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

from builder import pool
from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import (
    idempotency,
    images,
    instance_states,
    instances,
    key_pairs,
    launch_volumes,
    networks,
    run_checks,
    security_groups,
)
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.ec2.places import zones
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import Image, Instance, MetadataOptions, Volume
from builder.sandbox.wire import Caller, Refusal

_ACTION = "RunInstances"
# A client token that is seen twice at once must launch once; volumes are made without holding up all other calls.
_ONE_AT_A_TIME = pool.Lock()
_MOST = 100  # instances of an account in a region that are not terminated: its quota
_ARM = re.compile(r"a1|[a-z-]+\d+g[a-z0-9-]*")  # families with Graviton processors: c7gn, im4gn, t4g, …


def _run_instances(cloud: Cloud, caller: Caller, values: Values) -> Values:
    run_checks.check(caller, values)
    with _ONE_AT_A_TIME:
        with cloud.state.lock:
            known = idempotency.before(cloud, caller, _ACTION, values)
        if known is not None:
            return _again(cloud, caller, known)
        image = _launchable(cloud, caller, values)
        planned = _instances(cloud, caller, values, image)
        tagged = [one for one in values.get("TagSpecifications", ()) if one["ResourceType"] == "volume"]
        tags, entries = specified(tagged, "volume"), values.get("BlockDeviceMappings", ())
        with launch_volumes.made(cloud, caller, image, planned, entries=entries, tags=tags) as volumes:
            made = [replace(one, launch_volumes=_ids(volumes, one)) for one in planned]
            token = idempotency.used(caller, _ACTION, values, [one.instance_id for one in made])
            with cloud.state.lock:
                current = cloud.state.all(Image)[image.image_id]  # its tags may have changed meanwhile
                launched = replace(current, last_launched_time=made[0].launch_time)
                # One transaction: a crash leaves all of the reservation, or none and files that are swept away.
                cloud.state.put(*made, *volumes, launched, *token)
            # Described before its volumes are begun: the answer says pending, as EC2's does.
            answer = _reservation(cloud, made)
        for one in made:
            cloud.machines.nudge(one.instance_id)
        return answer


def _ids(volumes: list[Volume], instance: Instance) -> tuple[str, ...]:
    attached = ((one.volume_id, one.attachment) for one in volumes)
    return tuple(name for name, to in attached if to is not None and to.instance_id == instance.instance_id)


def _again(cloud: Cloud, caller: Caller, ids: list[str]) -> Values:
    """Answer a repeated request with what its instances are now. Raises Refusal once one is terminated."""
    found = {one.instance_id: one for one in instance_states.of(cloud, caller)}
    if any(instance_id not in found or found[instance_id].goal == "terminated" for instance_id in ids):
        message = "The client token belongs to an instance that is terminated. Use another client token."
        raise Refusal("IdempotentInstanceTerminated", message)
    return _reservation(cloud, [found[instance_id] for instance_id in ids])


def _reservation(cloud: Cloud, made: list[Instance]) -> Values:
    devices = instances.attached(cloud)
    shapes = [(one, instances.shape(cloud, one, devices.get(one.instance_id, ()))) for one in made]
    return instances.reservations(shapes)[0]


def _launchable(cloud: Cloud, caller: Caller, values: Values) -> Image:
    """Return the image to launch. Raises Refusal when it is not available or made for other machines."""
    image_id = values["ImageId"]
    try:
        image = images.require_visible(cloud, caller, image_id)
    except Refusal as refusal:
        # To launch says that there is one, to describe does not.
        there = cloud.state.all(Image).get(image_id)
        if there is None or there.region != caller.region or there.account == caller.account:
            raise
        raise Refusal("AuthFailure", f"Not authorized for images: [{image_id}]", status=403) from refusal
    if (state := cloud.image_state(image)) != "available":
        message = f"The image ID '{image.image_id}' is not available: it is {state}"
        raise Refusal("InvalidAMIID.Unavailable", message)
    if image.image_type != "machine":
        message = f"The image ID '{image.image_id}' is a {image.image_type}, not a machine image"
        raise Refusal("InvalidParameterValue", message)
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
    first = replace(
        _instance(caller, values, image),
        driver=cloud.machines.driver,
        public_key=_public_key(cloud, caller, values),
        **_network(cloud, caller, values),
    )
    return [replace(first, instance_id=new_id("i"), launch_index=index) for index in range(count)]


def _public_key(cloud: Cloud, caller: Caller, values: Values) -> str | None:
    if not (name := values.get("KeyName")):
        return None
    if (pair := key_pairs.named(cloud, caller, name)) is None:
        raise Refusal("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    return f"{pair.public_key} {name}"


def _network(cloud: Cloud, caller: Caller, values: Values) -> dict[str, Any]:
    """Return where the instance is: zone, VPC, subnet and security groups. Raises Refusal."""
    zone = values.get("Placement", {}).get("AvailabilityZone")
    if subnet := values.get("SubnetId"):
        there = networks.zone_of(cloud, caller, subnet)
        if zone not in (None, there):
            message = f"Availability zone ({zone}) does not match the zone of the subnet '{subnet}': {there}"
            raise Refusal("InvalidParameterValue", message)
        zone = there
    zone = zone or next(iter(zones(caller.region)))
    return {
        "zone": zone,
        "vpc_id": networks.vpc_id(cloud, caller.account, caller.region),
        "subnet_id": networks.subnet_id(cloud, caller.account, caller.region, zone),
        "security_groups": security_groups.of_launch(cloud, caller, values),
    }


def _instance(caller: Caller, values: Values, image: Image) -> Instance:
    """Return one instance of a new reservation, in no place yet."""
    placement, now = values.get("Placement", {}), time.time()
    tagged = [one for one in values.get("TagSpecifications", ()) if one["ResourceType"] == "instance"]
    return Instance(
        instance_id=new_id("i"),
        account=caller.account,
        region=caller.region,
        zone="",
        reservation_id=new_id("r"),
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
        key_name=values.get("KeyName"),
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
