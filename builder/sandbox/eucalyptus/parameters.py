"""Which parameters Eucalyptus binds, by call: whatever else a query has makes the whole request fail.

The table is read off the message classes of compute-common (4.0.0, 4.2.0, 4.4.x, 5.0.0, 5.1.0), whose fields are the
parameters; `NAME>4.4` is known from that release on. `Description.Value` is known, plain `Description` then is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from builder.sandbox.personality import Personality
from builder.sandbox.wire import Refusal

_PAGES = "MaxResults>4.4.3 NextToken>4.4.3"
_PAGES_EARLY = "MaxResults>4.2 NextToken>4.2"
_RULES = (
    "GroupId GroupName UserId IpPermissions SourceSecurityGroupName SourceSecurityGroupOwnerId IpProtocol FromPort "
    "ToPort CidrIp"
)
_KNOWN = {
    "AttachVolume": "VolumeId InstanceId Device",
    "AuthorizeSecurityGroupEgress>4.1": "GroupId IpPermissions",
    "AuthorizeSecurityGroupIngress": _RULES,
    "CancelImportTask>4.2": "CancelReason ImportTaskId",
    "CopyImage>4.2": "SourceRegion SourceImageId Name Description ClientToken",
    "CopySnapshot>4.2": "Description DestinationRegion PresignedUrl SourceRegion SourceSnapshotId",
    "CreateImage": "InstanceId Name Description NoReboot BlockDeviceMapping",
    "CreateKeyPair": "KeyName",
    "CreateSecurityGroup": "GroupName GroupDescription VpcId>4.1",
    "CreateSnapshot": "VolumeId Description TagSpecification>5.0",
    "CreateTags": "ResourceId Tag",
    "CreateVolume": "Size SnapshotId AvailabilityZone VolumeType Iops Encrypted>4.2 KmsKeyId>5.0 TagSpecification>5.0",
    "DeleteKeyPair": "KeyName",
    "DeleteSecurityGroup": "GroupName GroupId",
    "DeleteSnapshot": "SnapshotId",
    "DeleteTags": "ResourceId Tag",
    "DeleteVolume": "VolumeId",
    "DeregisterImage": "ImageId",
    "DescribeAvailabilityZones": "ZoneName Filter",
    "DescribeImageAttribute": "ImageId Attribute LaunchPermission ProductCodes Kernel Ramdisk BlockDeviceMapping "
    "Description",
    "DescribeImages": "ExecutableBy ImageId Owner Filter",
    "DescribeImportSnapshotTasks>4.2": "Filter ImportTaskId MaxResults NextToken",
    "DescribeInstanceAttribute": "InstanceId Attribute",
    "DescribeInstanceStatus": "InstanceId Filter NextToken MaxResults IncludeAllInstances",
    "DescribeInstances": f"InstanceId Filter {_PAGES_EARLY}",
    "DescribeKeyPairs": "KeyName Filter",
    "DescribeRegions": "RegionName Filter",
    "DescribeSecurityGroups": "GroupName GroupId Filter",
    "DescribeSnapshotAttribute": "SnapshotId Attribute CreateVolumePermission ProductCodes",
    "DescribeSnapshots": f"SnapshotId Owner RestorableBy Filter {_PAGES}",
    "DescribeSubnets>4.1": "SubnetId Filter",
    "DescribeTags": f"Filter {_PAGES_EARLY}",
    "DescribeVolumeAttribute>4.2": "VolumeId Attribute",
    "DescribeVolumeStatus>4.2": "VolumeId MaxResults NextToken Filter",
    "DescribeVolumes": f"VolumeId Filter {_PAGES}",
    "DescribeVpcs>4.1": "VpcId Filter",
    "DetachVolume": "VolumeId InstanceId Device Force",
    "GetConsoleOutput": "InstanceId",
    "ImportImage>4.2": "",
    "ImportKeyPair": "KeyName PublicKeyMaterial",
    "ImportSnapshot>4.2": "",
    "ModifyImageAttribute": "ImageId ProductCode LaunchPermission Description.Value UserId Group UserGroup Attribute "
    "OperationType",
    "ModifyInstanceAttribute": "InstanceId Attribute Value InstanceType Kernel Ramdisk UserData DisableApiTermination "
    "InstanceInitiatedShutdownBehavior BlockDeviceMapping SourceDestCheck GroupId EbsOptimized>4.2 SriovNetSupport>4.2",
    "ModifySnapshotAttribute": "SnapshotId ProductCode CreateVolumePermission UserId Group Attribute OperationType "
    "UserGroup",
    "ModifyVolumeAttribute>4.2": "VolumeId AutoEnableIO.Value",
    "RebootInstances": "InstanceId",
    "RegisterImage": "ImageLocation AmiId Name Description Architecture KernelId RamdiskId RootDeviceName "
    "VirtualizationType Platform SriovNetSupport>4.2 BlockDeviceMapping",
    "ResetImageAttribute": "ImageId Attribute",
    "ResetSnapshotAttribute": "SnapshotId Attribute",
    "RevokeSecurityGroupEgress>4.1": "GroupId IpPermissions",
    "RevokeSecurityGroupIngress": _RULES,
    "RunInstances": "ImageId MinCount MaxCount KeyName SecurityGroup SecurityGroupId AdditionalInfo UserData "
    "AddressingType InstanceType KernelId RamdiskId Placement.AvailabilityZone Placement.GroupName Placement.Tenancy "
    "BlockDeviceMapping Monitoring.Enabled SubnetId DisableApiTermination InstanceInitiatedShutdownBehavior "
    "PrivateIpAddress ClientToken IamInstanceProfile.Arn IamInstanceProfile.Name EbsOptimized NetworkInterface>4.2 "
    "TagSpecification>5.0 LaunchTemplate>5.0",
    "StartInstances": "InstanceId AdditionalInfo>4.2",
    "StopInstances": "InstanceId Force",
    "TerminateInstances": "InstanceId",
}
# Of one entry of a BlockDeviceMapping.
_DEVICE = {
    "DeviceName", "VirtualName", "NoDevice", "Ebs.SnapshotId", "Ebs.VolumeSize", "Ebs.DeleteOnTermination",
    "Ebs.VolumeType", "Ebs.Iops", "Ebs.Encrypted",
}  # fmt: skip
_DEVICE_NAME = re.compile(r"BlockDeviceMapping\.\d+\.(.+)")
# What every request may have: the call, and what signs it.
_COMMON = {
    "Action", "Operation", "Version", "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion",
    "Timestamp", "Expires", "SecurityToken",
}  # fmt: skip


def has(action: str, personality: Personality) -> bool:
    """Say whether the release has such a call, of those that the sandbox knows."""
    return any(name == action and _is_there(since, personality) for name, since in map(_dated, _KNOWN))


def check(action: str, form: Mapping[str, str], personality: Personality) -> None:
    """Raise Refusal when the request has a parameter that the release does not know."""
    words = next(words for key, words in _KNOWN.items() if _dated(key)[0] == action)
    known = [name for name, since in map(_dated, words.split()) if _is_there(since, personality)]
    unbound = [name for name in form if name not in _COMMON and not name.startswith("X-Amz-")]
    unbound = [name for name in unbound if not _is_bound(name, known)]
    if unbound:
        raise _refusal("".join(f"{name} = {form[name]}\n" for name in unbound))


def _refusal(lines: str) -> Refusal:
    return Refusal("400 Bad Request", f"Failed to bind the following fields:\n{lines}")


def _is_bound(given: str, known: list[str]) -> bool:
    if not any(given == name or given.startswith(f"{name}.") for name in known):
        return False
    device = _DEVICE_NAME.fullmatch(given)
    return device is None or device[1] in _DEVICE


def _dated(word: str) -> tuple[str, tuple[int, ...]]:
    name, _, since = word.partition(">")
    return name, tuple(map(int, since.split("."))) if since else ()


def _is_there(since: tuple[int, ...], personality: Personality) -> bool:
    return not personality.before(*since)
