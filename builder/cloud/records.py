"""EC2's answers as records, and a record as EC2's request: pure translation, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.cloud.access import KeyPairRecord, SecurityGroupRecord
from builder.cloud.api import BlockDevice, ImageRecord, ImageSpec, SnapshotRecord
from builder.cloud.claims import TAG, Claim
from builder.cloud.instances import InstanceRecord, InstanceSpec
from builder.cloud.volumes import AttachmentRecord, VolumeRecord, VolumeSpec


def snapshot(item: Mapping[str, Any]) -> SnapshotRecord:
    """Return one entry of DescribeSnapshots."""
    return SnapshotRecord(
        snapshot_id=item["SnapshotId"],
        status=item.get("State", ""),
        volume_size=int(item.get("VolumeSize", 0)),
        status_message=item.get("StateMessage", ""),
        progress=item.get("Progress", ""),
        description=item.get("Description", ""),
        tags=tags(item),
    )


def image(item: Mapping[str, Any]) -> ImageRecord:
    """Return one entry of DescribeImages."""
    devices = item.get("BlockDeviceMappings", ())
    return ImageRecord(
        image_id=item["ImageId"],
        name=item.get("Name", ""),
        state=item.get("State", ""),
        owner_id=item.get("OwnerId", ""),
        state_reason=item.get("StateReason", {}).get("Message", ""),
        architecture=item.get("Architecture", ""),
        root_device_name=item.get("RootDeviceName", ""),
        root_device_type=item.get("RootDeviceType", ""),
        virtualization_type=item.get("VirtualizationType", ""),
        image_location=item.get("ImageLocation", ""),
        image_type=item.get("ImageType", "machine"),
        kernel_id=item.get("KernelId") or None,
        ramdisk_id=item.get("RamdiskId") or None,
        platform=item.get("Platform", ""),
        boot_mode=item.get("BootMode"),
        snapshot_ids=[device["Ebs"]["SnapshotId"] for device in devices if device.get("Ebs", {}).get("SnapshotId")],
        tags=tags(item),
    )


def registration(claim: Claim, spec: ImageSpec) -> dict[str, Any]:
    """Return the request of RegisterImage; what the spec leaves open is left out."""
    request = {
        "Name": spec.name,
        "Description": spec.description or None,
        "ImageLocation": spec.image_location,
        "Architecture": spec.architecture,
        "RootDeviceName": spec.root_device_name,
        "VirtualizationType": spec.virtualization_type,
        "KernelId": spec.kernel_id,
        "RamdiskId": spec.ramdisk_id,
        "Platform": spec.platform,
        "BootMode": spec.boot_mode,
        "EnaSupport": spec.ena_support,
        "SriovNetSupport": spec.sriov_net_support,
        "ImdsSupport": spec.imds_support,
        "TpmSupport": spec.tpm_support,
        "BlockDeviceMappings": [_device(device) for device in spec.block_devices] or None,
        "TagSpecifications": [{"ResourceType": "image", "Tags": tag_list({**spec.tags, TAG: claim.token})}],
    }
    return _given(request)


def _device(device: BlockDevice) -> dict[str, Any]:
    if device.virtual_name:
        return {"DeviceName": device.device_name, "VirtualName": device.virtual_name}
    ebs = {
        "SnapshotId": device.snapshot_id,
        "VolumeSize": device.volume_size,
        "VolumeType": device.volume_type,
        "DeleteOnTermination": device.delete_on_termination,
    }
    return {"DeviceName": device.device_name, "Ebs": _given(ebs)}


def volume(item: Mapping[str, Any]) -> VolumeRecord:
    """Return one entry of DescribeVolumes."""
    held = [one for one in item.get("Attachments", ()) if one.get("State") != "detached"]
    return VolumeRecord(
        volume_id=item["VolumeId"],
        state=item.get("State", ""),
        size=int(item.get("Size", 0)),
        zone=item.get("AvailabilityZone", ""),
        volume_type=item.get("VolumeType", ""),
        encrypted=bool(item.get("Encrypted", False)),
        snapshot_id=item.get("SnapshotId") or None,
        attachments=[
            AttachmentRecord(
                instance_id=one.get("InstanceId", ""), device=one.get("Device", ""), state=one.get("State", "")
            )
            for one in held
        ],
        tags=tags(item),
    )


def volume_request(spec: VolumeSpec) -> dict[str, Any]:
    """Return the request of CreateVolume, without what is the claim's."""
    return _given(
        {
            "Size": spec.size,
            "AvailabilityZone": spec.zone,
            "VolumeType": spec.volume_type,
            "Encrypted": spec.encrypted,
            "KmsKeyId": spec.kms_key_id,
        }
    )


def instance(item: Mapping[str, Any]) -> InstanceRecord:
    """Return one instance of a reservation."""
    reason = item.get("StateReason", {}).get("Message") or item.get("StateTransitionReason", "")
    devices = [
        (one["DeviceName"], one["Ebs"]["VolumeId"]) for one in item.get("BlockDeviceMappings", ()) if "Ebs" in one
    ]
    return InstanceRecord(
        instance_id=item["InstanceId"],
        state=item.get("State", {}).get("Name", ""),
        state_reason=reason,
        image_id=item.get("ImageId", ""),
        instance_type=item.get("InstanceType", ""),
        zone=item.get("Placement", {}).get("AvailabilityZone", ""),
        address=item.get("PublicIpAddress", ""),
        private_address=item.get("PrivateIpAddress", ""),
        key_name=item.get("KeyName", ""),
        root_device_name=item.get("RootDeviceName", ""),
        devices=devices,
        security_group_ids=[one.get("GroupId", "") for one in item.get("SecurityGroups", ())],
        tags=tags(item),
    )


def launch(spec: InstanceSpec) -> dict[str, Any]:
    """Return the request of RunInstances, without what is the claim's."""
    return _given(
        {
            "ImageId": spec.image_id,
            "InstanceType": spec.instance_type,
            "Placement": {"AvailabilityZone": spec.zone} if spec.zone else None,
            "KeyName": spec.key_name,
            "SecurityGroupIds": list(spec.security_group_ids) or None,
            "UserData": spec.user_data or None,  # botocore encodes it
            "InstanceInitiatedShutdownBehavior": "terminate",
        }
    )


def key_pair(item: Mapping[str, Any]) -> KeyPairRecord:
    """Return one entry of DescribeKeyPairs."""
    return KeyPairRecord(name=item.get("KeyName", ""), fingerprint=item.get("KeyFingerprint", ""), tags=tags(item))


def security_group(item: Mapping[str, Any]) -> SecurityGroupRecord:
    """Return one entry of DescribeSecurityGroups."""
    rules = [rule for rule in item.get("IpPermissions", ()) if rule.get("IpProtocol") == "tcp"]
    ssh = [rule for rule in rules if (rule.get("FromPort"), rule.get("ToPort")) == (22, 22)]
    return SecurityGroupRecord(
        group_id=item["GroupId"],
        name=item.get("GroupName", ""),
        ssh_from=tuple(one["CidrIp"] for rule in ssh for one in rule.get("IpRanges", ())),
        tags=tags(item),
    )


def tags(item: Mapping[str, Any]) -> dict[str, str]:
    """Return an answer's tags."""
    return {tag["Key"]: tag["Value"] for tag in item.get("Tags", ())}


def tag_list(wanted: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as a request holds them, always in the same order."""
    return [{"Key": key, "Value": value} for key, value in sorted(wanted.items())]


def _given(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if value is not None}
