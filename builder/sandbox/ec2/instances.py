"""DescribeInstances and DescribeInstanceStatus."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import instance_filters, instance_states, security_groups
from builder.sandbox.ec2.action import (
    Handler,
    Traits,
    Values,
    check_filters,
    matches,
    paged,
    tag_list,
)
from builder.sandbox.ec2.places import zones
from builder.sandbox.records import Image, Instance, Volume
from builder.sandbox.running import NONE
from builder.sandbox.wire import Caller, Refusal

_STATUS_FILTERS = (
    "application-status.status", "attached-ebs-status.status", "availability-zone", "availability-zone-id",
    "event.code", "event.description", "event.instance-event-id", "event.not-after", "event.not-before",
    "event.not-before-deadline", "instance-state-code", "instance-state-name", "instance-status.reachability",
    "instance-status.status", "operator.managed", "operator.principal", "system-status.reachability",
    "system-status.status",
)  # fmt: skip
_REASONS = {
    "pending": ("pending", "pending"),
    # Not EC2's: a running instance has no reason there. Whoever looks is told what "running" is worth here.
    "running": ("Sandbox.RecordOnly", "No machine runs behind this instance: the sandbox keeps its record only."),
}
_ADDRESSED = ("running", "stopping", "shutting-down")  # states in which a machine has its address
_FAILED = ("Client.InternalError", "Client.InternalError: Client error on launch")  # a volume could not be made
_USER_INITIATED = ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")


def _describe_instances(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, instance_filters.KNOWN)
    devices = attached(cloud)
    found = [(one, shape(cloud, one, devices.get(one.instance_id, ()))) for one in _asked_for(cloud, caller, values)]
    found = [each for each in found if matches(instance_filters.traits(*each), each[0].tags, filters)]
    page, token = paged(found, lambda each: _order(each[0]), values)
    return {"Reservations": reservations(page), "NextToken": token}


def reservations(described: Iterable[tuple[Instance, Values]]) -> list[Values]:
    """Return instances with their shapes as EC2 lists them: by the call that launched them."""
    listed: dict[str, Any] = {}
    for one, each in described:
        groups = [] if one.vpc_id else each["SecurityGroups"]  # of a reservation only where there are no VPCs
        empty: Values = {"ReservationId": one.reservation_id, "OwnerId": one.account, "Groups": groups, "Instances": []}
        listed.setdefault(one.reservation_id, empty)["Instances"].append(each)
    return list(listed.values())


def _asked_for(cloud: Cloud, caller: Caller, values: Values) -> list[Instance]:
    """Return the instances that InstanceIds names, or all of the caller's. Raises Refusal."""
    ids = values.get("InstanceIds")
    if not ids:
        return list(instance_states.of(cloud, caller))
    if values.get("MaxResults") is not None:
        raise Refusal("InvalidParameterCombination", "The parameter instancesSet cannot be used with maxResults")
    return [instance_states.require(cloud, caller, instance_id) for instance_id in dict.fromkeys(ids)]


def _order(instance: Instance) -> str:
    return f"{instance.creation_time:020.6f}{instance.reservation_id}{instance.launch_index:06}"


def shape(cloud: Cloud, instance: Instance, devices: Iterable[Values]) -> Values:
    """Return the instance with its block device mapping as EC2 describes it; without a machine it has no address."""
    state = instance_states.state_of(cloud, instance)
    address = instance.address if instance.driver != NONE and state in _ADDRESSED else None
    metadata = instance.metadata_options
    return {
        "AmiLaunchIndex": instance.launch_index,
        "Architecture": instance.architecture,
        "BlockDeviceMappings": list(devices),
        "BootMode": instance.boot_mode,
        "ClientToken": instance.client_token,
        "CurrentInstanceBootMode": _booted(instance),
        "EbsOptimized": instance.ebs_optimized,
        "EnaSupport": instance.ena_support,
        "EnclaveOptions": {"Enabled": False},
        "HibernationOptions": {"Configured": False},
        "Hypervisor": "xen",
        "IamInstanceProfile": {"Arn": instance.instance_profile_arn} if instance.instance_profile_arn else None,
        "ImageId": instance.image_id,
        "InstanceId": instance.instance_id,
        "InstanceType": instance.instance_type,
        "KernelId": instance.kernel_id,
        "KeyName": instance.key_name,
        "LaunchTime": instance.launch_time,
        "MaintenanceOptions": {"AutoRecovery": "default"},
        "MetadataOptions": {
            "State": "applied",
            "HttpTokens": metadata.http_tokens,
            "HttpPutResponseHopLimit": metadata.http_put_response_hop_limit,
            "HttpEndpoint": metadata.http_endpoint,
            "HttpProtocolIpv6": "disabled",
            "InstanceMetadataTags": metadata.instance_metadata_tags,
        },
        "Monitoring": {"State": "enabled" if instance.monitored else "disabled"},
        "NetworkInterfaces": [],
        "Placement": _placement(instance),
        "PlatformDetails": "Linux/UNIX",
        "PrivateDnsName": "",
        "PrivateIpAddress": address,
        "ProductCodes": [],
        "PublicDnsName": "",
        "PublicIpAddress": address,
        "RamdiskId": instance.ramdisk_id,
        "RootDeviceName": instance.root_device_name,
        "RootDeviceType": cloud.state.all(Image)[instance.image_id].root_device_type,  # a tombstone at least
        "SecurityGroups": security_groups.of_instance(cloud, instance),
        "SriovNetSupport": instance.sriov_net_support,
        "State": instance_states.state_shape(state),
        "StateReason": _reason(instance, state),
        "StateTransitionReason": instance.reason,
        "SubnetId": instance.subnet_id,
        "Tags": tag_list(instance.tags) or None,  # EC2 leaves it out
        "TpmSupport": instance.tpm_support,
        "UsageOperation": "RunInstances",
        "UsageOperationUpdateTime": instance.launch_time,
        "VirtualizationType": instance.virtualization_type,
        "VpcId": instance.vpc_id,
    }


def _reason(instance: Instance, state: str) -> Values | None:
    if state == "running" and instance.driver != NONE:
        return None
    code, message = _REASONS.get(state, _USER_INITIATED)
    if state == "terminated" and instance.goal != "terminated":
        code, message = _FAILED
    if instance.why and state not in _REASONS:
        code, message = instance.why.partition(":")[0], instance.why
    return {"Code": code, "Message": message}


def _placement(instance: Instance) -> Values:
    return {
        "AvailabilityZone": instance.zone,
        "AvailabilityZoneId": zones(instance.region)[instance.zone],
        "GroupName": "",
        "Tenancy": instance.tenancy,
    }


def _booted(instance: Instance) -> str:
    """Return how the instance boots: arm64 knows UEFI only, and `uefi-preferred` gets it."""
    uefi = instance.architecture == "arm64" or (instance.boot_mode or "").startswith("uefi")
    return "uefi" if uefi else "legacy-bios"


def attached(cloud: Cloud) -> Mapping[str, list[Values]]:
    """Return the block device mapping of each instance by its id, in order of creation of the volumes."""
    found: dict[str, list[Values]] = {}
    for volume in list(cloud.state.all(Volume).values()):
        if (held := cloud.attachment(volume)) is None:
            continue
        attachment, state = held
        ebs = {
            "AttachTime": attachment.attach_time,
            "DeleteOnTermination": attachment.delete_on_termination,
            "Status": state,
            "VolumeId": volume.volume_id,
        }
        device = {"DeviceName": attachment.device, "Ebs": ebs}
        found.setdefault(attachment.instance_id, []).append(device)
    return found


def _describe_instance_status(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _STATUS_FILTERS, tags=False)
    found = []
    for one in _asked_for(cloud, caller, values):
        status = _status(cloud, one)
        running = status["InstanceState"]["Name"] == "running"
        if (running or values.get("IncludeAllInstances")) and matches(_status_traits(status), {}, filters):
            found.append((one, status))
    page, token = paged(found, lambda each: _order(each[0]), values)
    return {"InstanceStatuses": [status for _, status in page], "NextToken": token}


def _status(cloud: Cloud, instance: Instance) -> Values:
    """Return the checks of an instance: `initializing` for as long again as it was pending, then `ok`."""
    state = instance_states.state_of(cloud, instance)
    if state == "running":
        passed = time.time() >= (instance.arrived or instance.since) + 2 * cloud.settle
        detail, summary = ("passed", "ok") if passed else ("initializing", "initializing")
        if cloud.machines.health(instance.instance_id) == "impaired":
            detail, summary = "failed", "impaired"
        checks: Values = {"Details": [{"Name": "reachability", "Status": detail}], "Status": summary}
    else:
        checks = {"Status": "not-applicable"}
    # What a guest does to itself is no matter of the system that it runs on.
    system: Values = {"Details": [{"Name": "reachability", "Status": "passed"}], "Status": "ok"}
    system = system if checks["Status"] == "impaired" else checks
    return {
        "AttachedEbsStatus": system,
        "AvailabilityZone": instance.zone,
        "AvailabilityZoneId": zones(instance.region)[instance.zone],
        "InstanceId": instance.instance_id,
        "InstanceState": instance_states.state_shape(state),
        "InstanceStatus": checks,
        "SystemStatus": system,
    }


def _status_traits(status: Values) -> Traits:
    reachability = [detail["Status"] for detail in status["InstanceStatus"].get("Details", ())]
    summary = [status["InstanceStatus"]["Status"]]
    system = [status["SystemStatus"]["Status"]]
    reached = [detail["Status"] for detail in status["SystemStatus"].get("Details", ())]
    return {
        **dict.fromkeys(_STATUS_FILTERS, ()),
        "attached-ebs-status.status": system,
        "availability-zone": [status["AvailabilityZone"]],
        "availability-zone-id": [status["AvailabilityZoneId"]],
        "instance-state-code": [str(status["InstanceState"]["Code"])],
        "instance-state-name": [status["InstanceState"]["Name"]],
        "instance-status.reachability": reachability,
        "instance-status.status": summary,
        "system-status.reachability": reached,
        "system-status.status": system,
    }


ACTIONS: dict[str, Handler] = {
    "DescribeInstances": _describe_instances,
    "DescribeInstanceStatus": _describe_instance_status,
}
