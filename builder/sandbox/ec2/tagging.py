"""CreateTags, DeleteTags and DescribeTags, over every kind of resource that has tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import images, imports, instance_states, key_pairs, security_groups, snapshots, volumes
from builder.sandbox.ec2.action import Handler, Values, check_filters, matches, paged
from builder.sandbox.ec2.tags import merged
from builder.sandbox.records import Image, ImportTask, Instance, KeyPair, Record, SecurityGroup, Snapshot, Volume
from builder.sandbox.wire import Caller, Refusal

_FILTERS = ("key", "resource-id", "resource-type", "value")


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One kind of resource: its record (with `account`, `region` and `tags`) and who finds one by its id.

    `require(cloud, caller, id)` raises the area's own Refusal.
    """

    resource_type: str  # as DescribeTags and TagSpecifications call it
    record: type[Record]
    require: Callable[[Cloud, Caller, str], Record]


# By what stands before the last `-` of an id. A new kind of resource is one line here.
_KINDS = {
    **dict.fromkeys(
        ("ami", "aki", "ari", "emi", "eki", "eri"),
        _Kind(resource_type="image", record=Image, require=images.require),
    ),
    "i": _Kind(resource_type="instance", record=Instance, require=instance_states.require),
    "import-snap": _Kind(resource_type="import-snapshot-task", record=ImportTask, require=imports.require),
    "key": _Kind(resource_type="key-pair", record=KeyPair, require=key_pairs.require),
    "sg": _Kind(resource_type="security-group", record=SecurityGroup, require=security_groups.require),
    "snap": _Kind(resource_type="snapshot", record=Snapshot, require=snapshots.require),
    "vol": _Kind(resource_type="volume", record=Volume, require=volumes.require),
}


def _retag(
    cloud: Cloud, caller: Caller, resource_ids: Iterable[str], change: Callable[[Mapping[str, str]], dict[str, str]]
) -> None:
    """Change the tags of all the resources, or of none: an unknown one raises its Refusal."""
    with cloud.state.lock:
        # Records have no common base with tags: that each kind of the table has some is what makes it one.
        found: list[Any] = [_resource(cloud, caller, resource_id) for resource_id in dict.fromkeys(resource_ids)]
        cloud.state.put(*(replace(one, tags=change(one.tags)) for one in found))


def _resource(cloud: Cloud, caller: Caller, resource_id: str) -> Record:
    kind = _KINDS.get(resource_id.rpartition("-")[0])
    if kind is None:
        raise Refusal("InvalidID", f"The ID '{resource_id}' is not valid")
    return kind.require(cloud, caller, resource_id)


def _create_tags(cloud: Cloud, caller: Caller, values: Values) -> Values:
    _retag(cloud, caller, values["Resources"], lambda tags: merged(tags, values["Tags"]))
    return {}


def _delete_tags(cloud: Cloud, caller: Caller, values: Values) -> Values:
    def left(tags: Mapping[str, str]) -> dict[str, str]:
        wanted = values.get("Tags")
        if not wanted:  # no tags named: all go
            return {}
        gone = {(tag.get("Key"), tag.get("Value")) for tag in wanted}
        return {key: value for key, value in tags.items() if not {(key, value), (key, None)} & gone}

    _retag(cloud, caller, values["Resources"], left)
    return {}


def _describe_tags(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters([one for one in filters if not one.get("Name", "").startswith("tag:")], _FILTERS, tags=False)
    found = []
    for resource_id, resource_type, tags in _tagged(cloud, caller):
        for key, value in tags.items():
            traits = {
                "key": [key], "value": [value], "resource-id": [resource_id], "resource-type": [resource_type],
            }  # fmt: skip
            if matches(traits, {key: value}, filters):
                found.append({"Key": key, "ResourceId": resource_id, "ResourceType": resource_type, "Value": value})
    page, token = paged(found, lambda one: f"{one['ResourceId']}/{one['Key']}", values)
    return {"Tags": page, "NextToken": token}


def _tagged(cloud: Cloud, caller: Caller) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Yield the id, type and tags of everything that the caller has; what is gone or only shared has none."""
    for kind in dict.fromkeys(_KINDS.values()):  # images have several prefixes
        records: list[Any] = list(cloud.state.all(kind.record).values())
        for record in records:
            if not record.tags or (record.account, record.region) != (caller.account, caller.region):
                continue
            try:
                kind.require(cloud, caller, record.key)
            except Refusal:  # deleted, deregistered or terminated: its record is a tombstone
                continue
            yield record.key, kind.resource_type, record.tags


ACTIONS: dict[str, Handler] = {
    "CreateTags": _create_tags,
    "DeleteTags": _delete_tags,
    "DescribeTags": _describe_tags,
}
