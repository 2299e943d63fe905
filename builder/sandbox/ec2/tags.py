"""What EC2 allows of tags, and tags in the call that creates a resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builder.sandbox.ec2.action import Values
from builder.sandbox.wire import Refusal

_MOST_TAGS = 50
_MOST_KEY, _MOST_VALUE = 127, 255  # characters


def specified(specifications: Iterable[Values], resource_type: str) -> Mapping[str, str]:
    """Return the tags that a TagSpecifications parameter gives to the resource being created. Raises Refusal."""
    tags: dict[str, str] = {}
    for specification in specifications:
        if (kind := specification.get("ResourceType")) != resource_type:
            message = f"'{kind}' is not a valid taggable resource type for this operation."
            raise Refusal("InvalidParameterValue", message)
        tags = merged(tags, specification.get("Tags", ()))
    return tags


def merged(tags: Mapping[str, str], added: Iterable[Values]) -> dict[str, str]:
    """Return the tags with others added. Raises Refusal for those that EC2 does not allow."""
    result = dict(tags)
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
        result[key] = value
    if len(result) > _MOST_TAGS:
        raise Refusal("TagLimitExceeded", f"The maximum number of tags on a resource is {_MOST_TAGS}.")
    return result
