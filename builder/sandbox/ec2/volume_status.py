"""DescribeVolumeStatus and the attributes of volumes: every volume is well, since no disk can fail here."""

from __future__ import annotations

from dataclasses import replace

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import places, volumes
from builder.sandbox.ec2.action import Handler, Traits, Values, check_filters, matches, maybe, paged
from builder.sandbox.records import Volume
from builder.sandbox.wire import Caller, Refusal

# Every filter of DescribeVolumeStatus in the model's documentation; no volume has an event or an action.
_FILTERS = (
    "action.code", "action.description", "action.event-id", "attachment-status.instance-id",
    "attachment-status.io-performance", "availability-zone", "event.description", "event.event-id", "event.event-type",
    "event.not-after", "event.not-before", "volume-status.details-name", "volume-status.details-status",
    "volume-status.status",
)  # fmt: skip
_DETAILS = {"io-enabled": "passed", "io-performance": "not-applicable"}


def _describe_volume_status(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _FILTERS, tags=False)
    found = [one for one in volumes.asked_for(cloud, caller, values) if matches(_traits(cloud, one), {}, filters)]
    page, token = paged(found, lambda one: f"{one.create_time:020.6f}{one.volume_id}", values)
    return {"VolumeStatuses": [_shape(one) for one in page], "NextToken": token}


def _shape(volume: Volume) -> Values:
    return {
        "Actions": [],
        "AvailabilityZone": volume.zone,
        "AvailabilityZoneId": places.zones(volume.region)[volume.zone],
        "Events": [],
        "VolumeId": volume.volume_id,
        "VolumeStatus": {
            "Details": [{"Name": name, "Status": status} for name, status in _DETAILS.items()],
            "Status": "ok",
        },
    }


def _traits(cloud: Cloud, volume: Volume) -> Traits:
    attached = cloud.attachment(volume)
    return {
        **dict.fromkeys(_FILTERS, ()),
        "attachment-status.instance-id": maybe(attached[0].instance_id if attached else None),
        "availability-zone": [volume.zone],
        "volume-status.details-name": list(_DETAILS),
        "volume-status.details-status": list(_DETAILS.values()),
        "volume-status.status": ["ok"],
    }


def _describe_attribute(cloud: Cloud, caller: Caller, values: Values) -> Values:
    volume = volumes.require(cloud, caller, values["VolumeId"])
    match values["Attribute"]:
        case "autoEnableIO":
            return {"VolumeId": volume.volume_id, "AutoEnableIO": {"Value": volume.auto_enable_io}}
        case "productCodes":
            return {"VolumeId": volume.volume_id, "ProductCodes": []}
        case other:
            raise Refusal("InvalidParameterValue", f"Value ({other}) for parameter attribute is invalid.")


def _modify_attribute(cloud: Cloud, caller: Caller, values: Values) -> Values:
    wanted = values.get("AutoEnableIO", {}).get("Value")
    if wanted is None:
        raise Refusal("MissingParameter", "The request must contain the parameter autoEnableIO")
    with cloud.state.lock:
        volume = volumes.require(cloud, caller, values["VolumeId"])
        cloud.state.put(replace(volume, auto_enable_io=wanted))
    return {}


ACTIONS: dict[str, Handler] = {
    "DescribeVolumeAttribute": _describe_attribute,
    "DescribeVolumeStatus": _describe_volume_status,
    "ModifyVolumeAttribute": _modify_attribute,
}
