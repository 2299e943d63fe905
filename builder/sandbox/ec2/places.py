"""DescribeRegions and DescribeAvailabilityZones."""

from __future__ import annotations

from builder.sandbox import settings
from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import Handler, Values, check_filters, matches
from builder.sandbox.wire import Caller, Refusal

# Those of AWS that every account has; any other region name works as well, it is merely not listed.
REGIONS: tuple[str, ...] = (
    "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2",
    "ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1",
    "us-east-1", "us-east-2", "us-west-1", "us-west-2",
)  # fmt: skip
_ZONES = "abc"


def zones(region: str) -> dict[str, str]:
    """Return the region's availability zones and their ids, the same for every account."""
    if region == settings.REGIONS[settings.EUCALYPTUS]:  # the names of clusters, as its installers give them
        return {"one": "one", "two": "two"}
    return {f"{region}{letter}": f"{region}-az{number}" for number, letter in enumerate(_ZONES, 1)}


def require_zone(region: str, name: str) -> str:
    """Return the name of the zone that a call names. Raises Refusal when the region has no such zone."""
    if name not in zones(region):
        raise Refusal("InvalidParameterValue", f"Invalid availability zone: [{name}]")
    return name


def _describe_regions(cloud: Cloud, caller: Caller, values: Values) -> Values:
    names, address = REGIONS, cloud.address
    if cloud.personality.is_eucalyptus:
        names, address = (caller.region,), f"{cloud.address}/services/compute"
    filters = values.get("Filters", [])
    check_filters(filters, ("endpoint", "opt-in-status", "region-name"), tags=False)
    wanted = values.get("RegionNames")
    for name in wanted or ():
        if name not in names:
            raise Refusal("InvalidParameterValue", f"Invalid region provided: '{name}'")
    found = []
    for name in names:
        traits = {"endpoint": [address], "opt-in-status": ["opt-in-not-required"], "region-name": [name]}
        if (not wanted or name in wanted) and matches(traits, {}, filters):
            found.append({"RegionName": name, "Endpoint": address, "OptInStatus": "opt-in-not-required"})
    return {"Regions": found}


def _describe_availability_zones(_: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    known = ("group-name", "opt-in-status", "region-name", "state", "zone-id", "zone-name", "zone-type")
    check_filters(filters, known, tags=False)
    found = []
    for name, zone_id in zones(caller.region).items():
        zone = {
            "GroupName": f"{caller.region}-zg-1",
            "OptInStatus": "opt-in-not-required",
            "RegionName": caller.region,
            "State": "available",
            "ZoneId": zone_id,
            "ZoneName": name,
            "ZoneType": "availability-zone",
        }
        traits = {
            "group-name": [zone["GroupName"]], "opt-in-status": [zone["OptInStatus"]], "state": [zone["State"]],
            "region-name": [zone["RegionName"]], "zone-id": [zone["ZoneId"]], "zone-name": [zone["ZoneName"]],
            "zone-type": [zone["ZoneType"]],
        }  # fmt: skip
        if matches(traits, {}, filters):
            found.append(zone)
    wanted = [require_zone(caller.region, name) for name in values.get("ZoneNames", ())]
    return {"AvailabilityZones": [zone for zone in found if not wanted or zone["ZoneName"] in wanted]}


ACTIONS: dict[str, Handler] = {
    "DescribeAvailabilityZones": _describe_availability_zones,
    "DescribeRegions": _describe_regions,
}
