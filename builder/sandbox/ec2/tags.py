"""CreateTags, DeleteTags, DescribeTags, and tags in the call that creates a resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import images, snapshots
from builder.sandbox.ec2.action import Handler, Values, check_filters, matches, paged
from builder.sandbox.records import Image, Snapshot
from builder.sandbox.wire import Caller, Refusal

_MOST_TAGS = 50
_MOST_KEY, _MOST_VALUE = 127, 255  # characters
_FILTERS = ("key", "resource-id", "resource-type", "value")


def specified(specifications: Iterable[Values], resource_type: str) -> Mapping[str, str]:
    """Return the tags that a TagSpecifications parameter gives to the resource being created. Raises Refusal."""
    tags: dict[str, str] = {}
    for specification in specifications:
        if (kind := specification.get("ResourceType")) != resource_type:
            message = f"'{kind}' is not a valid taggable resource type for this operation."
            raise Refusal("InvalidParameterValue", message)
        tags = _merged(tags, specification.get("Tags", ()))
    return tags


def _merged(tags: Mapping[str, str], added: Iterable[Values]) -> dict[str, str]:
    merged = dict(tags)
    seen: set[str] = set()
    for tag in added:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not 1 <= len(key) <= _MOST_KEY:
            raise Refusal("InvalidParameterValue", f"Tag key must be 1 to {_MOST_KEY} characters: '{key}'")
        if len(value) > _MOST_VALUE:
            raise Refusal("InvalidParameterValue", f"Tag value exceeds the maximum length of {_MOST_VALUE} characters")
        if key.lower().startswith("aws:"):
            raise Refusal("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
        if key in seen:
            raise Refusal("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
        seen.add(key)
        merged[key] = value
    if len(merged) > _MOST_TAGS:
        raise Refusal("TagLimitExceeded", f"The maximum number of tags on a resource is {_MOST_TAGS}.")
    return merged


def _resource(cloud: Cloud, caller: Caller, resource_id: str) -> Image | Snapshot:
    match resource_id.partition("-")[0]:
        case "ami":
            return images.require(cloud, caller, resource_id)
        case "snap":
            return snapshots.require(cloud, caller, resource_id)
        case _:
            raise Refusal("InvalidID", f"The ID '{resource_id}' is not valid")


def _create_tags(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        found = [_resource(cloud, caller, resource_id) for resource_id in dict.fromkeys(values["Resources"])]
        cloud.state.put(*(replace(one, tags=_merged(one.tags, values["Tags"])) for one in found))
    return {}


def _delete_tags(cloud: Cloud, caller: Caller, values: Values) -> Values:
    def left(tags: Mapping[str, str]) -> dict[str, str]:
        wanted = values.get("Tags")
        if not wanted:  # no tags named: all go
            return {}
        gone = {(tag.get("Key"), tag.get("Value")) for tag in wanted}
        return {key: value for key, value in tags.items() if not {(key, value), (key, None)} & gone}

    with cloud.state.lock:
        found = [_resource(cloud, caller, resource_id) for resource_id in dict.fromkeys(values["Resources"])]
        cloud.state.put(*(replace(one, tags=left(one.tags)) for one in found))
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


def _tagged(cloud: Cloud, caller: Caller) -> Iterable[tuple[str, str, Mapping[str, str]]]:
    mine = (caller.account, caller.region)
    for image in list(cloud.state.all(Image).values()):
        if (image.account, image.region) == mine and not image.deregistered:
            yield image.image_id, "image", image.tags
    for snapshot in list(cloud.state.all(Snapshot).values()):
        if (snapshot.account, snapshot.region) == mine:
            yield snapshot.snapshot_id, "snapshot", snapshot.tags


ACTIONS: dict[str, Handler] = {
    "CreateTags": _create_tags,
    "DeleteTags": _delete_tags,
    "DescribeTags": _describe_tags,
}
