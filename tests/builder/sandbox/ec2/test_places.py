"""DescribeRegions and DescribeAvailabilityZones: names we know, and no address but our own."""

from __future__ import annotations

import pytest


def test_regions_lead_back_to_us(ec2, sandbox):
    regions = ec2.describe_regions()["Regions"]
    assert {"us-east-1", "eu-central-1"} <= {region["RegionName"] for region in regions}
    assert {region["Endpoint"] for region in regions} == {sandbox.endpoint.url.removeprefix("http://")}
    assert all(region["Endpoint"].startswith("127.") for region in regions)
    (one,) = ec2.describe_regions(RegionNames=["eu-west-1"])["Regions"]
    assert one["RegionName"] == "eu-west-1"
    filters = [{"Name": "region-name", "Values": ["us-*"]}]
    assert len(ec2.describe_regions(Filters=filters)["Regions"]) == 4


def test_zones_belong_to_the_region_asked(sandbox):
    ec2 = sandbox.client("ec2", region_name="eu-west-1")
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert [zone["ZoneName"] for zone in zones] == ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
    (one,) = ec2.describe_availability_zones(ZoneNames=["eu-west-1b"])["AvailabilityZones"]
    assert (one["State"], one["RegionName"]) == ("available", "eu-west-1")


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        ("describe_regions", {"RegionNames": ["moon-1"]}),
        ("describe_regions", {"Filters": [{"Name": "colour", "Values": ["x"]}]}),
        ("describe_availability_zones", {"ZoneNames": ["moon-1a"]}),
    ],
)
def test_a_place_that_is_unknown(ec2, code_of, call, parameters):
    assert code_of(getattr(ec2, call), **parameters) == "InvalidParameterValue"
