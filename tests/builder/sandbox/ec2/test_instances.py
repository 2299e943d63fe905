"""Instances as records: RunInstances, DescribeInstances, DescribeInstanceStatus, Start, Stop, Terminate."""

from __future__ import annotations

import base64
import time

import pytest

AREA = "EC2 instances (records only)"
ROOT = "/dev/xvda"
ABSENT = "i-0123456789abcdef0"
MISSING = [
    (AREA, "RunInstances", "no machine runs, nothing boots, no address: the state is a record"),
    (AREA, "RunInstances", "launch templates, network interfaces, spot: UnsupportedOperation"),
    (AREA, "RebootInstances, GetConsoleOutput", "nothing happens, and no output"),
]


@pytest.fixture(scope="module")
def image_id(ec2, completed):
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": completed}}]
    wish = {"Name": "to launch", "RootDeviceName": ROOT, "BlockDeviceMappings": devices}
    image_id = ec2.register_image(Architecture="x86_64", VirtualizationType="hvm", **wish)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 1})
    return image_id


@pytest.fixture
def launch(ec2, image_id):
    """Launch one instance, or more, and return their ids."""

    def run(**parameters):
        wish = {"ImageId": image_id, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **parameters}
        return [one["InstanceId"] for one in ec2.run_instances(**wish)["Instances"]]

    return run


def described(ec2, instance_id):
    (reservation,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    (instance,) = reservation["Instances"]
    return instance


def waited(ec2, name, *ids):
    ec2.get_waiter(name).wait(InstanceIds=list(ids), WaiterConfig={"Delay": 1})


@pytest.mark.behaviour(AREA, "RunInstances", "every field given comes back; `running` says that it is a record")
def test_every_field_comes_back(ec2, launch, image_id):
    wish = {
        "InstanceType": "c5.large", "UserData": "#!/bin/sh", "Monitoring": {"Enabled": True}, "EbsOptimized": True,
        "Placement": {"AvailabilityZone": "us-east-1b", "Tenancy": "dedicated"},
        "IamInstanceProfile": {"Name": "builder"}, "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 3, "InstanceMetadataTags": "enabled"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "ü"}]}],
    }  # fmt: skip
    (instance_id,) = launch(**wish)
    waited(ec2, "instance_running", instance_id)
    instance = described(ec2, instance_id)
    assert instance["ImageId"] == image_id
    assert (instance["InstanceType"], instance["EbsOptimized"]) == ("c5.large", True)
    assert (instance["Architecture"], instance["VirtualizationType"]) == ("x86_64", "hvm")
    place = {"AvailabilityZone": "us-east-1b", "AvailabilityZoneId": "us-east-1-az2", "GroupName": ""}
    assert instance["Placement"] == place | {"Tenancy": "dedicated"}
    assert instance["IamInstanceProfile"]["Arn"].endswith(":instance-profile/builder")
    options = instance["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 3)
    assert (instance["Monitoring"], instance["Tags"]) == ({"State": "enabled"}, [{"Key": "Name", "Value": "ü"}])
    assert instance["StateReason"]["Code"] == "Sandbox.RecordOnly"
    assert "No machine runs" in instance["StateReason"]["Message"]
    assert [group["GroupName"] for group in instance["SecurityGroups"]] == ["default"]
    (subnet,) = ec2.describe_subnets(SubnetIds=[instance["SubnetId"]])["Subnets"]
    assert (subnet["VpcId"], subnet["AvailabilityZone"]) == (instance["VpcId"], "us-east-1b")
    assert not {"PublicIpAddress", "PrivateIpAddress"} & set(instance)


@pytest.mark.behaviour(AREA, "RunInstances, Stop, Start, Terminate", "each state is passed through, by the clock alone")
def test_an_instance_goes_through_its_states(make_sandbox):
    running = make_sandbox(settle=1.5)
    ec2, snapshot_id = running.client("ec2"), running.raw().snapshot({})
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}]
    image_id = ec2.register_image(Name="slow", RootDeviceName=ROOT, BlockDeviceMappings=devices)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 1})
    (made,) = ec2.run_instances(ImageId=image_id, InstanceType="t2.micro", MinCount=1, MaxCount=1)["Instances"]
    ids = [made["InstanceId"]]
    seen = [made["State"]["Name"]]

    def follow(until):
        while seen[-1] != until:
            name = described(ec2, ids[0])["State"]["Name"]
            seen.extend([name] if name != seen[-1] else [])
            time.sleep(0.05)

    follow("running")
    (change,) = ec2.stop_instances(InstanceIds=ids)["StoppingInstances"]
    assert (change["PreviousState"], change["CurrentState"]) == (
        {"Code": 16, "Name": "running"},
        {"Code": 64, "Name": "stopping"},
    )
    follow("stopped")
    assert described(ec2, ids[0])["StateTransitionReason"].startswith("User initiated (20")
    ec2.start_instances(InstanceIds=ids)
    follow("running")
    ec2.terminate_instances(InstanceIds=ids)
    follow("terminated")
    assert seen == ["pending", "running", "stopping", "stopped", "pending", "running", "shutting-down", "terminated"]
    assert described(ec2, ids[0])["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


@pytest.mark.behaviour(AREA, "waiters", "instance_running, _status_ok, _stopped and _terminated return when it is so")
def test_waiters(ec2, launch):
    ids = launch(MinCount=2, MaxCount=2)
    waited(ec2, "instance_exists", *ids)
    waited(ec2, "instance_running", *ids)
    waited(ec2, "instance_status_ok", *ids)
    statuses = ec2.describe_instance_status(InstanceIds=ids)["InstanceStatuses"]
    assert [one["InstanceStatus"]["Status"] for one in statuses] == ["ok", "ok"]
    ec2.stop_instances(InstanceIds=ids)
    waited(ec2, "instance_stopped", *ids)
    assert ec2.describe_instance_status(InstanceIds=ids)["InstanceStatuses"] == []
    everything = ec2.describe_instance_status(InstanceIds=ids, IncludeAllInstances=True)["InstanceStatuses"]
    assert [one["InstanceState"]["Name"] for one in everything] == ["stopped", "stopped"]
    assert [one["InstanceStatus"]["Status"] for one in everything] == ["not-applicable"] * 2
    ec2.terminate_instances(InstanceIds=ids)
    waited(ec2, "instance_terminated", *ids)


@pytest.mark.behaviour(AREA, "RunInstances with a ClientToken", "the same instances again; other parameters mismatch")
def test_a_client_token_launches_once(ec2, launch, sandbox, together, code_of):
    token = f"token {time.time_ns()}"
    first, *others = together(*[lambda: launch(ClientToken=token)] * 4)
    assert others == [first] * 3
    assert code_of(launch, ClientToken=token, InstanceType="t3.large") == "IdempotentParameterMismatch"
    found = ec2.describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])["Reservations"]
    assert [one["InstanceId"] for each in found for one in each["Instances"]] == first
    ec2.terminate_instances(InstanceIds=first)
    assert code_of(launch, ClientToken=token) == "IdempotentInstanceTerminated"


@pytest.mark.behaviour(AREA, "RunInstances", "MinCount and MaxCount are held against the quota of 100, all or none")
def test_counts(sandbox, code_of, image_id):
    region = "eu-central-1"
    ec2, snapshot_id = sandbox.client("ec2", region_name=region), sandbox.raw(region=region).snapshot({})
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": snapshot_id}}]
    image_id = ec2.register_image(Name="many", RootDeviceName=ROOT, BlockDeviceMappings=devices)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 1})
    made = ec2.run_instances(ImageId=image_id, MinCount=1, MaxCount=98)["Instances"]
    assert [one["AmiLaunchIndex"] for one in made] == list(range(98))
    assert code_of(ec2.run_instances, ImageId=image_id, MinCount=3, MaxCount=3) == "InstanceLimitExceeded"
    made += ec2.run_instances(ImageId=image_id, MinCount=1, MaxCount=5)["Instances"]
    assert len(made) == 100
    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 30}))
    listed = [one["InstanceId"] for page in pages for each in page["Reservations"] for one in each["Instances"]]
    assert (len(pages), listed) == (4, [one["InstanceId"] for one in made])
    ec2.terminate_instances(InstanceIds=[made[0]["InstanceId"]])
    assert len(ec2.run_instances(ImageId=image_id, MinCount=1, MaxCount=2)["Instances"]) == 1


@pytest.mark.behaviour(AREA, "RunInstances", "what is wrong or not emulated is refused, and nothing is made")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "ami"}, "InvalidAMIID.Malformed"),
        ({"ImageId": ""}, "MissingParameter"),
        ({"InstanceType": "t3.huge"}, "InvalidParameterValue"),
        ({"InstanceType": "t4g.micro"}, "InvalidParameterValue"),
        ({"MinCount": 0}, "InvalidParameterValue"),
        ({"MinCount": 2}, "InvalidParameterValue"),
        ({"MinCount": 101, "MaxCount": 101}, "InstanceLimitExceeded"),
        ({"Placement": {"AvailabilityZone": "us-east-1z"}}, "InvalidParameterValue"),
        ({"Placement": {"Tenancy": "host"}}, "UnsupportedOperation"),
        ({"Placement": {"GroupName": "near"}}, "UnsupportedOperation"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"SecurityGroupIds": ["sg-12345678"]}, "InvalidGroup.NotFound"),
        ({"SecurityGroupIds": ["group"]}, "InvalidGroupId.Malformed"),
        ({"SecurityGroups": ["nobody"]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "subnet-12345678"}, "InvalidSubnetID.NotFound"),
        ({"LaunchTemplate": {"LaunchTemplateName": "x"}}, "UnsupportedOperation"),
        ({"MetadataOptions": {"HttpTokens": "v2"}}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpPutResponseHopLimit": 65}}, "InvalidParameterValue"),
        ({"InstanceInitiatedShutdownBehavior": "explode"}, "InvalidParameterValue"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}]},
         "InvalidParameterValue"),
        ({"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "aws:a", "Value": "b"}]}]},
         "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)  # fmt: skip
def test_a_launch_that_is_refused(ec2, launch, code_of, change, code):
    before = ec2.describe_instances()["Reservations"]
    assert code_of(launch, **change) == code
    assert len(ec2.describe_instances()["Reservations"]) == len(before)


def test_user_data_is_base64(raw, image_id):
    wish = {"ImageId": image_id, "InstanceType": "t2.micro", "MinCount": "1", "MaxCount": "1"}
    assert raw.ec2(Action="RunInstances", UserData="no base64!", **wish)[1] == "InvalidParameterValue"
    text = base64.b64encode(b"fine").decode()
    assert raw.ec2(Action="RunInstances", UserData=text, **wish)[0] == 200


@pytest.mark.behaviour(AREA, "Stop, Start, Terminate", "wrong states and unknown ids are refused, and none moves")
def test_changes_that_are_refused(ec2, launch, code_of):
    running, gone = launch(), launch()
    waited(ec2, "instance_running", *running, *gone)
    ec2.terminate_instances(InstanceIds=gone)
    waited(ec2, "instance_terminated", *gone)
    assert code_of(ec2.stop_instances, InstanceIds=running + gone) == "IncorrectInstanceState"
    assert code_of(ec2.start_instances, InstanceIds=gone) == "IncorrectInstanceState"
    assert code_of(ec2.terminate_instances, InstanceIds=[*running, ABSENT]) == "InvalidInstanceID.NotFound"
    assert code_of(ec2.describe_instances, InstanceIds=["x"]) == "InvalidInstanceID.Malformed"
    assert code_of(ec2.stop_instances, InstanceIds=running, DryRun=True) == "DryRunOperation"
    assert described(ec2, running[0])["State"]["Name"] == "running"
    (again,) = ec2.terminate_instances(InstanceIds=gone)["TerminatingInstances"]  # fine, and without effect
    assert again["PreviousState"] == again["CurrentState"] == {"Code": 48, "Name": "terminated"}


def test_a_record_is_rebooted_and_says_nothing(ec2, launch, code_of):
    ids = launch()
    waited(ec2, "instance_running", *ids)
    ec2.reboot_instances(InstanceIds=ids)
    said = ec2.get_console_output(InstanceId=ids[0])
    assert (said["InstanceId"], "Output" in said) == (ids[0], False)
    ec2.terminate_instances(InstanceIds=ids)
    assert code_of(ec2.reboot_instances, InstanceIds=ids) == "IncorrectInstanceState"
    assert code_of(ec2.get_console_output, InstanceId=ABSENT) == "InvalidInstanceID.NotFound"


def test_protection(ec2, launch, code_of):
    ids = launch(DisableApiTermination=True, DisableApiStop=True)
    waited(ec2, "instance_running", *ids)
    assert code_of(ec2.terminate_instances, InstanceIds=ids) == "OperationNotPermitted"
    assert code_of(ec2.stop_instances, InstanceIds=ids) == "OperationNotPermitted"
    assert described(ec2, ids[0])["State"]["Name"] == "running"


@pytest.fixture(scope="module")
def zoo(sandbox):
    """Two instances in a region of their own, the second one stopped."""
    region = "ap-northeast-1"
    raw, ec2 = sandbox.raw(region=region), sandbox.client("ec2", region_name=region)
    devices = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": raw.snapshot({})}}]
    image_id = ec2.register_image(Name="zoo", RootDeviceName=ROOT, BlockDeviceMappings=devices)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 1})
    ids = []
    for number in range(2):
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": f"number {number}"}]}]
        place = {"AvailabilityZone": f"{region}{'ab'[number]}"}
        wish = {"ImageId": image_id, "InstanceType": ("t2.micro", "m5.large")[number], "Placement": place}
        made = ec2.run_instances(MinCount=1, MaxCount=1, TagSpecifications=tags, **wish)
        ids.append(made["Instances"][0]["InstanceId"])
    waited(ec2, "instance_running", *ids)
    ec2.stop_instances(InstanceIds=ids[1:])
    waited(ec2, "instance_stopped", ids[1])
    return ec2, ids, image_id


@pytest.mark.behaviour(AREA, "DescribeInstances", "filters select by what is described, with wildcards")
@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("instance-state-name", ["running"], [0]),
        ("instance-state-name", ["pending", "running", "stopped"], [0, 1]),
        ("instance-state-code", ["80"], [1]),
        ("availability-zone", ["*b"], [1]),
        ("image-id", ["IMAGE"], [0, 1]),
        ("image-id", ["ami-0?"], []),
        ("instance-type", ["t2.*"], [0]),
        ("tag:Name", ["number 1"], [1]),
        ("tag-key", ["Name"], [0, 1]),
        ("owner-id", ["123456789012"], [0, 1]),
        ("root-device-name", [ROOT], [0, 1]),
        ("private-ip-address", ["*"], []),
        ("vpc-id", ["vpc-*"], [0, 1]),
        ("instance.group-name", ["default"], [0, 1]),
        ("instance.group-id", ["sg-none"], []),
        ("ip-address", ["*"], []),
        ("reason", ["User initiated*"], [1]),
        ("state-reason-code", ["Client.UserInitiatedShutdown"], [1]),
        ("launch-index", ["0"], [0, 1]),
        ("monitoring-state", ["enabled"], []),
    ],
)
def test_filters_of_describe_instances(zoo, name, values, expected):
    ec2, ids, image_id = zoo
    values = [value.replace("IMAGE", image_id) for value in values]
    found = ec2.describe_instances(Filters=[{"Name": name, "Values": values}])["Reservations"]
    assert [one["InstanceId"] for each in found for one in each["Instances"]] == [ids[number] for number in expected]


def test_filters_of_describe_instance_status(zoo, code_of):
    ec2, ids, _ = zoo
    filters = [{"Name": "instance-state-name", "Values": ["stopped"]}]
    (found,) = ec2.describe_instance_status(Filters=filters, IncludeAllInstances=True)["InstanceStatuses"]
    assert found["InstanceId"] == ids[1]
    filters = [{"Name": "instance-status.reachability", "Values": ["passed", "initializing"]}]
    (found,) = ec2.describe_instance_status(Filters=filters)["InstanceStatuses"]
    assert found["InstanceId"] == ids[0]
    for call in (ec2.describe_instances, ec2.describe_instance_status):
        assert code_of(call, Filters=[{"Name": "colour", "Values": ["x"]}]) == "InvalidParameterValue"
