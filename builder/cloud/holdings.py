"""What an account holds in EC2, whoever made it: one record for every type, and how each type is listed and removed.

The calls are made by ec2.py. A type is one row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from builder.cloud.records import tags


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One resource of the account as the cloud describes it.

    `uses` are the ids of what it stands on, an instance-store manifest among them as `s3://BUCKET/KEY`: as long as it
    is there, those may not go. `created` is seconds since the epoch, None where the cloud does not tell.
    """

    kind: str
    id: str
    name: str = ""
    state: str = ""
    owner: str = ""
    created: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    uses: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one type is listed, told apart and removed, in EC2's words; `over` are states of what is gone already.

    `created` is the member with the moment of its making, which may be the last word of a text: security groups have no
    time of their own, so helper.py says it in their description.
    """

    listed: str
    member: str
    removed: str
    parameter: str  # of the removing call
    id: str  # the member with what that parameter takes
    created: str
    uses: Callable[[Mapping[str, Any]], Iterable[str | None]]
    name: str = "Name"
    owned: Mapping[str, Any] = field(default_factory=dict)  # the request that leaves out what others share with us
    filtered: bool = False  # may be asked for by tag; of the others all are needed, or old clouds have no such filter
    over: frozenset[str] = frozenset()


def _of_instance(item: Mapping[str, Any]) -> Iterable[str | None]:
    yield from (item.get(name) for name in ("ImageId", "KernelId", "RamdiskId", "KeyName"))
    yield from (device.get("Ebs", {}).get("VolumeId") for device in item.get("BlockDeviceMappings", ()))
    yield from (group.get("GroupId") for group in item.get("SecurityGroups", ()))


def _of_image(item: Mapping[str, Any]) -> Iterable[str | None]:
    yield from (item.get(name) for name in ("KernelId", "RamdiskId"))
    yield from (device.get("Ebs", {}).get("SnapshotId") for device in item.get("BlockDeviceMappings", ()))
    location = str(item.get("ImageLocation", "")).lstrip("/")
    if item.get("RootDeviceType") != "ebs" and "/" in location:
        yield f"s3://{location}"


def _nothing(_: Mapping[str, Any]) -> Iterable[str | None]:
    return ()


KINDS: Mapping[str, Kind] = {
    "instance": Kind(
        listed="DescribeInstances",
        member="Reservations",
        removed="TerminateInstances",
        parameter="InstanceIds",
        id="InstanceId",
        created="LaunchTime",
        uses=_of_instance,
        over=frozenset({"terminated"}),
    ),
    "image": Kind(
        listed="DescribeImages",
        member="Images",
        removed="DeregisterImage",
        parameter="ImageId",
        id="ImageId",
        created="CreationDate",
        uses=_of_image,
        owned={"Owners": ["self"]},
        over=frozenset({"deregistered"}),
    ),
    "volume": Kind(
        listed="DescribeVolumes",
        member="Volumes",
        removed="DeleteVolume",
        parameter="VolumeId",
        id="VolumeId",
        created="CreateTime",
        uses=_nothing,
        filtered=True,
        over=frozenset({"deleting", "deleted"}),
    ),
    "key pair": Kind(
        listed="DescribeKeyPairs",
        member="KeyPairs",
        removed="DeleteKeyPair",
        parameter="KeyName",
        id="KeyName",
        created="CreateTime",
        uses=_nothing,
    ),
    "security group": Kind(
        listed="DescribeSecurityGroups",
        member="SecurityGroups",
        removed="DeleteSecurityGroup",
        parameter="GroupId",
        id="GroupId",
        created="Description",
        uses=_nothing,
        name="GroupName",
    ),
    "snapshot": Kind(
        listed="DescribeSnapshots",
        member="Snapshots",
        removed="DeleteSnapshot",
        parameter="SnapshotId",
        id="SnapshotId",
        created="StartTime",
        uses=_nothing,
        owned={"OwnerIds": ["self"]},
        filtered=True,
    ),
}


def holding(kind: str, item: Mapping[str, Any]) -> Holding:
    """Return one entry of a listing; `item` has the owner of its reservation where that alone tells it."""
    row, said = KINDS[kind], item.get("State", "")
    return Holding(
        kind=kind,
        id=str(item[row.id]),
        name=str(item.get(row.name) or item.get("Description") or ""),
        state=str(said.get("Name", "") if isinstance(said, Mapping) else said),
        owner=str(item.get("OwnerId", "")),
        created=seconds(item.get(row.created)),
        tags=tags(item),
        uses=frozenset(filter(None, row.uses(item))),
    )


def entries(kind: str, found: Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Yield the entries of a listing; instances come in reservations, which alone have the owner."""
    if kind != "instance":
        yield from found
        return
    for reservation in found:
        for instance in reservation.get("Instances", ()):
            yield {**instance, "OwnerId": reservation.get("OwnerId", "")}


def seconds(moment: object) -> float | None:
    """Return a moment, as answers hold it, in seconds since the epoch; None for one that is missing or no moment.

    A text may have words before it.
    """
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.rpartition(" ")[2])
        except ValueError:
            return None
    if not isinstance(moment, datetime):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
