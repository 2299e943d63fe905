"""What filters see of an instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from builder.sandbox.ec2.action import Traits, Values, boolean, maybe, moment
from builder.sandbox.records import Instance

# Filters of DescribeInstances that no instance of the sandbox has a value for: it has no network interface, for one.
_EMPTY = (
    "affinity", "capacity-reservation-id", "capacity-reservation-specification.capacity-reservation-preference",
    "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-id",
    "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-resource-group-arn",
    "dns-name", "host-id", "iam-instance-profile.id", "instance-lifecycle", "ipv6-address",
    "metadata-options.http-protocol-ipv4",
    "metadata-options.http-protocol-ipv6", "network-interface.addresses.association.allocation-id",
    "network-interface.addresses.association.association-id", "network-interface.addresses.association.carrier-ip",
    "network-interface.addresses.association.customer-owned-ip",
    "network-interface.addresses.association.ip-owner-id",
    "network-interface.addresses.association.public-dns-name", "network-interface.addresses.association.public-ip",
    "network-interface.addresses.primary", "network-interface.addresses.private-dns-name",
    "network-interface.addresses.private-ip-address", "network-interface.association.allocation-id",
    "network-interface.association.association-id", "network-interface.association.carrier-ip",
    "network-interface.association.customer-owned-ip", "network-interface.association.ip-owner-id",
    "network-interface.association.public-dns-name", "network-interface.association.public-ip",
    "network-interface.attachment.attach-time", "network-interface.attachment.attachment-id",
    "network-interface.attachment.delete-on-termination", "network-interface.attachment.device-index",
    "network-interface.attachment.instance-id", "network-interface.attachment.instance-owner-id",
    "network-interface.attachment.network-card-index", "network-interface.attachment.status",
    "network-interface.availability-zone", "network-interface.deny-all-igw-traffic",
    "network-interface.description", "network-interface.group-id", "network-interface.group-name",
    "network-interface.ipv4-prefixes.ipv4-prefix", "network-interface.ipv6-address",
    "network-interface.ipv6-addresses.ipv6-address", "network-interface.ipv6-addresses.is-primary-ipv6",
    "network-interface.ipv6-native", "network-interface.ipv6-prefixes.ipv6-prefix", "network-interface.mac-address",
    "network-interface.network-interface-id", "network-interface.operator.managed",
    "network-interface.operator.principal", "network-interface.outpost-arn", "network-interface.owner-id",
    "network-interface.private-dns-name", "network-interface.private-ip-address",
    "network-interface.public-dns-name", "network-interface.requester-id", "network-interface.requester-managed",
    "network-interface.status", "network-interface.source-dest-check", "network-interface.subnet-id",
    "network-interface.tag-key", "network-interface.tag-value", "network-interface.vpc-id",
    "network-performance-options.bandwidth-weighting", "operator.managed", "operator.principal", "outpost-arn",
    "placement-group-name", "placement-partition-number", "platform", "private-dns-name",
    "private-dns-name-options.enable-resource-name-dns-a-record",
    "private-dns-name-options.enable-resource-name-dns-aaaa-record", "private-dns-name-options.hostname-type",
    "product-code", "product-code.type", "requester-id", "source-dest-check",
    "spot-instance-request-id", "usage-operation-update-time",
)  # fmt: skip
_VALUES: Mapping[str, Callable[[Instance, Values], Sequence[str]]] = {
    "architecture": lambda one, _: [one.architecture],
    "availability-zone": lambda one, _: [one.zone],
    "availability-zone-id": lambda _, shape: [shape["Placement"]["AvailabilityZoneId"]],
    "block-device-mapping.attach-time": lambda _, shape: [moment(ebs["AttachTime"]) for ebs in _volumes(shape)],
    "block-device-mapping.delete-on-termination": lambda _, shape: [
        boolean(value=ebs["DeleteOnTermination"]) for ebs in _volumes(shape)
    ],
    "block-device-mapping.device-name": lambda _, shape: [each["DeviceName"] for each in shape["BlockDeviceMappings"]],
    "block-device-mapping.status": lambda _, shape: [ebs["Status"] for ebs in _volumes(shape)],
    "block-device-mapping.volume-id": lambda _, shape: [ebs["VolumeId"] for ebs in _volumes(shape)],
    "boot-mode": lambda one, _: maybe(one.boot_mode),
    "client-token": lambda one, _: maybe(one.client_token),
    "current-instance-boot-mode": lambda _, shape: [shape["CurrentInstanceBootMode"]],
    "ebs-optimized": lambda one, _: [boolean(value=one.ebs_optimized)],
    "ena-support": lambda one, _: [boolean(value=one.ena_support)],
    "enclave-options.enabled": lambda _, __: ["false"],
    "hibernation-options.configured": lambda _, __: ["false"],
    "hypervisor": lambda _, __: ["xen"],
    "iam-instance-profile.arn": lambda one, _: maybe(one.instance_profile_arn),
    "image-id": lambda one, _: [one.image_id],
    "instance.group-id": lambda one, _: one.security_groups,
    "instance.group-name": lambda _, shape: [group["GroupName"] for group in shape["SecurityGroups"]],
    "instance-id": lambda one, _: [one.instance_id],
    "instance-state-code": lambda _, shape: [str(shape["State"]["Code"])],
    "instance-state-name": lambda _, shape: [shape["State"]["Name"]],
    "instance-type": lambda one, _: [one.instance_type],
    "ip-address": lambda _, shape: maybe(shape["PublicIpAddress"]),
    "kernel-id": lambda one, _: maybe(one.kernel_id),
    "key-name": lambda one, _: maybe(one.key_name),
    "launch-index": lambda one, _: [str(one.launch_index)],
    "launch-time": lambda one, _: [moment(one.launch_time)],
    "maintenance-options.auto-recovery": lambda _, __: ["default"],
    "metadata-options.http-endpoint": lambda _, shape: [shape["MetadataOptions"]["HttpEndpoint"]],
    "metadata-options.http-put-response-hop-limit": lambda _, shape: [
        str(shape["MetadataOptions"]["HttpPutResponseHopLimit"])
    ],
    "metadata-options.http-tokens": lambda _, shape: [shape["MetadataOptions"]["HttpTokens"]],
    "metadata-options.instance-metadata-tags": lambda _, shape: [shape["MetadataOptions"]["InstanceMetadataTags"]],
    "metadata-options.state": lambda _, __: ["applied"],
    "monitoring-state": lambda _, shape: [shape["Monitoring"]["State"]],
    "owner-id": lambda one, _: [one.account],
    "platform-details": lambda _, __: ["Linux/UNIX"],
    "private-ip-address": lambda _, shape: maybe(shape["PrivateIpAddress"]),
    "ramdisk-id": lambda one, _: maybe(one.ramdisk_id),
    "reason": lambda one, _: maybe(one.reason),
    "reservation-id": lambda one, _: [one.reservation_id],
    "root-device-name": lambda one, _: [one.root_device_name],
    "root-device-type": lambda _, shape: [shape["RootDeviceType"]],
    "state-reason-code": lambda _, shape: [(shape["StateReason"] or {}).get("Code", "")],
    "state-reason-message": lambda _, shape: [(shape["StateReason"] or {}).get("Message", "")],
    "subnet-id": lambda one, _: maybe(one.subnet_id),
    "tenancy": lambda one, _: [one.tenancy],
    "tpm-support": lambda one, _: maybe(one.tpm_support),
    "usage-operation": lambda _, __: ["RunInstances"],
    "virtualization-type": lambda one, _: [one.virtualization_type],
    "vpc-id": lambda one, _: maybe(one.vpc_id),
}
# Every filter of DescribeInstances in the model's documentation.
KNOWN = (*_EMPTY, *_VALUES)


def traits(instance: Instance, shape: Values) -> Traits:
    """Return what filters see of an instance that is described as `shape`."""
    return {**dict.fromkeys(_EMPTY, ()), **{name: values(instance, shape) for name, values in _VALUES.items()}}


def _volumes(shape: Values) -> Sequence[Values]:
    return [each["Ebs"] for each in shape["BlockDeviceMappings"]]
