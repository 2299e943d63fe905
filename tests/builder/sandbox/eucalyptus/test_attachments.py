"""Volumes of instances on Eucalyptus: the names of devices that it takes, and its own refusals."""

from __future__ import annotations

import pytest

AREA = "Eucalyptus: volumes"
WAIT = {"Delay": 0.05, "MaxAttempts": 1200}


def without_token(params, **_):
    """Leave out the token that botocore makes up, and that Eucalyptus has no field for."""
    del params["body"]["ClientToken"]


@pytest.mark.behaviour(
    AREA, "AttachVolume", "any device of 3 to 10 letters, digits and slashes, such as /dev/vdc, once"
)
def test_devices_of_attached_volumes(cloud, bundled, refusal):
    location = cloud.upload(bundled(cloud.identity, "attached"))
    image = cloud.ec2.register_image(Name="attached", ImageLocation=location, VirtualizationType="hvm")["ImageId"]
    assert cloud.described(image)["State"] == "available"
    zone = cloud.ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    place = {"AvailabilityZone": zone}
    made = cloud.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, Placement=place)["Instances"][0]
    cloud.ec2.get_waiter("instance_running").wait(InstanceIds=[made["InstanceId"]], WaiterConfig=WAIT)
    cloud.ec2.meta.events.register("before-call.ec2.CreateVolume", without_token)
    first, second = (cloud.ec2.create_volume(Size=1, **place)["VolumeId"] for _ in range(2))
    cloud.ec2.get_waiter("volume_available").wait(VolumeIds=[first, second], WaiterConfig=WAIT)
    instance = {"InstanceId": made["InstanceId"]}
    for device in ("/dev/vdc-1", "vd", "/dev/mapper/x"):
        answer = refusal(cloud.ec2.attach_volume, VolumeId=first, Device=device, **instance)
        assert answer == ("InvalidParameterValue", 400, f"Value ({device}) for parameter device is invalid.")
    assert cloud.ec2.attach_volume(VolumeId=first, Device="/dev/vdc", **instance)["Device"] == "/dev/vdc"
    answer = refusal(cloud.ec2.attach_volume, VolumeId=second, Device="/dev/vdc", **instance)
    assert answer == ("InvalidParameterValue", 400, "Already have a device attached to: /dev/vdc")
